//! Clients push, delete and retag at their tenant's quota while garbage is collected and the server is killed: the quota
//! is never exceeded, and what is told to be stored is what a recount of everything finds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::content::sha256;
use harness::http::{Repository, attempt, client, send};
use harness::{Admin, Backend, Berth, Dice, eventually};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::place::*;

/// About ten images of those that are pushed.
const QUOTA: u64 = 30_000;
/// Different images that clients push.
const IMAGES: u64 = 24;
const CLIENTS: u64 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_holds_and_counters_are_right_though_the_server_is_killed_on_sqlite_and_a_folder() {
    killed_at_its_quota(Backend::Embedded, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_holds_and_counters_are_right_though_the_server_is_killed_on_postgres_and_s3() {
    killed_at_its_quota(Backend::Distributed, 5).await;
}

/// A repository and a token for it.
#[derive(Clone)]
struct Asked {
    repository: Repository,
    token: String,
}

impl Asked {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.repository
            .request(method, path)
            .basic_auth("x-token", Some(&self.token))
    }
}

/// What clients met.
#[derive(Default)]
struct Seen {
    pushed: AtomicU64,
    deleted: AtomicU64,
    over: AtomicU64,
}

/// One push, deletion or further tag of a random image. The server may be killed meanwhile.
async fn act(repository: &Asked, dice: &mut Dice, seen: &Seen) {
    let image = image(dice.below(IMAGES), &Value::Null);
    if dice.below(3) == 0 {
        let path = format!("manifests/{}", image.digest());
        let answer = attempt(repository.request(Method::DELETE, &path)).await;
        if answer.is_some_and(|answer| answer.status == 202) {
            seen.deleted.fetch_add(1, Ordering::Relaxed);
        }
        return;
    }
    for blob in [&image.own, &shared()] {
        let post = repository.request(Method::POST, &format!("blobs/uploads/?digest={}", sha256(blob)));
        match attempt(post.body(blob.clone())).await {
            Some(answer) if answer.status == 201 => {}
            Some(answer) if answer.status == 403 => {
                assert_eq!(answer.error_code(), "DENIED", "{}", answer.text());
                seen.over.fetch_add(1, Ordering::Relaxed);
                return;
            }
            _ => return,
        }
    }
    let put = repository
        .request(Method::PUT, &format!("manifests/t{}", dice.below(8)))
        .header(CONTENT_TYPE, MANIFEST);
    if attempt(put.body(image.manifest))
        .await
        .is_some_and(|answer| answer.status == 201)
    {
        seen.pushed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Bytes that the tenant is told to store; `None` while the server is down.
async fn told(berth: &Berth, key: &str) -> Option<u64> {
    let url = berth.admin_url("/admin/v1/usage?tenant=default");
    let answer = attempt(client().get(url).bearer_auth(key)).await?;
    answer.expect(200).json()[0]["bytes"].as_u64()
}

/// Bytes of all manifests and blobs that are there, each asked for by itself.
async fn recount(repository: &Asked) -> u64 {
    let images = (0..IMAGES).map(|number| image(number, &Value::Null));
    let mut sizes = BTreeMap::new();
    for image in images {
        sizes.insert(format!("manifests/{}", image.digest()), image.manifest.len());
        for blob in [image.own, shared()] {
            sizes.insert(format!("blobs/{}", sha256(&blob)), blob.len());
        }
    }
    let mut bytes = 0;
    for (path, size) in sizes {
        let answer = send(repository.request(Method::GET, &path)).await;
        match answer.status.as_u16() {
            200 => bytes += size as u64,
            404 => {}
            other => panic!("{path}: {other}"),
        }
    }
    bytes
}

async fn killed_at_its_quota(backend: Backend, rounds: u32) {
    let mut berth = short(Berth::builder().backend(backend)).start().await;
    let admin = Admin::of(&berth);
    admin
        .put_tenant("default", json!({ "quota": { "storage": QUOTA.to_string() } }))
        .await;
    let key = std::fs::read_to_string(berth.data().join("keys/admin")).expect("the admin key");
    let repository = Asked {
        repository: Repository::new(&berth.url(""), "team/app"),
        token: admin.token("default", &["**"], &["pull", "push", "delete"]).await,
    };
    let (mut dice, seen) = (Dice::new(), Arc::new(Seen::default()));
    for _ in 0..rounds {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (repository, mut dice, seen, stop) =
                (repository.clone(), dice.split(), seen.clone(), stop.clone());
            clients.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    act(&repository, &mut dice, &seen).await;
                }
            });
        }
        // The instant is the test's subject.
        let until = tokio::time::Instant::now() + Duration::from_millis(1500 + dice.below(2500));
        while tokio::time::Instant::now() < until {
            let told = told(&berth, key.trim()).await.expect("the server runs");
            assert!(told <= QUOTA, "{told} of {QUOTA} bytes");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        berth.kill9();
        stop.store(true, Ordering::Relaxed);
        while let Some(ended) = clients.join_next().await {
            ended.expect("a client that met nothing wrong");
        }
        berth.restart().await;
        let pause = |paused: bool| Some(json!({ "paused": paused }));
        admin.ask(Method::PUT, "gc/paused", pause(true)).await.expect(200);
        eventually("what is told is what is there", WAIT, async || {
            let before = told(&berth, key.trim()).await?;
            assert!(before <= QUOTA, "{before} of {QUOTA} bytes");
            (recount(&repository).await == before).then_some(())
        })
        .await;
        admin
            .ask(Method::PUT, "gc/paused", pause(false))
            .await
            .expect(200);
    }
    let met = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (pushed, deleted, over) = (met(&seen.pushed), met(&seen.deleted), met(&seen.over));
    println!("pushed {pushed}, deleted {deleted}, over the quota {over}");
    assert!(pushed > 0 && deleted > 0 && over > 0, "nothing was at stake");
    settled(&admin).await;
    let run = admin.ask(Method::POST, "fsck", Some(json!({}))).await;
    assert_eq!(run.status.as_u16(), 202, "{}", run.text());
    let report = eventually("both stores have been checked", WAIT, async || {
        let report = admin.ask(Method::GET, "fsck", None).await.expect(200).json();
        (report["state"] == "Done").then_some(report)
    })
    .await;
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(0), "{report}");
}
