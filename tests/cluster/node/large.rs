//! Images of gibibytes, through the registry and through the node.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::Stream;
use harness::content::{blob, sha256, tar};
use harness::http::{Answer, send, with_query};
use harness::node::{Release, in_phase, kubectl, logs, pod};
use harness::{Client, setting, within};
use reqwest::Method;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::apps::{apps, asked, leave, resident};
use super::images::{Draft, Pushing};

const MIB: usize = 1 << 20;
/// A layer is an archive of files of so many bytes, each with a head, and an end.
const FILE: usize = 16 * MIB;
const HEAD: u64 = 512;
const END: u64 = 1024;
const LAYERS: [&str; 2] = ["a", "b"];
/// What a replica of the registry may take.
const RESIDENT: u64 = 300 * MIB as u64;

mod long {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_image_of_two_gibibytes_is_pulled_through_the_registry_and_runs() {
        super::a_large_pull(64).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_of_a_quarter_of_a_gibibyte_is_pulled_through_the_registry_and_runs() {
    a_large_pull(8).await;
}

/// A file of a layer: no two are alike, though they share all but their first bytes.
fn file(pattern: &[u8], number: u64) -> Vec<u8> {
    let mut content = pattern.to_vec();
    content[..8].copy_from_slice(&number.to_le_bytes());
    content
}

fn size_of_layer(files: u64) -> u64 {
    files * (HEAD + FILE as u64) + END
}

/// A layer in pieces, hashed as they are sent; no more than one of its files is in memory.
fn layer(
    name: &'static str,
    files: u64,
    pattern: Arc<Vec<u8>>,
    hash: Arc<Mutex<Sha256>>,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    let pieces = (0..=files).map(move |number| {
        let piece = if number == files {
            vec![0; END as usize]
        } else {
            let mut archive = tar(&format!("{name}-{number}"), &file(&pattern, number));
            archive.truncate(archive.len() - END as usize);
            archive
        };
        hash.lock().expect("only this stream hashes").update(&piece);
        Ok(Bytes::from(piece))
    });
    futures_util::stream::iter(pieces)
}

/// Pushes a layer as it is made, and puts it on top.
async fn push(
    pushing: &Pushing<'_>,
    draft: &mut Draft,
    name: &'static str,
    files: u64,
    pattern: &Arc<Vec<u8>>,
) {
    let at = |answer: &Answer| {
        let location = answer.header("location");
        location
            .rsplit_once("/blobs/")
            .map(|(_, upload)| format!("blobs/{upload}"))
            .expect("an upload")
    };
    let opened = send(pushing.request(Method::POST, "blobs/uploads/"))
        .await
        .expect(202);
    let hash = Arc::new(Mutex::new(Sha256::new()));
    let body = reqwest::Body::wrap_stream(layer(name, files, pattern.clone(), hash.clone()));
    let sent = send(pushing.request(Method::PATCH, &at(&opened)).body(body))
        .await
        .expect(202);
    let digest = hash.lock().expect("the stream has ended").clone().finalize();
    let digest = format!("sha256:{}", hex::encode(digest));
    let commit = with_query(&at(&sent), &format!("digest={digest}"));
    send(pushing.request(Method::PUT, &commit)).await.expect(201);
    draft.add(&digest, size_of_layer(files));
}

/// The most memory that a replica has taken while something was done.
async fn watched<T>(release: &Release, work: impl Future<Output = T>) -> (T, u64) {
    tokio::pin!(work);
    let mut most = 0;
    loop {
        let now = resident(release).await;
        most = now.into_iter().map(|(_, bytes)| bytes).fold(most, u64::max);
        if let Ok(done) = tokio::time::timeout(Duration::from_millis(200), &mut work).await {
            return (done, most);
        }
    }
}

/// What the node and the S3 server keep of the image; gone when dropped, since neither collects it.
struct Leftovers {
    image: String,
    layer: u64,
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        let mut folders = vec![PathBuf::from(setting("BERTH_TEST_S3_FOLDER"))];
        while let Some(folder) = folders.pop() {
            // Other tests remove theirs meanwhile.
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                    Ok(metadata) if metadata.size() == self.layer => drop(std::fs::remove_file(entry.path())),
                    _ => {}
                }
            }
        }
        let ctr = |arguments: &[&str]| {
            let mut command = std::process::Command::new(harness::program("ctr"));
            command.args(["--namespace", "k8s.io", "images"]).args(arguments);
            command
                .output()
                .map(|done| String::from_utf8_lossy(&done.stdout).into_owned())
        };
        let listed = ctr(&["list", "--quiet"]).unwrap_or_default();
        let names: Vec<&str> = listed.lines().filter(|name| name.contains(&self.image)).collect();
        if !names.is_empty() {
            let _ = ctr(&[["remove", "--sync"].as_slice(), &names].concat());
        }
    }
}

/// Pushes an image of two layers with so many files each, and runs it.
async fn a_large_pull(files: u64) {
    let release = Release::shared().await;
    let acme = release.new_tenant("large", json!({ "redirect": "Never" })).await;
    let pushing = Pushing::to(&acme, "app");
    let leftovers = Leftovers {
        image: pushing.image(),
        layer: size_of_layer(files),
    };
    let size = LAYERS.len() as u64 * leftovers.layer;
    let mut draft = pushing.busybox().await;
    let seed = u64::from(uuid::Uuid::new_v4().as_fields().0);
    let patterns = [0, 1].map(|layer| Arc::new(blob(FILE, seed + layer)));
    let started = Instant::now();
    let ((), pushed) = watched(&release, async {
        for (name, pattern) in LAYERS.into_iter().zip(&patterns) {
            push(&pushing, &mut draft, name, files, pattern).await;
        }
    })
    .await;
    let push = started.elapsed();
    let digest = pushing.finish(&draft, "v1").await;

    let apps = apps(&acme, "apps").await;
    let image = format!("{}:v1", pushing.image());
    // All of them are there, and the last of each layer is what was made.
    let last = files - 1;
    let look =
        format!("ls -l /a-* /b-* | awk '{{ print $5 }}' | sort | uniq -c; sha256sum /a-{last} /b-{last}");
    let started = Instant::now();
    let (done, pulled) = watched(&release, async {
        let runs = pod(&apps, "runs", &image, &look, json!({}));
        release.plane.apply(runs).await.expect("a pod");
        within(
            "a large pull",
            Duration::from_secs(180),
            in_phase(&release.plane, &apps, "runs", "Succeeded"),
        )
        .await
    })
    .await;
    println!(
        "{} MiB pushed in {push:.1?} with at most {} MiB, pulled and run in {:.1?} with at most {} MiB",
        size / MIB as u64,
        pushed / MIB as u64,
        started.elapsed(),
        pulled / MIB as u64
    );
    let id = done["status"]["containerStatuses"][0]["imageID"].to_string();
    assert!(id.contains(&digest), "{id}");
    let told = logs(&apps, "runs").await;
    let mut lines = told.lines().map(str::split_whitespace);
    let counted: Vec<&str> = lines.next().expect("a count").collect();
    let all = (LAYERS.len() as u64 * files).to_string();
    assert_eq!(counted, [all, FILE.to_string()], "{told}");
    for (mut line, pattern) in lines.zip(&patterns) {
        let whole = sha256(&file(pattern, last)).replace("sha256:", "");
        assert_eq!(line.next(), Some(whole.as_str()), "{told}");
    }
    assert!(pushed > 0 && pushed < RESIDENT, "{pushed} bytes during the push");
    assert!(pulled > 0 && pulled < RESIDENT, "{pulled} bytes during the pull");
    // It was the registry that sent it, in parts.
    let asked = asked(&acme, pushing.repository()).await;
    let parts = asked.iter().filter(|request| request.status == 206);
    let sent: u64 = parts.map(|request| request.sent).sum();
    assert!(sent >= size, "{sent} bytes of {size}");
    kubectl()
        .run(&["delete", "pod", "runs", "--namespace", &apps, "--wait"])
        .await;
    leave(&release, &apps).await;
    drop(leftovers);
    let images = Client::new("ctr")
        .run(&["--namespace", "k8s.io", "images", "list", "--quiet"])
        .await
        .text();
    assert!(!images.contains(&pushing.image()), "{images}");
}
