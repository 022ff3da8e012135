//! The one access decision of a request.
//!
//! 401 where a new or another credential could help, 403 where none could. To whoever may not see a
//! repository, it makes no difference whether it exists, and on the apex not even whether its tenant does.

use std::sync::Arc;

use axum::extract::Request;
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};

use super::TOKEN_PATH;
use super::answer;
use super::asked::{Asked, Named};
use super::cached::read_only;
use super::error::{ApiError, Code};
use super::state::Registry;
use crate::audit::Outcome;
use crate::domain::RepositoryName;
use crate::domain::grant::Action;
use crate::identity::presented::Presented;
use crate::identity::{Principal, Refusal, Rights};
use crate::metadata::Repository;
use crate::telemetry::span::belongs_to;
use crate::tenancy::snapshot::Snapshot;
use crate::tenancy::{Namespace, Origin, Place, Tenant, Via};
use berth_crds::Creation;

/// What a foreign token that nobody trusts is told.
const NO_RULE: &str = "no trust rule of this tenant accepts this token";

/// What a request wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Ask whether this is a registry.
    Ping,
    /// List the repositories.
    List,
    /// Do this with the repository that the path names.
    Do(Action),
}

/// A request of which is known whose host it is for.
pub struct Arrival<'r> {
    pub registry: &'r Registry,
    pub snapshot: Arc<Snapshot>,
    pub place: Place,
    /// By which name it has come to its place.
    pub via: Via,
    pub origin: Origin,
}

impl<'r> Arrival<'r> {
    /// Reads which host a request is for: 404 if nothing is to be had there.
    pub fn of(registry: &'r Registry, request: &Request) -> Result<Self, ApiError> {
        let mut origin = Origin::of(request, &registry.origins)
            .map_err(|error| ApiError::of(Code::NameInvalid, error.to_string()))?;
        let snapshot = registry.directory.now();
        let namespace = Namespace::of(request.uri().query().unwrap_or_default())
            .map_err(|error| ApiError::of(Code::NameInvalid, error.to_string()));
        // A host where nobody lives is 404 whatever the query says.
        let readable = namespace.as_ref().ok().cloned().flatten();
        let (place, via) = registry
            .names
            .meant(&snapshot, &origin.host, readable)
            .map_err(|error| ApiError::of(Code::NameUnknown, error.to_string()))?;
        namespace?;
        // The settings know how clients come to the domain and to tenants, not to what is nobody's.
        if matches!(via, Via::Mirror(_)) && origin.host != registry.names.domain {
            origin.scheme = origin.direct;
        }
        if let Some(namespace) = via.namespace() {
            let tenant = match &place {
                Place::Tenant(tenant) => tenant.name.as_str(),
                Place::Apex => "",
            };
            tracing::debug!(
                host = origin.host,
                ns = namespace.text,
                tenant,
                below = via.prefix(),
                "read by ns"
            );
        }
        Ok(Self {
            registry,
            snapshot,
            place,
            via,
            origin,
        })
    }

    /// Refuses what a mirror, or a registry that only reads, does not do: so nothing lands where its client does not look.
    pub fn may_wish(&self, wish: Wish) -> Result<(), ApiError> {
        let refused = |message: String| Err(ApiError::of(Code::Unsupported, message));
        if let (Some(reading), Wish::Do(Action::Push | Action::Delete)) = (&self.registry.reading, wish) {
            let elsewhere = match &reading.primary {
                Some(primary) => format!("push to and delete from {primary}"),
                None => "push to and delete from the registry that it follows".to_owned(),
            };
            let error = refused(format!("this registry only reads; {elsewhere}"));
            return error.map_err(|error| error.header(ALLOW, HeaderValue::from_static("GET, HEAD")));
        }
        match (&self.via, wish) {
            (Via::Host, _) | (_, Wish::Ping | Wish::Do(Action::Pull | Action::Metadata)) => Ok(()),
            (Via::Mirror(_), Wish::List) => Ok(()),
            (Via::Cache(namespace, _), Wish::List) => refused(format!(
                "what {} holds is not listed here; name a repository",
                namespace.text
            )),
            (Via::Mirror(namespace) | Via::Cache(namespace, _), Wish::Do(Action::Push | Action::Delete)) => {
                refused(format!(
                    "{} is a mirror for {} and takes pulls only; push to and delete from the host itself, without ns",
                    self.origin.authority, namespace.text
                ))
            }
        }
        .map_err(|error: ApiError| error.header(ALLOW, HeaderValue::from_static("GET, HEAD")))
    }

    /// Lets a request go on as somebody, or refuses it.
    pub async fn admit(
        self,
        headers: &HeaderMap,
        name: Option<RepositoryName>,
        wish: Wish,
    ) -> Result<(Asked, Option<Named>), ApiError> {
        let presented = Presented::of(headers);
        let shown = name.clone();
        let name = name.map(|name| self.repository(name)).transpose()?;
        let (tenant, named) = self
            .target(name.as_ref(), shown, &presented)
            .await
            .map_err(|r| self.refuse(r, None))?;
        let scope = || Scope {
            name: name.as_ref(),
            wish,
        };
        let open = self.registry.is_open(&self.snapshot, &self.origin);
        let principal = if open && tenant.is_some() {
            Principal::anonymous(Rights::All)
        } else {
            self.principal(tenant.as_deref(), &presented, scope()).await?
        };
        let Some(tenant) = tenant else {
            return Err(self.challenge(scope(), None, &needed(wish)));
        };
        let asked = Asked {
            registry: self.registry.clone(),
            snapshot: self.snapshot.clone(),
            place: self.place.clone(),
            via: self.via.clone(),
            tenant,
            principal,
            origin: self.origin.clone(),
        };
        match (wish, &named) {
            (Wish::Ping, _) if open || presented != Presented::Nothing => {}
            (Wish::Ping, _) => return Err(self.challenge(scope(), None, &needed(wish))),
            (Wish::List, _) => self.decide_list(&asked, scope())?,
            (Wish::Do(action), Some(named)) => {
                // containerd shows of a 401 what `error` says, and asks four times more if it says nothing.
                let short = matches!(presented, Presented::Bearer(_)).then_some("insufficient_scope");
                self.decide(&asked, named, action, scope(), short)?;
            }
            (Wish::Do(_), None) => {
                return Err(ApiError::of(Code::NameInvalid, "the path names no repository"));
            }
        }
        // What somebody has guessed who may not see it is not told to traces either.
        let repository = named.as_ref().map(|named| named.repository.name.as_str());
        belongs_to(asked.tenant.name.as_str(), repository);
        Ok((asked, named))
    }

    /// The name at the place of what the path names.
    fn repository(&self, name: RepositoryName) -> Result<RepositoryName, ApiError> {
        let unknown = || ApiError::of(Code::NameUnknown, format!("{name} is too long for a name here"));
        self.via.repository(&name).ok_or_else(unknown)
    }

    /// The tenant and the repository that are meant; on the apex a request without a repository means the
    /// tenant of its credential.
    async fn target(
        &self,
        name: Option<&RepositoryName>,
        shown: Option<RepositoryName>,
        presented: &Presented,
    ) -> Result<(Option<Arc<Tenant>>, Option<Named>), Refusal> {
        let (Some(name), Some(shown)) = (name, shown) else {
            let tenant = match &self.place {
                Place::Tenant(tenant) => Some(tenant.clone()),
                Place::Apex => self.registry.identity.tenant_of(presented, &self.origin).await?,
            };
            return Ok((tenant, None));
        };
        let found = self.registry.names.repository(&self.snapshot, &self.place, name);
        Ok(found.map_or((None, None), |found| {
            let repository = Repository {
                tenant: found.tenant.id,
                name: found.name,
            };
            (Some(found.tenant), Some(Named { repository, shown }))
        }))
    }

    async fn principal(
        &self,
        tenant: Option<&Tenant>,
        presented: &Presented,
        scope: Scope<'_>,
    ) -> Result<Principal, ApiError> {
        let counted = match &self.place {
            Place::Tenant(tenant) => Some(tenant.id),
            Place::Apex => None,
        };
        let identity = &self.registry.identity;
        let principal = identity
            .authenticate(tenant, counted, presented, &self.origin)
            .await;
        principal.map_err(|refusal| self.refuse(refusal, Some(scope)))
    }

    /// The answer to a credential that is not accepted.
    pub fn refuse(&self, refusal: Refusal, scope: Option<Scope<'_>>) -> ApiError {
        match refusal {
            Refusal::Store(error) => error.into(),
            Refusal::Throttled(wait) => ApiError::of(Code::TooManyRequests, refusal.to_string())
                .header(RETRY_AFTER, answer::value((wait.as_secs() + 1).to_string())),
            Refusal::Unknown(_) | Refusal::Foreign(_) => {
                let scope = scope.unwrap_or(Scope {
                    name: None,
                    wish: Wish::Ping,
                });
                // On the apex not even whether a tenant trusts the issuer, and so is there, may show.
                let message = match (&self.place, refusal) {
                    (Place::Apex, Refusal::Foreign(_)) => NO_RULE.to_owned(),
                    (_, refusal) => refusal.to_string(),
                };
                self.challenge(scope, Some("invalid_token"), &message)
            }
        }
    }

    fn decide_list(&self, asked: &Asked, scope: Scope<'_>) -> Result<(), ApiError> {
        let principal = &asked.principal;
        if principal.rights.catalog() {
            return self.not_suspended(asked, "repositories");
        }
        let error = principal.is_known().then_some("insufficient_scope");
        Err(self.challenge(scope, error, &needed(Wish::List)))
    }

    /// `short`: what is told to somebody unknown who has shown a token that says too little.
    fn decide(
        &self,
        asked: &Asked,
        named: &Named,
        action: Action,
        scope: Scope<'_>,
        short: Option<&str>,
    ) -> Result<(), ApiError> {
        let (principal, name) = (&asked.principal, &named.name);
        if !asked.actions_on(name).contains(action) {
            let verb = verb(action);
            if !principal.is_known() {
                return Err(self.challenge(scope, short, &needed(Wish::Do(action))));
            }
            if principal.rights.behind(name).contains(action) {
                let message = format!("the token was not issued to {verb} here; ask for one that is");
                return Err(self.challenge(scope, Some("insufficient_scope"), &message));
            }
            asked.audit(action.text(), name.as_str(), Outcome::Denied, "not granted");
            // As tokens name it, so that whoever grants rights knows which.
            let wanted = scope.name.unwrap_or(&named.shown);
            let message = format!("{} may not {verb} {wanted}", principal.label);
            return Err(ApiError::of(Code::Denied, message));
        }
        self.not_suspended(asked, name.as_str())?;
        let declared = asked.tenant.config.repositories.creation == Creation::OnPush
            || asked.tenant.repositories.declares(name);
        if matches!(action, Action::Push | Action::Delete)
            && let Some((cache, _)) = asked.tenant.caches.of(name)
        {
            return Err(read_only(named, cache));
        }
        if action == Action::Push && !declared {
            asked.audit("push", name.as_str(), Outcome::Denied, "not declared");
            let message = format!(
                "{} is not declared, and this tenant takes pushes to declared repositories only",
                named.shown
            );
            return Err(ApiError::of(Code::Denied, message));
        }
        Ok(())
    }

    fn not_suspended(&self, asked: &Asked, object: &str) -> Result<(), ApiError> {
        let config = &asked.tenant.config;
        if !config.suspend {
            return Ok(());
        }
        asked.audit("access", object, Outcome::Denied, "suspended");
        let why = config
            .suspend_reason
            .as_deref()
            .unwrap_or("ask whoever runs this registry");
        let message = format!("tenant {} is suspended: {why}", asked.tenant.name);
        Err(ApiError::of(Code::Denied, message))
    }

    /// 401 that says where a token for this request is to be had.
    pub fn challenge(&self, scope: Scope<'_>, error: Option<&str>, message: &str) -> ApiError {
        challenge(&self.origin, &self.via, scope.text(), error, message)
    }
}

/// 401 that says where a token for a scope is to be had (distribution's token specification): at the host that the
/// client has reached, which must be told again whose host it is a mirror for.
pub fn challenge(
    origin: &Origin,
    via: &Via,
    scope: Option<String>,
    error: Option<&str>,
    message: &str,
) -> ApiError {
    let (realm, service) = match via {
        Via::Host | Via::Cache(..) => (origin.link(TOKEN_PATH), &origin.authority),
        Via::Mirror(namespace) => {
            let path = format!("{TOKEN_PATH}?{}", namespace.parameter());
            (origin.link(&path), &namespace.text)
        }
    };
    let mut header = format!(r#"Bearer realm="{realm}",service="{service}""#);
    for (key, value) in [("scope", scope.as_deref()), ("error", error)] {
        if let Some(value) = value {
            header.push_str(&format!(r#",{key}="{value}""#));
        }
    }
    ApiError::of(Code::Unauthorized, message).header(WWW_AUTHENTICATE, answer::value(header))
}

/// What a token for a request must say.
#[derive(Clone, Copy)]
pub struct Scope<'r> {
    pub name: Option<&'r RepositoryName>,
    pub wish: Wish,
}

impl Scope<'_> {
    fn text(&self) -> Option<String> {
        match (self.wish, self.name) {
            (Wish::List, _) => Some("registry:catalog:*".to_owned()),
            (Wish::Do(action), Some(name)) => {
                let actions = match action {
                    Action::Pull | Action::Metadata => "pull",
                    Action::Push => "pull,push",
                    Action::Delete => "delete",
                };
                Some(format!("repository:{name}:{actions}"))
            }
            (Wish::Ping, _) | (Wish::Do(_), None) => None,
        }
    }
}

/// What whoever shows no credential is told, whatever is there.
fn needed(wish: Wish) -> String {
    match wish {
        Wish::Ping => "a credential is needed".to_owned(),
        Wish::List => "a credential is needed to list repositories".to_owned(),
        Wish::Do(action) => format!("a credential is needed to {} this repository", verb(action)),
    }
}

fn verb(action: Action) -> &'static str {
    match action {
        Action::Pull => "pull from",
        Action::Push => "push to",
        Action::Delete => "delete from",
        Action::Metadata => "look into",
    }
}
