//! A request that may go on: at whom, by whom, and within which limits.

use std::ops::Deref;
use std::sync::Arc;

use axum::response::Response;
use http::header::WARNING;
use uuid::Uuid;

use super::access::challenge;
use super::answer;
use super::error::{ApiError, Code};
use super::state::Registry;
use crate::audit::{Event, Outcome};
use crate::domain::grant::{Action, Actions};
use crate::domain::{RepositoryName, TagName};
use crate::identity::{Principal, sight};
use crate::lifecycle::changes::Changes;
use crate::metadata::events::Kind;
use crate::metadata::{Limits, OverQuota, Quota, Repository, SessionKey, Standing};
use crate::settings::Redirect;
use crate::tenancy::limits::{exhausted, of_quota};
use crate::tenancy::snapshot::Snapshot;
use crate::tenancy::{Origin, Place, Tenant, Via};
use crate::webhooks::QuotaNews;

/// From this share of a limit on, in percent, pushes are answered with a warning.
const WARN_FROM: u64 = 90;

/// One request that may go on.
pub struct Asked {
    /// Everything shared.
    pub registry: Registry,
    /// The configuration, the same from the request's beginning to its end.
    pub snapshot: Arc<Snapshot>,
    /// What its host stands for.
    pub place: Place,
    /// By which name it has come there.
    pub via: Via,
    /// Whose content it is about.
    pub tenant: Arc<Tenant>,
    /// Who asks.
    pub principal: Principal,
    /// From where.
    pub origin: Origin,
}

/// A repository, and how the client names it: with its tenant on the apex, or by an alias.
#[derive(Clone)]
pub struct Named {
    /// The repository itself.
    pub repository: Repository,
    /// As in the request's path, which in a mirror's is the name in what is mirrored.
    pub shown: RepositoryName,
}

impl Deref for Named {
    type Target = Repository;

    fn deref(&self) -> &Repository {
        &self.repository
    }
}

impl Asked {
    /// What may be done with a repository of the tenant.
    pub fn actions_on(&self, name: &RepositoryName) -> Actions {
        sight::actions_on(&self.tenant, &self.principal, name)
    }

    /// A link to a path at the same place, to which parameters are to be added.
    pub fn page_link(&self, path: &str) -> String {
        match self.via.namespace() {
            None => format!("{path}?"),
            Some(namespace) => format!("{path}?{}&", namespace.parameter()),
        }
    }

    /// The repository that a client means by a name, if it is one of the tenant's that it may pull. 401 where a
    /// token that names both repositories would do.
    pub fn source(&self, into: &Named, name: &str) -> Result<Option<RepositoryName>, ApiError> {
        let Some(from) = self.named(name) else {
            return Ok(None);
        };
        if self.actions_on(&from).contains(Action::Pull) {
            return Ok(Some(from));
        }
        if self.principal.rights.beyond(&from).contains(Action::Pull) {
            let scope = format!("repository:{}:pull,push repository:{name}:pull", into.shown);
            let message = format!("the token was not issued to pull from {name}; ask for one that is");
            return Err(challenge(
                &self.origin,
                &self.via,
                Some(scope),
                Some("insufficient_scope"),
                &message,
            ));
        }
        Ok(None)
    }

    /// The repository of the tenant that a client means by a name.
    fn named(&self, name: &str) -> Option<RepositoryName> {
        let name = name.parse().ok()?;
        let named = self
            .registry
            .names
            .repository(&self.snapshot, &self.place, &name)?;
        (named.tenant.id == self.tenant.id).then_some(named.name)
    }

    /// Changes on behalf of whoever asks.
    pub fn changes(&self) -> Changes<'_> {
        Changes {
            metadata: &*self.registry.metadata,
            lifecycle: &*self.registry.lifecycle,
            delays: self.registry.delays,
            tenant: &self.tenant,
            principal: &self.principal.label,
        }
    }

    /// A session of this request's own.
    pub fn session(&self, repository: &Named, id: Uuid) -> SessionKey {
        SessionKey {
            repository: repository.repository.clone(),
            id,
            principal: self.principal.label.clone(),
        }
    }

    /// What a push into a repository may not exceed.
    pub fn limits(&self, name: &RepositoryName) -> Limits {
        self.tenant.limits(name)
    }

    /// Whether blob downloads are redirected: as the tenant says, else as the installation does.
    pub fn redirect(&self) -> Redirect {
        match self.tenant.config.redirect {
            berth_crds::Redirect::Auto => self.registry.redirect,
            berth_crds::Redirect::Always => Redirect::Always,
            berth_crds::Redirect::Never => Redirect::Never,
        }
    }

    /// Whether a tag may not be moved or deleted once it is set.
    pub fn is_immutable(&self, name: &RepositoryName, tag: &TagName) -> bool {
        let rules = &self.tenant.repositories;
        rules.immutable(name).any(|glob| glob.matches(tag.as_str()))
    }

    /// The error of a tag that may not be moved or deleted.
    pub fn immutable(&self, repository: &Named, tag: &str) -> ApiError {
        let message = format!(
            "tag {tag} of {} is immutable; push under another tag",
            repository.shown
        );
        self.audit(
            "tag.change",
            &format!("{}:{tag}", repository.name),
            Outcome::Denied,
            "immutable",
        );
        ApiError::of(Code::Denied, message)
    }

    /// The error of a push that exceeds a limit.
    pub fn over_quota(&self, repository: &Named, over: &OverQuota) -> ApiError {
        let (what, _) = of_quota(over.quota);
        let message = exhausted(over);
        self.audit("push", repository.name.as_str(), Outcome::Denied, &message);
        let news = QuotaNews {
            kind: Kind::QuotaExceeded,
            quota: over.quota,
            usage: over.usage,
            limit: over.limit,
        };
        self.tell_quota(&repository.name, news);
        let detail = serde_json::json!({ "quota": what, "usage": over.usage, "limit": over.limit });
        ApiError::of(Code::Denied, message).detail(detail)
    }

    fn tell_quota(&self, repository: &RepositoryName, news: QuotaNews) {
        let teller = &self.registry.teller;
        teller.quota(&self.tenant, repository, &self.principal.label, news);
    }

    /// Warns in an answer, and by an event, of limits that are nearly reached.
    pub fn warn(
        &self,
        response: &mut Response,
        repository: &RepositoryName,
        standing: Option<Standing>,
        limits: &Limits,
    ) {
        let Some(standing) = standing else { return };
        let used = [
            (Quota::Storage, standing.tenant.bytes),
            (Quota::Repositories, standing.tenant.repositories),
            (Quota::Tags, standing.repository.tags),
            (Quota::RepositoryStorage, standing.repository.bytes),
        ];
        for (quota, used) in used {
            let Some(limit) = limits.of(quota) else { continue };
            if u128::from(used) * 100 >= u128::from(limit) * u128::from(WARN_FROM) {
                let (what, unit) = of_quota(quota);
                let news = QuotaNews {
                    kind: Kind::QuotaThreshold,
                    quota,
                    usage: used,
                    limit,
                };
                self.tell_quota(repository, news);
                // RFC 7234, section 5.5; the form that distribution-spec asks of registries.
                let text = format!("299 - \"{used} of {limit} {unit} of the quota on {what} are used\"");
                response.headers_mut().append(WARNING, answer::value(text));
            }
        }
    }

    /// Adds to the audit trail.
    pub fn audit(&self, action: &'static str, object: &str, outcome: Outcome, detail: &str) {
        self.registry.identity.audit().add(Event {
            tenant: (self.tenant.id.0, self.tenant.name.to_string()),
            actor: self.principal.label.clone(),
            action,
            object: object.to_owned(),
            outcome,
            detail: detail.to_owned(),
            address: Some(self.origin.address),
        });
    }
}
