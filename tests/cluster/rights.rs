//! What the chart lets the operator do is what the operator does: nothing is refused, nothing is granted that no part of
//! its work asks for, and without any one rule something would be refused. Every other test of this stage runs with the
//! same rights.

use std::collections::BTreeSet;
use std::time::Duration;

use harness::{Installation, Signal, eventually};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// `group/resource[/subresource] verb`, or `path verb`.
type Rights = BTreeSet<String>;

fn texts(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn granted(objects: &[Value]) -> Rights {
    let roles = objects.iter().filter(|object| {
        ["Role", "ClusterRole"].iter().any(|kind| object["kind"] == *kind)
            && object["metadata"]["labels"]["app.kubernetes.io/component"] == "operator"
    });
    let mut rights = Rights::new();
    for rule in roles.flat_map(|role| role["rules"].as_array().into_iter().flatten()) {
        for verb in texts(&rule["verbs"]) {
            for path in texts(&rule["nonResourceURLs"]) {
                rights.insert(format!("{path} {verb}"));
            }
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    rights.insert(format!("{group}/{resource} {verb}"));
                }
            }
        }
    }
    rights
}

/// What was asked for and not refused, and what was refused.
fn used(requests: &[Value]) -> (Rights, Rights) {
    let (mut used, mut refused) = (Rights::new(), Rights::new());
    for request in requests {
        let verb = request["verb"].as_str().expect("a verb");
        let object = &request["objectRef"];
        let right = if object.is_null() {
            let uri = request["requestURI"].as_str().expect("a path");
            format!("{} {verb}", uri.split('?').next().unwrap_or_default())
        } else {
            let text = |field: &str| object[field].as_str().unwrap_or_default();
            let (group, resource) = (text("apiGroup"), text("resource"));
            match text("subresource") {
                "" => format!("{group}/{resource} {verb}"),
                subresource => format!("{group}/{resource}/{subresource} {verb}"),
            }
        };
        if request["responseStatus"]["code"] == 403 {
            refused.insert(right);
        } else {
            used.insert(right);
        }
    }
    (used, refused)
}

fn declared(kind: &str, namespace: &str, tenant: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["tenantRef"] = json!({ "name": tenant });
    json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": kind,
        "metadata": { "name": "one", "namespace": namespace }, "spec": spec,
    })
}

/// Everything that an operator does, once.
async fn a_life(berth: &mut Installation) {
    let (name, route) = (berth.name("acme"), format!("berth-{}", berth.name("acme")));
    let apps = berth.namespace("apps", json!({ "pull": name })).await;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "hub", "namespace": apps, "labels": { "berth.dev/tenant": name } },
        "stringData": { "username": "u", "password": "p" },
    });
    berth.plane.apply(secret).await.expect("it is accepted");
    let spec = |hosts: Value| {
        json!({
            "hosts": hosts,
            "allowedNamespaces": { "from": "All" },
            "pullSecrets": {
                "namespaceSelector": { "matchLabels": { "pull": name } }, "serviceAccounts": ["default"],
            },
            "trust": [{
                "serviceAccounts": { "namespaceSelector": { "matchLabels": { "pull": name } }, "names": ["default"] },
                "grants": [{ "repositories": ["**"], "actions": ["pull"] }],
            }],
        })
    };
    let plane = berth.plane.clone();
    plane
        .apply(berth.tenant(&name, spec(json!([]))))
        .await
        .expect("it is accepted");
    plane.wait("Ingress", &berth.id, &route, |_| true).await;
    let balanced = json!({ "loadBalancer": { "ingress": [{ "ip": "127.0.0.1" }] } });
    plane.merge_status("Ingress", &berth.id, &route, balanced).await;
    plane
        .wait_for("Tenant", "", &name, "Ready", "True", "Served")
        .await;
    plane
        .wait("ServiceAccount", &apps, "default", |account| {
            !account["imagePullSecrets"].is_null()
        })
        .await;
    let kinds = [
        ("Repository", json!({ "name": "app" })),
        (
            "RetentionPolicy",
            json!({ "repositories": ["**"], "rules": [{ "tags": ["*"], "keepLast": 3 }] }),
        ),
        (
            "PullThroughCache",
            json!({
                "upstream": { "url": "https://registry.example.com", "credentialsSecretRef": { "name": "hub" } },
                "prefix": "hub",
            }),
        ),
    ];
    for (kind, spec) in &kinds {
        plane
            .apply(declared(kind, &apps, &name, spec))
            .await
            .expect("it is accepted");
        plane.wait_for(kind, &apps, "one", "Ready", "True", "").await;
    }
    // A rotation replaces the Secret; a second failure of the same kind is told in the event of the first.
    let rotate = json!({ "metadata": { "annotations": { "berth.dev/rotate": "now" } } });
    let pull = plane
        .merge("Secret", &apps, &format!("berth-{name}"), rotate)
        .await;
    plane
        .wait("Secret", &apps, &format!("berth-{name}"), |secret| {
            secret["data"] != pull["data"]
        })
        .await;
    for (allowed, reason) in [
        ("None", "NotAdmitted"),
        ("All", ""),
        ("None", "NotAdmitted"),
        ("All", ""),
    ] {
        let allow = json!({ "spec": { "allowedNamespaces": { "from": allowed } } });
        plane.merge("Tenant", "", &name, allow).await;
        let ready = if reason.is_empty() { "True" } else { "False" };
        plane
            .wait_for("Repository", &apps, "one", "Ready", ready, reason)
            .await;
    }
    for (kind, _) in &kinds {
        plane.delete(kind, &apps, "one").await;
        plane.wait_gone(kind, &apps, "one").await;
    }
    let suspend = json!({ "spec": { "suspend": true } });
    plane.merge("Tenant", "", &name, suspend).await;
    plane.wait_gone("Ingress", &berth.id, &route).await;
    plane
        .merge(
            "Namespace",
            "",
            &apps,
            json!({ "metadata": { "labels": { "pull": null } } }),
        )
        .await;
    plane.wait_gone("Secret", &apps, &format!("berth-{name}")).await;
    plane.delete("Tenant", "", &name).await;
    plane.wait_gone("Tenant", "", &name).await;
    // The Lease changes hands.
    berth.start_operator().await;
    berth.operator(0).signal(Signal::TERM);
    berth.operator(0).ended(PATIENCE).await;
    let next = berth.name("next");
    berth
        .plane
        .apply(berth.tenant(&next, json!({})))
        .await
        .expect("it is accepted");
    berth
        .plane
        .wait_for("Tenant", "", &next, "Exposed", "Unknown", "RoutePending")
        .await;
}

#[tokio::test]
async fn the_chart_grants_the_operator_what_its_work_asks_for_and_no_more() {
    let mut berth = Installation::builder().flag("--exposure=ingress").start().await;
    a_life(&mut berth).await;
    let granted = granted(berth.objects());
    assert!(granted.len() > 20, "{granted:#?}");
    let elsewhere: Rights = [
        // The keys Secret: `cluster::keys`.
        "/secrets update",
        // An apply of what is not there is logged as a patch, and needs this right too.
        "networking.k8s.io/ingresses create",
        // Orphans of Tenants in other installations: only asked about objects that go.
        "berth.dev/tenants get",
    ]
    .map(str::to_owned)
    .into();
    // The last requests may not be in the log yet.
    let unused = async || {
        let (used, refused) = used(&berth.requests());
        assert_eq!(refused, Rights::new(), "the operator was refused");
        let unused: Rights = granted.difference(&used).cloned().collect();
        let unexpected: Rights = unused.difference(&elsewhere).cloned().collect();
        unexpected.is_empty().then_some(())
    };
    let last = tokio::time::timeout(
        Duration::from_secs(10),
        eventually("rights are used", PATIENCE, unused),
    );
    if last.await.is_err() {
        let (used, _) = used(&berth.requests());
        panic!(
            "granted and never used: {:#?}",
            granted.difference(&used).collect::<Vec<_>>()
        );
    }
    every_rule_is_needed(&berth, &questions(&berth.requests())).await;
}

/// What was asked for, as the API server's authorizer is asked whether somebody may.
fn questions(requests: &[Value]) -> Vec<Value> {
    let mut texts = BTreeSet::new();
    for request in requests {
        let object = &request["objectRef"];
        if object.is_null() {
            let path = request["requestURI"].as_str().expect("a path").split('?').next();
            texts.insert(
                json!({ "nonResourceAttributes": { "path": path, "verb": request["verb"] } }).to_string(),
            );
            continue;
        }
        let mut asked = json!({
            "group": object["apiGroup"], "resource": object["resource"], "subresource": object["subresource"],
            "namespace": object["namespace"], "verb": request["verb"],
        });
        if object["resource"] == "leases" && request["verb"] != "create" {
            asked["name"] = object["name"].clone();
        }
        texts.insert(json!({ "resourceAttributes": asked }).to_string());
        // An apply of what is not there needs this right too.
        if object["resource"] == "ingresses" && request["verb"] == "patch" {
            asked["verb"] = json!("create");
            texts.insert(json!({ "resourceAttributes": asked }).to_string());
        }
    }
    let read = |text: &String| serde_json::from_str(text).expect("JSON");
    texts.iter().map(read).collect()
}

/// Whether a user may do all of it.
async fn may_all(berth: &Installation, user: &str, questions: &[Value]) -> bool {
    for question in questions {
        let mut spec = question.clone();
        spec["user"] = json!(user);
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": spec,
        });
        let answer = berth.plane.create(review).await.expect("an answer");
        if answer["status"]["allowed"] != true {
            return false;
        }
    }
    true
}

/// The operator's roles and bindings for a user, under names of its own.
fn roles_for(berth: &Installation, user: &str) -> Vec<Value> {
    let mut copies = Vec::new();
    for object in berth.objects() {
        let kind = object["kind"].as_str().expect("a kind");
        let is_role = ["Role", "ClusterRole"].contains(&kind);
        let of_operator = object["metadata"]["labels"]["app.kubernetes.io/component"] == "operator";
        if !of_operator || !(is_role || kind.ends_with("RoleBinding")) {
            continue;
        }
        let mut copy = object.clone();
        let renamed = |name: &Value| json!(format!("{user}-{}", name.as_str().expect("a name")));
        copy["metadata"]["name"] = renamed(&object["metadata"]["name"]);
        if !is_role {
            copy["roleRef"]["name"] = renamed(&object["roleRef"]["name"]);
            copy["subjects"] =
                json!([{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }]);
        }
        copies.push(copy);
    }
    copies
}

/// Without any one rule something that the operator has asked for would be refused. The cluster's own default lets every
/// service account read the keys of service accounts; the users here have no groups, as where that was taken away.
async fn every_rule_is_needed(berth: &Installation, questions: &[Value]) {
    let rules_of = |object: &Value| object["rules"].as_array().map_or(0, Vec::len);
    let counts: Vec<usize> = roles_for(berth, "nobody").iter().map(rules_of).collect();
    assert!(counts.iter().sum::<usize>() > 10, "{counts:?}");
    for (role, count) in counts.iter().enumerate() {
        for rule in 0..*count {
            let user = format!("{}-without-{role}-{rule}", berth.id);
            let mut copies = roles_for(berth, &user);
            for copy in &copies {
                berth.plane.apply(copy.clone()).await.expect("it is accepted");
            }
            eventually("the copy is as good", PATIENCE, async || {
                may_all(berth, &user, questions).await.then_some(())
            })
            .await;
            let rules = copies[role]["rules"].as_array_mut().expect("rules");
            let removed = rules.remove(rule);
            berth
                .plane
                .apply(copies[role].clone())
                .await
                .expect("it is accepted");
            let what = format!("something is refused without {removed}");
            eventually(&what, Duration::from_secs(15), async || {
                (!may_all(berth, &user, questions).await).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn with_a_list_of_namespaces_nothing_elsewhere_is_asked_for() {
    let first = Installation::start().await;
    let apps = first.namespace("apps", json!({})).await;
    let other = first.namespace("other", json!({})).await;
    let berth = Installation::builder()
        .flag(&format!("--namespaces={apps}"))
        .start()
        .await;
    let name = berth.name("acme");
    let spec = json!({
        "allowedNamespaces": { "from": "All" },
        "pullSecrets": { "namespaceSelector": {}, "serviceAccounts": ["default"] },
    });
    berth.ready_tenant(&name, spec).await;
    let pull = format!("berth-{name}");
    berth.plane.wait("Secret", &apps, &pull, |_| true).await;
    assert!(berth.plane.find("Secret", &other, &pull).await.is_none());
    for namespace in [&apps, &other] {
        let repository = declared("Repository", namespace, &name, &json!({ "name": "app" }));
        berth.plane.apply(repository).await.expect("it is accepted");
    }
    berth
        .plane
        .wait_for("Repository", &apps, "one", "Ready", "True", "")
        .await;
    let ignored = berth
        .plane
        .find("Repository", &other, "one")
        .await
        .expect("it is there");
    assert_eq!(ignored["status"]["observedGeneration"], -1);
    let (used, refused) = used(&berth.requests());
    assert_eq!(refused, Rights::new());
    assert!(used.contains("/secrets create"), "{used:#?}");
}

#[tokio::test]
async fn a_listed_namespace_that_is_deleted_stops_nobody_else() {
    let first = Installation::start().await;
    let apps = first.namespace("apps", json!({})).await;
    let gone = first.namespace("gone", json!({})).await;
    let mut berth = Installation::builder()
        .flag(&format!("--namespaces={apps},{gone}"))
        .start()
        .await;
    let (name, late) = (berth.name("acme"), berth.name("late"));
    let open = json!({ "allowedNamespaces": { "from": "All" } });
    berth.ready_tenant(&name, open).await;
    berth.plane.delete("Namespace", "", &gone).await;
    berth.plane.wait_gone("Namespace", "", &gone).await;
    // The Role that was in it is gone, too: what begins now may not even list what is there.
    berth.operator(0).signal(Signal::KILL);
    berth.operator(0).ended(Duration::from_secs(60)).await;
    berth.start_operator().await;
    berth.ready_tenant(&late, json!({})).await;
    let repository = declared("Repository", &apps, &name, &json!({ "name": "app" }));
    berth.plane.apply(repository).await.expect("it is accepted");
    berth
        .plane
        .wait_for("Repository", &apps, "one", "Ready", "True", "")
        .await;
}
