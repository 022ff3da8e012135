//! Why a tag stays or goes, in words.

use std::sync::Arc;
use std::time::Duration;

use super::rules::{Kept, Verdict};
use super::run::RunError;
use super::walk;
use crate::domain::{Digest, TagName, attachment};
use crate::lifecycle::Keeper;
use crate::lifecycle::coverage::Coverage;
use crate::metadata::lifecycle::TagDetail;
use crate::metadata::{Repository, Time};
use crate::rfc3339;
use crate::tenancy::Tenant;

/// What becomes of a tag, and why.
#[derive(Debug)]
pub struct Explanation {
    /// The tag as it is.
    pub tag: TagDetail,
    /// Whether it would survive a run now.
    pub keeps: bool,
    /// Why.
    pub reason: String,
    /// When it ends whatever the rules say: by an annotation of its manifest, or by the repository's lifetime of tags.
    pub ends: Option<Time>,
    /// The manifest that it belongs to, as a signature does by its name: it stays and goes with that.
    pub attached_to: Option<Digest>,
    /// The policies that cover the repository, by name.
    pub policies: Vec<Arc<str>>,
    /// For how long it could be brought back.
    pub window: Duration,
}

impl Keeper {
    /// Judges a tag as a run would do now; none if there is no such tag. Walks the repository's tags.
    pub async fn explain(
        &self,
        tenant: &Tenant,
        repository: &Repository,
        tag: &TagName,
    ) -> Result<Option<Explanation>, RunError> {
        // What was pulled here a moment ago counts.
        self.pulls.flush(&**self.store()).await;
        let coverage = Coverage::acting(tenant, &repository.name, self.delays().restore, |_| true)
            .map_err(RunError::Rules)?;
        let judged = walk::judge(self.stores(), repository, &coverage, tag, Time::now()).await?;
        Ok(judged.map(|(tag, verdict)| explanation(tenant, repository, coverage, tag, &verdict)))
    }
}

fn explanation(
    tenant: &Tenant,
    repository: &Repository,
    coverage: Coverage,
    tag: TagDetail,
    verdict: &Verdict,
) -> Explanation {
    let attached_to = attachment::subject(&tag.row.name).filter(|_| tag.row.attached);
    let is_immutable = *verdict == Verdict::Kept(Kept::Immutable);
    // 1. When it ends. Nothing ends a tag that may not be deleted.
    let ends = ends(tenant, repository, &tag).filter(|_| !is_immutable);

    // 2. Why it stays or goes. An annotation goes before the rules, and what it belongs to too.
    let is_over = |at: &Time| *at <= Time::now();
    let (keeps, reason) = match (tag.expires_at.filter(is_over), &attached_to) {
        _ if is_immutable => (true, verdict.to_string()),
        (Some(at), _) => {
            let reason = format!("goes: its manifest lets it end at {}", rfc3339::write(at));
            (false, reason)
        }
        (None, Some(subject)) => {
            let reason = format!("kept: it belongs to {subject}, and stays and goes with that");
            (true, reason)
        }
        (None, None) => (matches!(verdict, Verdict::Kept(_)), verdict.to_string()),
    };
    Explanation {
        tag,
        keeps,
        reason,
        ends,
        attached_to,
        policies: coverage.policies,
        window: coverage.window,
    }
}

/// When a tag ends by its manifest's annotation or by the repository's lifetime of tags, which a signature outlives.
pub fn ends(tenant: &Tenant, repository: &Repository, tag: &TagDetail) -> Option<Time> {
    let row = &tag.row;
    let begun = row.pushed_at.max(row.renewed_at.unwrap_or(row.pushed_at));
    let lifetime = tenant.repositories.ephemeral(&repository.name);
    let by_lifetime = lifetime
        .filter(|_| !row.attached)
        .map(|lifetime| begun.plus(lifetime));
    [tag.expires_at, by_lifetime].into_iter().flatten().min()
}
