//! What is watched: a store and a stream of changes each.
//!
//! A stream that fails is started again with backoff and never ends the others; its store keeps what it last saw.
//! With a list of namespaces every namespaced kind has a watch, and a store, for each.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use berth_crds::{PullThroughCache, Repository, RetentionPolicy, Tenant};
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, select_all, unfold};
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use kube::api::{Api, DynamicObject, PartialObjectMeta};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Predicate, WatchStreamExt as _, predicates, reflector, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::context::scopes;
use crate::settings::Settings;
use crate::tenant::route;
use crate::{MANAGED_BY, MANAGER, TENANT};

/// Changes of objects.
pub type Changes<K> = BoxStream<'static, Result<K, watcher::Error>>;

/// Objects of a kind, from all namespaces that the operator looks at.
#[derive(Clone)]
pub struct Stores<K: Resource + Clone + 'static>
where
    K::DynamicType: Hash + Eq + Clone,
{
    /// One for each watch.
    pub stores: Vec<Store<K>>,
    /// Cancelled once everything has been seen. A store's own promise wakes only the last of several who wait.
    seen: Vec<CancellationToken>,
}

impl<K: Resource + Clone + 'static> Stores<K>
where
    K::DynamicType: Hash + Eq + Clone,
{
    /// All of them.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.stores.iter().flat_map(Store::state).collect()
    }

    /// One of them.
    pub fn get(&self, key: &ObjectRef<K>) -> Option<Arc<K>> {
        self.stores.iter().find_map(|store| store.get(key))
    }

    async fn ready(&self) {
        for seen in &self.seen {
            seen.cancelled().await;
        }
    }
}

/// All stores.
#[derive(Clone)]
pub struct Watched {
    /// All Tenants.
    pub tenants: Stores<Tenant>,
    /// All Repositories.
    pub repositories: Stores<Repository>,
    /// All RetentionPolicies.
    pub policies: Stores<RetentionPolicy>,
    /// All PullThroughCaches.
    pub caches: Stores<PullThroughCache>,
    /// All Namespaces.
    pub namespaces: Stores<PartialObjectMeta<Namespace>>,
    /// Secrets labelled with a tenant.
    pub secrets: Stores<Secret>,
    /// ServiceAccounts, by their metadata.
    pub accounts: Stores<PartialObjectMeta<ServiceAccount>>,
    /// The tenants' routes. The cluster may not know the kind, so that nobody waits for them.
    pub routes: Option<Store<DynamicObject>>,
}

impl Watched {
    /// Waits until everything has been seen once: what is not in a store is then not there.
    pub async fn ready(&self) {
        self.tenants.ready().await;
        self.namespaces.ready().await;
        self.repositories.ready().await;
        self.policies.ready().await;
        self.caches.ready().await;
        self.secrets.ready().await;
        self.accounts.ready().await;
    }
}

/// All streams; those of kinds that a namespace declares one for each store.
pub struct Streams {
    /// Of Tenants.
    pub tenants: Changes<Tenant>,
    /// Of Repositories.
    pub repositories: Vec<Changes<Repository>>,
    /// Of RetentionPolicies.
    pub policies: Vec<Changes<RetentionPolicy>>,
    /// Of PullThroughCaches.
    pub caches: Vec<Changes<PullThroughCache>>,
    /// Of Namespaces.
    pub namespaces: Changes<PartialObjectMeta<Namespace>>,
    /// Of Secrets labelled with a tenant.
    pub secrets: Changes<Secret>,
    /// Of ServiceAccounts.
    pub accounts: Changes<PartialObjectMeta<ServiceAccount>>,
    /// Of routes.
    pub routes: Option<Changes<DynamicObject>>,
}

/// Stores and streams; nothing is asked before the streams are polled.
pub fn prepare(settings: &Settings, client: &Client) -> (Watched, Streams) {
    let labelled = |labels: &str| watcher::Config::default().labels(labels);
    let every = watcher::Config::default;
    let of_ours = match &settings.tenant_selector {
        Some(selector) => labelled(selector),
        None => every(),
    };
    let (tenants, tenant_changes) = watch_all(vec![Api::all(client.clone())], &of_ours, spec);
    let (repositories, repository_changes) = watch_all(scopes(settings, client), &every(), spec);
    let (policies, policy_changes) = watch_all(scopes(settings, client), &every(), spec);
    let (caches, cache_changes) = watch_all(scopes(settings, client), &every(), spec);
    let (namespaces, namespace_changes) = watch_all(vec![Api::all(client.clone())], &every(), labels);
    let (secrets, secret_changes) = watch_all(scopes(settings, client), &labelled(TENANT), any);
    let (accounts, account_changes) = watch_all(scopes(settings, client), &every(), any);
    let (routes, route_changes) = match route::resource(settings.exposure) {
        Some(resource) => {
            let api = Api::namespaced_with(client.clone(), &settings.namespace, &resource);
            let writer = Writer::new(resource);
            let store = writer.as_reader();
            let config = labelled(&format!("{MANAGED_BY}={MANAGER},{TENANT}"));
            let seen = CancellationToken::new();
            (Some(store), Some(changes(api, config, writer, seen, any)))
        }
        None => (None, None),
    };
    let watched = Watched {
        tenants,
        repositories,
        policies,
        caches,
        namespaces,
        secrets,
        accounts,
        routes,
    };
    let streams = Streams {
        tenants: select_all(tenant_changes).boxed(),
        repositories: repository_changes,
        policies: policy_changes,
        caches: cache_changes,
        namespaces: select_all(namespace_changes).boxed(),
        secrets: select_all(secret_changes).boxed(),
        accounts: select_all(account_changes).boxed(),
        routes: route_changes,
    };
    (watched, streams)
}

/// What a person changes: status updates are our own.
fn spec<K: Resource>(object: &K) -> Option<u64> {
    predicates::generation
        .combine(predicates::labels)
        .combine(predicates::annotations)
        .combine(predicates::finalizers)
        .hash_property(object)
}

/// Labels, and that it is about to go.
fn labels<K: Resource>(object: &K) -> Option<u64> {
    let going = |object: &K| Some(u64::from(object.meta().deletion_timestamp.is_some()));
    predicates::labels.combine(going).hash_property(object)
}

fn any<K: Resource>(object: &K) -> Option<u64> {
    predicates::resource_version(object)
}

fn watch_all<K>(
    apis: Vec<Api<K>>,
    config: &watcher::Config,
    predicate: impl Predicate<K> + Copy + Send + 'static,
) -> (Stores<K>, Vec<Changes<K>>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default + Hash + Eq + Clone + Debug + Unpin + Send + Sync,
{
    let mut streams = Vec::new();
    let mut all = Stores {
        stores: Vec::new(),
        seen: Vec::new(),
    };
    for api in apis {
        let (store, writer) = reflector::store();
        let seen = CancellationToken::new();
        streams.push(changes(api, config.clone(), writer, seen.clone(), predicate));
        all.stores.push(store);
        all.seen.push(seen);
    }
    (all, streams)
}

fn changes<K>(
    api: Api<K>,
    config: watcher::Config,
    writer: Writer<K>,
    seen: CancellationToken,
    predicate: impl Predicate<K> + Send + 'static,
) -> Changes<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq + Clone + Debug + Unpin + Send + Sync,
{
    let kind = std::any::type_name::<K>();
    let changes = watching(api, config)
        .default_backoff()
        .reflect(writer)
        .inspect(move |event| {
            if let Ok(watcher::Event::InitDone) = event {
                seen.cancel();
            }
        })
        .touched_objects()
        .predicate_filter(predicate, Default::default());
    changes
        .filter_map(move |change| async move {
            match change {
                Ok(object) => Some(Ok(object)),
                // One stream's error would hold back the others of a controller.
                Err(error) => {
                    tracing::warn!(%error, kind, "a watch failed and starts again");
                    None
                }
            }
        })
        .boxed()
}

/// Watches for ever. kube-rs lists anew when an event says that the version to watch from is too old (410), as
/// kube-apiserver has it; told so by the answer's status, as by what stands before other API servers, it would ask for the
/// same version for ever. Then the watch is begun anew.
fn watching<K>(
    api: Api<K>,
    config: watcher::Config,
) -> BoxStream<'static, Result<watcher::Event<K>, watcher::Error>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let begun = unfold(None, move |watch| {
        let mut watch = watch.unwrap_or_else(|| watcher(api.clone(), config.clone()).boxed());
        async move {
            let event = watch.next().await?;
            let is_gone = matches!(
                &event,
                Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) if status.code == 410
            );
            Some((event, (!is_gone).then_some(watch)))
        }
    });
    begun.boxed()
}

#[cfg(test)]
#[path = "watches_tests.rs"]
mod tests;
