//! The pages in a real browser.

use harness::{Browser, Image};

use super::House;

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
