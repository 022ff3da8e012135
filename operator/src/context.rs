//! What reconcilers share: the API server, the registry, what is watched, and what was last done.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::core::{Selector, SelectorExt as _};
use kube::runtime::events::Recorder;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource, ResourceExt as _};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::backoff::Failures;
use crate::declared::{cache, retention::Heard};
use crate::follow::ClusterKeys;
use crate::metrics::Metrics;
use crate::registry::{Registry, Usage};
use crate::settings::Settings;
use crate::tenant::accounts::Seen;
use crate::tenant::credentials::Retries;
use crate::watches::Watched;

/// For how long an object that waits for others says nothing about it.
pub const QUIET: Duration = Duration::from_secs(3);

/// What reconcilers share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The registry.
    pub registry: Arc<Registry>,
    /// What the operator was told.
    pub settings: Settings,
    /// Writes events.
    pub recorder: Recorder,
    /// Failures in a row.
    pub failures: Failures,
    /// What is counted.
    pub metrics: Metrics,
    /// Since when this process leads.
    pub leading: OnceLock<Instant>,
    /// Cancelled once another operator has taken over.
    pub overthrown: CancellationToken,
    /// Told when an object was let go although the registry was not told.
    pub untold: Notify,
    /// What is watched.
    pub watched: Watched,
    /// The keys of the cluster's service accounts.
    pub cluster_keys: ClusterKeys,
    /// Versions of service accounts that need no change.
    pub accounts_seen: Seen,
    /// What was done, by the object's uid.
    pub memory: Memory,
}

impl Context {
    /// Namespaces with their labels that exist, are covered and are not about to go.
    pub fn namespaces(&self, wanted: impl Fn(&str, &BTreeMap<String, String>) -> bool) -> Vec<String> {
        let mut names: Vec<String> = self
            .watched
            .namespaces
            .all()
            .iter()
            .filter(|namespace| namespace.metadata.deletion_timestamp.is_none())
            .filter(|namespace| {
                let name = namespace.name_any();
                self.settings.covers(&name) && wanted(&name, namespace.labels())
            })
            .map(|namespace| namespace.name_any())
            .collect();
        names.sort_unstable();
        names
    }

    /// Secrets of all namespaces that are covered.
    pub fn secrets_everywhere(&self) -> Vec<Api<Secret>> {
        scopes(&self.settings, &self.client)
    }

    /// Labels of a namespace.
    pub fn labels_of(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        self.watched
            .namespaces
            .get(&ObjectRef::new(namespace))
            .map(|namespace| namespace.labels().clone())
    }
}

/// An API for everything that is covered: one for all namespaces, or one for each that was named.
pub fn scopes<K>(settings: &Settings, client: &Client) -> Vec<Api<K>>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    if settings.namespaces.is_empty() {
        return vec![Api::all(client.clone())];
    }
    let of = |namespace: &String| Api::namespaced(client.clone(), namespace);
    settings.namespaces.iter().map(of).collect()
}

/// Whether a selector matches labels.
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    // A selector that cannot be read selects nothing.
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

/// What was done, so that it is not done again. It is lost with the process, which costs one repeated put each.
#[derive(Debug, Default)]
pub struct Memory {
    entries: Mutex<HashMap<String, Entry>>,
}

#[derive(Debug, Default, Clone)]
struct Entry {
    put: Option<Put>,
    waiting: Option<(i64, Instant)>,
    usage: Option<(Instant, i64, Usage)>,
    retention: Option<Heard>,
    cache: Option<cache::Heard>,
    retries: Retries,
}

#[derive(Debug, Clone)]
struct Put {
    body: String,
    version: i64,
    at: Instant,
    since: Timestamp,
}

impl Memory {
    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version of the configuration that has this content, if it was put less than `age` ago.
    pub fn put(&self, uid: &str, body: &str, age: Duration) -> Option<i64> {
        let entries = self.entries();
        let put = entries.get(uid)?.put.as_ref()?;
        (put.body == body && put.at.elapsed() < age).then_some(put.version)
    }

    /// Notes that content was put.
    pub fn was_put(&self, uid: &str, body: String, version: i64) {
        let mut entries = self.entries();
        let put = &mut entries.entry(uid.to_owned()).or_default().put;
        let same = put.as_ref().filter(|put| put.body == body);
        let since = same.map_or_else(Timestamp::now, |put| put.since);
        *put = Some(Put {
            body,
            version,
            at: Instant::now(),
            since,
        });
    }

    /// Since when the object has the content that was put last.
    pub fn put_since(&self, uid: &str) -> Option<Timestamp> {
        Some(self.entries().get(uid)?.put.as_ref()?.since)
    }

    /// Whether this generation has waited for so short a time that nothing need be said yet.
    pub fn waits_quietly(&self, uid: &str, generation: i64) -> bool {
        let mut entries = self.entries();
        let waiting = &mut entries.entry(uid.to_owned()).or_default().waiting;
        match waiting {
            Some((of, since)) if *of == generation => since.elapsed() < QUIET,
            _ => {
                *waiting = Some((generation, Instant::now()));
                true
            }
        }
    }

    /// For how long the object has waited.
    pub fn waited(&self, uid: &str) -> Duration {
        let entries = self.entries();
        let waiting = entries.get(uid).and_then(|entry| entry.waiting);
        waiting.map(|(_, since)| since.elapsed()).unwrap_or_default()
    }

    /// The object waits no longer.
    pub fn waits_no_more(&self, uid: &str) {
        if let Some(entry) = self.entries().get_mut(uid) {
            entry.waiting = None;
        }
    }

    /// What was last known to be stored, if that was asked for this generation and less than `age` ago.
    pub fn usage(&self, uid: &str, generation: i64, age: Duration) -> Option<Usage> {
        let entries = self.entries();
        let (at, of, usage) = entries.get(uid)?.usage.as_ref()?;
        (*of == generation && at.elapsed() < age).then(|| usage.clone())
    }

    /// Notes what is stored.
    pub fn uses(&self, uid: &str, generation: i64, usage: Usage) {
        let known = Some((Instant::now(), generation, usage));
        self.entries().entry(uid.to_owned()).or_default().usage = known;
    }

    /// What was last heard of a retention policy.
    pub fn retention(&self, uid: &str) -> Option<Heard> {
        self.entries().get(uid)?.retention.clone()
    }

    /// Notes what was heard of a retention policy.
    pub fn hears(&self, uid: &str, heard: Heard) {
        self.entries().entry(uid.to_owned()).or_default().retention = Some(heard);
    }

    /// What was last heard of a cache.
    pub fn cache(&self, uid: &str) -> Option<cache::Heard> {
        self.entries().get(uid)?.cache.clone()
    }

    /// Notes what was heard of a cache.
    pub fn hears_cache(&self, uid: &str, heard: cache::Heard) {
        self.entries().entry(uid.to_owned()).or_default().cache = Some(heard);
    }

    /// Looks at, and notes, which Secrets of a tenant could not be had.
    pub fn retries<T>(&self, uid: &str, look: impl FnOnce(&mut Retries) -> T) -> T {
        look(&mut self.entries().entry(uid.to_owned()).or_default().retries)
    }

    /// Forgets an object.
    pub fn forget(&self, uid: &str) {
        self.entries().remove(uid);
    }
}
