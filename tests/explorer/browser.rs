//! The pages in a real browser.

use std::time::Duration;

use harness::{Admin, Browser, Image, eventually};
use serde_json::json;

use super::{House, supply};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_finds_an_image_with_mouse_keyboard_phone_and_without_script() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "team/app").await;
    Image::of_platform("arm64", 1, 100_000)
        .push(&repository, "v1")
        .await;

    let outcome = Browser::new()
        .variable("BASE_URL", &format!("http://{}", house.host("acme")))
        .variable("TOKEN", &token)
        .variable("REPOSITORY", "team/app")
        .variable("TAG", "v1")
        .run("explorer")
        .await;

    assert!(!outcome.steps.is_empty(), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_sees_where_an_image_comes_from_and_lets_tags_go_and_come_back() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "team/app").await;
    supply::push(&repository, "v1", "run-17", "1.3").await;
    supply::push(&repository, "v2", "run-18", "1.4").await;
    let policy =
        json!({ "repositories": ["team/**"], "rules": [{ "keepLast": 5 }], "schedule": "0 3 * * *" });
    house
        .admin
        .put("tenants/acme/retention-policies/few", policy)
        .await;
    let program = house.program("acme", &token);
    eventually("the provenance was read", Duration::from_secs(30), async || {
        let found = program.json("/explorer/builds/run-17").await;
        (found["images"] != json!([])).then_some(())
    })
    .await;
    let id = Admin::id_of(&token);
    let revoke = house
        .berth
        .admin_url(&format!("/admin/v1/tenants/acme/tokens/{id}"));
    let key = std::fs::read_to_string(house.berth.data().join("keys/admin")).expect("the admin key");

    let outcome = Browser::new()
        .variable("BASE_URL", &format!("http://{}", house.host("acme")))
        .variable("TOKEN", &token)
        .variable("REPOSITORY", "team/app")
        .variable("BUILD", "run-17")
        .variable("REVOKE", &revoke)
        .variable("ADMIN", key.trim())
        .run("manage")
        .await;

    assert!(!outcome.steps.is_empty(), "{outcome:?}");
}
