//! A watch's stream of changes: begun anew whenever it ends, into a store, and out of it what concerns controllers.

use std::fmt::{self, Debug, Display, Formatter};
use std::hash::Hash;

use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, Stream, iter, unfold};
use kube::Resource;
use kube::api::Api;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{Predicate, WatchStreamExt as _, watcher as watch};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::watches::Namespaces;

/// Changes of objects.
pub type Changes<K> = BoxStream<'static, Result<K, watcher::Error>>;

/// What one watch looks at, and whether it has seen it.
#[derive(Clone)]
pub struct Place {
    kind: &'static str,
    namespace: Option<(String, Namespaces)>,
    /// Cancelled once everything has been seen. A store's own promise wakes only the last of several who wait.
    seen: CancellationToken,
}

impl Place {
    /// Objects of a kind, by its plural; of a namespace that is among these, or of all.
    pub fn new(kind: &'static str, namespace: Option<(String, Namespaces)>) -> Self {
        Self {
            kind,
            namespace,
            seen: CancellationToken::new(),
        }
    }

    /// The one namespace that it looks at.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_ref().map(|(name, _)| name.as_str())
    }

    /// Whether it has seen everything once.
    pub fn is_seen(&self) -> bool {
        self.seen.is_cancelled()
    }

    /// It has.
    pub fn see(&self) {
        self.seen.cancel();
    }

    /// Waits for that.
    pub async fn seen(&self) {
        self.seen.cancelled().await;
    }

    /// A namespace that is gone, or about to go, has taken the right to look at it along: nothing is there to be seen.
    /// Others must not wait for it. Whoever makes it again is heard as soon as a list succeeds.
    fn failed(&self, error: &watcher::Error) {
        let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error else {
            return;
        };
        let Some((name, namespaces)) = &self.namespace else {
            return;
        };
        if self.is_seen() || !matches!(status.code, 403 | 404) || !namespaces.is_ready() {
            return;
        }
        let found = namespaces.get(&ObjectRef::new(name));
        if found.is_none_or(|found| found.meta().deletion_timestamp.is_some()) {
            tracing::warn!(
                namespace = name,
                kind = self.kind,
                "the namespace is gone: nothing of it is waited for"
            );
            self.see();
        }
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some((namespace, _)) => write!(f, "{} of {namespace}", self.kind),
            None => f.write_str(self.kind),
        }
    }
}

/// Passes on in what `predicate` sees a difference, of what a watch has told the store.
///
/// What a list has is passed on once the store has it all: a look in between would find the old content.
pub fn changes<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    store: Store<K>,
    place: Place,
    predicate: impl Predicate<K> + Send + 'static,
) -> Changes<K>
where
    K: Resource + Clone + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq + Clone + Debug + Unpin + Send + Sync,
{
    let kind = std::any::type_name::<K>();
    let changes = events.flat_map(move |event| {
        let objects = match event {
            Ok(Event::Apply(object) | Event::Delete(object)) => vec![Ok(object)],
            Ok(Event::Init | Event::InitApply(_)) => Vec::new(),
            Ok(Event::InitDone) => {
                place.see();
                let listed = store.state().into_iter();
                listed.map(|object| Ok(K::clone(&object))).collect()
            }
            Err(error) => {
                place.failed(&error);
                vec![Err(error)]
            }
        };
        iter(objects)
    });
    changes
        .predicate_filter(predicate, Default::default())
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
pub fn watching<K>(
    api: Api<K>,
    config: watcher::Config,
) -> BoxStream<'static, Result<Event<K>, watcher::Error>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let begun = unfold(None, move |stream| {
        let mut stream = stream.unwrap_or_else(|| watch(api.clone(), config.clone()).boxed());
        async move {
            let event = stream.next().await?;
            let is_gone = matches!(
                &event,
                Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) if status.code == 410
            );
            Some((event, (!is_gone).then_some(stream)))
        }
    });
    begun.boxed()
}
