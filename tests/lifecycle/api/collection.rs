//! The collector: what waits, rounds that are asked for, the switch, and what is erased.

use std::time::Duration;

use harness::content::{blob, sha256};
use harness::{Backend, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Place, WAIT, settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collection_is_paused_run_by_hand_and_resumed() {
    for backend in Backend::BOTH {
        let mut place = Place::start(settings(backend).flag("--restore-window", "1s")).await;
        let content = place.content("acme").await;

        // 1. While it is paused, garbage waits.
        let paused = place.json(&["gc", "pause"]);
        assert_eq!(paused["paused"], true);
        let again = json!({ "paused": true });
        let again = place
            .admin
            .ask(Method::PUT, "gc/paused", Some(again))
            .await
            .expect(200)
            .json();
        assert_eq!(again, paused, "said again it changes nothing");
        let digest = content.push("app", "v1", &blob(70_000, 3)).await;
        let object = sha256(&blob(70_000, 3));
        content.delete(&format!("app/manifests/{digest}")).await;
        eventually("it is due", WAIT, async || {
            let state = place.get("gc").await;
            state["queues"]["oldestDue"].is_string().then_some(())
        })
        .await;
        let state = place.get("gc").await;
        assert_eq!(
            (&state["paused"], &state["since"]),
            (&json!(true), &paused["since"])
        );
        assert_eq!((&state["running"], &state["purges"]), (&json!(false), &json!([])));
        assert_eq!(
            state["collected"],
            json!({ "manifests": 0, "blobs": 0, "objects": 0, "bytes": 0 })
        );
        let waiting = |field: &str| state["queues"][field].as_u64().unwrap();
        assert!(waiting("manifests") + waiting("blobs") > 0, "{state}");
        let text = place.text(&["gc", "status"]);
        assert!(
            text.starts_with("paused since 20") && text.contains("waiting: "),
            "{text}"
        );

        // 2. By hand it goes on nevertheless: the links, then the blob, then its bytes.
        eventually("the bytes are free", WAIT, async || {
            let ran = place.post("gc/run").await.expect(200).json();
            assert_eq!(ran["done"], true);
            (ran["objects"] == 1).then_some(())
        })
        .await;
        content.get(&format!("app/blobs/{object}")).await.expect(404);
        let state = place.json(&["gc", "status"]);
        assert_eq!(
            (&state["paused"], &state["collected"]["objects"]),
            (&json!(true), &json!(1))
        );
        assert!(state["collected"]["bytes"].as_u64() >= Some(70_000), "{state}");
        let storage = place.get("storage").await;
        assert_eq!(
            (&storage["storedBytes"], &storage["garbageBytes"]),
            (&json!(0), &json!(0))
        );

        // 3. Without a server, the command does it itself.
        let digest = content.push("app", "v2", &blob(60_000, 4)).await;
        content.delete(&format!("app/manifests/{digest}")).await;
        place.berth.terminate(Duration::from_secs(20)).await;
        eventually("the bytes are free", WAIT, async || {
            let ran = place.json(&["gc", "run"]);
            assert_eq!(ran["done"], true);
            (ran["objects"] == 1).then_some(())
        })
        .await;
        assert!(place.text(&["gc", "resume"]).contains("not paused"));
        place.berth.restart().await;

        // 4. By itself it goes on.
        let digest = content.push("app", "v3", &blob(50_000, 5)).await;
        content.delete(&format!("app/manifests/{digest}")).await;
        eventually("the collector has done it", WAIT, async || {
            let state = place.get("gc").await;
            (state["collected"]["objects"] == 1 && state["since"] == Value::Null).then_some(())
        })
        .await;
        let trail = place.get("audit?limit=1000").await;
        for action in ["gc.pause", "gc.run", "gc.resume"] {
            let records = trail["records"].as_array().unwrap();
            assert!(
                records.iter().any(|record| record["action"] == action),
                "{action}"
            );
        }
        let nonsense = json!({ "pause": true });
        place
            .admin
            .ask(Method::PUT, "gc/paused", Some(nonsense))
            .await
            .expect(400);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_being_erased_is_told_by_its_old_name() {
    for backend in Backend::BOTH {
        let place = Place::start(settings(backend)).await;
        let content = place.content("acme").await;
        content.push("app", "v1", b"one").await;
        content.push("retired", "v1", b"retired").await;
        content.push("retired", "v2", b"retired").await;
        let retired = place.get("tenants/acme/catalog/retired").await;
        // Put off, so that they are seen: of the one repository the name is gone already.
        place.sql(
            "UPDATE repository SET name = name || '~' || id WHERE name = 'retired'; \
             INSERT INTO purge (tenant_id, repository, due_at, requested_at) \
             SELECT r.tenant_id, r.name, 9000000000000000, 1700000000000000 FROM repository r; \
             INSERT INTO purge (tenant_id, repository, due_at, requested_at) \
             SELECT t.id, '', 9000000000000000, 1700000000000000 FROM tenant t WHERE t.name = 'other'",
        );
        let state = place.get("gc").await;
        let purges = state["purges"].as_array().unwrap();
        let of = |tenant: &str, repository: Value| {
            let found = purges
                .iter()
                .find(|purge| purge["tenant"] == tenant && purge["repository"] == repository);
            found.unwrap_or_else(|| panic!("{repository} of {tenant} in {state}"))
        };
        assert_eq!(purges.len(), 3);
        assert_eq!(
            of("acme", json!("retired"))["left"],
            json!({ "bytes": retired["bytes"], "tags": 2, "repositories": 1 })
        );
        assert_eq!(of("acme", json!("app"))["left"]["tags"], 1);
        let whole = of("other", Value::Null);
        assert_eq!(whole["left"], json!({ "bytes": 0, "tags": 0, "repositories": 0 }));
        assert_eq!(whole["requestedAt"], "2023-11-14T22:13:20Z");
        let text = place.text(&["gc", "status"]);
        assert!(
            text.contains("ERASED TENANT") && text.contains("retired"),
            "{text}"
        );
        // Nobody else is told the name that it has now.
        assert!(!state.to_string().contains('~'), "{state}");
    }
}
