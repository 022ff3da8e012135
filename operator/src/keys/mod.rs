//! The installation's keys: one Secret that the registry's pods mount, made once and rotated with overlap.
//!
//! It holds the admin API's keys and certificate, the keys that sign access tokens and those that seal stored
//! passwords, as flat files of the names that the registry's `--keys` expects ([`plan`]). A Secret of that name that
//! somebody else made is used as it is and never written.

mod fresh;
pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};

use crate::backoff::jittered;
use crate::registry::{Registry, RegistryError};
use crate::settings::Settings;
use crate::{MANAGED_BY, MANAGER};
pub use fresh::{Fresh, FreshError};
use plan::{ADMIN, AUTHORITY, Entries, Phase, Policy, State};

/// When the last step of a rotation was taken (RFC 3339).
const SINCE: &str = "berth.dev/keys-since";
/// How far it has come.
const PHASE: &str = "berth.dev/keys-phase";
/// Names in the certificate, separated by commas.
const NAMES: &str = "berth.dev/keys-names";
/// Annotation by which a rotation is asked for.
const ROTATE: &str = "berth.dev/rotate";
/// Between two looks at the Secret.
const EVERY: Duration = Duration::from_secs(10);

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The API server.
    #[error("the keys Secret: {0}")]
    Cluster(#[from] kube::Error),
    /// No randomness.
    #[error(transparent)]
    Fresh(#[from] FreshError),
    /// What the Secret holds opens nothing.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// An entry is missing in a Secret that is not the operator's.
    #[error(
        "the Secret {secret} has no entry {entry}: add it, or delete the Secret so that the operator makes one"
    )]
    Missing {
        /// Name of the Secret.
        secret: String,
        /// Which.
        entry: &'static str,
    },
}

/// The keys Secret.
pub struct Keeper {
    api: Api<Secret>,
    name: String,
    policy: Policy,
    registry: Arc<Registry>,
}

impl Keeper {
    /// Of an installation; none if the keys are files.
    pub fn new(settings: &Settings, client: &Client, registry: &Arc<Registry>) -> Option<Self> {
        let name = settings.keys_secret.clone()?;
        let signed = |span: Duration| SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
        let policy = Policy {
            every: Some(settings.key_rotation)
                .filter(|every| !every.is_zero())
                .map(signed),
            overlap: signed(settings.key_overlap),
            names: names(&settings.admin_service, &settings.namespace),
        };
        Some(Self {
            api: Api::namespaced(client.clone(), &settings.namespace),
            name,
            policy,
            registry: registry.clone(),
        })
    }

    /// Returns once there are keys and the registry's client uses them.
    pub async fn ready(&self) {
        while let Err(error) = self.look().await {
            tracing::warn!(%error, secret = self.name, "there are no keys yet");
            tokio::time::sleep(jittered(Duration::from_secs(2))).await;
        }
    }

    /// Follows the Secret, and rotates what is in it, for ever.
    pub async fn follow(&self) {
        loop {
            tokio::time::sleep(jittered(EVERY)).await;
            if let Err(error) = self.look().await {
                tracing::error!(%error, secret = self.name, "the keys cannot be read or rotated; those in use stay");
            }
        }
    }

    async fn look(&self) -> Result<(), KeysError> {
        let now = Timestamp::now();
        let entries = match self.api.get_opt(&self.name).await? {
            None => {
                let state = plan::first(Fresh::make(&self.policy.names)?, &self.policy, now);
                self.api
                    .create(&PostParams::default(), &written(&self.name, &state, None))
                    .await?;
                tracing::info!(secret = self.name, "the keys were made");
                state.entries
            }
            Some(secret) if secret.labels().get(MANAGED_BY).map(String::as_str) != Some(MANAGER) => {
                entries(&secret)
            }
            Some(secret) => self.rotated(secret, now).await?,
        };
        let entry = |entry: &'static str| {
            let missing = KeysError::Missing {
                secret: self.name.clone(),
                entry,
            };
            entries.get(entry).ok_or(missing)
        };
        Ok(self.registry.open_with(entry(ADMIN)?, entry(AUTHORITY)?)?)
    }

    /// The entries after whatever is due.
    async fn rotated(&self, secret: Secret, now: Timestamp) -> Result<Entries, KeysError> {
        let state = read(&secret, now);
        let asked = secret.annotations().contains_key(ROTATE);
        let Some(step) = plan::next(&state, &self.policy, asked, now) else {
            return Ok(state.entries);
        };
        let state = plan::take(step, state, Fresh::make(&self.policy.names)?, &self.policy, now);
        // The very version that was read: of two operators only one rotates.
        let written = written(&self.name, &state, Some(secret));
        self.api
            .replace(&self.name, &PostParams::default(), &written)
            .await?;
        tracing::info!(secret = self.name, ?step, "the keys were rotated by a step");
        Ok(state.entries)
    }
}

/// The Secret with these keys; whatever else others gave it stays.
fn written(name: &str, state: &State, old: Option<Secret>) -> Secret {
    let mut secret = old.unwrap_or_else(|| Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    });
    secret
        .labels_mut()
        .insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let annotations = secret.annotations_mut();
    annotations.remove(ROTATE);
    for (key, value) in [
        (SINCE, state.since.to_string()),
        (PHASE, state.phase.text().to_owned()),
        (NAMES, state.names.join(",")),
    ] {
        annotations.insert(key.to_owned(), value);
    }
    let bytes = |(name, text): (&String, &String)| (name.clone(), ByteString(text.clone().into_bytes()));
    secret.data = Some(state.entries.iter().map(bytes).collect());
    secret
}

/// Names by which the admin API is reached: in the cluster, and from within its own pod.
fn names(service: &str, namespace: &str) -> Vec<String> {
    let mut names = vec![format!("{service}.{namespace}.svc")];
    names.extend([
        service.to_owned(),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc.cluster.local"),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ]);
    names
}

fn entries(secret: &Secret) -> Entries {
    let data = secret.data.iter().flatten();
    data.filter_map(|(name, value)| Some((name.clone(), String::from_utf8(value.0.clone()).ok()?)))
        .collect()
}

fn read(secret: &Secret, now: Timestamp) -> State {
    let annotation = |key: &str| secret.annotations().get(key).map(String::as_str);
    let names = annotation(NAMES).unwrap_or_default();
    State {
        entries: entries(secret),
        phase: Phase::read(annotation(PHASE)),
        since: annotation(SINCE)
            .and_then(|since| since.parse().ok())
            .unwrap_or(now),
        names: names
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_new_keys_have_the_form_that_the_registry_takes() {
        let policy = Policy {
            every: None,
            overlap: SignedDuration::from_hours(24),
            names: names("berth-admin", "berth"),
        };
        let fresh = Fresh::make(&policy.names).unwrap();
        assert_eq!(fresh.certificate.chain.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(fresh.certificate.chain.ends_with(&fresh.certificate.authority));
        assert_ne!(fresh, Fresh::make(&policy.names).unwrap());
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let state = plan::first(fresh, &policy, now);
        let secret = written("keys", &state, None);
        assert_eq!(read(&secret, Timestamp::UNIX_EPOCH), state);
    }
}
