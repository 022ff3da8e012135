//! Policies: what they have done and would do, and why a tag stays or goes.

use harness::{Backend, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Content, NEVER, Place, WAIT, settings};

/// Keeps the newest of `ci-*`, and `release`; `v*` cannot be deleted.
async fn with_policy(backend: Backend) -> (Place, Content) {
    let place = Place::start(settings(backend).flag("--restore-window", "1h")).await;
    let app = json!({ "name": "app", "immutableTags": ["v*"], "aliases": ["old-app"] });
    place.admin.put("tenants/acme/repositories/apps/app", app).await;
    let policy = json!({
        "repositories": ["app"], "schedule": NEVER,
        "rules": [{ "tags": ["ci-*"], "keepLast": 1 }, { "tags": ["release"] }],
    });
    place
        .admin
        .put("tenants/acme/retention-policies/apps/ci", policy)
        .await;
    let content = place.content("acme").await;
    for tag in ["v1", "release", "ci-1", "ci-2", "loose"] {
        content.push("app", tag, tag.as_bytes()).await;
    }
    (place, content)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tag_is_explained_by_what_decides_about_it() {
    for backend in Backend::BOTH {
        let (place, content) = with_policy(backend).await;
        let signed = content.push("app", "v2", b"signed").await;
        let signature = format!("{}.sig", signed.replace(':', "-"));
        content.push("app", &signature, b"signature").await;
        content.get("app/manifests/release").await.expect(200);
        let explain = async |repository: &str, tag: &str| {
            let path = format!("tenants/acme/retention/explain?repository={repository}&tag={tag}");
            place.get(&path).await
        };

        for (tag, keeps, reason) in [
            ("v1", true, "kept: the tag is immutable".to_owned()),
            (
                "release",
                true,
                "kept: policy apps/ci, rules[1]: it matches".to_owned(),
            ),
            (
                "ci-2",
                true,
                "kept: policy apps/ci, rules[0]: number 1 of the newest 1 by push".to_owned(),
            ),
            ("ci-1", false, "goes: no rule keeps it".to_owned()),
            ("loose", false, "goes: no rule keeps it".to_owned()),
            (
                &signature,
                true,
                format!("kept: it belongs to {signed}, and stays and goes with that"),
            ),
        ] {
            let told = explain("app", tag).await;
            assert_eq!(
                (&told["keeps"], &told["reason"]),
                (&keeps.into(), &reason.into()),
                "{tag}"
            );
            assert_eq!(told["policies"], json!(["apps/ci"]));
            assert_eq!(told["restoreWindow"], 3600);
            assert!(
                told["pushedAt"].is_string() && told["pushedBy"].is_string(),
                "{told}"
            );
        }
        assert_eq!(explain("app", &signature).await["attachedTo"], signed);
        assert!(explain("app", "release").await["pulledAt"].is_string());
        let by_alias = explain("old-app", "ci-1").await;
        assert_eq!(by_alias["repository"], "app");
        assert_eq!(
            place.json(&["retention", "explain", "old-app", "ci-1", "--tenant", "acme"]),
            by_alias
        );
        let text = place.text(&["retention", "explain", "app", "ci-1", "--tenant", "acme"]);
        assert!(text.contains("goes: no rule keeps it"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_of_an_ephemeral_repository_says_when_it_ends() {
    let place = Place::start(settings(Backend::Embedded)).await;
    let builds = json!({ "match": "builds/**", "lifecycle": "Ephemeral", "ephemeralAfter": "1h" });
    place
        .admin
        .put("tenants/acme/repositories/apps/builds", builds)
        .await;
    let content = place.content("acme").await;
    content.push("builds/one", "a", b"a").await;
    content.push("lasting", "a", b"a").await;
    let told = place
        .get("tenants/acme/retention/explain?repository=builds/one&tag=a")
        .await;
    assert_eq!(
        (&told["keeps"], &told["reason"], &told["restoreWindow"]),
        (
            &json!(true),
            &json!("kept: no policy has a rule for the repository"),
            &json!(0)
        )
    );
    assert!(told["expiresAt"].as_str() > told["pushedAt"].as_str(), "{told}");
    let told = place
        .get("tenants/acme/retention/explain?repository=lasting&tag=a")
        .await;
    assert_eq!(told["expiresAt"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_says_what_a_run_then_does() {
    for backend in Backend::BOTH {
        let (place, content) = with_policy(backend).await;

        // 1. What would be, asked for in each way.
        let preview = place.post("tenants/acme/retention/preview?policy=apps/ci").await;
        let preview = preview.expect(200).json();
        assert_eq!(
            (&preview["evaluated"], &preview["wouldDelete"]),
            (&json!(5), &json!(2))
        );
        assert!(preview["reclaimable"].as_u64() > Some(0), "{preview}");
        let mut sample: Vec<&str> = preview["sample"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        sample.sort_unstable();
        assert_eq!(sample, ["app:ci-1", "app:loose"]);
        let in_repository = place
            .post("tenants/acme/retention/preview?repository=old-app")
            .await;
        assert_eq!(in_repository.expect(200).json(), preview);
        assert_eq!(
            place.json(&["retention", "preview", "--tenant", "acme", "--policy", "apps/ci"]),
            preview
        );
        assert_eq!(
            place.json(&["retention", "preview", "--tenant", "acme", "--repository", "app"]),
            preview
        );
        let all = place.text(&["retention", "preview", "--tenant", "acme"]);
        assert!(all.contains("apps/ci: 2 of 5 tags would be deleted"), "{all}");
        content.get("app/manifests/ci-1").await.expect(200);

        // 2. A new policy is previewed by itself, and runs by its schedule.
        let path = "tenants/acme/retention?policy=apps%2Fci";
        let known = eventually("a preview", WAIT, async || {
            let known = place.get(path).await;
            known["preview"].is_object().then_some(known)
        })
        .await;
        assert_eq!(known["policy"], "apps/ci");
        assert_eq!(known["lastRun"], Value::Null);
        assert!(
            known["nextRun"].as_str().unwrap().ends_with("-01-01T00:00:00Z"),
            "{known}"
        );

        // 3. The run.
        let ran = place.json(&["retention", "run", "apps/ci", "--tenant", "acme"]);
        let run = &ran["lastRun"];
        assert_eq!(
            (
                &run["evaluated"],
                &run["deletedTags"],
                &run["dryRun"],
                &run["error"],
                &ran["running"]
            ),
            (&json!(5), &json!(2), &json!(false), &Value::Null, &json!(false))
        );
        content.get("app/manifests/ci-1").await.expect(404);
        content.get("app/manifests/ci-2").await.expect(200);
        let again = place
            .post("tenants/acme/retention/run?policy=apps/ci")
            .await
            .expect(200)
            .json();
        assert_eq!(again["lastRun"]["deletedTags"], 0);
        assert_eq!(place.get("tenants/acme/retention").await, json!([again]));
        assert_eq!(
            place.json(&["retention", "list", "--tenant", "acme"]),
            json!([again])
        );
        let text = place.text(&["retention", "list", "--tenant", "acme"]);
        assert!(
            text.contains("apps/ci") && text.contains("WOULD DELETE"),
            "{text}"
        );
        let deleted = place.get("tenants/acme/tags/deleted?repository=app").await;
        assert_eq!(deleted["tags"][0]["deletedBy"], "retention apps/ci");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_only_reports_and_works_without_a_server() {
    let (mut place, content) = with_policy(Backend::Embedded).await;
    let policy = json!({ "repositories": ["app"], "schedule": NEVER, "dryRun": true, "rules": [{ "tags": ["ci-*"] }] });
    place
        .admin
        .put("tenants/acme/retention-policies/apps/ci", policy)
        .await;
    // The server looks at a changed policy by itself, and nobody else does so meanwhile.
    let ran = eventually("it can be run", WAIT, async || {
        let answer = place.post("tenants/acme/retention/run?policy=apps/ci").await;
        (answer.status != 409).then_some(answer)
    })
    .await;
    let run = ran.expect(200).json();
    assert_eq!(
        (&run["lastRun"]["dryRun"], &run["lastRun"]["deletedTags"]),
        (&json!(true), &json!(0))
    );
    content.get("app/manifests/loose").await.expect(200);
    place.berth.kill9();
    let text = place.text(&["retention", "run", "apps/ci", "--tenant", "acme"]);
    assert!(
        text.contains("apps/ci only reports: 2 of 5 tags would be deleted"),
        "{text}"
    );
    assert!(text.contains("  app:loose\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_run_previewed_or_explained_says_why() {
    for backend in Backend::BOTH {
        let (place, _content) = with_policy(backend).await;
        let (get, post) = (Method::GET, Method::POST);
        for (method, path, status, message) in [
            (&get, "nobody/retention", 404, "there is no tenant nobody"),
            (
                &get,
                "acme/retention?policy=apps/none",
                404,
                "no retention policy \"apps/none\"",
            ),
            (
                &post,
                "acme/retention/run?policy=apps/none",
                404,
                "no retention policy",
            ),
            (&post, "acme/retention/run", 400, "?policy=<name>"),
            (&post, "nobody/retention/run?policy=apps/ci", 404, "no tenant"),
            (&post, "acme/retention/preview", 400, "?repository=<name>"),
            (
                &post,
                "acme/retention/preview?policy=apps/ci&repository=app",
                400,
                "name one of",
            ),
            (
                &post,
                "acme/retention/preview?repository=none",
                404,
                "no repository \"none\"",
            ),
            (&post, "nobody/retention/preview?policy=apps/ci", 404, "no tenant"),
            (&get, "acme/retention/explain?repository=app", 400, "tag"),
            (
                &get,
                "acme/retention/explain?repository=app&tag=none",
                404,
                "no tag \"none\" in app",
            ),
            (
                &get,
                "acme/retention/explain?repository=app&tag=..",
                404,
                "no tag",
            ),
            (
                &get,
                "acme/retention/explain?repository=none&tag=v1",
                404,
                "no repository",
            ),
            (
                &get,
                "nobody/retention/explain?repository=app&tag=v1",
                404,
                "no tenant",
            ),
        ] {
            let (_, error) = place
                .refused(method.clone(), &format!("tenants/{path}"), status)
                .await;
            assert!(error.contains(message), "{path}: {error}");
        }

        // Somebody runs it.
        let until = i64::MAX;
        let claim =
            format!("UPDATE job SET claimed_until = {until}, claimed_by = 'somebody' WHERE name = 'apps/ci'");
        eventually("the server has looked at it", WAIT, async || {
            let known = place.get("tenants/acme/retention?policy=apps/ci").await;
            (known["preview"].is_object() && known["running"] == false).then_some(())
        })
        .await;
        place.sql(&claim);
        assert_eq!(
            place.get("tenants/acme/retention?policy=apps/ci").await["running"],
            true
        );
        let (reason, error) = place
            .refused(post.clone(), "tenants/acme/retention/run?policy=apps/ci", 409)
            .await;
        assert_eq!(
            (reason.as_str(), error.contains("wait for its end")),
            ("Running", true),
            "{error}"
        );
        let complaint = place.complaint(&["retention", "run", "apps/ci", "--tenant", "acme"], 1);
        assert!(complaint.contains("the policy is being run"), "{complaint}");

        // A writer that was taken over from runs nothing.
        for _ in 0..2 {
            place.post("terms").await.expect(200);
        }
        let stale = "tenants/acme/retention/run?policy=apps/ci&term=1";
        assert_eq!(place.refused(post.clone(), stale, 409).await.0, "StaleTerm");
    }
}
