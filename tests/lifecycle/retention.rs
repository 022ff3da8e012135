//! Retention policies and ephemeral repositories at a running server.

use harness::content::sha256;
use harness::http::Repository;
use harness::{Admin, Backend, Berth, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use super::place::*;

async fn policy(admin: &Admin, spec: Value) {
    admin.put("tenants/default/retention-policies/ci/ci", spec).await;
}

async fn run(admin: &Admin) -> Value {
    let path = "tenants/default/retention/run?policy=ci%2Fci";
    eventually("the policy has been run", WAIT, async || {
        let answer = admin.ask(Method::POST, path, None).await;
        // It may be being previewed just now.
        (answer.status.as_u16() == 200).then(|| answer.json())
    })
    .await
}

async fn tags(repository: &Repository) -> Vec<String> {
    let listed = repository.get("tags/list").await.expect(200).json();
    serde_json::from_value(listed["tags"].clone()).expect("names")
}

#[tokio::test]
async fn a_policy_is_previewed_then_run_and_its_garbage_goes_on_sqlite_and_a_folder() {
    previewed_then_run(Backend::Embedded).await;
}

#[tokio::test]
async fn a_policy_is_previewed_then_run_and_its_garbage_goes_on_postgres_and_s3() {
    previewed_then_run(Backend::Distributed).await;
}

async fn previewed_then_run(backend: Backend) {
    let berth = short(Berth::builder().backend(backend)).start().await;
    let admin = Admin::of(&berth);
    let repository = Repository::new(&berth.url(""), "team/app");
    let mut images = Vec::new();
    for number in 0..6 {
        images.push(push(&repository, number, &format!("b{number}")).await);
    }
    let other = Repository::new(&berth.url(""), "other/app");
    push(&other, 9, "b9").await;
    // A signature of an image that goes and one of an image that stays.
    for image in [&images[0], &images[5]] {
        let tag = format!("{}.sig", image.digest().replace(':', "-"));
        push(&repository, 50 + image.own[0] as u64, &tag).await;
    }
    let spec = |dry: bool| {
        json!({
            "repositories": ["team/**"],
            "rules": [{ "keepLast": 2 }],
            "restoreWindow": "0s",
            "schedule": "0 0 1 1 *",
            "dryRun": dry,
        })
    };

    policy(&admin, spec(true)).await;
    let told = run(&admin).await;
    assert_eq!(told["lastRun"]["dryRun"], true, "{told}");
    assert_eq!(told["lastRun"]["deletedTags"], 0);
    assert_eq!(told["preview"]["wouldDelete"], 4, "{told}");
    assert_eq!(tags(&repository).await.len(), 8);

    policy(&admin, spec(false)).await;
    let told = run(&admin).await;
    assert_eq!(told["lastRun"]["deletedTags"], 4, "{told}");
    eventually_gone(&repository, &images[0].digest()).await;
    settled(&admin).await;
    let signature = format!("{}.sig", images[5].digest().replace(':', "-"));
    assert_eq!(tags(&repository).await, ["b4", "b5", &signature]);
    assert_there(&repository, &images[5]).await;
    assert_eq!(tags(&other).await, ["b9"]);
    let (freed, told) = (
        told["lastRun"]["reclaimable"].as_u64().expect("bytes"),
        usage(&admin, "default").await,
    );
    let each = (images[0].own.len() + images[0].manifest.len()) as u64;
    assert!(freed >= 4 * each, "{freed} of at least {each} each");
    assert_eq!(told["tags"], 4);
    assert!(metric(&berth, "berth_retention_deleted_tags_total").await >= 4.0);
}

#[tokio::test]
async fn a_run_that_fails_tells_what_it_had_deleted() {
    let berth = short(Berth::builder().backend(Backend::Distributed))
        .start()
        .await;
    let admin = Admin::of(&berth);
    for (name, prefix) in [("team/a", "a"), ("team/b", "b")] {
        let repository = Repository::new(&berth.url(""), name);
        for number in 0..3 {
            push(&repository, number, &format!("{prefix}{number}")).await;
        }
    }
    let rules = json!({
        "repositories": ["team/**"], "rules": [{ "keepLast": 1 }], "restoreWindow": "0s", "schedule": "0 0 1 1 *",
    });
    policy(&admin, rules).await;
    // The second repository's tags cannot be deleted.
    let database = berth.storage().database().expect("Postgres");
    database.query(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'this tag stays'; END $$; \
         CREATE TRIGGER refuse BEFORE DELETE ON tag FOR EACH ROW WHEN (OLD.name LIKE 'b%') EXECUTE FUNCTION refuse()",
    );
    let told = run(&admin).await;
    assert!(told["lastRun"]["error"].is_string(), "{told}");
    assert_eq!(told["lastRun"]["deletedTags"], 2, "{told}");
    assert_eq!(told["lastRun"]["evaluated"], 6, "{told}");
    assert_eq!(tags(&Repository::new(&berth.url(""), "team/a")).await, ["a2"]);
}

#[tokio::test]
async fn a_policy_runs_by_its_schedule() {
    let berth = short(Berth::builder()).start().await;
    let admin = Admin::of(&berth);
    let repository = Repository::new(&berth.url(""), "team/app");
    push(&repository, 1, "old").await;
    push(&repository, 2, "new").await;
    policy(
        &admin,
        json!({ "repositories": ["**"], "rules": [{ "keepLast": 1 }], "schedule": "* * * * *" }),
    )
    .await;
    eventually("the schedule has come", 2 * WAIT, async || {
        (tags(&repository).await == ["new"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn tags_of_an_ephemeral_repository_expire_and_others_stay() {
    let berth = short(Berth::builder()).start().await;
    let admin = Admin::of(&berth);
    admin
        .put(
            "tenants/default/repositories/ci/builds",
            json!({ "match": "builds/**", "lifecycle": "Ephemeral", "ephemeralAfter": "3s", "immutableTags": ["keep*"] }),
        )
        .await;
    let builds = Repository::new(&berth.url(""), "builds/app");
    let stays = Repository::new(&berth.url(""), "app");
    push(&stays, 1, "v1").await;
    let image = push(&builds, 2, "v1").await;
    push(&builds, 3, "keep-me").await;

    eventually("the tag has expired", WAIT, async || {
        (tags(&builds).await == ["keep-me"]).then_some(())
    })
    .await;
    eventually_gone(&builds, &image.digest()).await;
    settled(&admin).await;
    builds
        .get(&format!("blobs/{}", sha256(&image.own)))
        .await
        .expect(404);
    assert_eq!(tags(&stays).await, ["v1"]);
    assert!(metric(&berth, "berth_expired_tags_total").await >= 1.0);
}

#[tokio::test]
async fn an_annotated_artifact_expires_and_a_wrong_annotation_is_refused() {
    let berth = short(Berth::builder()).start().await;
    let admin = Admin::of(&berth);
    let repository = Repository::new(&berth.url(""), "app");
    let lasting = json!({ "berth.dev/expires-after": "3s" });
    let image = push_annotated(&repository, 1, "preview", &lasting).await;
    push(&repository, 2, "v1").await;
    for wrong in [json!("soon"), json!("0s"), json!("")] {
        let annotated = super::place::image(1, &json!({ "berth.dev/expires-after": wrong }));
        let answer = repository
            .put_manifest("wrong", MANIFEST, &annotated.manifest)
            .await
            .expect(400);
        assert_eq!(answer.error_code(), "MANIFEST_INVALID");
        assert!(
            answer.text().contains("berth.dev/expires-after"),
            "{}",
            answer.text()
        );
    }

    eventually("the tag has expired", WAIT, async || {
        (tags(&repository).await == ["v1"]).then_some(())
    })
    .await;
    eventually_gone(&repository, &image.digest()).await;
    settled(&admin).await;
}

#[tokio::test]
async fn a_head_by_someone_who_may_push_begins_a_tags_life_anew() {
    let berth = Berth::builder().flag("--domain", "registry.test").start().await;
    let admin = Admin::of(&berth);
    admin.put_tenant("default", json!({})).await;
    let (pusher, puller) = (
        admin.token("default", &["**"], &["pull", "push"]).await,
        admin.token("default", &["**"], &["pull"]).await,
    );
    let repository = Repository::new(&berth.url(""), "builds/app");
    let ask = async |method: Method, path: &str, token: &str, body: Vec<u8>| {
        let request = repository
            .request(method, path)
            .header("Host", "default.registry.test")
            .header("Content-Type", MANIFEST)
            .basic_auth("x-token", Some(token))
            .body(body);
        harness::http::send(request).await
    };
    let image = super::place::image(1, &Value::Null);
    for blob in [image.own.clone(), shared()] {
        let path = format!("blobs/uploads/?digest={}", sha256(&blob));
        ask(Method::POST, &path, &pusher, blob).await.expect(201);
    }
    ask(Method::PUT, "manifests/v1", &pusher, image.manifest.clone())
        .await
        .expect(201);
    let explained = async || {
        let path = "tenants/default/retention/explain?repository=builds%2Fapp&tag=v1";
        admin.ask(Method::GET, path, None).await.expect(200).json()
    };

    ask(Method::HEAD, "manifests/v1", &puller, Vec::new())
        .await
        .expect(200);
    assert!(
        explained().await["renewedAt"].is_null(),
        "who may only pull renews nothing"
    );
    ask(Method::HEAD, "manifests/v1", &pusher, Vec::new())
        .await
        .expect(200);
    let renewed = explained().await;
    assert!(renewed["renewedAt"].is_string(), "{renewed}");
    ask(Method::HEAD, "manifests/v1", &pusher, Vec::new())
        .await
        .expect(200);
    assert_eq!(
        explained().await["renewedAt"],
        renewed["renewedAt"],
        "at most hourly"
    );
    eventually("the pull has been noted", WAIT, async || {
        explained().await["pulledAt"].is_string().then_some(())
    })
    .await;
}
