//! What becomes of content: statuses of retention and usage, runs on request, and content that goes with its object.

use std::time::Duration;

use harness::content::sha256;
use harness::http::{Answer, client, send};
use harness::image::MANIFEST;
use harness::{Admin, Client, ControlPlane, Installation, Signal, condition, eventually, setting};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
/// No run begins by itself within a test.
const NEVER: &str = "0 0 1 1 *";

/// The content of a tenant, as one who may do everything sees it.
struct Content {
    base: String,
    host: String,
    token: String,
}

impl Content {
    async fn of(berth: &Installation, tenant: &str) -> Content {
        Content {
            base: berth.registry.url("/v2"),
            host: format!("{tenant}.registry.test"),
            token: Admin::of(&berth.registry)
                .token(tenant, &["**"], &["pull", "push"])
                .await,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        client()
            .request(method, format!("{}/{path}", self.base))
            .header("host", &self.host)
            .basic_auth("x-token", Some(&self.token))
    }

    async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    /// Pushes one small image, each time the same, under tags of a repository; one after the other.
    async fn push(&self, repository: &str, tags: &[&str]) {
        let blob = b"content".to_vec();
        let digest = sha256(&blob);
        let upload = format!("{repository}/blobs/uploads/?digest={digest}");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
            "config": { "mediaType": "application/octet-stream", "digest": digest, "size": blob.len() },
        });
        send(self.request(Method::POST, &upload).body(blob))
            .await
            .expect(201);
        for tag in tags {
            let request = self
                .request(Method::PUT, &format!("{repository}/manifests/{tag}"))
                .header("content-type", MANIFEST)
                .body(manifest.to_string());
            send(request).await.expect(201);
        }
    }

    /// The tags of a repository.
    async fn tags(&self, repository: &str) -> Value {
        let listed = self.get(&format!("{repository}/tags/list")).await;
        listed.expect(200).json()["tags"].clone()
    }

    async fn has(&self, repository: &str, tag: &str) -> bool {
        let found = self.get(&format!("{repository}/manifests/{tag}")).await;
        assert!(found.status == 200 || found.status == 404, "{}", found.text());
        found.status == 200
    }
}

fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": kind,
        "metadata": { "name": name, "namespace": namespace }, "spec": spec,
    })
}

/// A policy that keeps the newest tag of every repository.
fn newest_only(namespace: &str, tenant: &str, dry: bool) -> Value {
    let spec = json!({
        "tenantRef": { "name": tenant }, "repositories": ["**"], "rules": [{ "keepLast": 1 }],
        "schedule": NEVER, "dryRun": dry,
    });
    object("RetentionPolicy", namespace, "ci", spec)
}

fn declares(namespace: &str, object_name: &str, tenant: &str, repository: &str, policy: &str) -> Value {
    let spec = json!({ "tenantRef": { "name": tenant }, "name": repository, "deletionPolicy": policy });
    object("Repository", namespace, object_name, spec)
}

async fn apply(berth: &Installation, object: Value) {
    berth.plane.apply(object).await.expect("it is accepted");
}

async fn ready(berth: &Installation, kind: &str, namespace: &str, name: &str) -> Value {
    berth
        .plane
        .wait_for(kind, namespace, name, "Ready", "True", "")
        .await
}

async fn annotate(berth: &Installation, kind: &str, namespace: &str, name: &str, annotations: Value) {
    let patch = json!({ "metadata": { "annotations": annotations } });
    berth.plane.merge(kind, namespace, name, patch).await;
}

async fn end(berth: &Installation, namespace: &str, name: &str) {
    berth.plane.delete("Repository", namespace, name).await;
    berth.plane.wait_gone("Repository", namespace, name).await;
}

/// Which of the tenant's namespaces are admitted: those with the label.
fn by_label(tenant: &str) -> Value {
    json!({ "allowedNamespaces": { "from": "Selector", "selector": { "matchLabels": { "team": tenant } } } })
}

/// Why a Repository's content stayed although its object said otherwise, by the event.
async fn kept(berth: &Installation, namespace: &str, name: &str) -> String {
    eventually("the event is written", PATIENCE, async || {
        let events = berth.plane.list("Event", namespace, "").await;
        let told = events
            .iter()
            .find(|event| event["reason"] == "ContentKept" && event["regarding"]["name"] == name)?;
        Some(told["note"].to_string())
    })
    .await
}

#[tokio::test]
async fn a_policy_tells_what_it_would_delete_and_deletes_it_once_for_each_request() {
    let mut berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({})).await;
    berth
        .ready_tenant(&name, json!({ "allowedNamespaces": { "from": "All" } }))
        .await;
    let content = Content::of(&berth, &name).await;
    content.push("app", &["v1", "v2", "v3"]).await;
    apply(&berth, newest_only(&apps, &name, false)).await;
    let previewed = berth.plane.wait("RetentionPolicy", &apps, "ci", |policy| {
        policy["status"]["preview"]["wouldDelete"] == 2
    });
    let previewed = previewed.await;
    let status = &previewed["status"];
    let sample = status["preview"]["sample"].to_string();
    assert!(
        sample.contains("app:v1") && sample.contains("app:v2"),
        "{status:#}"
    );
    assert!(
        status["preview"]["at"].is_string() && status["nextRun"].is_string(),
        "{status:#}"
    );
    assert!(status["lastRun"].is_null(), "{status:#}");
    let unknown = condition(&previewed, "LastRunSucceeded").expect("a condition");
    assert_eq!(
        (&unknown["status"], &unknown["reason"]),
        (&json!("Unknown"), &json!("NotRunYet"))
    );
    // Any text asks for a run.
    annotate(
        &berth,
        "RetentionPolicy",
        &apps,
        "ci",
        json!({ "berth.dev/run-requested-at": "first" }),
    )
    .await;
    let ran = berth
        .plane
        .wait_for(
            "RetentionPolicy",
            &apps,
            "ci",
            "LastRunSucceeded",
            "True",
            "Succeeded",
        )
        .await;
    let status = &ran["status"];
    assert_eq!(status["lastHandledRequest"], "first");
    assert_eq!(
        (&status["lastRun"]["deletedTags"], &status["lastRun"]["dryRun"]),
        (&json!(2), &json!(false))
    );
    assert_eq!(content.tags("app").await, json!(["v3"]));
    assert_eq!(condition(&ran, "Ready").expect("a condition")["status"], "True");
    // Neither the text that stays nor a new leader asks again.
    content.push("app", &["v4"]).await;
    berth.operator(0).signal(Signal::KILL);
    let second = berth.start_operator().await;
    eventually("the new leader has looked at it", PATIENCE, async || {
        (berth.ready_looks(second, "RetentionPolicy").await > 0).then_some(())
    })
    .await;
    let after = berth
        .plane
        .find("RetentionPolicy", &apps, "ci")
        .await
        .expect("it is there");
    assert_eq!(after["status"]["lastRun"], status["lastRun"]);
    assert_eq!(content.tags("app").await, json!(["v3", "v4"]));
    // Another text does.
    annotate(
        &berth,
        "RetentionPolicy",
        &apps,
        "ci",
        json!({ "berth.dev/run-requested-at": "second" }),
    )
    .await;
    let again = berth.plane.wait("RetentionPolicy", &apps, "ci", |policy| {
        policy["status"]["lastRun"]["deletedTags"] == 1
    });
    assert_eq!(again.await["status"]["lastHandledRequest"], "second");
    assert_eq!(content.tags("app").await, json!(["v4"]));
}

#[tokio::test]
async fn a_dry_run_reports_and_deletes_nothing() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({})).await;
    berth
        .ready_tenant(&name, json!({ "allowedNamespaces": { "from": "All" } }))
        .await;
    let content = Content::of(&berth, &name).await;
    content.push("app", &["v1", "v2"]).await;
    let mut policy = newest_only(&apps, &name, true);
    policy["metadata"]["annotations"] = json!({ "berth.dev/run-requested-at": "with its making" });
    apply(&berth, policy).await;
    let ran = berth
        .plane
        .wait_for(
            "RetentionPolicy",
            &apps,
            "ci",
            "LastRunSucceeded",
            "True",
            "DryRun",
        )
        .await;
    assert_eq!(ran["status"]["lastRun"]["dryRun"], true);
    assert_eq!(ran["status"]["lastRun"]["evaluated"], 2);
    let previewed = berth.plane.wait("RetentionPolicy", &apps, "ci", |policy| {
        policy["status"]["preview"]["wouldDelete"] == 1
    });
    previewed.await;
    assert_eq!(content.tags("app").await, json!(["v1", "v2"]));
    // What a change of the rules would do is told soon.
    let mild = json!({ "spec": { "rules": [{ "keepLast": 5 }] } });
    berth.plane.merge("RetentionPolicy", &apps, "ci", mild).await;
    let previewed = berth.plane.wait("RetentionPolicy", &apps, "ci", |policy| {
        policy["status"]["preview"]["wouldDelete"] == 0
            && policy["status"]["observedGeneration"] == policy["metadata"]["generation"]
    });
    previewed.await;
    let kubectl = async |arguments: &[&str]| {
        let kubeconfig = setting("BERTH_TEST_KUBECONFIG");
        let all = [&["--kubeconfig", kubeconfig.as_str()], arguments].concat();
        Client::new("kubectl").run(&all).await.text()
    };
    let listed = kubectl(&["get", "bret", "-n", &apps]).await;
    for column in ["LAST RUN", "WOULD DELETE"] {
        assert!(listed.contains(column), "{listed}");
    }
    assert!(
        !listed.contains("invalid") && !listed.contains("unknown"),
        "{listed}"
    );
}

#[tokio::test]
async fn a_namespace_that_is_not_admitted_runs_nothing_and_is_told_nothing() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({ "team": name })).await;
    berth.ready_tenant(&name, by_label(&name)).await;
    let content = Content::of(&berth, &name).await;
    content.push("app", &["v1", "v2"]).await;
    apply(&berth, newest_only(&apps, &name, false)).await;
    let previewed = berth.plane.wait("RetentionPolicy", &apps, "ci", |policy| {
        policy["status"]["preview"]["wouldDelete"] == 1
    });
    previewed.await;
    let unlabelled = json!({ "metadata": { "labels": { "team": null } } });
    berth.plane.merge("Namespace", "", &apps, unlabelled).await;
    berth
        .plane
        .wait_for("RetentionPolicy", &apps, "ci", "Stalled", "True", "NotAdmitted")
        .await;
    annotate(
        &berth,
        "RetentionPolicy",
        &apps,
        "ci",
        json!({ "berth.dev/run-requested-at": "now" }),
    )
    .await;
    // Something else that is looked at later shows that the request was seen.
    let other = berth.name("other");
    berth.ready_tenant(&other, json!({})).await;
    let refused = berth
        .plane
        .find("RetentionPolicy", &apps, "ci")
        .await
        .expect("it is there");
    for field in ["preview", "lastRun", "nextRun", "lastHandledRequest"] {
        assert!(refused["status"][field].is_null(), "{field}: {refused:#}");
    }
    assert_eq!(content.tags("app").await, json!(["v1", "v2"]));
}

#[tokio::test]
async fn a_tenant_tells_its_byte_hours_and_what_they_cost() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let spec = json!({ "billing": { "price": "0.25", "currency": "EUR" } });
    berth.ready_tenant(&name, spec).await;
    let told = berth.plane.wait("Tenant", "", &name, |tenant| {
        tenant["status"]["usage"]["estimatedCost"].is_string()
    });
    let told = told.await;
    let usage = &told["status"]["usage"];
    let number = |text: &str| text.parse::<f64>().is_ok_and(|number| number >= 0.0);
    let hours = usage["monthToDateGiBHours"].as_str().expect("a text");
    assert!(number(hours), "{usage:#}");
    let cost = usage["estimatedCost"].as_str().expect("a text");
    let cost = cost.strip_suffix(" EUR").expect("the tenant's currency");
    assert!(number(cost), "{usage:#}");
    let asked = Admin::of(&berth.registry)
        .ask(Method::GET, &format!("usage?tenant={name}"), None)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&asked[0]["currency"], &asked[0]["price"]),
        (&json!("EUR"), &json!("0.25"))
    );
    assert_eq!(asked[0]["gibHours"], usage["monthToDateGiBHours"]);
}

#[tokio::test]
async fn a_repository_tells_when_it_was_last_pushed_to_and_pulled_from() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({})).await;
    berth
        .ready_tenant(&name, json!({ "allowedNamespaces": { "from": "All" } }))
        .await;
    let content = Content::of(&berth, &name).await;
    content.push("app", &["v1"]).await;
    content.get("app/manifests/v1").await.expect(200);
    // A status is of the first look; the registry notes pulls in its own time.
    let admin = Admin::of(&berth.registry);
    let path = format!("tenants/{name}/catalog/app");
    let stored = eventually("the pull is noted", PATIENCE, async || {
        let stored = admin.ask(Method::GET, &path, None).await.expect(200).json();
        stored["lastPull"].is_string().then_some(stored)
    })
    .await;
    apply(&berth, declares(&apps, "app", &name, "app", "Retain")).await;
    let told = ready(&berth, "Repository", &apps, "app").await;
    assert_eq!(told["status"]["lastPull"], stored["lastPull"]);
    assert_eq!(told["status"]["lastPush"], stored["lastPush"]);
    assert!(told["status"]["lastPush"].is_string(), "{told:#}");
}

#[tokio::test]
async fn content_goes_with_its_object_if_that_says_so_and_stays_otherwise() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({})).await;
    berth
        .ready_tenant(&name, json!({ "allowedNamespaces": { "from": "All" } }))
        .await;
    let content = Content::of(&berth, &name).await;
    for (repository, policy) in [("gone", "Delete"), ("kept", "Retain"), ("other", "Retain")] {
        content.push(repository, &["v1"]).await;
        apply(&berth, declares(&apps, repository, &name, repository, policy)).await;
        ready(&berth, "Repository", &apps, repository).await;
    }
    end(&berth, &apps, "kept").await;
    end(&berth, &apps, "gone").await;
    eventually("the content is gone", PATIENCE, async || {
        (!content.has("gone", "v1").await).then_some(())
    })
    .await;
    // The blobs that they share stay for the others.
    for repository in ["kept", "other"] {
        assert!(content.has(repository, "v1").await, "{repository}");
        let digest = sha256(b"content");
        content
            .get(&format!("{repository}/blobs/{digest}"))
            .await
            .expect(200);
    }
    // Nothing stands in the way of a new beginning.
    content.push("gone", &["v2"]).await;
    assert_eq!(content.tags("gone").await, json!(["v2"]));
}

#[tokio::test]
async fn content_goes_with_its_namespace_if_its_object_says_so() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({})).await;
    berth
        .ready_tenant(&name, json!({ "allowedNamespaces": { "from": "All" } }))
        .await;
    let content = Content::of(&berth, &name).await;
    for (repository, policy) in [("gone", "Delete"), ("kept", "Retain")] {
        content.push(repository, &["v1"]).await;
        apply(&berth, declares(&apps, repository, &name, repository, policy)).await;
        ready(&berth, "Repository", &apps, repository).await;
    }
    berth.plane.delete("Namespace", "", &apps).await;
    berth.plane.wait_gone("Namespace", "", &apps).await;
    eventually("the content is gone", PATIENCE, async || {
        (!content.has("gone", "v1").await).then_some(())
    })
    .await;
    assert!(content.has("kept", "v1").await);
}

#[tokio::test]
async fn a_namespace_that_is_not_admitted_deletes_no_content() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({ "team": name })).await;
    let strangers = berth.namespace("strangers", json!({})).await;
    berth.ready_tenant(&name, by_label(&name)).await;
    let content = Content::of(&berth, &name).await;
    content.push("app", &["v1"]).await;
    // Never admitted.
    apply(&berth, declares(&strangers, "app", &name, "app", "Delete")).await;
    berth
        .plane
        .wait_for("Repository", &strangers, "app", "Stalled", "True", "NotAdmitted")
        .await;
    end(&berth, &strangers, "app").await;
    let told = kept(&berth, &strangers, "app").await;
    assert!(told.contains("admits"), "{told}");
    // Admitted once, and served then.
    apply(&berth, declares(&apps, "app", &name, "app", "Delete")).await;
    ready(&berth, "Repository", &apps, "app").await;
    let unlabelled = json!({ "metadata": { "labels": { "team": null } } });
    berth.plane.merge("Namespace", "", &apps, unlabelled).await;
    end(&berth, &apps, "app").await;
    assert!(content.has("app", "v1").await);
}

#[tokio::test]
async fn what_is_paused_shapes_others_or_is_declared_twice_deletes_no_content() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let (apps, more) = (
        berth.namespace("apps", json!({})).await,
        berth.namespace("more", json!({})).await,
    );
    berth
        .ready_tenant(&name, json!({ "allowedNamespaces": { "from": "All" } }))
        .await;
    let content = Content::of(&berth, &name).await;
    content.push("app", &["v1"]).await;
    // Paused.
    apply(&berth, declares(&apps, "paused", &name, "app", "Delete")).await;
    ready(&berth, "Repository", &apps, "paused").await;
    annotate(
        &berth,
        "Repository",
        &apps,
        "paused",
        json!({ "berth.dev/paused": "true" }),
    )
    .await;
    end(&berth, &apps, "paused").await;
    assert!(kept(&berth, &apps, "paused").await.contains("paused"));
    // By a glob.
    let shape = json!({ "tenantRef": { "name": name }, "match": "**", "deletionPolicy": "Delete" });
    apply(&berth, object("Repository", &apps, "shape", shape)).await;
    ready(&berth, "Repository", &apps, "shape").await;
    end(&berth, &apps, "shape").await;
    assert!(kept(&berth, &apps, "shape").await.contains("match"));
    // The younger of two has nothing to say, and the older one leaves it to the younger.
    apply(&berth, declares(&apps, "first", &name, "app", "Delete")).await;
    ready(&berth, "Repository", &apps, "first").await;
    for object_name in ["second", "third"] {
        apply(&berth, declares(&more, object_name, &name, "app", "Delete")).await;
        berth
            .plane
            .wait_for("Repository", &more, object_name, "Stalled", "True", "Conflict")
            .await;
    }
    end(&berth, &more, "third").await;
    assert!(kept(&berth, &more, "third").await.contains("another"));
    end(&berth, &apps, "first").await;
    assert!(kept(&berth, &apps, "first").await.contains("another"));
    assert!(content.has("app", "v1").await);
    // Who is left takes it along.
    ready(&berth, "Repository", &more, "second").await;
    end(&berth, &more, "second").await;
    eventually("the content is gone", PATIENCE, async || {
        (!content.has("app", "v1").await).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_api_server_refuses_prices_that_are_none() {
    let plane = ControlPlane::connect().await;
    let tenant = |billing: Value| {
        json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Tenant", "metadata": { "name": "priced" },
            "spec": { "billing": billing },
        })
    };
    let refused = [
        (json!({ "price": 1 }), "spec.billing.price"),
        (json!({ "price": "-1" }), "spec.billing.price"),
        (json!({ "price": "0.0000001" }), "spec.billing.price"),
        (json!({ "price": "1000000.1" }), "spec.billing.price"),
        (
            json!({ "price": "1", "currency": "euro" }),
            "spec.billing.currency",
        ),
        (json!({ "currency": "EUR" }), "currency goes with price"),
    ];
    for (billing, told) in refused {
        let error = plane.dry_run(tenant(billing.clone())).await;
        let error = error.expect_err(&billing.to_string()).to_string();
        assert!(error.contains(told), "{billing}: {error}");
    }
    for billing in [
        json!({}),
        json!({ "price": "0" }),
        json!({ "price": "1000000" }),
        json!({ "price": "0.023", "currency": "EUR" }),
    ] {
        let accepted = plane.dry_run(tenant(billing.clone())).await;
        accepted.unwrap_or_else(|error| panic!("{billing}: {error}"));
    }
}
