//! The admin API: declarative, idempotent, fenced, and served by every replica.

use std::time::{Duration, Instant};

use base64::Engine as _;
use harness::http::send;
use harness::{Admin, Backend, Cluster};
use reqwest::Method;
use serde_json::json;

use super::{DOMAIN, eventually, get, settings, two_tenants};

/// Whether a server answers at a host.
async fn is_served(base: &str, host: &str) -> bool {
    send(
        harness::http::client()
            .get(format!("{base}/v2/"))
            .header("Host", host),
    )
    .await
    .status
        == 401
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_served_by_the_other_replica_within_a_second_with_and_without_notifications() {
    // Behind a pooler nobody listens: only polling is left.
    for prepared in ["true", "false"] {
        let mut cluster = Cluster::start_with(2, settings().flag("--postgres-prepared", prepared)).await;
        let admin = Admin::of(cluster.replica(0));
        let second = cluster.replica(1).url("");
        for n in 0..5 {
            let host = format!("t{n}.{DOMAIN}");
            assert!(!is_served(&second, &host).await);
            admin.put_tenant(&format!("t{n}"), json!({})).await;
            assert!(
                is_served(&cluster.replica(0).url(""), &host).await,
                "at once where it was put"
            );
            let put = Instant::now();
            eventually("the other replica serves it", async || {
                is_served(&second, &host).await
            })
            .await;
            let took = put.elapsed();
            assert!(
                took < Duration::from_secs(1),
                "{took:?}, notifications: {prepared}"
            );
        }
        eventually("every replica says so", async || {
            let shown = admin
                .ask(Method::GET, "tenants/t4", None)
                .await
                .expect(200)
                .json();
            shown["programmed"] == true
        })
        .await;
        let replicas = admin.ask(Method::GET, "replicas", None).await.expect(200).json();
        assert_eq!(
            (
                replicas["replicas"].as_array().unwrap().len(),
                &replicas["served"]
            ),
            (2, &json!(true))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_cannot_be_read_leaves_the_last_good_one_in_force() {
    let (berth, admin) = two_tenants(settings().backend(Backend::Distributed)).await;
    let host = format!("acme.{DOMAIN}");
    admin
        .put_tenant("acme", json!({ "hosts": ["registry.acme.com"] }))
        .await;
    let token = admin.token("acme", &["**"], &["pull"]).await;
    let database = berth.storage().database().expect("a database");
    // In one statement, as writers do: a version that a replica has seen never gains a row.
    database.query(
        "WITH raised AS (UPDATE config_version SET version = version + 1 RETURNING version) \
         UPDATE config SET spec = '{\"hosts\": 7}', version = (SELECT version FROM raised) \
         WHERE tenant_id = (SELECT id FROM tenant WHERE name = 'acme') AND kind = 0",
    );

    eventually("the replica says that it cannot read it", async || {
        let replicas = admin.ask(Method::GET, "replicas", None).await.expect(200).json();
        replicas["replicas"][0]["failed"] == json!(["tenants/acme/"])
    })
    .await;
    get(&berth, &host, &token, "/v2/").await.expect(200);
    get(&berth, "registry.acme.com", &token, "/v2/").await.expect(200);
    let shown = admin
        .ask(Method::GET, "tenants/acme", None)
        .await
        .expect(200)
        .json();
    assert_eq!(shown["programmed"], false);
    // Others go on being configured, and a good spec heals it.
    admin.put_tenant("third", json!({})).await;
    assert!(is_served(&berth.url(""), &format!("third.{DOMAIN}")).await);
    admin.put_tenant("acme", json!({})).await;
    eventually("it is healed", async || {
        admin
            .ask(Method::GET, "tenants/acme", None)
            .await
            .expect(200)
            .json()["programmed"]
            == true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_has_lost_the_last_changes_is_followed_from_where_it_is() {
    let (berth, admin) = two_tenants(settings().backend(Backend::Distributed)).await;
    admin.put_tenant("lost", json!({})).await;
    let host = |name: &str| format!("{name}.{DOMAIN}");
    assert!(is_served(&berth.url(""), &host("lost")).await);
    // As a standby that took over before it had heard of it.
    let database = berth.storage().database().expect("a database");
    database.query(
        "WITH gone AS (DELETE FROM config WHERE tenant_id = (SELECT id FROM tenant WHERE name = 'lost')), \
         old AS (UPDATE config SET version = 2 WHERE tenant_id <> (SELECT id FROM tenant WHERE name = 'lost')) \
         UPDATE config_version SET version = 2",
    );
    eventually("what was lost is not served", async || {
        !is_served(&berth.url(""), &host("lost")).await
    })
    .await;
    assert!(is_served(&berth.url(""), &host("acme")).await);
    // What comes next has numbers that were served before.
    admin.put_tenant("next", json!({})).await;
    assert!(is_served(&berth.url(""), &host("next")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_repeated_changes_nothing_and_an_older_term_is_refused() {
    let (_berth, admin) = two_tenants(settings()).await;
    let put = async |path: &str, body: serde_json::Value| admin.ask(Method::PUT, path, Some(body)).await;
    let cache = json!({ "spec": {
        "upstream": { "url": "https://192.0.2.1", "username": "u", "password": "hunter2" }, "prefix": "docker.io" } });
    let first = put("tenants/acme/caches/ns/hub", cache.clone())
        .await
        .expect(200)
        .json();
    let again = put("tenants/acme/caches/ns/hub", cache.clone())
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&first["changed"], &again["changed"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(first["version"], again["version"]);
    let shown = admin
        .ask(Method::GET, "tenants/acme/caches/ns/hub", None)
        .await
        .expect(200);
    assert_eq!(shown.json()["spec"]["upstream"]["password"], "(sealed)");
    assert!(!shown.text().contains("hunter2"));
    let mut changed = cache.clone();
    changed["spec"]["upstream"]["password"] = "hunter3".into();
    assert_eq!(
        put("tenants/acme/caches/ns/hub", changed)
            .await
            .expect(200)
            .json()["changed"],
        true
    );
    // The state tells what there is by its hash.
    let state = admin.ask(Method::GET, "state", None).await.expect(200).json();
    let objects = state["objects"].as_array().unwrap();
    assert!(
        objects
            .iter()
            .any(|object| object["kind"] == "caches" && object["hash"].as_str().unwrap().len() == 64)
    );

    let term = async || {
        admin.ask(Method::POST, "terms", None).await.expect(200).json()["term"]
            .as_i64()
            .unwrap()
    };
    let (old, new) = (term().await, term().await);
    let under = |term: i64| json!({ "term": term, "spec": { "displayName": term.to_string() } });
    let refused = put("tenants/acme", under(old)).await.expect(409);
    assert_eq!(refused.json()["reason"], "StaleTerm");
    put("tenants/acme", under(new)).await.expect(200);
    admin
        .ask(
            Method::DELETE,
            &format!("tenants/acme/caches/ns/hub?term={old}"),
            None,
        )
        .await
        .expect(409);
    admin
        .ask(
            Method::DELETE,
            &format!("tenants/acme/caches/ns/hub?term={new}"),
            None,
        )
        .await
        .expect(200);
    admin
        .ask(Method::GET, "tenants/acme/caches/ns/hub", None)
        .await
        .expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_told_by_field() {
    let (_berth, admin) = two_tenants(settings()).await;
    for (path, spec, field) in [
        (
            "tenants/acme",
            json!({ "hosts": ["x.registry.test"] }),
            "spec.hosts[0]",
        ),
        (
            "tenants/acme",
            json!({ "apexAliases": ["a/b"] }),
            "spec.apexAliases[0]",
        ),
        (
            "tenants/acme",
            json!({ "trust": [{ "kind": "Issuer", "issuer": "x", "audience": "a", "grants": [] }] }),
            "spec.trust[0].issuer",
        ),
        (
            "tenants/acme",
            json!({ "trust": [{ "kind": "Issuer", "issuer": "https://x.example", "audience": "a", "when": "claims.",
                "grants": [{ "repositories": ["**"], "actions": ["pull"] }] }] }),
            "spec.trust[0].when",
        ),
        ("tenants/acme/repositories/a", json!({ "name": "A" }), "spec.name"),
        (
            "tenants/acme/repositories/a",
            json!({ "name": "a", "match": "b" }),
            "spec.name",
        ),
        (
            "tenants/acme/retention-policies/a",
            json!({ "schedule": "often" }),
            "spec.schedule",
        ),
        (
            "tenants/acme/caches/a",
            json!({ "upstream": { "url": "ftp://x" }, "prefix": "p" }),
            "spec.upstream.url",
        ),
    ] {
        let refused = admin
            .ask(Method::PUT, path, Some(json!({ "spec": spec })))
            .await
            .expect(400)
            .json();
        assert_eq!(refused["problems"][0]["path"], field, "{refused}");
    }
    for (path, body) in [
        ("tenants/acme", "{"),
        ("tenants/acme", r#"{"spec": {"displayname": 1}}"#),
        ("tenants/ACME", r#"{"spec": {}}"#),
        ("tenants/acme/repositories/a", r#"{"spec": {"name": 7}}"#),
    ] {
        let body: serde_json::Value = serde_json::from_str(body).unwrap_or(json!("{"));
        admin.ask(Method::PUT, path, Some(body)).await.expect(400);
    }
    admin
        .ask(
            Method::PUT,
            "tenants/nobody/repositories/a",
            Some(json!({ "spec": { "name": "a" } })),
        )
        .await
        .expect(404);
    admin
        .ask(Method::PUT, "tenants/acme/things/a", Some(json!({ "spec": {} })))
        .await
        .expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_of_the_openapi_document_is_answered() {
    let (_berth, admin) = two_tenants(settings()).await;
    let document = admin
        .ask(Method::GET, "openapi.json", None)
        .await
        .expect(200)
        .json();
    let mut answered = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let path = path
                .trim_start_matches("/admin/v1/")
                .replace("{tenant}", "absent")
                .replace("{kind}", "caches");
            let path = path
                .replace("{name}", "x")
                .replace("{id}", "x")
                .replace("{repository}", "x");
            let method: Method = method.to_uppercase().parse().unwrap();
            let answer = admin.ask(method.clone(), &path, Some(json!({}))).await;
            let reason = if answer.status.is_success() {
                String::new()
            } else {
                answer.json()["error"].to_string()
            };
            assert!(
                !reason.contains("no such path") && answer.status != 405,
                "{method} {path}: {reason}"
            );
            answered += 1;
        }
    }
    assert!(answered >= 20, "{answered}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_tenant_is_not_there_any_more_and_its_tokens_never_again() {
    let (berth, admin) = two_tenants(settings()).await;
    let host = format!("acme.{DOMAIN}");
    let token = admin.token("acme", &["**"], &["pull", "push"]).await;
    super::push(&berth, &host, &token, "app", b"content", "v1").await;
    admin.ask(Method::DELETE, "tenants/acme", None).await.expect(200);
    get(&berth, &host, &token, "/v2/").await.expect(404);
    admin.put_tenant("acme", json!({})).await;
    // What a replica remembers of a token, it remembers for half a second.
    eventually("the old token is nobody's", async || {
        get(&berth, &host, &token, "/v2/").await.status != 200
    })
    .await;
    get(&berth, &host, &token, "/v2/").await.expect(401);
    let again = admin.token("acme", &["**"], &["pull"]).await;
    get(&berth, &host, &again, "/v2/app/manifests/v1")
        .await
        .expect(200);
    admin
        .ask(Method::DELETE, "tenants/acme?erase=true", None)
        .await
        .expect(200);
    admin.put_tenant("acme", json!({})).await;
    let third = admin.token("acme", &["**"], &["pull"]).await;
    get(&berth, &host, &third, "/v2/app/manifests/v1")
        .await
        .expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_removed_by_its_sources_uid_is_no_object_of_another_source() {
    let (berth, admin) = two_tenants(settings()).await;
    let made = async |uid: &str, path: &str, spec: serde_json::Value| {
        let body = json!({ "uid": uid, "spec": spec });
        admin.ask(Method::PUT, path, Some(body)).await.expect(200);
    };
    let remove = async |path: &str| admin.ask(Method::DELETE, path, None).await;
    made("second", "tenants/acme", json!({})).await;
    made(
        "second",
        "tenants/acme/repositories/app",
        json!({ "name": "app" }),
    )
    .await;
    let token = admin.token("acme", &["**"], &["pull"]).await;
    for path in ["tenants/acme/repositories/app", "tenants/acme"] {
        for erase in ["", "&erase=true"] {
            let refused = remove(&format!("{path}?uid=first{erase}")).await;
            assert_eq!(refused.expect(409).json()["reason"], "Replaced", "{path}{erase}");
        }
    }
    get(&berth, &format!("acme.{DOMAIN}"), &token, "/v2/")
        .await
        .expect(200);
    for path in ["tenants/acme/repositories/app", "tenants/acme"] {
        remove(&format!("{path}?uid=second")).await.expect(200);
        admin.ask(Method::GET, path, None).await.expect(404);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_repeated_seals_with_the_new_key_once_and_specs_without_secrets_stay() {
    let (berth, admin) = two_tenants(settings()).await;
    let cache = json!({ "spec": {
        "upstream": { "url": "https://192.0.2.1", "username": "u", "password": "hunter2" }, "prefix": "hub" } });
    let repository = json!({ "spec": { "name": "app" } });
    let put = async |path: &str, body: &serde_json::Value| {
        let answer = admin.ask(Method::PUT, path, Some(body.clone())).await.expect(200);
        answer.json()["changed"].clone()
    };
    let (hub, app) = ("tenants/acme/caches/ns/hub", "tenants/acme/repositories/ns/app");
    assert_eq!(
        (put(hub, &cache).await, put(app, &repository).await),
        (json!(true), json!(true))
    );
    assert_eq!(put(hub, &cache).await, false);
    let keys = berth.data().join("keys");
    let key = format!("{}\n", base64::engine::general_purpose::STANDARD.encode([7; 32]));
    std::fs::write(keys.join("sealing-1.key"), key).expect("a key");
    eventually("the new key seals", async || put(hub, &cache).await == true).await;
    assert_eq!(put(hub, &cache).await, false);
    assert_eq!(put(app, &repository).await, false);
}
