//! Images that are fetched before anybody pulls them.

use std::process::Output;

use serde_json::{Value, json};

use super::programs::two_platforms;
use super::{CACHE, Place};

/// `berth-registry cache warm`, asking the server.
fn warm(place: &Place, arguments: &[&str]) -> Output {
    let mut command = place.berth.command("cache");
    command.args(["warm", CACHE, "--tenant", "default", "-o", "json"]);
    command.args(arguments);
    let admin = place.berth.admin_url("");
    command.arg(format!("--admin-listen={}", admin.trim_start_matches("http://")));
    command.output().expect("the binary runs")
}

fn outcomes(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_cache_lists_is_pulled_without_the_upstream_once_it_is_warm() {
    let place = Place::with(json!({ "prefetch": ["team/app:v1", "team/tool:v2"] })).await;
    let index = two_platforms(&place).await;
    let tool = place.pushed("team/tool", "v2", 9).await;

    let output = warm(&place, &[]);
    assert!(output.status.success(), "{output:?}");
    let told = outcomes(&output);
    assert_eq!(told[0]["image"], "team/app:v1");
    assert_eq!(told[0]["digest"], index.digest());
    assert_eq!(told[1]["digest"], tool.digest());
    let bytes: usize = tool.manifest.len() + tool.blobs().map(<[u8]>::len).sum::<usize>();
    assert_eq!(told[1]["bytes"], bytes);

    place.way.go_down();
    index.assert_pullable(&place.here("team/app"), "v1").await;
    tool.assert_pullable(&place.here("team/tool"), "v2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_platforms_that_are_named_are_fetched() {
    let place = Place::new().await;
    let index = two_platforms(&place).await;
    let output = warm(&place, &["team/app:v1", "--platform", "linux/arm64"]);
    assert!(output.status.success(), "{output:?}");
    place.way.go_down();
    let here = place.here("team/app");
    here.get_manifest("v1").await.expect(200);
    index.images[1]
        .assert_pullable(&here, &index.images[1].digest())
        .await;
    let other = here.get_manifest(&index.images[0].digest()).await;
    assert!(super::is_failure(&other), "{other:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_cannot_be_fetched_is_named_and_the_others_are_fetched() {
    let place = Place::with(json!({ "deny": ["secret/**"] })).await;
    let tool = place.pushed("team/tool", "v2", 9).await;
    place.pushed("secret/app", "v1", 3).await;
    let output = warm(
        &place,
        &["team/absent:v1", "secret/app:v1", "nonsense", "team/tool:v2"],
    );
    assert_eq!(output.status.code(), Some(1));
    let told = outcomes(&output);
    for (n, why) in [(0, "has no"), (1, "deny"), (2, "write <repository>")] {
        let error = told[n]["error"].as_str().unwrap_or_default();
        assert!(error.contains(why), "{told}");
    }
    assert_eq!(told[3]["digest"], tool.digest());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("3 of 4 images"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_without_a_list_says_where_images_are_named() {
    let place = Place::new().await;
    let output = warm(&place, &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("spec.prefetch"), "{text}");
}
