//! What nothing refers to any more goes, bytes included, while the server is used and killed.

use std::time::Duration;

use harness::content::sha256;
use harness::http::{Repository, send};
use harness::{Admin, Backend, Berth, Cluster, Dice, RoundRobin, eventually};
use reqwest::Method;
use serde_json::json;

use super::place::*;

#[tokio::test]
async fn bytes_of_a_deleted_image_become_free_on_sqlite_and_a_folder() {
    bytes_become_free(Backend::Embedded).await;
}

#[tokio::test]
async fn bytes_of_a_deleted_image_become_free_on_postgres_and_s3() {
    bytes_become_free(Backend::Distributed).await;
}

#[tokio::test]
async fn who_is_told_by_a_304_that_content_is_there_may_rely_on_it() {
    let berth = short(Berth::builder()).start().await;
    let repository = Repository::new(&berth.url(""), "team/app");
    let (blob, left) = (
        repository.push_blob(b"asked for").await,
        repository.push_blob(b"left alone").await,
    );
    let image = image(1, &serde_json::Value::Null);
    repository.push_blob(&image.own).await;
    repository.push_blob(&shared()).await;
    let reference = image.digest();
    repository
        .put_manifest(&reference, MANIFEST, &image.manifest)
        .await
        .expect(201);
    let paths = [
        (format!("blobs/{blob}"), &blob),
        (format!("manifests/{reference}"), &reference),
    ];

    eventually("what nobody asks for is collected", WAIT, async || {
        for (path, digest) in &paths {
            let head = repository.request(Method::HEAD, path);
            send(head.header("If-None-Match", format!("\"{digest}\"")))
                .await
                .expect(304);
        }
        let found = repository.get(&format!("blobs/{left}")).await;
        (found.status == 404).then_some(())
    })
    .await;

    repository.assert_blob(&blob, b"asked for").await;
    assert_there(&repository, &image).await;
}

#[tokio::test]
async fn what_a_manifest_of_an_unknown_format_names_stays_with_it() {
    const BUNDLE: &str = "application/vnd.acme.bundle.v1+json";
    let berth = short(Berth::builder()).start().await;
    let admin = Admin::of(&berth);
    admin.put_tenant("default", json!({})).await;
    let token = admin.token("default", &["**"], &["pull", "push", "delete"]).await;
    let door = RoundRobin::with_token(berth.address(), &token).await;
    let repository = Repository::new(&format!("http://{}", door.address()), "team/app");
    let (named, left) = (
        repository.push_blob(b"named").await,
        repository.push_blob(b"left alone").await,
    );
    let child = push(&repository, 1, "child").await;
    let subject = sha256(b"a subject that is not there");
    let bundle = json!({
        "mediaType": BUNDLE,
        "parts": { "first": { "digest": named }, "second": [{ "digest": child.digest() }] },
        "elsewhere": [{ "digest": sha256(b"what nobody has pushed") }],
        "artifactType": "application/vnd.acme.bundle",
        "subject": { "mediaType": MANIFEST, "digest": subject, "size": 7 },
    });
    let bundle = bundle.to_string().into_bytes();
    let refused = repository.put_manifest("v1", BUNDLE, &bundle).await.expect(415);
    assert!(refused.text().contains("opaqueMediaTypes"), "{}", refused.text());
    let policy = json!({ "policy": { "opaqueMediaTypes": true } });
    admin.put_tenant("default", policy).await;

    let stored = repository.put_manifest("v1", BUNDLE, &bundle).await.expect(201);
    assert_eq!(stored.header("oci-subject"), subject);
    repository
        .put_manifest("v1", "application/vnd.acme.other+json", &bundle)
        .await
        .expect(400);
    repository
        .put_manifest("v1", "text/html", &bundle)
        .await
        .expect(415);
    repository.delete("manifests/child").await.expect(202);
    eventually("what nothing names is collected", WAIT, async || {
        let found = repository.get(&format!("blobs/{left}")).await;
        (found.status == 404).then_some(())
    })
    .await;
    settled(&admin).await;

    let answer = repository.get_manifest("v1").await.expect(200);
    assert_eq!((answer.header("content-type"), &answer.body), (BUNDLE, &bundle));
    repository.assert_blob(&named, b"named").await;
    assert_there(&repository, &child).await;
    let listed = repository
        .get(&format!("referrers/{subject}"))
        .await
        .expect(200)
        .json();
    assert_eq!(listed["manifests"][0]["mediaType"], BUNDLE);
    assert_eq!(
        listed["manifests"][0]["artifactType"],
        "application/vnd.acme.bundle"
    );

    // It goes as any manifest does, and with it what it has named; also where no more of its kind is taken.
    admin.put_tenant("default", json!({})).await;
    repository
        .delete(&format!("manifests/{}", sha256(&bundle)))
        .await
        .expect(202);
    eventually("all of it is collected", WAIT, async || {
        let gone = status(&repository, &child.digest()).await == 404;
        let blob = repository.get(&format!("blobs/{named}")).await;
        (gone && blob.status == 404).then_some(())
    })
    .await;
}

async fn bytes_become_free(backend: Backend) {
    let told = short(Berth::builder().backend(backend)).flag("--tenant-metrics", "true");
    let berth = told.start().await;
    let admin = Admin::of(&berth);
    let repository = Repository::new(&berth.url(""), "team/app");
    let kept = push(&repository, 1, "kept").await;
    let mut gone = Vec::new();
    for number in 2..6 {
        gone.push(push(&repository, number, &format!("v{number}")).await);
    }

    for image in &gone {
        repository
            .delete(&format!("manifests/{}", image.digest()))
            .await
            .expect(202);
    }

    let storage = settled(&admin).await;
    let bytes = (kept.own.len() + shared().len()) as u64;
    assert_eq!(
        storage,
        json!({
            "logicalBytes": bytes + kept.manifest.len() as u64,
            "storedBytes": bytes,
            "garbageBytes": 0,
            "openUploadBytes": 0,
        })
    );
    assert_there(&repository, &kept).await;
    for image in &gone {
        repository
            .get(&format!("blobs/{}", sha256(&image.own)))
            .await
            .expect(404);
    }
    if let Backend::Embedded = backend {
        assert_eq!(objects(&berth), 2, "the files are gone");
    }
    assert_eq!(
        usage(&admin, "default").await["bytes"],
        bytes + kept.manifest.len() as u64
    );
    eventually("the metrics tell it", WAIT, async || {
        (metric(&berth, r#"berth_storage_bytes{kind="stored"}"#).await as u64 == bytes).then_some(())
    })
    .await;
    // 15 s lie between two looks at the store, and the last one saw the end.
    let told = metric(&berth, r#"berth_tenant_bytes{tenant="default"}"#).await;
    assert_eq!(told as u64, bytes + kept.manifest.len() as u64);
    assert_eq!(
        metric(&berth, r#"berth_tenant_tags{tenant="default"}"#).await,
        1.0
    );
    assert!(metric(&berth, r#"berth_gc_collected_total{kind="blob"}"#).await >= 4.0);
    assert!(metric(&berth, "berth_gc_reclaimed_bytes_total").await >= 8000.0);
    assert_eq!(metric(&berth, "berth_gc_failures_total").await, 0.0);
}

/// Files of published objects.
fn objects(berth: &Berth) -> usize {
    let shards = std::fs::read_dir(berth.data().join("blobs/blobs")).expect("the folder of objects");
    shards
        .flatten()
        .map(|shard| std::fs::read_dir(shard.path()).expect("a shard").count())
        .sum()
}

#[tokio::test]
async fn metrics_name_no_tenant_unless_they_are_to() {
    let berth = Berth::start(Backend::Embedded).await;
    push(&Repository::new(&berth.url(""), "team/app"), 1, "v1").await;
    eventually("the store has been looked at", WAIT, async || {
        (metric(&berth, r#"berth_storage_bytes{kind="logical"}"#).await > 0.0).then_some(())
    })
    .await;
    let metrics = harness::http::send(harness::http::client().get(berth.ops_url("/metrics"))).await;
    let text = metrics.expect(200).text();
    for told in ["berth_tenant_", "tenant=\"", "\"default\""] {
        assert!(!text.contains(told), "{told} in {text}");
    }
}

#[tokio::test]
async fn collection_killed_again_and_again_loses_and_leaks_nothing() {
    let mut berth = short(Berth::builder()).start().await;
    let mut dice = Dice::new();
    let repository = Repository::new(&berth.url(""), "team/app");
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    for round in 0..8 {
        churn(&repository, round, &mut kept, &mut gone).await;
        // The instant is the test's subject: while manifests, blobs or objects of this round or the last are collected.
        tokio::time::sleep(Duration::from_millis(500 + dice.below(2500))).await;
        berth.kill9();
        berth.restart().await;
    }
    check(&Admin::of(&berth), &repository, &kept, &gone).await;
    assert_eq!(objects(&berth), kept.len() + 1);
}

#[tokio::test]
async fn collection_by_replicas_that_are_killed_loses_and_leaks_nothing() {
    let mut cluster = Cluster::start_with(2, short(Berth::builder())).await;
    let mut dice = Dice::new();
    let repository = Repository::new(&format!("http://{}", cluster.address()), "team/app");
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    for round in 0..4 {
        churn(&repository, round, &mut kept, &mut gone).await;
        tokio::time::sleep(Duration::from_millis(500 + dice.below(2500))).await;
        let victim = cluster.replica(usize::from(dice.below(2) == 1));
        victim.kill9();
        victim.restart().await;
    }
    let admin = Admin::of(cluster.replica(0));
    check(&admin, &repository, &kept, &gone).await;
}

/// Pushes images, and deletes every other one.
async fn churn(repository: &Repository, round: u64, kept: &mut Vec<Pushed>, gone: &mut Vec<Pushed>) {
    for number in 0..6 {
        let number = round * 6 + number;
        let image = push(repository, number, &format!("v{number}")).await;
        if number.is_multiple_of(2) {
            kept.push(image);
            continue;
        }
        repository
            .delete(&format!("manifests/{}", image.digest()))
            .await
            .expect(202);
        gone.push(image);
    }
}

/// What was kept is there, what was deleted is not, and every byte is accounted for.
pub(super) async fn check(admin: &Admin, repository: &Repository, kept: &[Pushed], gone: &[Pushed]) {
    let storage = settled(admin).await;
    for image in kept {
        assert_there(repository, image).await;
    }
    for image in gone {
        assert_eq!(status(repository, &image.digest()).await, 404);
        repository
            .get(&format!("blobs/{}", sha256(&image.own)))
            .await
            .expect(404);
    }
    let stored = kept.iter().map(|image| image.own.len() as u64).sum::<u64>() + shared().len() as u64;
    let manifests: u64 = kept.iter().map(|image| image.manifest.len() as u64).sum();
    assert_eq!(storage["storedBytes"], stored);
    assert_eq!(storage["garbageBytes"], 0);
    assert_eq!(storage["logicalBytes"], stored + manifests);
    let run = admin
        .ask(Method::POST, "fsck", Some(json!({ "rehash": true })))
        .await;
    assert_eq!(run.status.as_u16(), 202, "{}", run.text());
    let report = eventually("both stores have been checked", WAIT, async || {
        let report = admin.ask(Method::GET, "fsck", None).await.expect(200).json();
        (report["state"] == "Done").then_some(report)
    })
    .await;
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(0), "{report}");
}

#[tokio::test]
async fn an_erased_tenant_gives_back_every_byte() {
    let berth = short(Berth::builder()).start().await;
    let admin = Admin::of(&berth);
    let repository = Repository::new(&berth.url(""), "team/app");
    push(&repository, 1, "v1").await;
    push(&repository, 2, "v2").await;
    repository.start_upload().await;

    admin
        .ask(Method::DELETE, "tenants/default?erase=true", None)
        .await
        .expect(200);

    eventually("the tenant's files are gone", WAIT, async || {
        (objects(&berth) == 0).then_some(())
    })
    .await;
    let nothing = json!({ "logicalBytes": 0, "storedBytes": 0, "garbageBytes": 0, "openUploadBytes": 0 });
    eventually("nothing is counted any more", WAIT, async || {
        (settled(&admin).await == nothing).then_some(())
    })
    .await;
    let gc = admin.ask(Method::GET, "gc", None).await.expect(200).json();
    assert_eq!(gc["purges"], json!([]));
}
