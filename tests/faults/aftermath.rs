//! What must hold of the stores once a fault is over and everything has settled.

use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{Admin, Berth, eventually};
use reqwest::Method;
use serde_json::json;

/// A check of small stores, with its second look at what seems wrong.
const CHECKED_WITHIN: Duration = Duration::from_secs(60);

/// Counters of each tenant, and what they count.
const COUNTERS: &str = "SELECT u.tenant_id, u.bytes, \
       (SELECT coalesce(sum(b.size), 0) FROM blob b WHERE b.tenant_id = u.tenant_id AND EXISTS (SELECT 1 \
         FROM repository_blob l WHERE l.tenant_id = b.tenant_id AND l.digest = b.digest)) \
       + (SELECT coalesce(sum(m.size), 0) FROM manifest m WHERE m.tenant_id = u.tenant_id), \
     u.tags, (SELECT count(*) FROM tag t WHERE t.tenant_id = u.tenant_id), \
     u.repositories, (SELECT count(*) FROM repository r WHERE r.tenant_id = u.tenant_id) \
     FROM usage u WHERE u.repository_id = 0";

/// Nothing is collected from now on: for tests whose leases are so short that blobs would go whose image was cut.
pub async fn pause_collection(berth: &Berth) {
    let paused = Some(json!({ "paused": true }));
    Admin::of(berth)
        .ask(Method::PUT, "gc/paused", paused)
        .await
        .expect(200);
}

/// Every blob has its object, every row what it refers to, and the counters are what a recount finds. `sql` asks the
/// metadata store behind the registry's back.
pub async fn stores_fit(berth: &Berth, sql: impl Fn(&str) -> Vec<Vec<String>>) {
    let admin = Admin::of(berth);
    eventually("a check of the stores begins", CHECKED_WITHIN, async || {
        let begun = admin
            .ask(Method::POST, "fsck", Some(json!({ "rehash": true })))
            .await;
        (begun.status.as_u16() == 202).then_some(())
    })
    .await;
    let report = eventually("the stores are checked", CHECKED_WITHIN, async || {
        let report = admin.ask(Method::GET, "fsck", None).await.expect(200).json();
        (report["state"] == "Done").then_some(report)
    })
    .await;
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(0), "{report}");

    let counters = sql(COUNTERS);
    assert!(!counters.is_empty(), "no tenant has counters");
    for counter in counters {
        for pair in counter[1..].chunks(2) {
            assert_eq!(pair[0], pair[1], "counters of tenant {counter:?}");
        }
    }
}

/// Files below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let of = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flatten().flat_map(|entry| of(entry.path())).collect()
}
