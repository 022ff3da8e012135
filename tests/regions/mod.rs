//! Stage `regions`: bytes from the bucket that is nearest to whoever pulls, and a registry that only reads.
//!
//! What it is: a registry with two buckets, of which the second has what a test copies there as a replication would
//! ([`Place`]); a registry on a real PostgreSQL standby beside the one on its primary ([`reading`]), and in the place of the
//! one that is lost ([`losing_home`]). What it may use:
//! the harness. What must hold: a bucket or a database that is away or behind costs a reader time, never the content.

mod away;
mod losing_home;
mod nearest;
mod reading;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::http::{Answer, Repository, send};
use harness::{Backend, Berth, Bucket, Builder, eventually};
use reqwest::Method;
use tempfile::TempDir;

/// Longest wait for a condition.
const WAIT: Duration = Duration::from_secs(30);
/// The header that names a region.
const NAMED: &str = "X-Berth-Region";

/// A registry, and a bucket of the region `eu`.
struct Place {
    berth: Berth,
    eu: Bucket,
    repository: Repository,
    folder: TempDir,
}

impl Place {
    /// With this in the region's entry besides, and these settings.
    async fn with(entry: &str, settings: impl FnOnce(Builder) -> Builder) -> Place {
        let eu = Bucket::create();
        Place::of(eu.url(), eu, entry, settings).await
    }

    /// The same with a region that is reached by another URL.
    async fn of(url: String, eu: Bucket, entry: &str, settings: impl FnOnce(Builder) -> Builder) -> Place {
        let folder = TempDir::with_prefix("berth-regions-").expect("a temporary folder");
        let file = regions(&folder, &url, entry);
        let builder = Berth::builder()
            .backend(Backend::Distributed)
            .flag("--regions", &file);
        let berth = settings(builder).start().await;
        let repository = Repository::new(&berth.url(""), "app");
        Place {
            berth,
            eu,
            repository,
            folder,
        }
    }

    /// Copies what is stored so far into the region's bucket, as a replication does.
    fn replicate(&self) {
        copy(&self.home().folder(), &self.eu.folder());
    }

    fn home(&self) -> &Bucket {
        self.berth.storage().bucket().expect("a bucket")
    }

    /// A blob, asked for as by a proxy that says where the client is, or does not.
    async fn blob(&self, digest: &str, region: &str) -> Answer {
        send(self.asking(digest, region)).await
    }

    fn asking(&self, digest: &str, region: &str) -> reqwest::RequestBuilder {
        let request = self.repository.request(Method::GET, &format!("blobs/{digest}"));
        match region {
            "" => request,
            region => request.header(NAMED, region),
        }
    }

    /// Waits until the region answers.
    async fn is_up(&self) {
        self.shows("berth_region_up{region=\"eu\"} 1").await;
    }

    /// Waits until the metrics have a line.
    async fn shows(&self, line: &str) {
        let url = self.berth.ops_url("/metrics");
        eventually(line, WAIT, async || {
            let text = send(harness::http::client().get(&url)).await.text();
            text.lines().any(|found| found == line).then_some(())
        })
        .await;
    }
}

/// Writes a file of the one region `eu`.
fn regions(folder: &TempDir, url: &str, entry: &str) -> String {
    let path = folder.path().join("regions.yaml");
    let text = format!("regions:\n- name: eu\n  blobs: {url}\n  {entry}\n");
    std::fs::write(&path, text).expect("a file of regions");
    path.to_str().expect("a plain name").to_owned()
}

/// Copies a bucket's files with what the S3 server keeps beside them.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    let copied = Command::new("cp")
        .args(["-a", "--preserve=all"])
        .arg(from.join("."))
        .arg(to)
        .status();
    assert!(
        copied.is_ok_and(|status| status.success()),
        "the bucket is copied"
    );
}

/// The one object in a bucket's folder.
fn only_object(bucket: &Bucket) -> std::path::PathBuf {
    let mut found = Vec::new();
    let mut folders = vec![bucket.folder().join("blobs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}
