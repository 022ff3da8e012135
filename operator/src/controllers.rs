//! Which change makes which object be looked at, and by whom.

use std::sync::Arc;
use std::time::Duration;

use berth_crds::{PullThroughCache, Repository, RetentionPolicy, Tenant, TenantStatus};
use futures_util::stream::{Stream, StreamExt as _, iter, unfold};
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use kube::ResourceExt as _;
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use crate::backoff::jittered;
use crate::context::Context;
use crate::declared::{self, Declared};
use crate::trouble::Trouble;
use crate::watches::{Changes, Stores, Streams};
use crate::{TENANT, tenant, unreadable};

/// Changes within this time are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Between two looks at the keys of the cluster's service accounts.
const KEYS_EVERY: Duration = Duration::from_secs(15);
/// Between two looks at whether an object can be read again.
const UNREAD_EVERY: Duration = Duration::from_secs(10);
/// News that a slow listener may be behind; one that is further behind looks at everything.
const NEWS: usize = 1024;

/// What objects of namespaces depend on.
#[derive(Debug, Clone)]
enum News {
    Tenant(String),
    Namespace(String),
    Secret(String, String),
}

/// Starts all controllers.
pub fn start(ctx: &Arc<Context>, streams: Streams, tasks: &mut JoinSet<()>) {
    let (news, _) = broadcast::channel(NEWS);
    declare::<Repository>(ctx, streams.repositories, &news, tasks);
    declare::<RetentionPolicy>(ctx, streams.policies, &news, tasks);
    declare::<PullThroughCache>(ctx, streams.caches, &news, tasks);
    let told = unreadable::tell::<Tenant, TenantStatus>(ctx.clone(), ctx.watched.tenants.clone(), "Tenant");
    tasks.spawn(told);
    let tenants = Tenants {
        tenants: tell(streams.tenants, &news, |tenant: &Tenant| {
            News::Tenant(tenant.name_any())
        }),
        namespaces: tell(
            streams.namespaces,
            &news,
            |namespace: &PartialObjectMeta<Namespace>| News::Namespace(namespace.name_any()),
        ),
        secrets: tell(streams.secrets, &news, |secret: &Secret| {
            News::Secret(secret.namespace().unwrap_or_default(), secret.name_any())
        }),
        accounts: streams.accounts,
        routes: streams.routes,
    };
    tasks.spawn(tenants.run(ctx.clone()));
}

/// Passes changes on, and tells them.
fn tell<K: Send + 'static>(
    changes: Changes<K>,
    news: &broadcast::Sender<News>,
    what: impl Fn(&K) -> News + Send + 'static,
) -> Changes<K> {
    let news = news.clone();
    changes
        .inspect(move |change| {
            if let Ok(object) = change {
                // Nobody listens before the first controller of a namespaced kind runs, and need not.
                let _ = news.send(what(object));
            }
        })
        .boxed()
}

fn config(ctx: &Context) -> Config {
    Config::default()
        .debounce(DEBOUNCE)
        .concurrency(ctx.settings.concurrency)
}

/// What makes Tenants be looked at.
struct Tenants {
    tenants: Changes<Tenant>,
    namespaces: Changes<PartialObjectMeta<Namespace>>,
    secrets: Changes<Secret>,
    accounts: Changes<PartialObjectMeta<ServiceAccount>>,
    routes: Option<Changes<DynamicObject>>,
}

impl Tenants {
    async fn run(self, ctx: Arc<Context>) {
        let [of_namespaces, of_accounts] = [(); 2].map(|()| ctx.watched.tenants.clone());
        let mut controller = Controller::for_stream(self.tenants, ctx.watched.tenants.stores[0].clone())
            .with_config(config(&ctx))
            .reconcile_on(new_keys(ctx.clone()))
            .watches_stream(self.namespaces, move |_| refs(&of_namespaces, selects_namespaces))
            .watches_stream(self.secrets, |secret| labelled(secret.labels()))
            .watches_stream(self.accounts, move |account| {
                refs(&of_accounts, |tenant| pulls_by(tenant, &account.name_any()))
            });
        if let (Some(routes), Some(resource)) = (self.routes, tenant::route::resource(ctx.settings.exposure))
        {
            controller = controller.watches_stream_with(routes, |route| labelled(route.labels()), resource);
        }
        let reconcile = async |tenant: Arc<Tenant>, ctx: Arc<Context>| {
            ctx.watched.ready().await;
            if ctx.watched.tenants.unreadable.has("", &tenant.name_any()) {
                return Ok(Action::requeue(UNREAD_EVERY));
            }
            tenant::reconcile(tenant, ctx).await
        };
        let retry = |tenant: Arc<Tenant>, error: &Trouble, ctx: Arc<Context>| {
            again(&ctx, &format!("Tenant/{}", tenant.name_any()), error)
        };
        controller.run(reconcile, retry, ctx).for_each(async |_| ()).await;
    }
}

/// Tenants that trust service accounts, whenever the cluster's keys have changed. Nothing tells it, so that it is asked.
fn new_keys(ctx: Arc<Context>) -> impl Stream<Item = ObjectRef<Tenant>> + Send + 'static {
    let changes = unfold((ctx, 0), async |(ctx, seen)| {
        tokio::time::sleep(jittered(KEYS_EVERY)).await;
        let mut concerned = refs(&ctx.watched.tenants, trusts_accounts);
        if !concerned.is_empty()
            && let Err(error) = ctx.cluster_keys.read(&ctx.client).await
        {
            tracing::warn!(%error, "the keys of the cluster's service accounts cannot be read");
        }
        // Whoever reads them may find the change; the others are told here.
        let changes = ctx.cluster_keys.changes();
        if changes == seen {
            concerned.clear();
        }
        Some((iter(concerned), (ctx, changes)))
    });
    changes.flatten()
}

fn trusts_accounts(tenant: &Tenant) -> bool {
    tenant
        .spec
        .trust
        .iter()
        .any(|rule| rule.service_accounts.is_some())
}

fn labelled(labels: &std::collections::BTreeMap<String, String>) -> Option<ObjectRef<Tenant>> {
    labels.get(TENANT).map(|name| ObjectRef::new(name))
}

fn refs(tenants: &Stores<Tenant>, wanted: impl Fn(&Tenant) -> bool) -> Vec<ObjectRef<Tenant>> {
    let all = tenants.all();
    let wanted = all.iter().filter(|tenant| wanted(tenant));
    wanted
        .map(|tenant| ObjectRef::from_obj(tenant.as_ref()))
        .collect()
}

/// Whether labels of namespaces decide anything about the tenant itself.
fn selects_namespaces(tenant: &Tenant) -> bool {
    let spec = &tenant.spec;
    spec.pull_secrets.is_some()
        || !spec.tokens.is_empty()
        || spec.webhooks.iter().any(|webhook| webhook.secret_ref.is_some())
        || trusts_accounts(tenant)
}

fn pulls_by(tenant: &Tenant, account: &str) -> bool {
    let pull = tenant.spec.pull_secrets.as_ref();
    pull.is_some_and(|pull| pull.service_accounts.iter().any(|name| name == account))
}

/// A controller for each of the kind's stores.
fn declare<K: Declared>(
    ctx: &Arc<Context>,
    streams: Vec<Changes<K>>,
    news: &broadcast::Sender<News>,
    tasks: &mut JoinSet<()>,
) {
    let told = unreadable::tell::<K, K::Status>(ctx.clone(), K::all(ctx).clone(), K::KIND);
    tasks.spawn(told);
    for (stream, store) in streams.into_iter().zip(K::all(ctx).stores.clone()) {
        let heard = hear(news.subscribe(), store.clone());
        let controller = Controller::for_stream(stream, store)
            .with_config(config(ctx))
            .reconcile_on(heard);
        let reconcile = async |object: Arc<K>, ctx: Arc<Context>| {
            ctx.watched.ready().await;
            let namespace = object.namespace().unwrap_or_default();
            if K::all(&ctx).unreadable.has(&namespace, &object.name_any()) {
                return Ok(Action::requeue(UNREAD_EVERY));
            }
            declared::reconcile::<K>(object, ctx).await
        };
        let retry = |object: Arc<K>, error: &Trouble, ctx: Arc<Context>| {
            let namespace = object.namespace().unwrap_or_default();
            again(
                &ctx,
                &format!("{}/{namespace}/{}", K::KIND, object.name_any()),
                error,
            )
        };
        let running = controller.run(reconcile, retry, ctx.clone());
        tasks.spawn(running.for_each(async |_| ()));
    }
}

/// Objects of a store that news is about.
fn hear<K: Declared>(
    news: broadcast::Receiver<News>,
    store: Store<K>,
) -> impl Stream<Item = ObjectRef<K>> + Send + 'static {
    let concerned = unfold((news, store), async |(mut news, store)| {
        let heard = match news.recv().await {
            Ok(heard) => Some(heard),
            // Too much at once: everything is looked at.
            Err(RecvError::Lagged(_)) => None,
            Err(RecvError::Closed) => return None,
        };
        let concerns = |object: &K| match &heard {
            None => true,
            Some(News::Tenant(name)) => object.tenant() == name,
            Some(News::Namespace(name)) => object.namespace().as_ref() == Some(name),
            Some(News::Secret(namespace, name)) => {
                object.namespace().as_ref() == Some(namespace) && object.secrets().contains(&name.as_str())
            }
        };
        let objects = store.state();
        let found: Vec<ObjectRef<K>> = objects
            .iter()
            .filter(|object| concerns(object))
            .map(|object| ObjectRef::from_obj(object.as_ref()))
            .collect();
        Some((iter(found), (news, store)))
    });
    concerned.flatten()
}

fn again(ctx: &Context, key: &str, error: &Trouble) -> Action {
    tracing::warn!(%error, object = key, "a look at an object failed and is repeated");
    Action::requeue(ctx.failures.next(key))
}
