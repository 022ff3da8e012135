//! Objects that the API server stores and this operator cannot read: each is told so in its own status, and none of them
//! keeps others from going on.
//!
//! What the registry was told before stays as it was: the store keeps the content that was last read, and what has not
//! been read since the start counts as alive. One that is to go is let go; the registry is told of it by the sweep.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, PartialObjectMetaExt as _};
use kube::core::ApiResource;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::events::EventType;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::backoff::jittered;
use crate::condition::{Fact, State, Verdict, conditions};
use crate::context::Context;
use crate::metrics::Outcome;
use crate::status::{self, Status};
use crate::tolerant::{Tolerant, Unread};
use crate::watches::Stores;
use crate::{FINALIZER, PAUSED, finalizer};

/// Between two attempts to say it.
const RETRY: Duration = Duration::from_secs(10);
/// Changes within this time are told together.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Namespace, empty without one, and name.
type Key = (String, String);
type Objects = HashMap<Key, Arc<Unread>>;

fn locked(objects: &Mutex<Objects>) -> MutexGuard<'_, Objects> {
    objects.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The objects of a kind that cannot be read.
#[derive(Debug, Default)]
pub struct Unreadable {
    objects: Mutex<Objects>,
    changed: Notify,
}

impl Unreadable {
    /// All of them.
    pub fn all(&self) -> Vec<Arc<Unread>> {
        locked(&self.objects).values().cloned().collect()
    }

    /// Whether this object is one; the namespace is empty where the kind has none.
    pub fn has(&self, namespace: &str, name: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        locked(&self.objects).contains_key(&key)
    }

    fn note(&self, unread: Unread) {
        locked(&self.objects).insert(key(&unread.object), Arc::new(unread));
        self.changed.notify_one();
    }

    fn remove(&self, key: &Key) {
        if locked(&self.objects).remove(key).is_some() {
            self.changed.notify_one();
        }
    }

    /// What a list had: all of a namespace, or of all.
    fn replace(&self, namespace: Option<&str>, listed: Objects) {
        let mut objects = locked(&self.objects);
        objects.retain(|(other, _), _| namespace.is_some_and(|namespace| namespace != other));
        objects.extend(listed);
        drop(objects);
        self.changed.notify_one();
    }
}

fn key(object: &impl Resource) -> Key {
    let meta = object.meta();
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// Takes what cannot be read out of a watch's events, and puts the others into a store. What takes the place of the one is
/// what the store last had of it.
pub fn sorted<K>(
    events: impl Stream<Item = watcher::Result<Event<Tolerant<K>>>> + Send + 'static,
    namespace: Option<String>,
    writer: Writer<K>,
    unreadable: Arc<Unreadable>,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let listed = Arc::new(Mutex::new(HashMap::new()));
    let sorter = Sorter {
        store: writer.as_reader(),
        unreadable: unreadable.clone(),
        listed: listed.clone(),
    };
    let readable = events.filter_map(move |event| {
        let event = event.map(|event| sorter.sort(event)).transpose();
        std::future::ready(event)
    });
    // Only once the store has them are they out of here: the sweep must see each in one of the two.
    readable.reflect(writer).inspect(move |event| match event {
        Ok(Event::Apply(object) | Event::Delete(object)) => unreadable.remove(&key(object)),
        Ok(Event::InitDone) => {
            let listed = std::mem::take(&mut *locked(&listed));
            unreadable.replace(namespace.as_deref(), listed);
        }
        Ok(Event::Init | Event::InitApply(_)) | Err(_) => {}
    })
}

struct Sorter<K: Resource<DynamicType = ()> + 'static> {
    store: Store<K>,
    unreadable: Arc<Unreadable>,
    listed: Arc<Mutex<Objects>>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Sorter<K> {
    /// The event as it is without what cannot be read.
    fn sort(&self, event: Event<Tolerant<K>>) -> Option<Event<K>> {
        match event {
            Event::Init => {
                locked(&self.listed).clear();
                Some(Event::Init)
            }
            Event::InitApply(Tolerant(Ok(object))) => Some(Event::InitApply(object)),
            Event::InitApply(Tolerant(Err(unread))) => {
                let last = self.last(&unread);
                locked(&self.listed).insert(key(&unread.object), Arc::new(*unread));
                last.map(Event::InitApply)
            }
            Event::InitDone => Some(Event::InitDone),
            Event::Apply(Tolerant(Ok(object))) => Some(Event::Apply(object)),
            Event::Apply(Tolerant(Err(unread))) => {
                self.unreadable.note(*unread);
                None
            }
            Event::Delete(Tolerant(Ok(object))) => Some(Event::Delete(object)),
            Event::Delete(Tolerant(Err(unread))) => {
                let last = self.last(&unread);
                self.unreadable.remove(&key(&unread.object));
                last.map(Event::Delete)
            }
        }
    }

    /// The object as it was when it could still be read.
    fn last(&self, unread: &Unread) -> Option<K> {
        let (namespace, name) = key(&unread.object);
        let mut reference = ObjectRef::<K>::new(&name);
        if !namespace.is_empty() {
            reference = reference.within(&namespace);
        }
        let last = self.store.get(&reference)?;
        (last.meta().uid == unread.object.metadata.uid).then(|| K::clone(&last))
    }
}

/// Tells each object that cannot be read so in its status, and lets those go that are to go; for ever.
pub async fn tell<K, S>(ctx: Arc<Context>, stores: Stores<K>, kind: &'static str)
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    S: Status,
{
    let mut let_go = HashSet::new();
    loop {
        let mut wait = jittered(ctx.settings.resync);
        let all = stores.unreadable.all();
        for unread in &all {
            match tell_one::<K, S>(&ctx, unread, kind).await {
                Ok(true) => drop(let_go.insert(unread.object.uid())),
                Ok(false) => {}
                Err(error) => {
                    let object = unread.object.name_any();
                    tracing::warn!(%error, object, kind, "an object that cannot be read was not told so");
                    wait = RETRY;
                }
            }
        }
        let uids: HashSet<_> = all.iter().map(|unread| unread.object.uid()).collect();
        let before = let_go.len();
        let_go.retain(|uid| uids.contains(uid));
        if let_go.len() < before {
            ctx.untold.notify_one();
        }
        tokio::select! {
            () = stores.unreadable.changed.notified() => tokio::time::sleep(DEBOUNCE).await,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Whether the object was let go.
async fn tell_one<K, S>(ctx: &Context, unread: &Unread, kind: &'static str) -> Result<bool, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone,
    S: Status,
{
    let object = &unread.object;
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(ctx.client.clone(), &namespace, &resource),
        None => Api::all_with(ctx.client.clone(), &resource),
    };
    let meta = object.metadata.clone().into_request_partial::<K>();
    if object.metadata.deletion_timestamp.is_some() {
        if !object.finalizers().iter().any(|name| name == FINALIZER) {
            return Ok(false);
        }
        let note = format!(
            "let go although it cannot be read; the registry is told, and what is stored stays: {}",
            unread.why
        );
        status::publish(ctx, &meta, EventType::Warning, "ReleasedUnread", &note).await;
        finalizer::remove(&api, object).await?;
        return Ok(true);
    }
    if object.annotations().contains_key(PAUSED) {
        return Ok(false);
    }
    let verdict = Verdict::Stalled(
        "Invalid",
        format!(
            "it cannot be read, and what was served of it stays: {}",
            unread.why
        ),
    );
    let old = unread.conditions();
    let status = told(unread, &old, &verdict);
    if object.data.get("status") == Some(&status) {
        return Ok(false);
    }
    status::apply::<K, _, S>(ctx, &api, &object.name_any(), status).await?;
    status::tell(ctx, &meta, &old, &verdict).await;
    ctx.metrics.reconciled(kind, Outcome::Stalled, Duration::ZERO);
    Ok(false)
}

/// The status with the verdict in it. What else it says, nobody has found out anew.
fn told(unread: &Unread, old: &[Condition], verdict: &Verdict) -> Value {
    let generation = unread.object.metadata.generation.unwrap_or_default();
    let mut facts = verdict.facts().to_vec();
    facts.push(Fact::new(
        "Programmed",
        State::False,
        verdict.reason(),
        verdict.message(),
    ));
    let mut all = conditions(old, &facts, generation, &Time(Timestamp::now()));
    let others = old
        .iter()
        .filter(|old| facts.iter().all(|fact| fact.aspect != old.type_));
    all.extend(others.cloned());
    let mut status = unread.object.data.get("status").cloned().unwrap_or_default();
    if !status.is_object() {
        status = json!({});
    }
    status["observedGeneration"] = json!(generation);
    status["conditions"] = json!(all);
    status
}

#[cfg(test)]
#[path = "unreadable_tests.rs"]
mod tests;
