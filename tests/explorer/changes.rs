//! Deletes, restores and tags from pages, and what became of a tag.

use harness::Image;
use reqwest::Method;
use serde_json::json;

use super::{House, Visitor, hidden};

/// Sends a page's form, with further fields.
async fn send(person: &Visitor, page: &str, to: &str, fields: &[(&str, &str)]) -> harness::http::Answer {
    let form = hidden(&person.get(page).await.expect(200).text());
    let fields: Vec<_> = [("form", form.as_str())]
        .into_iter()
        .chain(fields.iter().copied())
        .collect();
    person.post(to, &fields).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_is_deleted_after_a_preview_and_comes_back() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "team/app").await;
    let image = Image::new(1, 50_000);
    image.push(&repository, "v1").await;
    let person = house.person("acme", &token).await;
    let at = "/explorer/r/team/app/-";

    // 1. What would go.
    let delete = format!("{at}/delete/tags/v1");
    let told = person.json(&delete).await;
    assert_eq!(told["digest"], image.digest());
    assert_eq!(
        (&told["manifestGoes"], &told["tags"]),
        (&json!(true), &json!(["v1"]))
    );
    assert!(
        told["frees"].as_u64().is_some_and(|bytes| bytes >= 50_000),
        "{told}"
    );
    assert!(told["restorableUntil"].is_string(), "{told}");
    let page = person.get(&format!("{at}/tags/v1")).await.expect(200).text();
    assert!(page.contains(&format!(r#"href="{delete}""#)), "{page}");

    // 2. A second tag on it keeps it.
    let added = send(
        &person,
        &format!("{at}/tags/v1"),
        &format!("{at}/retag"),
        &[("digest", &image.digest()), ("tag", "stable")],
    )
    .await;
    assert_eq!(added.expect(303).header("location"), format!("{at}/tags/stable"));
    let told = person.json(&delete).await;
    assert_eq!(
        (&told["manifestGoes"], &told["frees"]),
        (&json!(false), &json!(0))
    );
    assert_eq!(
        person.json(&format!("{at}/tags/v1")).await["tags"],
        json!(["stable", "v1"])
    );

    // 3. It goes, with its history, and clients see it.
    let gone = send(&person, &delete, &delete, &[]).await.expect(303);
    assert_eq!(gone.header("location"), format!("{at}/history/v1"));
    repository.get_manifest("v1").await.expect(404);
    repository.get_manifest("stable").await.expect(200);
    let history = person.json(&format!("{at}/history/v1")).await;
    assert_eq!(history["events"][0]["deleted"], true);
    assert_eq!(history["events"][0]["by"], "token:test");
    assert_eq!(history["events"][1]["deleted"], false);

    // 4. It comes back.
    let deleted = person.json(&format!("{at}/deleted")).await;
    assert_eq!(deleted["tags"][0]["tag"], "v1");
    let page = person.get(&format!("{at}/deleted")).await.expect(200).text();
    assert!(page.contains("Restore"), "{page}");
    let back = send(
        &person,
        &format!("{at}/deleted"),
        &format!("{at}/restore"),
        &[("tag", "v1")],
    )
    .await;
    assert_eq!(back.expect(303).header("location"), format!("{at}/tags/v1"));
    repository.get_manifest("v1").await.expect(200);
    assert_eq!(person.json(&format!("{at}/deleted")).await["tags"], json!([]));
    // Once more there is nothing to bring back.
    let again = send(
        &person,
        &format!("{at}/tags/v1"),
        &format!("{at}/restore"),
        &[("tag", "v1")],
    )
    .await;
    let why = again.expect(409).text();
    assert!(why.contains("exists and points to"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_is_deleted_with_its_tags() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    let image = Image::new(1, 1000);
    for tag in ["v1", "v2"] {
        image.push(&repository, tag).await;
    }
    let person = house.person("acme", &token).await;
    let delete = format!("/explorer/r/app/-/delete/manifests/{}", image.digest());
    assert_eq!(person.json(&delete).await["tags"], json!(["v1", "v2"]));
    let gone = send(&person, &delete, &delete, &[]).await.expect(303);
    assert_eq!(gone.header("location"), "/explorer/r/app/-/deleted");
    for tag in ["v1", "v2"] {
        repository.get_manifest(tag).await.expect(404);
    }
    send(&person, "/explorer/r/app/-/deleted", &delete, &[])
        .await
        .expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_changes_more_than_they_may() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    let image = Image::new(1, 1000);
    image.push(&repository, "v1").await;
    let reader = house.admin.token("acme", &["**"], &["pull"]).await;
    let person = house.person("acme", &reader).await;
    let page = person.get("/explorer/r/app/-/tags/v1").await.expect(200).text();
    assert!(!page.contains("Delete") && !page.contains("Add a tag"), "{page}");
    let form = hidden(&page);
    let digest = image.digest();

    // 1. A reader changes nothing.
    person.get("/explorer/r/app/-/delete/tags/v1").await.expect(403);
    for (to, fields) in [
        ("delete/tags/v1", vec![]),
        ("restore", vec![("tag", "v1")]),
        ("retag", vec![("tag", "x"), ("digest", &*digest)]),
    ] {
        let fields: Vec<_> = [("form", form.as_str())].into_iter().chain(fields).collect();
        person
            .post(&format!("/explorer/r/app/-/{to}"), &fields)
            .await
            .expect(403);
    }

    // 2. Nor does a form that no page has sent, or a GET.
    let owner = house.person("acme", &token).await;
    owner
        .post("/explorer/r/app/-/delete/tags/v1", &[])
        .await
        .expect(403);
    owner
        .post("/explorer/r/app/-/retag", &[("tag", "x"), ("digest", &digest)])
        .await
        .expect(403);
    owner.get("/explorer/r/app/-/retag").await.expect(405);
    owner.get("/explorer/r/app/-/restore").await.expect(405);
    let mut elsewhere = house.person("acme", &token).await;
    let value = "cross-site".parse().expect("a value");
    elsewhere.headers.insert("sec-fetch-site", value);
    let form = hidden(&owner.get("/explorer/r/app/-/tags/v1").await.expect(200).text());
    elsewhere
        .post("/explorer/r/app/-/delete/tags/v1", &[("form", &form)])
        .await
        .expect(403);
    // A program has the API; its credential alone sends no form.
    let program = house.program("acme", &token);
    program
        .post("/explorer/r/app/-/delete/tags/v1", &[])
        .await
        .expect(403);
    repository.get_manifest("v1").await.expect(200);

    // 3. What is immutable stays.
    let rule = json!({ "name": "app", "immutableTags": ["v*"] });
    house.admin.put("tenants/acme/repositories/app", rule).await;
    let told = owner.json("/explorer/r/app/-/delete/tags/v1").await;
    assert_eq!(told["immutable"], "v1");
    let refused = owner
        .post("/explorer/r/app/-/delete/tags/v1", &[("form", &form)])
        .await;
    assert!(refused.expect(409).text().contains("immutable"));
    let fields = [("form", form.as_str()), ("tag", "v9"), ("digest", &digest)];
    owner.post("/explorer/r/app/-/retag", &fields).await.expect(303);
    let other = Image::new(2, 10);
    other.push(&repository, "other").await;
    let fields = [
        ("form", form.as_str()),
        ("tag", "v1"),
        ("digest", &other.digest()),
    ];
    owner.post("/explorer/r/app/-/retag", &fields).await.expect(409);
    let page = owner.get("/explorer/r/app").await.expect(200).text();
    assert!(page.contains("Declared by the Repository"), "{page}");

    // 4. What cannot be: no tag, no digest, none of the two.
    for (fields, status) in [
        (vec![("tag", "a b"), ("digest", &*digest)], 400),
        (vec![("tag", "x"), ("digest", "sha256:1")], 400),
        (vec![("tag", "x")], 400),
        (
            vec![
                ("tag", "x"),
                (
                    "digest",
                    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                ),
            ],
            404,
        ),
    ] {
        let fields: Vec<_> = [("form", form.as_str())].into_iter().chain(fields).collect();
        owner
            .post("/explorer/r/app/-/retag", &fields)
            .await
            .expect(status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_are_told_of_no_history() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    Image::new(1, 1000).push(&repository, "v1").await;
    let rule = json!({ "name": "app", "visibility": "Public" });
    house.admin.put("tenants/acme/repositories/app", rule).await;
    let guest = house.guest("acme");
    guest.get("/explorer/r/app/-/tags/v1").await.expect(200);
    guest
        .get("/explorer/r/app/-/difference?from=v1&to=v1")
        .await
        .expect(200);
    for page in ["usage", "deleted", "history/v1", "retention/v1", "delete/tags/v1"] {
        guest.get(&format!("/explorer/r/app/-/{page}")).await.expect(303);
        guest
            .get(&format!("/explorer/api/r/app/-/{page}"))
            .await
            .expect(401);
    }
    guest.get("/explorer/usage").await.expect(303);
    guest.get("/explorer/builds?q=v1").await.expect(303);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_says_why_it_stays_and_until_when() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    for number in 1..=3 {
        Image::new(number, 1000)
            .push(&repository, &format!("v{number}"))
            .await;
    }
    let policy = json!({ "repositories": ["app"], "rules": [{ "keepLast": 1 }], "schedule": "0 3 * * *" });
    house
        .admin
        .put("tenants/acme/retention-policies/few", policy)
        .await;
    let person = house.person("acme", &token).await;
    let kept = person.json("/explorer/r/app/-/retention/v3").await;
    assert_eq!(kept["keeps"], true, "{kept}");
    assert_eq!(kept["policies"], json!(["few"]));
    let goes = person.json("/explorer/r/app/-/retention/v1").await;
    assert_eq!(goes["keeps"], false, "{goes}");
    let page = person
        .get("/explorer/r/app/-/retention/v1")
        .await
        .expect(200)
        .text();
    assert!(
        page.contains("It goes with the next run") && page.contains("few"),
        "{page}"
    );
    person.get("/explorer/r/app/-/retention/none").await.expect(404);
    // The usage page says what would be free.
    let usage = person.json("/explorer/usage").await;
    assert_eq!(usage["policies"][0]["name"], "few");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_registry_takes_its_own_pages_forms() {
    let berth = harness::Berth::builder().start().await;
    let repository = harness::http::Repository::new(&berth.url(""), "app");
    let image = Image::new(1, 1000);
    image.push(&repository, "v1").await;
    let mut person = Visitor {
        base: berth.url(""),
        host: berth.address(),
        headers: http::HeaderMap::new(),
    };
    let page = person.get("/explorer/r/app/-/delete/tags/v1").await.expect(200);
    person
        .post("/explorer/r/app/-/delete/tags/v1", &[])
        .await
        .expect(403);
    person.keep(&page);
    let form = hidden(&page.text());
    let answer = person
        .ask(
            Method::POST,
            "/explorer/r/app/-/delete/tags/v1",
            Some(format!("form={form}")),
        )
        .await;
    answer.expect(303);
    repository.get_manifest("v1").await.expect(404);
}
