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
