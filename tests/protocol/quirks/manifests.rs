//! PUT of manifests: what names them, what they may lack, which tags they set.

use harness::Image;
use harness::content::{sha256, sha512};
use harness::http::{Answer, Repository, send};
use harness::image::{INDEX, MANIFEST, descriptor};
use reqwest::Method;
use serde_json::{Value, json};

use super::{EMPTY, EMPTY_TYPE, artifact, bytes, push_artifact, registry};

async fn put(repository: &Repository, reference: &str, kind: Option<&str>, manifest: &[u8]) -> Answer {
    let mut request = repository.request(Method::PUT, &format!("manifests/{reference}"));
    if let Some(kind) = kind {
        request = request.header("Content-Type", kind);
    }
    send(request.body(manifest.to_vec())).await
}

/// An artifact with these fields changed; null takes a field away.
fn changed(changes: Value) -> Vec<u8> {
    let mut manifest: Value = serde_json::from_slice(&artifact("application/x", None, "n")).expect("JSON");
    for (key, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => drop(manifest.as_object_mut().expect("an object").remove(key)),
            value => manifest[key] = value.clone(),
        }
    }
    bytes(&manifest)
}

#[tokio::test]
async fn the_answer_names_the_manifest_by_digest() {
    let (_berth, repository) = registry().await;
    let manifest = push_artifact(&repository, "v1", "application/x", None).await;
    let digest = sha256(&manifest);

    for reference in ["v1", "v2", &digest] {
        let answer = put(&repository, reference, Some(MANIFEST), &manifest)
            .await
            .expect(201);
        assert_eq!(answer.header("docker-content-digest"), digest);
        assert_eq!(
            answer.header("location"),
            format!("/v2/team-a/app/manifests/{digest}")
        );
        assert_eq!(answer.header("oci-tag"), "");
    }
}

#[tokio::test]
async fn the_content_type_may_have_parameters_or_be_absent_and_is_stored_bare() {
    let (_berth, repository) = registry().await;
    repository.push_blob(EMPTY).await;
    let typed = artifact("application/x", None, "typed");
    let untyped = changed(json!({"mediaType": null}));

    let with_charset = format!("{MANIFEST}; charset=utf-8");
    for (tag, kind, manifest) in [
        ("a", Some(with_charset.as_str()), &typed),
        ("b", None, &typed),
        ("c", Some(""), &typed),
        ("d", Some(MANIFEST), &untyped),
    ] {
        put(&repository, tag, kind, manifest).await.expect(201);
        assert_eq!(
            repository
                .head(&format!("manifests/{tag}"))
                .await
                .header("content-type"),
            MANIFEST,
            "{tag}"
        );
    }
    let refused = put(&repository, "e", None, &untyped).await.expect(400);
    assert_eq!(refused.error_code(), "MANIFEST_INVALID");
}

#[tokio::test]
async fn a_manifest_that_contradicts_itself_or_its_content_type_is_refused() {
    let (_berth, repository) = registry().await;
    repository.push_blob(EMPTY).await;
    let typed = artifact("application/x", None, "typed");
    let untyped = changed(json!({"mediaType": null}));
    let both = changed(json!({"manifests": []}));
    let other_version = changed(json!({"schemaVersion": 1}));
    let no_version = changed(json!({"schemaVersion": null}));

    for (kind, manifest) in [
        (INDEX, &typed),
        (INDEX, &untyped),
        ("application/vnd.docker.distribution.manifest.v2+json", &typed),
        (MANIFEST, &both),
        (MANIFEST, &other_version),
        (MANIFEST, &no_version),
        (MANIFEST, &b"not JSON".to_vec()),
        (MANIFEST, &b"[]".to_vec()),
        (MANIFEST, &Vec::new()),
    ] {
        let refused = put(&repository, "v1", Some(kind), manifest).await.expect(400);
        assert_eq!(
            refused.error_code(),
            "MANIFEST_INVALID",
            "{kind} {}",
            String::from_utf8_lossy(manifest)
        );
    }

    repository.get_manifest("v1").await.expect(404);
}

#[tokio::test]
async fn what_the_specs_leave_open_is_accepted_and_white_space_is_content() {
    let (_berth, repository) = registry().await;
    repository.push_blob(EMPTY).await;
    let pretty: Value = serde_json::from_slice(&artifact("application/x", None, "p")).expect("JSON");
    let mut pretty = serde_json::to_vec_pretty(&pretty).expect("JSON");
    pretty.extend(b"\n\n ");
    let mut inline = descriptor(EMPTY_TYPE, EMPTY);
    inline["data"] = json!("e30=");

    for (tag, manifest) in [
        ("pretty", pretty),
        (
            "unknown-fields",
            changed(json!({"x-unknown": {"deep": [1, null, "é"]}})),
        ),
        ("no-artifact-type", changed(json!({"artifactType": null}))),
        ("inline-data", changed(json!({"config": inline}))),
        ("no-annotations", changed(json!({"annotations": {}}))),
    ] {
        put(&repository, tag, Some(MANIFEST), &manifest).await.expect(201);
        let answer = repository.get_manifest(tag).await.expect(200);
        assert!(answer.body == manifest, "{tag}");
        assert_eq!(answer.header("docker-content-digest"), sha256(&manifest), "{tag}");
    }
    let empty_index = bytes(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}));
    put(&repository, "empty-index", Some(INDEX), &empty_index)
        .await
        .expect(201);
}

#[tokio::test]
async fn a_digest_in_the_path_must_be_the_bodys_in_its_own_algorithm() {
    let (_berth, repository) = registry().await;
    let manifest = push_artifact(&repository, "v1", "application/x", None).await;
    let strong = sha512(&manifest);

    for wrong in [
        sha256(b"other"),
        sha512(b"other"),
        "sha256:abc".into(),
        "md5:00".into(),
    ] {
        let refused = put(&repository, &wrong, Some(MANIFEST), &manifest)
            .await
            .expect(400);
        assert_eq!(refused.error_code(), "DIGEST_INVALID", "{wrong}");
    }
    let reference = format!("{strong}?tag=strong");
    let answer = put(&repository, &reference, Some(MANIFEST), &manifest)
        .await
        .expect(201);
    assert_eq!(answer.header("docker-content-digest"), strong);
    for reference in ["strong", &strong] {
        let head = repository
            .head(&format!("manifests/{reference}"))
            .await
            .expect(200);
        assert_eq!(head.header("docker-content-digest"), strong);
    }
    assert_eq!(
        repository
            .head("manifests/v1")
            .await
            .header("docker-content-digest"),
        sha256(&manifest)
    );
}

#[tokio::test]
async fn a_push_by_digest_may_set_many_tags_at_once() {
    let (_berth, repository) = registry().await;
    let manifest = push_artifact(&repository, "first", "application/x", None).await;
    let digest = sha256(&manifest);
    let tags: Vec<String> = (0..46).map(|number| format!("t{number:02}")).collect();

    let reference = format!("{digest}?tag={}", tags.join("&tag="));
    let answer = put(&repository, &reference, Some(MANIFEST), &manifest)
        .await
        .expect(201);

    let mut echoed: Vec<&str> = answer.header("oci-tag").split(", ").collect();
    echoed.sort_unstable();
    assert_eq!(echoed, tags);
    for tag in &tags {
        let head = repository.head(&format!("manifests/{tag}")).await.expect(200);
        assert_eq!(head.header("docker-content-digest"), digest);
    }
}

#[tokio::test]
async fn tags_in_the_query_go_with_a_digest_only_and_all_or_none() {
    let (_berth, repository) = registry().await;
    let manifest = push_artifact(&repository, "first", "application/x", None).await;
    let digest = sha256(&manifest);

    put(&repository, "v1?tag=v2", Some(MANIFEST), &manifest)
        .await
        .expect(400);
    for bad in ["", "-x", ".x", "a%20b", "a%2Fb", "a%0Ab", &"t".repeat(129)] {
        let reference = format!("{digest}?tag=good&tag={bad}");
        put(&repository, &reference, Some(MANIFEST), &manifest)
            .await
            .expect(400);
    }
    let unpushed = artifact("application/x", None, "unpushed");
    put(
        &repository,
        &format!("{digest}?tag=good"),
        Some(MANIFEST),
        &unpushed,
    )
    .await
    .expect(400);

    assert_eq!(repository.get("tags/list").await.json()["tags"], json!(["first"]));
}

#[tokio::test]
async fn a_tag_that_is_none_cannot_be_pushed() {
    let (_berth, repository) = registry().await;
    let manifest = push_artifact(&repository, "first", "application/x", None).await;

    for bad in ["-x", ".x", "a%20b", "a%00b", "%C3%A9", "a+b", &"t".repeat(129)] {
        let answer = put(&repository, bad, Some(MANIFEST), &manifest).await;
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
    }
    put(&repository, &"t".repeat(128), Some(MANIFEST), &manifest)
        .await
        .expect(201);
    put(&repository, "_.-", Some(MANIFEST), &manifest)
        .await
        .expect(201);
}

#[tokio::test]
async fn every_missing_blob_or_child_is_named_once() {
    let (_berth, repository) = registry().await;
    repository.push_blob(EMPTY).await;
    let layers = [b"absent-1".as_slice(), b"absent-2", b"absent-1"];
    let layers: Vec<Value> = layers.map(|layer| descriptor("application/x", layer)).to_vec();
    let mut expected = [sha256(b"absent-1"), sha256(b"absent-2")];
    expected.sort();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": layers});

    for (kind, manifest) in [
        (MANIFEST, changed(json!({"layers": layers}))),
        (INDEX, bytes(&index)),
    ] {
        let refused = put(&repository, "v1", Some(kind), &manifest).await.expect(400);
        let errors = refused.json()["errors"].as_array().expect("errors").clone();
        assert!(
            errors
                .iter()
                .all(|error| error["code"] == "MANIFEST_BLOB_UNKNOWN"),
            "{errors:?}"
        );
        let mut named: Vec<&str> = errors
            .iter()
            .filter_map(|error| error["detail"]["digest"].as_str())
            .collect();
        named.sort_unstable();
        assert_eq!(named, expected);
    }
    repository.get_manifest("v1").await.expect(404);
}

#[tokio::test]
async fn a_blob_of_another_repository_is_missing_here() {
    let (_berth, repository) = registry().await;
    let image = Image::new(1, 100);
    image.push(&repository, "v1").await;

    let refused = repository
        .sibling("other")
        .put_manifest("v1", MANIFEST, &image.manifest)
        .await
        .expect(400);

    assert_eq!(refused.error_code(), "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn the_subject_is_echoed_by_tag_and_digest_whether_it_exists_or_not() {
    let (_berth, repository) = registry().await;
    repository.push_blob(EMPTY).await;
    let subject = descriptor(MANIFEST, b"never pushed");
    let image = artifact("application/x", Some(subject.clone()), "n");
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": subject});

    for (kind, manifest) in [(MANIFEST, image), (INDEX, bytes(&index))] {
        for reference in ["v1", &sha256(&manifest)] {
            let answer = put(&repository, reference, Some(kind), &manifest)
                .await
                .expect(201);
            assert_eq!(answer.header("oci-subject"), sha256(b"never pushed"));
        }
    }
    let without = artifact("application/x", None, "n");
    let answer = put(&repository, "v2", Some(MANIFEST), &without).await.expect(201);
    assert!(!answer.headers.contains_key("oci-subject"));
}

#[tokio::test]
async fn a_manifest_may_have_four_mebibytes_and_not_one_byte_more() {
    let (_berth, repository) = registry().await;
    repository.push_blob(EMPTY).await;
    let mut manifest = artifact("application/x", None, "n");
    manifest.resize(4 << 20, b' ');

    put(&repository, "v1", Some(MANIFEST), &manifest)
        .await
        .expect(201);
    assert!(repository.get_manifest("v1").await.expect(200).body == manifest);
    manifest.push(b' ');
    put(&repository, "v2", Some(MANIFEST), &manifest)
        .await
        .expect(413);
    let streamed = harness::http::streamed(manifest.chunks(100_000).map(<[u8]>::to_vec).collect());
    let request = repository
        .request(Method::PUT, "manifests/v3")
        .header("Content-Type", MANIFEST);
    send(request.body(streamed)).await.expect(413);
}

#[tokio::test]
async fn equal_pushes_at_once_all_succeed() {
    let (_berth, repository) = registry().await;
    let manifest = push_artifact(&repository, "v1", "application/x", None).await;

    let pushes = (0..32).map(|number| {
        let (repository, manifest) = (repository.clone(), manifest.clone());
        async move {
            let tag = format!("t{}", number % 4);
            put(&repository, &tag, Some(MANIFEST), &manifest)
                .await
                .expect(201);
        }
    });
    futures_util::future::join_all(pushes).await;

    assert_eq!(
        repository.get("tags/list").await.json()["tags"],
        json!(["t0", "t1", "t2", "t3", "v1"])
    );
}
