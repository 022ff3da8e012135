//! Changing the configuration: checked, sealed, hashed, applied, served.

use std::sync::Arc;

use berth_crds::Invalid;
use berth_crds::admin::{CacheConfig, RepositoryConfig, RetentionPolicyConfig, Secret, TenantConfig};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::audit::{Event, Outcome};
use crate::domain::TenantName;
use crate::identity::keys::{KeyRing, SealError};
use crate::identity::trust::check_expression;
use crate::metadata::configuration::{
    Applied, Change, ChangeSet, Claim, Configuration, NewSpec, OBJECT_NAME_LIMIT, ObjectKind, Wish,
    secret_place,
};
use crate::metadata::{MetadataError, Time};
use crate::tenancy::Directory;

/// The content of an object.
#[derive(Debug, Clone)]
pub enum Spec {
    /// Of a tenant.
    Tenant(Box<TenantConfig>),
    /// Of a repository.
    Repository(Box<RepositoryConfig>),
    /// Of a retention policy.
    RetentionPolicy(Box<RetentionPolicyConfig>),
    /// Of a cache.
    Cache(Box<CacheConfig>),
}

/// An object as it should be.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its tenant.
    pub tenant: TenantName,
    /// What it is.
    pub kind: ObjectKind,
    /// Its name; empty for the tenant itself.
    pub name: String,
    /// Uid of its source. What is to go goes only if it comes from there, or from anywhere without one.
    pub uid: Option<String>,
    /// Generation of its source.
    pub generation: i64,
    /// Its content.
    pub state: State,
}

/// What becomes of an object.
#[derive(Debug, Clone)]
pub enum State {
    /// It is this.
    Is(Spec),
    /// It is gone; what a tenant stores stays.
    Gone,
    /// A tenant is gone with what it stores.
    Erased,
}

/// Who changes.
#[derive(Debug, Clone)]
pub struct Writer {
    /// As the audit trail calls them.
    pub actor: String,
    /// Their fencing token.
    pub term: Option<i64>,
}

/// What came of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// The version of the configuration that has it.
    pub version: i64,
    /// How many objects differ from before.
    pub changed: usize,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// Fields are wrong.
    #[error("{}", .problems.first().map(ToString::to_string).unwrap_or_default())]
    Invalid {
        /// Position of the object.
        at: usize,
        /// All of them.
        problems: Vec<Invalid>,
    },
    /// A later writer has taken over.
    #[error(
        "the term is over: the newest is {current}; ask for a new one by POST /admin/v1/terms if you are in charge"
    )]
    StaleTerm {
        /// The newest.
        current: i64,
    },
    /// A name is another object's.
    #[error("{what} {name:?} is held by {by}; choose another, or give it up there first")]
    Taken {
        /// Position of the object.
        at: usize,
        /// What kind of name.
        what: &'static str,
        /// The name.
        name: String,
        /// By whom.
        by: String,
    },
    /// The object comes from another source than the one that is to go.
    #[error("the object comes from another source than the one with this uid; look at it again")]
    Replaced {
        /// Position of the object.
        at: usize,
    },
    /// There is no such tenant.
    #[error("there is no tenant {0}; make it first")]
    NoTenant(String),
    /// A secret cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The store.
    #[error(transparent)]
    Store(#[from] MetadataError),
}

/// Applies changes.
pub struct Configurator {
    store: Arc<dyn Configuration>,
    directory: Arc<Directory>,
    keys: Arc<KeyRing>,
    domain: String,
}

impl Configurator {
    /// For an installation at `domain`.
    pub fn new(
        store: Arc<dyn Configuration>,
        directory: Arc<Directory>,
        keys: Arc<KeyRing>,
        domain: String,
    ) -> Self {
        Self {
            store,
            directory,
            keys,
            domain,
        }
    }

    /// Makes objects what they should be, all or none, and serves them here.
    pub async fn apply(&self, wanted: Vec<Wanted>, writer: &Writer) -> Result<Done, ConfigureError> {
        let mut changes = Vec::with_capacity(wanted.len());
        let mut audit = Vec::with_capacity(wanted.len());
        for (at, wanted) in wanted.into_iter().enumerate() {
            let action = match wanted.state {
                State::Is(_) => "configure",
                State::Gone | State::Erased => "unconfigure",
            };
            let event = Event {
                tenant: (0, wanted.tenant.to_string()),
                actor: writer.actor.clone(),
                action,
                object: format!("{}/{}", wanted.kind.text(), wanted.name),
                outcome: Outcome::Done,
                detail: format!("generation {}", wanted.generation),
                address: None,
            };
            audit.push(event);
            changes.push(self.change(wanted).map_err(|error| error.at(at))?);
        }
        let names: Vec<String> = changes.iter().map(|change| change.tenant.to_string()).collect();
        let snapshot = self.directory.now();
        let records = audit.iter().zip(&names).map(|(event, name)| {
            let tenant = snapshot.by_name(name).map_or(0, |tenant| tenant.id.0);
            let mut event = event.clone();
            event.tenant.0 = tenant;
            event.record(1)
        });
        let set = ChangeSet {
            changes,
            term: writer.term,
            now: Time::now(),
            audit: records.collect(),
        };
        let done = match self.store.apply(set).await? {
            Applied::Done { version, changed } => Done { version, changed },
            Applied::StaleTerm { current } => return Err(ConfigureError::StaleTerm { current }),
            Applied::Replaced { at } => return Err(ConfigureError::Replaced { at }),
            Applied::NoTenant(name) => return Err(ConfigureError::NoTenant(name)),
            Applied::Taken { at, claim, by } => {
                let (what, name) = named(claim);
                return Err(ConfigureError::Taken { at, what, name, by });
            }
        };
        if done.changed > 0 {
            audit.iter().for_each(Event::log);
            self.directory.refresh().await?;
        }
        Ok(done)
    }

    fn change(&self, wanted: Wanted) -> Result<Change, Refused> {
        let Wanted {
            tenant,
            kind,
            name,
            uid,
            generation,
            state,
        } = wanted;
        check_name(kind, &name).map_err(Refused::Invalid)?;
        let mut only_of = None;
        let wish = match state {
            State::Gone | State::Erased => {
                only_of = uid;
                if matches!(state, State::Gone) {
                    Wish::Delete
                } else {
                    Wish::Erase
                }
            }
            State::Is(spec) => {
                self.validate(&spec).map_err(Refused::Invalid)?;
                let hash = self.hash(&spec);
                let claims = claims(&spec);
                let place = secret_place(tenant.as_str(), kind, &name);
                Wish::Put(NewSpec {
                    uid,
                    generation,
                    json: self.sealed(spec, &place)?,
                    hash,
                    claims,
                })
            }
        };
        Ok(Change {
            tenant,
            kind,
            name,
            only_of,
            wish,
        })
    }

    fn validate(&self, spec: &Spec) -> Result<(), Vec<Invalid>> {
        match spec {
            Spec::Tenant(config) => {
                config.validate(&self.domain)?;
                check_expressions(config)
            }
            Spec::Repository(config) => config.validate(),
            Spec::RetentionPolicy(config) => config.validate(),
            Spec::Cache(config) => config.validate(),
        }
    }

    /// SHA-256 of the spec as JSON with sorted keys, its secrets in it: a changed password is a change, and so is another
    /// key that would seal it, so that a put repeated moves what is stored to the key that is current.
    fn hash(&self, spec: &Spec) -> String {
        let mut hash = Sha256::new();
        hash.update(text(spec));
        if has_secrets(spec) {
            hash.update([0]);
            hash.update(self.keys.sealing_id().unwrap_or_default());
        }
        hex::encode(hash.finalize())
    }

    /// The spec as it is stored: JSON, its secrets sealed for their place.
    fn sealed(&self, mut spec: Spec, place: &str) -> Result<String, Refused> {
        let seal = |secret: &mut Secret| -> Result<(), SealError> {
            secret.0 = self.keys.seal(&secret.0, place)?;
            Ok(())
        };
        match &mut spec {
            Spec::Tenant(config) => {
                let mut secrets = config
                    .webhooks
                    .iter_mut()
                    .filter_map(|webhook| webhook.secret.as_mut());
                secrets.try_for_each(seal)?;
            }
            Spec::Cache(config) => config.upstream.password.as_mut().map_or(Ok(()), seal)?,
            Spec::Repository(_) | Spec::RetentionPolicy(_) => {}
        }
        Ok(text(&spec))
    }
}

impl Wanted {
    /// As `POST /admin/v1/apply` takes it, secrets in the clear.
    pub fn to_json(&self) -> Value {
        let spec = match &self.state {
            State::Is(spec) => serde_json::from_str(&text(spec)).unwrap_or(Value::Null),
            State::Gone | State::Erased => Value::Null,
        };
        json!({
            "tenant": self.tenant.as_str(),
            "kind": self.kind.text(),
            "name": self.name,
            "uid": self.uid,
            "generation": self.generation,
            "spec": spec,
        })
    }
}

enum Refused {
    Invalid(Vec<Invalid>),
    Seal(SealError),
}

impl From<SealError> for Refused {
    fn from(error: SealError) -> Self {
        Self::Seal(error)
    }
}

impl Refused {
    fn at(self, at: usize) -> ConfigureError {
        match self {
            Self::Invalid(problems) => ConfigureError::Invalid { at, problems },
            Self::Seal(error) => ConfigureError::Seal(error),
        }
    }
}

fn check_name(kind: ObjectKind, name: &str) -> Result<(), Vec<Invalid>> {
    let characters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'/' | b'_');
    let valid = match kind {
        ObjectKind::Tenant => name.is_empty(),
        _ => (1..=OBJECT_NAME_LIMIT).contains(&name.len()) && name.bytes().all(characters),
    };
    if valid {
        return Ok(());
    }
    Err(vec![Invalid {
        path: "name".to_owned(),
        why: format!(
            "{name:?} is no object name: 1 to {OBJECT_NAME_LIMIT} letters, digits, '-', '.', '_' and '/'"
        ),
    }])
}

fn check_expressions(config: &TenantConfig) -> Result<(), Vec<Invalid>> {
    let mut problems = Vec::new();
    for (at, rule) in config.trust.iter().enumerate() {
        if let berth_crds::admin::ResolvedTrust::Issuer { when: Some(when), .. } = rule
            && let Err(why) = check_expression(when)
        {
            problems.push(Invalid {
                path: format!("spec.trust[{at}].when"),
                why: format!("is no CEL expression: {why}"),
            });
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

/// Names that the object holds alone.
fn claims(spec: &Spec) -> Vec<Claim> {
    match spec {
        Spec::Tenant(config) => {
            let hosts = config
                .hosts
                .iter()
                .map(|host| Claim::Host(host.to_ascii_lowercase()));
            let apex = config.apex_aliases.iter().cloned().map(Claim::Apex);
            hosts.chain(apex).collect()
        }
        Spec::Repository(config) => {
            let name = config.name.iter().cloned().map(Claim::Repository);
            let aliases = config.aliases.iter().cloned().map(Claim::Alias);
            name.chain(aliases).collect()
        }
        Spec::RetentionPolicy(_) => Vec::new(),
        Spec::Cache(config) => {
            let mirrors = config.mirror_for.iter().cloned().map(Claim::Mirror);
            std::iter::once(Claim::Prefix(config.prefix.clone()))
                .chain(mirrors)
                .collect()
        }
    }
}

fn named(claim: Claim) -> (&'static str, String) {
    match claim {
        Claim::Host(name) => ("host", name),
        Claim::Apex(name) => ("apex alias", name),
        Claim::Repository(name) => ("repository name", name),
        Claim::Alias(name) => ("alias", name),
        Claim::Prefix(name) => ("prefix", name),
        Claim::Mirror(name) => ("mirror", name),
    }
}

fn has_secrets(spec: &Spec) -> bool {
    match spec {
        Spec::Tenant(config) => config.webhooks.iter().any(|webhook| webhook.secret.is_some()),
        Spec::Cache(config) => config.upstream.password.is_some(),
        Spec::Repository(_) | Spec::RetentionPolicy(_) => false,
    }
}

fn text(spec: &Spec) -> String {
    fn json<T: Serialize>(config: &T) -> String {
        // Values have sorted keys; nothing here fails to be a value.
        serde_json::to_value(config)
            .map(|value| value.to_string())
            .unwrap_or_default()
    }
    match spec {
        Spec::Tenant(config) => json(config),
        Spec::Repository(config) => json(config),
        Spec::RetentionPolicy(config) => json(config),
        Spec::Cache(config) => json(config),
    }
}
