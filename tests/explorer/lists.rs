//! Repositories and tags: in order, page by page, searched.

use harness::Image;
use serde_json::{Value, json};

use super::House;

fn names(page: &Value, list: &str, field: &str) -> Vec<String> {
    let list = page[list].as_array().expect("a list").iter();
    list.map(|row| row[field].as_str().expect("text").to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repositories_are_listed_page_by_page_and_found_by_a_part_of_their_name() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let image = Image::new(1, 100);
    for number in 0..60 {
        let name = format!("team-{}/app-{number:02}", number % 2);
        image
            .push(&house.repository("acme", &token, &name).await, "v1")
            .await;
    }
    let program = house.program("acme", &token);

    let first = program.json("/explorer/").await;
    let seen = names(&first, "repositories", "name");
    assert_eq!(seen.len(), 50);
    let next = first["next"].as_str().expect("a next page");
    let second = program.json(&format!("/explorer/?after={next}")).await;
    let seen: Vec<_> = seen
        .into_iter()
        .chain(names(&second, "repositories", "name"))
        .collect();
    assert_eq!(seen.len(), 60);
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(second["next"], Value::Null);
    assert_eq!(first["repositories"][0]["tags"], 1);
    assert!(first["repositories"][0]["lastPush"].is_string());

    let found = program.json("/explorer/?q=APP-07").await;
    assert_eq!(names(&found, "repositories", "name"), ["team-1/app-07"]);
    let page = program.get("/explorer/?q=app-07").await.expect(200).text();
    assert!(
        page.contains(r#"href="/explorer/r/team-1/app-07""#) && !page.contains("app-08"),
        "{page}"
    );
    let none = program
        .get("/explorer/?q=nothing-like-it")
        .await
        .expect(200)
        .text();
    assert!(none.contains("No repository has"), "{none}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_a_token_may_see_is_listed() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let image = Image::new(1, 100);
    for name in ["a/app", "b/app", "c/app"] {
        image
            .push(&house.repository("acme", &token, name).await, "v1")
            .await;
    }
    let narrow = house.admin.token("acme", &["b/**"], &["pull"]).await;
    let public = json!({ "match": "c/**", "visibility": "Public" });
    let person = house.person("acme", &narrow).await;

    assert_eq!(
        names(&person.json("/explorer/").await, "repositories", "name"),
        ["b/app"]
    );
    person.get("/explorer/r/a/app").await.expect(404);
    person.get("/explorer/r/nothing").await.expect(404);

    house.admin.put("tenants/acme/repositories/public", public).await;
    assert_eq!(
        names(&person.json("/explorer/").await, "repositories", "name"),
        ["b/app", "c/app"]
    );
    // As in the API: pages of what is public are for everybody, a list is not.
    let guest = house.guest("acme");
    guest.get("/explorer/api/").await.expect(401);
    guest.get("/explorer/r/c/app/-/tags/v1").await.expect(200);
    guest.get("/explorer/r/b/app").await.expect(303);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_are_listed_by_push_and_by_name_and_found_by_how_they_begin() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    let image = Image::new(1, 100);
    image.push(&repository, "v1").await;
    for number in 0..60 {
        let tag = format!("{}.{number}", if number % 2 == 0 { "even" } else { "odd" });
        let put = repository.put_manifest(&tag, harness::image::MANIFEST, &image.manifest);
        put.await.expect(201);
    }
    let program = house.program("acme", &token);

    let first = program.json("/explorer/r/app").await;
    let newest = names(&first, "tags", "tag");
    assert_eq!((newest.len(), newest[0].as_str()), (50, "odd.59"));
    assert_eq!(first["tagCount"], 61);
    let next = first["next"].as_str().expect("a next page");
    let second = program.json(&format!("/explorer/r/app?after={next}")).await;
    assert_eq!(
        names(&second, "tags", "tag").last().map(String::as_str),
        Some("v1")
    );

    let found = names(&program.json("/explorer/r/app?q=odd.1").await, "tags", "tag");
    assert_eq!(found, ["odd.1", "odd.11", "odd.13", "odd.15", "odd.17", "odd.19"]);
    let by_name = names(&program.json("/explorer/r/app?sort=name").await, "tags", "tag");
    assert!(by_name.is_sorted() && by_name.len() == 50, "{by_name:?}");
    program.get("/explorer/r/app?after=nonsense").await.expect(400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrow_token_s_list_ends_before_a_thousand_repositories_that_it_may_not_see() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let image = Image::new(1, 10);
    let seen = house.repository("acme", &token, "a/x").await;
    image.push(&seen, "v1").await;
    for number in 0..1001 {
        seen.sibling(&format!("b/{number:04}")).push_blob(b"{}").await;
    }
    let narrow = house.admin.token("acme", &["a/**"], &["pull"]).await;

    let answer = house.program("acme", &narrow);
    let answer = harness::within(
        "a list",
        std::time::Duration::from_secs(10),
        answer.json("/explorer/"),
    )
    .await;

    assert_eq!(names(&answer, "repositories", "name"), ["a/x"]);
    assert_eq!(answer["next"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_names_what_it_is_for_lists_nothing() {
    let house = House::new().await;
    let token = house.token("acme").await;
    for name in ["app", "other"] {
        let repository = house.repository("acme", &token, name).await;
        Image::new(1, 100).push(&repository, "v1").await;
    }
    let asked = house
        .program("acme", &token)
        .get("/v2/token?service=x&scope=repository:app:pull")
        .await;
    let access = asked.expect(200).json()["token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let mut bearer = house.guest("acme");
    let value = format!("Bearer {access}").parse().expect("a value");
    bearer.headers.insert("authorization", value);

    bearer.get("/explorer/api/").await.expect(403);
    bearer.get("/explorer/api/r/app/-/tags/v1").await.expect(200);
    bearer.get("/explorer/api/r/other/-/tags/v1").await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_in_the_list_is_one_that_a_page_has_given() {
    let house = House::new().await;
    let (token, foreign) = (house.token("acme").await, house.token("other").await);
    for (tenant, token) in [("acme", &token), ("other", &foreign)] {
        let first = house.repository(tenant, token, "app/00").await;
        for number in 0..51 {
            first.sibling(&format!("app/{number:02}")).push_blob(b"{}").await;
        }
    }
    let next = house.program("other", &foreign).json("/explorer/").await["next"].clone();
    let next = next.as_str().expect("a next page");

    // A name of one's choice would tell by what comes of it which others there are.
    for after in ["app/00", "a", next] {
        let path = format!("/explorer/api/?after={after}");
        house.program("acme", &token).get(&path).await.expect(400);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_see_what_is_public_but_not_by_whom_it_was_pushed_and_when_pulled() {
    let house = House::new().await;
    let token = house.token("acme").await;
    Image::new(1, 100)
        .push(&house.repository("acme", &token, "pub/app").await, "v1")
        .await;
    let public = json!({ "match": "pub/**", "visibility": "Public" });
    house.admin.put("tenants/acme/repositories/public", public).await;
    let (guest, program) = (house.guest("acme"), house.program("acme", &token));
    program.get("/v2/pub/app/manifests/v1").await.expect(200);

    let path = "/explorer/r/pub/app/-/tags/v1";
    let known = harness::eventually(
        "the pull is told",
        std::time::Duration::from_secs(90),
        async || {
            let told = program.json(path).await;
            told["tag"]["pulledAt"].is_string().then_some(told)
        },
    )
    .await;
    assert_eq!(known["tag"]["pushedBy"], "token:test");
    let told = guest.json(path).await;
    assert_eq!(
        (&told["tag"]["pushedBy"], &told["tag"]["pulledAt"]),
        (&Value::Null, &Value::Null)
    );
    assert!(told["tag"]["pushedAt"].is_string());
    let tags = guest.json("/explorer/r/pub/app").await;
    assert_eq!(tags["tags"][0]["pulledAt"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_lists_of_a_cache_leave_out_is_not_shown_though_it_is_stored() {
    let house = House::new().await;
    let token = house.token("acme").await;
    for name in ["hub/library/x", "hub/library/y"] {
        let repository = house.repository("acme", &token, name).await;
        let image = Image::new(1, 100);
        image.push(&repository, "v1").await;
        image.push(&repository, "edge").await;
    }
    let program = house.program("acme", &token);
    program
        .get("/explorer/r/hub/library/x/-/tags/v1")
        .await
        .expect(200);

    let cache = json!({
        "prefix": "hub", "upstream": { "url": "https://192.0.2.1" },
        "deny": ["library/x"], "tags": { "allow": ["v*"] },
    });
    house.admin.put("tenants/acme/caches/hub", cache).await;

    program
        .get("/explorer/r/hub/library/x/-/tags/v1")
        .await
        .expect(404);
    program.get("/explorer/r/hub/library/x").await.expect(404);
    program
        .get("/explorer/r/hub/library/y/-/tags/v1")
        .await
        .expect(200);
    program
        .get("/explorer/r/hub/library/y/-/tags/edge")
        .await
        .expect(404);
    for sort in ["", "?sort=name"] {
        let tags = program.json(&format!("/explorer/r/hub/library/y{sort}")).await;
        assert_eq!(names(&tags, "tags", "tag"), ["v1"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_may_not_see_is_recorded() {
    let house = House::new().await;
    let token = house.token("acme").await;
    Image::new(1, 100)
        .push(&house.repository("acme", &token, "secret/app").await, "v1")
        .await;
    let narrow = house.admin.token("acme", &["mine/**"], &["pull"]).await;

    house
        .program("acme", &narrow)
        .get("/explorer/r/secret/app")
        .await
        .expect(404);

    harness::eventually("the record", std::time::Duration::from_secs(10), async || {
        let trail = house
            .admin
            .ask(reqwest::Method::GET, "audit?tenant=acme", None)
            .await;
        let trail = trail.expect(200).text();
        (trail.contains("secret/app") && trail.contains("not granted")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_looks_at_a_bounded_number_of_names_and_tells_none_of_them() {
    let house = House::new().await;
    let token = house.token("acme").await;
    for name in ["a/app", "z/cache"] {
        Image::new(1, 100)
            .push(&house.repository("acme", &token, name).await, "v1")
            .await;
    }
    let hidden = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 45000) \
                  INSERT INTO repository (tenant_id, id, name, created_at) \
                  SELECT (SELECT tenant_id FROM repository WHERE name = 'a/app'), i, 'hidden/' || printf('%05d', i), 0 FROM n";
    let made = std::process::Command::new(harness::program("sqlite3"))
        .args(["-cmd", ".timeout 10000"])
        .arg(house.berth.data().join("berth.db"))
        .arg(hidden)
        .output();
    assert!(made.as_ref().is_ok_and(|made| made.status.success()), "{made:?}");
    let narrow = house.admin.token("acme", &["**/cache"], &["pull"]).await;
    let program = house.program("acme", &narrow);

    let (mut pages, mut path, mut found) = (0, "/explorer/".to_owned(), Vec::new());
    loop {
        let page = program.json(&path).await;
        assert!(!page.to_string().contains("hidden"), "{page}");
        found.extend(names(&page, "repositories", "name"));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/explorer/?after={next}");
    }

    assert_eq!((found, pages), (vec!["z/cache".to_owned()], 3));

    // Nor does the API's list look at more, or tell more.
    let (mut pages, mut path, mut found) = (0, "/v2/_catalog?n=5".to_owned(), Vec::new());
    loop {
        let page = program.get(&path).await.expect(200);
        found.extend(page.json()["repositories"].as_array().cloned().expect("a list"));
        pages += 1;
        let link = page.header("link");
        assert!(!link.contains("hidden"), "{link}");
        let Some((next, _)) = link.trim_start_matches('<').split_once('>') else {
            break;
        };
        path = next.to_owned();
    }
    assert_eq!((found, pages), (vec![serde_json::json!("z/cache")], 3));
}
