//! PullThroughCaches: the login of their upstream, and what their status tells of it.

use std::time::Duration;

use harness::http::{client, send};
use harness::{Admin, Berth, Client, Image, Installation, Upstream, condition, eventually};
use reqwest::Method;
use serde_json::{Value, json};

/// The apex of installations.
const DOMAIN: &str = "registry.test";

fn cache(namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "PullThroughCache",
        "metadata": { "name": name, "namespace": namespace }, "spec": spec,
    })
}

/// What the registry has of a cache.
async fn stored(berth: &Installation, tenant: &str, namespace: &str, name: &str) -> Value {
    let path = format!("tenants/{tenant}/caches/{namespace}/{name}");
    let answer = Admin::of(&berth.registry).ask(Method::GET, &path, None).await;
    answer.expect(200).json()
}

/// A tenant that admits every namespace, and one; their names.
async fn tenant(berth: &Installation) -> (String, String) {
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({})).await;
    berth
        .ready_tenant(&name, json!({ "allowedNamespaces": { "from": "All" } }))
        .await;
    (name, apps)
}

#[tokio::test]
async fn an_upstreams_login_may_be_a_docker_configuration_and_is_followed_without_a_label() {
    let berth = Installation::start().await;
    let (name, apps) = tenant(&berth).await;
    // As `kubectl create secret docker-registry` makes it.
    let secret = |auths: Value| {
        let configuration = json!({ "auths": auths }).to_string();
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": { "name": "hub", "namespace": apps },
            "stringData": { ".dockerconfigjson": configuration },
        })
    };
    let other = json!({ "other.test": { "username": "reader", "password": "other" } });
    berth.plane.apply(secret(other)).await.expect("a Secret");
    let spec = json!({
        "tenantRef": { "name": name }, "prefix": "docker.io",
        "upstream": { "url": "https://192.0.2.1", "credentialsSecretRef": { "name": "hub" } },
    });
    berth
        .plane
        .apply(cache(&apps, "hub", spec))
        .await
        .expect("it is accepted");
    let stalled = berth
        .plane
        .wait_for("PullThroughCache", &apps, "hub", "Stalled", "True", "Invalid")
        .await;
    let told = condition(&stalled, "Stalled").expect("a condition")["message"].to_string();
    assert!(told.contains("has no login for 192.0.2.1"), "{told}");
    assert!(!told.contains("other"), "{told}");

    // Nothing watches it: it is looked at every now and then.
    let hub = |password: &str| json!({ "https://192.0.2.1": { "username": "reader", "password": password } });
    berth.plane.apply(secret(hub("first"))).await.expect("a Secret");
    berth
        .plane
        .wait_for("PullThroughCache", &apps, "hub", "Ready", "True", "")
        .await;
    let first = stored(&berth, &name, &apps, "hub").await;
    assert_eq!(first["spec"]["upstream"]["username"], "reader");
    assert!(!first.to_string().contains("\"first\""), "it is shown to nobody");
    berth.plane.apply(secret(hub("second"))).await.expect("a Secret");
    eventually("the new password is known", Duration::from_secs(60), async || {
        let now = stored(&berth, &name, &apps, "hub").await;
        (now["hash"] != first["hash"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_status_tells_whether_the_upstream_answers_and_what_the_cache_has_saved() {
    let registry = Berth::builder()
        .flag("--domain", DOMAIN)
        .flag("--egress-allow", "127.0.0.1")
        .start()
        .await;
    let berth = Installation::builder().registry(registry).start().await;
    let (name, apps) = tenant(&berth).await;
    let mut upstream = Upstream::start().await;
    let image = Image::new(41, 1000);
    image.push(&upstream.repository("team/app"), "v1").await;
    let spec = |tags: Value| {
        json!({
            "tenantRef": { "name": name }, "prefix": "up", "visibility": "Public", "tags": tags,
            "upstream": { "url": format!("http://{}", upstream.address()) },
        })
    };
    let (before, after) = (spec(json!({})), spec(json!({ "revalidateAfter": "0s" })));
    berth
        .plane
        .apply(cache(&apps, "up", before))
        .await
        .expect("it is accepted");
    let pull = async |reference: &str| {
        let path = format!("/v2/up/team/app/manifests/{reference}");
        let request = client().get(berth.registry.url(&path));
        send(request.header("host", format!("{name}.{DOMAIN}"))).await
    };
    berth
        .plane
        .wait_for("PullThroughCache", &apps, "up", "Ready", "True", "Served")
        .await;
    assert_eq!(pull("v1").await.expect(200).body, image.manifest);
    assert_eq!(pull("v1").await.expect(200).body, image.manifest);
    let told = berth
        .plane
        .wait("PullThroughCache", &apps, "up", |cache| {
            let status = &cache["status"];
            condition(cache, "UpstreamReachable").is_some_and(|found| found["reason"] == "Reachable")
                && status["misses"].as_i64() > Some(0)
        })
        .await;
    assert!(
        told["status"]["repositories"] == 1 && told["status"]["bytes"].as_i64() > Some(0),
        "{told:#}"
    );
    let table = Client::new("kubectl")
        .variable("KUBECONFIG", berth.plane.kubeconfig().to_str().expect("text"))
        .run(&["get", "bptc", "up", "--namespace", &apps])
        .await
        .text();
    assert!(table.contains("REACHABLE"), "{table}");

    // An upstream that is gone leaves the cache ready: what it holds is served.
    upstream.stop();
    berth
        .plane
        .apply(cache(&apps, "up", after))
        .await
        .expect("it is accepted");
    eventually("the registry has noticed", Duration::from_secs(60), async || {
        pull("v1").await.expect(200);
        let path = format!("tenants/{name}/pull-through?cache={apps}/up");
        let report = Admin::of(&berth.registry).ask(Method::GET, &path, None).await;
        (report.expect(200).json()["reachable"] == false).then_some(())
    })
    .await;
    // What was heard before a change is not held against what comes after it.
    let annotated = json!({ "spec": { "tags": { "revalidateAfter": "1s" } } });
    berth
        .plane
        .merge("PullThroughCache", &apps, "up", annotated)
        .await;
    let gone = berth
        .plane
        .wait_for(
            "PullThroughCache",
            &apps,
            "up",
            "UpstreamReachable",
            "False",
            "Unreachable",
        )
        .await;
    let why = condition(&gone, "UpstreamReachable").expect("a condition")["message"].to_string();
    assert!(why.len() > 5, "{why}");
    assert_eq!(condition(&gone, "Ready").expect("a condition")["status"], "True");
}
