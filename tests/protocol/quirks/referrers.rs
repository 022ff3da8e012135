//! The list of what refers to a manifest.

use harness::content::sha256;
use harness::http::send;
use harness::image::{INDEX, MANIFEST, descriptor};
use reqwest::Method;
use serde_json::{Value, json};

use super::lists::next;
use super::{EMPTY, bytes, push_artifact, registry};

#[tokio::test]
async fn whatever_is_unknown_has_an_empty_list() {
    let (_berth, repository) = registry().await;
    let zeros = format!("sha256:{}", "0".repeat(64));

    for known in [false, true] {
        if known {
            repository.push_blob(EMPTY).await;
        }
        for subject in [
            zeros.clone(),
            sha256(EMPTY),
            format!("sha512:{}", "0".repeat(128)),
        ] {
            let answer = repository.get(&format!("referrers/{subject}")).await.expect(200);
            assert_eq!(answer.header("content-type"), INDEX);
            assert_eq!(
                answer.json(),
                json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []})
            );
        }
    }
    for bad in ["sha256:abc", "v1", "nonsense:"] {
        let refused = repository.get(&format!("referrers/{bad}")).await.expect(400);
        assert_eq!(refused.error_code(), "DIGEST_INVALID", "{bad}");
    }
}

#[tokio::test]
async fn an_entry_has_what_clients_choose_by() {
    let (_berth, repository) = registry().await;
    repository.push_blob(EMPTY).await;
    let subject = descriptor(MANIFEST, b"not there yet");
    let artifact = push_artifact(
        &repository,
        "a",
        "application/vnd.example.sbom",
        Some(subject.clone()),
    )
    .await;
    let config = descriptor("application/vnd.example.config", EMPTY);
    let image = bytes(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [], "subject": subject,
    }));
    repository.put_manifest("b", MANIFEST, &image).await.expect(201);
    let index = bytes(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": subject}));
    repository.put_manifest("c", INDEX, &index).await.expect(201);

    let list = repository
        .get(&format!("referrers/{}", sha256(b"not there yet")))
        .await
        .expect(200)
        .json();

    let entry = |digest: String| -> Value {
        let entries = list["manifests"].as_array().expect("a list");
        entries
            .iter()
            .find(|entry| entry["digest"] == digest)
            .expect("an entry")
            .clone()
    };
    assert_eq!(
        entry(sha256(&artifact)),
        json!({
            "mediaType": MANIFEST, "digest": sha256(&artifact), "size": artifact.len(),
            "artifactType": "application/vnd.example.sbom", "annotations": {"note": "a"},
        })
    );
    assert_eq!(
        entry(sha256(&image))["artifactType"],
        "application/vnd.example.config"
    );
    assert_eq!(entry(sha256(&index))["mediaType"], INDEX);
    assert!(entry(sha256(&index)).get("artifactType").is_none());
}

#[tokio::test]
async fn a_filter_may_be_repeated_and_means_any_of_them() {
    let (_berth, repository) = registry().await;
    let subject = descriptor(MANIFEST, b"subject");
    let path = format!("referrers/{}", sha256(b"subject"));
    for (tag, kind) in [
        ("1", "application/a"),
        ("2", "application/b+json"),
        ("3", "application/c"),
    ] {
        push_artifact(&repository, tag, kind, Some(subject.clone())).await;
    }

    for (query, count, filtered) in [
        ("", 3, ""),
        ("?unknown=x", 3, ""),
        ("?artifactType=application/a", 1, "artifactType"),
        ("?artifactType=application%2Fb%2Bjson", 1, "artifactType"),
        (
            "?artifactType=application/a&artifactType=application/c",
            2,
            "artifactType",
        ),
        ("?artifactType=application/none", 0, "artifactType"),
    ] {
        let answer = repository.get(&format!("{path}{query}")).await.expect(200);
        let entries = answer.json()["manifests"].as_array().map(Vec::len);
        assert_eq!(entries, Some(count), "{query}");
        assert_eq!(answer.header("oci-filters-applied"), filtered, "{query}");
        assert_eq!(answer.header("content-type"), INDEX);
    }
}

#[tokio::test]
async fn a_list_that_is_too_long_for_one_answer_comes_in_pages_that_lose_nothing() {
    let (_berth, repository) = registry().await;
    repository.push_blob(EMPTY).await;
    let subject = descriptor(MANIFEST, b"popular");
    let mut pushed = Vec::new();
    for number in 0..14 {
        let manifest = bytes(&json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/x+json",
            "config": descriptor(super::EMPTY_TYPE, EMPTY), "layers": [], "subject": subject,
            "annotations": {"filler": format!("{number}").repeat(600_000)},
        }));
        repository
            .put_manifest(&sha256(&manifest), MANIFEST, &manifest)
            .await
            .expect(201);
        pushed.push(sha256(&manifest));
    }
    pushed.sort();

    for query in ["", "?artifactType=application%2Fx%2Bjson"] {
        let mut listed = Vec::new();
        let mut url = Some(format!("/v2/team-a/app/referrers/{}{query}", sha256(b"popular")));
        let mut pages = 0;
        while let Some(at) = url {
            let answer = send(repository.at(Method::GET, &at)).await.expect(200);
            assert!(answer.body.len() < 4_194_304, "{} bytes", answer.body.len());
            assert_eq!(answer.header("oci-filters-applied").is_empty(), query.is_empty());
            for entry in answer.json()["manifests"].as_array().expect("a list") {
                listed.push(entry["digest"].as_str().expect("a digest").to_owned());
            }
            url = next(&answer);
            pages += 1;
        }
        assert!(pages > 1);
        listed.sort();
        assert_eq!(listed, pushed);
    }
}

#[tokio::test]
async fn the_same_bytes_under_two_algorithms_are_two_subjects() {
    let (_berth, repository) = registry().await;
    let mut strong = descriptor(MANIFEST, b"subject");
    strong["digest"] = json!(harness::content::sha512(b"subject"));
    push_artifact(&repository, "strong", "application/x", Some(strong)).await;

    let count = async |digest: &str| {
        let list = repository
            .get(&format!("referrers/{digest}"))
            .await
            .expect(200)
            .json();
        list["manifests"].as_array().map(Vec::len)
    };

    assert_eq!(count(&sha256(b"subject")).await, Some(0));
    assert_eq!(count(&harness::content::sha512(b"subject")).await, Some(1));
}

#[tokio::test]
async fn referrers_are_of_one_repository() {
    let (_berth, repository) = registry().await;
    push_artifact(
        &repository,
        "v1",
        "application/x",
        Some(descriptor(MANIFEST, b"subject")),
    )
    .await;

    let other = repository
        .sibling("other")
        .get(&format!("referrers/{}", sha256(b"subject")))
        .await
        .expect(200);

    assert_eq!(other.json()["manifests"], json!([]));
}

#[tokio::test]
async fn a_head_of_the_list_has_its_headers() {
    let (_berth, repository) = registry().await;

    let answer = repository
        .head(&format!("referrers/{}", sha256(EMPTY)))
        .await
        .expect(200);

    assert_eq!(answer.header("content-type"), INDEX);
    send(repository.request(Method::DELETE, &format!("referrers/{}", sha256(EMPTY))))
        .await
        .expect(405);
}
