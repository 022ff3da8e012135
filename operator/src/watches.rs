//! What is watched: a store and a stream of changes each.
//!
//! A stream that fails is started again with backoff and never ends the others; its store keeps what it last saw.
//! With a list of namespaces every namespaced kind has a watch, and a store, for each. An object of ours that cannot be
//! read is in no store unless it could be read before (`unreadable.rs`).

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use berth_crds::{PullThroughCache, Repository, RetentionPolicy, Tenant};
use futures_util::StreamExt as _;
use futures_util::stream::select_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use kube::api::{Api, DynamicObject, PartialObjectMeta};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Predicate, WatchStreamExt as _, predicates, reflector, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

pub use crate::changes::Changes;
use crate::changes::{Place, changes, watching};
use crate::context::scopes;
use crate::settings::Settings;
use crate::tenant::route;
use crate::tolerant::Tolerant;
use crate::unreadable::{Unreadable, sorted};
use crate::{MANAGED_BY, MANAGER, TENANT};

/// What is known of all Namespaces.
pub type Namespaces = Stores<PartialObjectMeta<Namespace>>;

/// Objects of a kind, from all namespaces that the operator looks at.
#[derive(Clone)]
pub struct Stores<K: Resource + Clone + 'static>
where
    K::DynamicType: Hash + Eq + Clone,
{
    /// One for each watch.
    pub stores: Vec<Store<K>>,
    /// Objects that could not be read when they were last seen.
    pub unreadable: Arc<Unreadable>,
    places: Vec<Place>,
}

impl<K: Resource + Clone + 'static> Stores<K>
where
    K::DynamicType: Hash + Eq + Clone,
{
    fn empty() -> Self {
        Self {
            stores: Vec::new(),
            unreadable: Arc::default(),
            places: Vec::new(),
        }
    }

    fn add(&mut self, store: Store<K>, place: Place) {
        self.stores.push(store);
        self.places.push(place);
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.stores.iter().flat_map(Store::state).collect()
    }

    /// One of them.
    pub fn get(&self, key: &ObjectRef<K>) -> Option<Arc<K>> {
        self.stores.iter().find_map(|store| store.get(key))
    }

    /// Uids of all objects that are there, whether they can be read or not.
    pub fn uids(&self) -> HashSet<String> {
        // In this order: what can be read again is in its store before it is out of these.
        let unread = self.unreadable.all();
        let mut uids: HashSet<String> = unread
            .iter()
            .filter_map(|unread| unread.object.metadata.uid.clone())
            .collect();
        let read = self.all().into_iter();
        uids.extend(read.filter_map(|object| object.meta().uid.clone()));
        uids
    }

    /// Whether everything has been seen once.
    pub fn is_ready(&self) -> bool {
        self.places.iter().all(Place::is_seen)
    }

    async fn ready(&self) {
        for place in &self.places {
            place.seen().await;
        }
    }

    /// What has not been seen yet, in words.
    fn unseen(&self) -> impl Iterator<Item = String> {
        let unseen = self.places.iter().filter(|place| !place.is_seen());
        unseen.map(ToString::to_string)
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
    pub namespaces: Namespaces,
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

    /// What has not been seen yet, in words.
    pub fn unseen(&self) -> Vec<String> {
        let kinds = self.tenants.unseen().chain(self.namespaces.unseen());
        let declared = self.repositories.unseen().chain(self.policies.unseen());
        let declared = declared.chain(self.caches.unseen());
        let others = self.secrets.unseen().chain(self.accounts.unseen());
        kinds.chain(declared).chain(others).collect()
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
    let cluster = |kind| Place::new(kind, None);
    let (namespaces, namespace_changes) = watch(
        vec![(Api::all(client.clone()), cluster("Namespaces"))],
        &every(),
        labels,
    );
    let (tenants, tenant_changes) = watch_ours(
        vec![(Api::all(client.clone()), cluster("Tenants"))],
        &of_ours,
        spec,
    );
    let declared = Scopes {
        settings,
        client,
        namespaces: &namespaces,
    };
    let (repositories, repository_changes) = watch_ours(declared.of("Repositories"), &every(), spec);
    let (policies, policy_changes) = watch_ours(declared.of("RetentionPolicies"), &every(), spec);
    let (caches, cache_changes) = watch_ours(declared.of("PullThroughCaches"), &every(), spec);
    let (secrets, secret_changes) = watch(declared.of("Secrets"), &labelled(TENANT), any);
    let (accounts, account_changes) = watch(declared.of("ServiceAccounts"), &every(), any);
    let (routes, route_changes) = match route::resource(settings.exposure) {
        Some(resource) => {
            let api = Api::<DynamicObject>::namespaced_with(client.clone(), &settings.namespace, &resource);
            let writer = Writer::new(resource);
            let store = writer.as_reader();
            let config = labelled(&format!("{MANAGED_BY}={MANAGER},{TENANT}"));
            let events = watching(api, config).default_backoff().reflect(writer);
            let changes = changes(events, store.clone(), cluster("routes"), any);
            (Some(store), Some(changes))
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

/// Where objects of namespaces are asked for.
struct Scopes<'a> {
    settings: &'a Settings,
    client: &'a Client,
    namespaces: &'a Namespaces,
}

impl Scopes<'_> {
    /// For all namespaces, or for each that was named.
    fn of<K>(&self, kind: &'static str) -> Vec<(Api<K>, Place)>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        let named = self.settings.namespaces.iter();
        let mut places: Vec<Place> = named
            .map(|namespace| Place::new(kind, Some((namespace.clone(), self.namespaces.clone()))))
            .collect();
        if places.is_empty() {
            places.push(Place::new(kind, None));
        }
        scopes(self.settings, self.client)
            .into_iter()
            .zip(places)
            .collect()
    }
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

/// Stores and streams of others' kinds, which are read as they are.
fn watch<K>(
    scopes: Vec<(Api<K>, Place)>,
    config: &watcher::Config,
    predicate: impl Predicate<K> + Copy + Send + 'static,
) -> (Stores<K>, Vec<Changes<K>>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (mut all, mut streams) = (Stores::empty(), Vec::new());
    for (api, place) in scopes {
        let (store, writer) = reflector::store();
        let events = watching(api, config.clone()).default_backoff().reflect(writer);
        streams.push(changes(events, store.clone(), place.clone(), predicate));
        all.add(store, place);
    }
    (all, streams)
}

/// Stores and streams of our own kinds, of which some objects may be more than can be read.
fn watch_ours<K>(
    scopes: Vec<(Api<Tolerant<K>>, Place)>,
    config: &watcher::Config,
    predicate: impl Predicate<K> + Copy + Send + 'static,
) -> (Stores<K>, Vec<Changes<K>>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (mut all, mut streams) = (Stores::empty(), Vec::new());
    for (api, place) in scopes {
        let (store, writer) = reflector::store();
        let events = watching(api, config.clone()).default_backoff();
        let namespace = place.namespace().map(str::to_owned);
        let events = sorted(events, namespace, writer, all.unreadable.clone());
        streams.push(changes(events, store.clone(), place.clone(), predicate));
        all.add(store, place);
    }
    (all, streams)
}

#[cfg(test)]
#[path = "watches_tests.rs"]
mod tests;
