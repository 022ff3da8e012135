//! The operator of the previous release, of this one, and of the previous again: on objects that each of them left.
//!
//! The definitions in the cluster and the operator's flags are this release's throughout, as after an upgrade of the chart; what
//! the previous operator does not know of them must not stop it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::http::{attempt, client};
use harness::{Backend, Installation, RoundRobin, Signal, eventually};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Berth, DRAIN, Image, PATIENCE, Repository, previous, this};

/// A tenant with a namespace that gets its pull Secret and declares a repository.
struct Settled {
    name: String,
    apps: String,
}

impl Settled {
    async fn new(berth: &Installation, suffix: &str) -> Settled {
        let name = berth.name(suffix);
        let apps = berth
            .namespace(&format!("{suffix}-apps"), json!({ "pull": name }))
            .await;
        let spec = json!({
            "allowedNamespaces": { "from": "All" },
            "pullSecrets": { "namespaceSelector": { "matchLabels": { "pull": name } } },
        });
        let repository = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Repository",
            "metadata": { "name": "app", "namespace": apps },
            "spec": { "tenantRef": { "name": name }, "name": "app", "immutableTags": ["v*"] },
        });
        for object in [berth.tenant(&name, spec), repository] {
            berth.plane.apply(object).await.expect("it is accepted");
        }
        let settled = Settled { name, apps };
        settled.ready(berth).await;
        settled
    }

    async fn ready(&self, berth: &Installation) {
        for (kind, namespace, name) in [
            ("Tenant", "", self.name.as_str()),
            ("Repository", &self.apps, "app"),
        ] {
            berth
                .plane
                .wait_for(kind, namespace, name, "Ready", "True", "")
                .await;
        }
    }

    fn host(&self) -> String {
        format!("{}.registry.test", self.name)
    }

    /// The password of the pull Secret as it is now.
    async fn password(&self, berth: &Installation) -> String {
        let secret = berth
            .plane
            .find("Secret", &self.apps, &format!("berth-{}", self.name))
            .await
            .expect("the pull Secret");
        let data = secret["data"][".dockerconfigjson"].as_str().expect("an entry");
        let logins: Value = serde_json::from_slice(&STANDARD.decode(data).expect("base64")).expect("JSON");
        let password = logins["auths"][self.host().as_str()]["password"].as_str();
        password.expect("a password").to_owned()
    }
}

/// Pulls with one Secret's password, over and over; while nothing listens it waits.
struct Puller {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    task: JoinHandle<Vec<String>>,
}

impl Puller {
    fn start(url: String, host: String, password: String) -> Puller {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, count) = (stop.clone(), answered.clone());
        let task = tokio::spawn(async move {
            let (http, mut wrong) = (client(), Vec::new());
            while !ended.load(Ordering::Relaxed) {
                let request = http
                    .get(&url)
                    .header("host", &host)
                    .basic_auth("x-token", Some(&password));
                match attempt(request).await.map(|answer| answer.status.as_u16()) {
                    Some(200) => drop(count.fetch_add(1, Ordering::Relaxed)),
                    Some(status) => wrong.push(status.to_string()),
                    // A single replica is away for a moment.
                    None => tokio::task::yield_now().await,
                }
            }
            wrong
        });
        Puller { stop, answered, task }
    }

    /// Waits for further pulls that succeed.
    async fn goes_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually("pulls go on", PATIENCE, async || {
            (self.answered.load(Ordering::Relaxed) >= before + 20).then_some(())
        })
        .await;
    }
}

/// The operator ends and comes back as another release, which must look at everything there is.
async fn operator_becomes(berth: &mut Installation, number: usize, registry: &Path, tenants: usize) -> usize {
    berth.operator(number).signal(Signal::TERM);
    berth.operator(number).ended(DRAIN).await;
    let next = berth
        .start_operator_of(&registry.with_file_name("berth-operator"))
        .await;
    let berth = &*berth;
    eventually("all Tenants are looked at", PATIENCE, async || {
        (berth.ready_looks(next, "Tenant").await >= tenants).then_some(())
    })
    .await;
    next
}

async fn registry_becomes(berth: &mut Installation, program: &Path) {
    berth.registry.terminate(DRAIN).await;
    berth.registry.becomes(program);
    berth.registry.restart().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_and_registry_are_upgraded_and_rolled_back_and_every_tenant_stays_served() {
    let registry = Berth::builder()
        .backend(Backend::Distributed)
        .flag("--domain", "registry.test")
        .program(&previous());
    let installer = Installation::builder().registry(registry.start().await);
    let mut berth = installer
        .operator(&previous().with_file_name("berth-operator"))
        .start()
        .await;
    let mut operator = 0;
    let first = Settled::new(&berth, "first").await;
    let token = harness::Admin::of(&berth.registry)
        .token(&first.name, &["**"], &["pull", "push"])
        .await;
    let mut headers = http::HeaderMap::new();
    let login = format!("Basic {}", STANDARD.encode(format!("x-token:{token}")));
    headers.insert("authorization", login.parse().expect("a value"));
    headers.insert("host", first.host().parse().expect("a host"));
    let door = RoundRobin::adding(vec![berth.registry.address()], headers).await;
    let repository = Repository::new(&format!("http://{}", door.address()), "app");
    let image = Image::new(3, 20_000);
    image.push(&repository, "v1").await;
    let puller = Puller::start(
        berth.registry.url("/v2/app/manifests/v1"),
        first.host(),
        first.password(&berth).await,
    );
    puller.goes_on().await;

    // The operator first, then the registry; back in the same order; and forward again.
    let mut all = vec![first];
    for (round, program) in [this(), previous(), this()].into_iter().enumerate() {
        operator = operator_becomes(&mut berth, operator, &program, all.len()).await;
        puller.goes_on().await;
        all.push(Settled::new(&berth, &format!("between-{round}")).await);
        registry_becomes(&mut berth, &program).await;
        puller.goes_on().await;
        all.push(Settled::new(&berth, &format!("after-{round}")).await);
        for settled in &all {
            settled.ready(&berth).await;
            let request = client()
                .get(berth.registry.url("/v2/"))
                .header("host", settled.host())
                .basic_auth("x-token", Some(settled.password(&berth).await));
            harness::http::send(request).await.expect(200);
        }
        // What the Repository says is still in force: v1 cannot be moved.
        let other = Image::new(100 + round as u64, 20_000);
        other.push(&repository, &format!("round-{round}")).await;
        let moved = repository
            .put_manifest("v1", harness::image::MANIFEST, &other.manifest)
            .await;
        assert_eq!(moved.status, 403, "{}", moved.text());
    }
    puller.stop.store(true, Ordering::Relaxed);
    let pulled = puller.answered.load(Ordering::Relaxed);
    let wrong = puller.task.await.expect("no panic");
    println!("{} tenants, {pulled} pulls with one Secret's token", all.len());
    assert_eq!(wrong, [] as [String; 0], "pulls were refused");
}
