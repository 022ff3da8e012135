//! What breaks around the operator, and what is left of it afterwards: nothing that nobody wants, and nothing to do.

use std::time::Duration;

use harness::{Admin, Installation, OwnControlPlane, Signal, eventually};
use reqwest::Method;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);

/// A Tenant with a Secret in one namespace and a Repository.
struct Settled {
    name: String,
    apps: String,
}

/// Applies them; nothing is waited for.
async fn declare(berth: &Installation, suffix: &str) -> Settled {
    let name = berth.name(suffix);
    let apps = berth
        .namespace(&format!("{suffix}-apps"), json!({ "pull": name }))
        .await;
    let spec = json!({
        "allowedNamespaces": { "from": "All" },
        "pullSecrets": { "namespaceSelector": { "matchLabels": { "pull": name } } },
    });
    for object in [berth.tenant(&name, spec), repository(&apps, &name)] {
        berth.plane.apply(object).await.expect("it is accepted");
    }
    Settled { name, apps }
}

impl Settled {
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
}

async fn settle(berth: &Installation, suffix: &str) -> Settled {
    let settled = declare(berth, suffix).await;
    settled.ready(berth).await;
    settled
}

fn repository(namespace: &str, tenant: &str) -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Repository",
        "metadata": { "name": "app", "namespace": namespace },
        "spec": { "tenantRef": { "name": tenant }, "name": "app" },
    })
}

async fn state(berth: &Installation) -> Value {
    let admin = Admin::of(&berth.registry);
    admin.ask(Method::GET, "state", None).await.expect(200).json()
}

/// No object, Secret or token is there that no custom resource stands for, and a full second look writes nothing.
async fn nothing_is_left_over(berth: &mut Installation, operators: usize, alive: &[&Settled]) {
    for number in 0..operators {
        if berth.operator(number).is_running() {
            berth.operator(number).signal(Signal::KILL);
            berth.operator(number).ended(PATIENCE).await;
        }
    }
    let number = berth.start_operator().await;
    eventually("everything was looked at", PATIENCE, async || {
        (berth.ready_looks(number, "Tenant").await >= alive.len()).then_some(())
    })
    .await;
    let objects = state(berth).await;
    let mut stored: Vec<(&str, &str)> = objects["objects"]
        .as_array()
        .expect("objects")
        .iter()
        .map(|object| {
            (
                object["tenant"].as_str().expect("text"),
                object["kind"].as_str().expect("text"),
            )
        })
        .filter(|(tenant, _)| tenant.starts_with(&berth.id))
        .collect();
    stored.sort_unstable();
    let mut wanted: Vec<(&str, &str)> = alive
        .iter()
        .flat_map(|settled| {
            [
                (settled.name.as_str(), "repositories"),
                (settled.name.as_str(), "tenants"),
            ]
        })
        .collect();
    wanted.sort_unstable();
    assert_eq!(stored, wanted);
    let admin = Admin::of(&berth.registry);
    for settled in alive {
        // A token whose Secret was never written is ended once it is old enough to be nobody's.
        eventually("there is one token for the one Secret", PATIENCE, async || {
            let path = format!("tenants/{}/tokens", settled.name);
            let tokens = admin.ask(Method::GET, &path, None).await.expect(200).json();
            (tokens["tokens"].as_array().map(Vec::len) == Some(1)).then_some(())
        })
        .await;
        let secrets = berth
            .plane
            .list("Secret", &settled.apps, "berth.dev/tenant")
            .await;
        assert_eq!(secrets.len(), 1);
    }
    // A second one finds everything done.
    let version = objects["version"].clone();
    let writes = berth.writes();
    berth.operator(number).signal(Signal::TERM);
    berth.operator(number).ended(PATIENCE).await;
    let number = berth.start_operator().await;
    eventually("everything was looked at again", PATIENCE, async || {
        (berth.ready_looks(number, "Tenant").await >= alive.len()).then_some(())
    })
    .await;
    assert_eq!(berth.writes(), writes, "a full second look writes nothing");
    assert_eq!(state(berth).await["version"], version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_crashes_is_followed_again() {
    let cluster = OwnControlPlane::start();
    let mut berth = Installation::builder()
        .plane(cluster.connect().await)
        .start()
        .await;
    let one = settle(&berth, "one").await;
    cluster.crash();
    // Whether the Lease survives depends on how long that took, and a leader that loses it ends a while later. A kubelet
    // would start it again; here another one stands by.
    berth.start_operator().await;
    let two = settle(&berth, "two").await;
    berth.plane.delete("Tenant", "", &one.name).await;
    berth.plane.wait_gone("Tenant", "", &one.name).await;
    nothing_is_left_over(&mut berth, 2, &[&two]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_that_are_removed_and_restored_leave_the_registry_as_the_objects_say() {
    let cluster = OwnControlPlane::start();
    let mut berth = Installation::builder()
        .plane(cluster.connect().await)
        .start()
        .await;
    let one = settle(&berth, "one").await;
    for kind in ["repositories", "tenants"] {
        let name = format!("{kind}.berth.dev");
        berth.plane.delete("CustomResourceDefinition", "", &name).await;
        berth.plane.wait_gone("CustomResourceDefinition", "", &name).await;
    }
    let admin = Admin::of(&berth.registry);
    eventually("the tenant is gone", PATIENCE, async || {
        let answer = admin
            .ask(Method::GET, &format!("tenants/{}", one.name), None)
            .await;
        (answer.status == 404).then_some(())
    })
    .await;
    berth.plane.install_definitions().await;
    let two = settle(&berth, "two").await;
    nothing_is_left_over(&mut berth, 1, &[&two]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_killed_at_any_moment_leaves_nothing_half_done() {
    let mut berth = Installation::start().await;
    let mut all = Vec::new();
    for round in 0..4_usize {
        // Each time a little later in the work: after the first write, the second, and so on.
        let writes = berth.writes() + 1 + round;
        all.push(declare(&berth, &format!("t{round}")).await);
        eventually("the work has begun", PATIENCE, async || {
            (berth.writes() >= writes).then_some(())
        })
        .await;
        berth.operator(round).signal(Signal::KILL);
        berth.operator(round).ended(PATIENCE).await;
        berth.start_operator().await;
    }
    for settled in &all {
        settled.ready(&berth).await;
    }
    let all: Vec<&Settled> = all.iter().collect();
    nothing_is_left_over(&mut berth, 5, &all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_away_for_a_while_is_told_everything_afterwards() {
    let mut berth = Installation::start().await;
    let one = settle(&berth, "one").await;
    berth.registry.kill9();
    let two = declare(&berth, "two").await;
    berth
        .plane
        .wait_for("Tenant", "", &two.name, "Ready", "False", "RegistryUnreachable")
        .await;
    berth.registry.restart().await;
    two.ready(&berth).await;
    nothing_is_left_over(&mut berth, 1, &[&one, &two]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_keys_of_the_cluster_s_service_accounts_are_followed() {
    let cluster = OwnControlPlane::start();
    let mut berth = Installation::builder()
        .plane(cluster.connect().await)
        .start()
        .await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({ "pull": name })).await;
    let spec = json!({
        "trust": [{
            "serviceAccounts": { "namespaceSelector": { "matchLabels": { "pull": name } }, "names": ["default"] },
            "grants": [{ "repositories": ["**"], "actions": ["pull"] }],
        }],
    });
    berth.ready_tenant(&name, spec).await;
    berth
        .plane
        .wait("ServiceAccount", &apps, "default", |_| true)
        .await;
    let ping = async |berth: &Installation, token: &str| {
        let request = harness::http::client()
            .get(berth.registry.url("/v2/"))
            .header("host", format!("{name}.registry.test"))
            .basic_auth("x-token", Some(token));
        harness::http::send(request).await.status.as_u16()
    };
    let old = berth.plane.token_of(&apps, "default", &["registry.test"]).await;
    assert_eq!(ping(&berth, &old).await, 200);
    let admin = Admin::of(&berth.registry);
    let path = format!("tenants/{name}");
    let trust = async || {
        let tenant = admin.ask(Method::GET, &path, None).await.expect(200).json();
        tenant["spec"]["trust"].clone()
    };
    let before = trust().await;
    cluster.resign();
    // As after a crash: who leads may lose the Lease by this and end.
    berth.start_operator().await;
    let new = berth.plane.token_of(&apps, "default", &["registry.test"]).await;
    // Not asked with the token itself: who fails often has to wait.
    eventually("the registry has the new key", PATIENCE, async || {
        (trust().await != before).then_some(())
    })
    .await;
    assert_eq!(ping(&berth, &new).await, 200);
    assert_eq!(ping(&berth, &old).await, 200, "the old key is published still");
}
