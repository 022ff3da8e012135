//! What maintenance makes of repositories of caches.

use std::process::Output;

use serde_json::Value;

use super::programs::two_platforms;
use super::{CACHE, Place};

/// `berth-registry fsck`, to its end.
fn fsck(place: &Place) -> (Output, Value) {
    let mut command = place.berth.command("fsck");
    let admin = place.berth.admin_url("");
    command.arg(format!("--admin-listen={}", admin.trim_start_matches("http://")));
    let output = command.args(["--rehash", "-o", "json"]).output();
    let output = output.expect("the binary runs");
    let state = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_finds_nothing_wrong_with_what_a_cache_has_not_fetched() {
    let place = Place::new().await;
    let index = two_platforms(&place).await;
    let here = place.here("team/app");
    // The index, one of its two manifests, and one of that one's blobs.
    here.get_manifest("v1").await.expect(200);
    let image = &index.images[0];
    here.get_manifest(&image.digest()).await.expect(200);
    let config = harness::content::sha256(&image.config);
    here.get(&format!("blobs/{config}")).await.expect(200);

    let (output, state) = fsck(&place);

    assert!(output.status.success(), "{output:?}");
    assert_eq!(state["findings"], serde_json::json!([]), "{state:#}");
    // They were seen, and known to be a cache's.
    assert_eq!(state["absent"], image.layers.len(), "{state:#}");
    index.assert_pullable(&here, "v1").await;
    let (output, state) = fsck(&place);
    assert!(output.status.success(), "{CACHE}: {output:?}");
    assert_eq!(state["absent"], 0, "{state:#}");
}
