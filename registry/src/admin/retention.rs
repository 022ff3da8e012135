//! `/admin/v1/tenants/{tenant}/retention`: what policies have done and would do, and why a tag stays or goes.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::answer::{Answer, Asked, Failure};
use super::configure::Writer;
use super::patience;
use super::reports::{find, find_repository};
use crate::audit::Outcome;
use crate::domain::TagName;
use crate::lifecycle::retention::run::{self, History, RunError};
use crate::lifecycle::retention::walk::Found;
use crate::metadata::Time;
use crate::metadata::lifecycle::{JobKey, JobKind};
use crate::rfc3339;
use crate::tenancy::Tenant;
use crate::tenancy::policies::Policy;

/// What is known of a policy.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Name of the policy's object.
    policy: String,
    /// Whether a replica runs it now, or looks what a run would do.
    running: bool,
    /// Its last run.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_run: Option<LastRun>,
    /// When it runs next by its schedule (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    next_run: Option<String>,
    /// What a run would delete.
    #[serde(skip_serializing_if = "Option::is_none")]
    preview: Option<Preview>,
}

/// A run.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRun {
    /// When (RFC 3339).
    at: String,
    /// Tags that were looked at.
    evaluated: u64,
    /// Tags that were deleted.
    deleted_tags: u64,
    /// Bytes that become free, at least.
    reclaimable: u64,
    /// Whether it only reported: nothing was deleted.
    dry_run: bool,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What a run would delete, as of the last look.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// When that was found out (RFC 3339).
    at: String,
    #[serde(flatten)]
    would: Would,
}

/// What a run would delete.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Would {
    /// Tags that were looked at.
    evaluated: u64,
    /// Tags that it would delete.
    would_delete: u64,
    /// Bytes that would become free, at least.
    reclaimable: u64,
    /// Some of the tags, as `repository:tag`. At most 32.
    sample: Vec<String>,
}

/// One policy that was asked for, or all of a tenant.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Known {
    /// The one.
    One(Box<Retention>),
    /// All, by name.
    All(Vec<Retention>),
}

/// Which policy, or which repository.
#[derive(Debug, Default, Deserialize)]
pub struct Which {
    policy: Option<String>,
    repository: Option<String>,
    term: Option<i64>,
}

/// Which tag.
#[derive(Debug, Deserialize)]
pub struct OfTag {
    repository: String,
    tag: String,
}

/// What becomes of a tag, and why.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// Its repository.
    repository: String,
    /// Its name.
    tag: String,
    /// What it points to.
    digest: String,
    /// Its last push (RFC 3339).
    pushed_at: String,
    /// By whom.
    pushed_by: String,
    /// When its life in an ephemeral repository was last begun anew without a push (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    renewed_at: Option<String>,
    /// Its last pull, to the hour (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pulled_at: Option<String>,
    /// When it ends whatever the rules say: by an annotation of its manifest, or by the repository's lifetime of tags
    /// (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// Whether it would survive a run now.
    keeps: bool,
    /// Why.
    reason: String,
    /// The manifest that it belongs to, as a signature does by its name: it stays and goes with that.
    #[serde(skip_serializing_if = "Option::is_none")]
    attached_to: Option<String>,
    /// The policies that cover the repository.
    policies: Vec<String>,
    /// For how long it could be brought back, in seconds.
    restore_window: u64,
}

/// What is known of a policy, or of all of a tenant.
pub async fn show(
    State(admin): State<Admin>,
    Path(tenant): Path<String>,
    Asked(which): Asked<Which>,
) -> Answer<Known> {
    let tenant = find(&admin, &tenant)?;
    if let Some(name) = &which.policy {
        let policy = policy_of(&tenant, name)?;
        return Ok(Json(Known::One(Box::new(known(&admin, &tenant, policy).await?))));
    }
    let mut all = Vec::with_capacity(tenant.policies.len());
    for policy in tenant.policies.values() {
        all.push(known(&admin, &tenant, policy).await?);
    }
    Ok(Json(Known::All(all)))
}

/// Runs a policy now; a run that takes longer than the request goes on.
pub async fn run(
    State(admin): State<Admin>,
    Path(tenant): Path<String>,
    Asked(which): Asked<Which>,
) -> Result<(StatusCode, Json<Retention>), Failure> {
    let tenant = find(&admin, &tenant)?;
    let name = which.policy.as_deref();
    let name = name.ok_or_else(|| Failure::invalid("name the policy to run: ?policy=<name>"))?;
    let policy = policy_of(&tenant, name)?.clone();

    // 1. A writer that was taken over from runs nothing.
    if which.term.is_some() {
        let writer = Writer {
            actor: "admin".to_owned(),
            term: which.term,
        };
        admin.configurator.apply(Vec::new(), &writer).await?;
    }

    // 2. The run.
    let before = known(&admin, &tenant, &policy).await?;
    let (keeper, of) = (admin.keeper.clone(), (tenant.clone(), policy.clone()));
    let ran = patience::begin(async move { keeper.run_now(&of.0, &of.1).await }).await?;
    let Some(history) = ran.transpose()? else {
        admin
            .note(Some(&tenant), "retention.run", name, Outcome::Done, "goes on")
            .await;
        let running = Retention {
            running: true,
            ..before
        };
        return Ok((StatusCode::ACCEPTED, Json(running)));
    };

    // 3. What came of it.
    admin
        .note(Some(&tenant), "retention.run", name, Outcome::Done, "")
        .await;
    Ok((StatusCode::OK, Json(told(&policy, history, false))))
}

/// What a policy, or all that cover a repository, would delete now. Nothing is changed.
pub async fn preview(
    State(admin): State<Admin>,
    Path(tenant): Path<String>,
    Asked(which): Asked<Which>,
) -> Answer<Would> {
    let tenant = find(&admin, &tenant)?;
    let found = match (which.policy.as_deref(), which.repository.as_deref()) {
        (Some(name), None) => admin.keeper.preview(&tenant, policy_of(&tenant, name)?).await?,
        (None, Some(name)) => {
            let (repository, _) = find_repository(&admin, &tenant, name).await?;
            admin.keeper.preview_in(&tenant, &repository.name).await?
        }
        _ => {
            return Err(Failure::invalid(
                "name one of ?policy=<name> and ?repository=<name>",
            ));
        }
    };
    Ok(Json(found.into()))
}

/// What becomes of a tag, and why.
pub async fn explain(
    State(admin): State<Admin>,
    Path(tenant): Path<String>,
    Asked(of): Asked<OfTag>,
) -> Answer<Explained> {
    let tenant = find(&admin, &tenant)?;
    let (repository, _) = find_repository(&admin, &tenant, &of.repository).await?;
    let gone = || {
        Failure::not_found(format!(
            "tag {:?} in {} of tenant {}",
            of.tag, repository.name, tenant.name
        ))
    };
    let tag: TagName = of.tag.parse().map_err(|_| gone())?;
    let found = admin.keeper.explain(&tenant, &repository, &tag).await?;
    let found = found.ok_or_else(gone)?;
    let row = found.tag.row;
    Ok(Json(Explained {
        repository: repository.name.to_string(),
        tag: row.name,
        digest: row.digest.to_string(),
        pushed_at: rfc3339::write(row.pushed_at),
        pushed_by: found.tag.pushed_by,
        renewed_at: row.renewed_at.map(rfc3339::write),
        pulled_at: row.pulled_at.map(rfc3339::write),
        expires_at: found.ends.map(rfc3339::write),
        keeps: found.keeps,
        reason: found.reason,
        attached_to: found.attached_to.map(|subject| subject.to_string()),
        policies: found.policies.iter().map(ToString::to_string).collect(),
        restore_window: found.window.as_secs(),
    }))
}

fn policy_of<'a>(tenant: &'a Tenant, name: &str) -> Result<&'a Arc<Policy>, Failure> {
    let unknown = || Failure::not_found(format!("retention policy {name:?} of tenant {}", tenant.name));
    tenant.policies.get(name).ok_or_else(unknown)
}

async fn known(admin: &Admin, tenant: &Tenant, policy: &Policy) -> Result<Retention, Failure> {
    let key = JobKey {
        tenant: tenant.id,
        kind: JobKind::Retention,
        name: policy.name.to_string(),
    };
    // First, so that what is told of a run that has ended is not older than its end.
    let job = admin.keeper.store().job(&key).await?;
    let running = job.is_some_and(|job| job.claimed_until > Time::now());
    let history = admin.keeper.history(tenant.id, &policy.name).await?;
    Ok(told(policy, history, running))
}

fn told(policy: &Policy, history: History, running: bool) -> Retention {
    let at = |micros: i64| rfc3339::write(Time(micros));
    let run = |run: run::LastRun| LastRun {
        at: at(run.at),
        evaluated: run.evaluated,
        deleted_tags: run.deleted_tags,
        reclaimable: run.reclaimable,
        dry_run: run.dry_run,
        error: run.error,
    };
    let preview = |preview: run::Preview| Preview {
        at: at(preview.at),
        would: Would {
            evaluated: preview.evaluated,
            would_delete: preview.would_delete,
            reclaimable: preview.reclaimable,
            sample: preview.sample,
        },
    };
    Retention {
        policy: policy.name.to_string(),
        running,
        last_run: history.last_run.map(run),
        next_run: history.next_run.map(at),
        preview: history.preview.map(preview),
    }
}

impl From<Found> for Would {
    fn from(found: Found) -> Self {
        Self {
            evaluated: found.evaluated,
            would_delete: found.going,
            reclaimable: found.reclaimable,
            sample: found.sample,
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let message = error.to_string();
        match error {
            RunError::Metadata(error) => error.into(),
            RunError::Rules(_) => Self::new(StatusCode::CONFLICT, "Rules", message),
            RunError::Overtaken => Self::new(StatusCode::CONFLICT, "Overtaken", message),
            RunError::Running => Self::new(
                StatusCode::CONFLICT,
                "Running",
                format!("{message}; wait for its end"),
            ),
        }
    }
}
