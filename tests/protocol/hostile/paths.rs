//! Paths that try to be other paths.

use std::path::Path;

use harness::Backend;
use harness::content::sha256;

use super::Target;

/// Every file below a folder.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn no_path_leads_out_of_its_place() {
    let target = Target::start().await;
    let tags = [
        "..", ".", "%2e%2e", "%2E%2e", "..%2f..", "..%5c..", "..\\..", "%00", "v1%00", "v1%0a", "%ff", "%",
    ];
    let before = files(&target.berth.data().join("blobs"));

    for odd in tags {
        for (method, path) in [
            ("GET", format!("/v2/team-a/app/manifests/{odd}")),
            ("PUT", format!("/v2/team-a/app/manifests/{odd}")),
            ("DELETE", format!("/v2/team-a/app/manifests/{odd}")),
            ("GET", format!("/v2/team-a/app/blobs/{odd}")),
            ("GET", format!("/v2/team-a/app/blobs/sha256:{odd}")),
            ("GET", format!("/v2/team-a/app/blobs/uploads/{odd}")),
            ("PATCH", format!("/v2/team-a/app/blobs/uploads/{odd}")),
            ("GET", format!("/v2/team-a/app/referrers/{odd}")),
            ("GET", format!("/v2/{odd}/tags/list")),
            ("GET", format!("/v2/team-a/{odd}/tags/list")),
            ("POST", format!("/v2/team-a/{odd}/blobs/uploads/")),
            ("GET", format!("/{odd}/v2/")),
            ("GET", format!("/v2/team-a/app/{odd}/manifests/v1")),
        ] {
            let said = target.ask(method, &path).await;
            assert!([400, 404].contains(&said.status), "{method} {path}: {said:?}");
        }
    }
    for path in [
        "/v2/team-a%2Fapp/manifests/v1",
        "/v2/team-a%2fapp/tags/list",
        "/v2/team-a%252Fapp/tags/list",
        "/v2/team-a//app/manifests/v1",
        "//v2/team-a/app/manifests/v1",
        "/v2/team-a/app/manifests//v1",
        "/v2/team-a/app/manifests/v1/",
        "/v2/team-a/../team-a/app/manifests/v1",
        "/v2/./team-a/app/manifests/v1",
        "/v2/Team-A/app/manifests/v1",
        "/v2/team-a/app;x/manifests/v1",
        "/v2/t%C3%A9am/app/tags/list",
        "/v2/team-a/%EF%BC%8E%EF%BC%8E/tags/list",
        "/V2/team-a/app/manifests/v1",
    ] {
        let said = target.ask("GET", path).await;
        assert!([400, 404].contains(&said.status), "{path}: {said:?}");
    }
    assert_eq!(files(&target.berth.data().join("blobs")), before);
    target.survived().await;
}

#[tokio::test]
async fn queries_are_no_way_round_the_grammar() {
    let target = Target::start().await;
    let digest = target.image.digest();

    for query in [
        "digest=sha256:../../x",
        "digest=sha256:%00",
        "digest-algorithm=../md5",
        "digest-algorithm=md5",
        "digest=md5:d41d8cd98f00b204e9800998ecf8427e",
        "digest=sha256:ABCDEF",
        "mount=%00&from=x",
    ] {
        let said = target
            .ask("POST", &format!("/v2/team-a/app/blobs/uploads/?{query}"))
            .await;
        assert_eq!(said.status, 400, "{query}: {said:?}");
    }
    // A mount that cannot be is an upload, whatever its source is called.
    for from in ["../app", "%2e%2e", "UPPER", "", "a%2F..%2Fb", &"x".repeat(4000)] {
        let layer = sha256(&target.image.layers[0]);
        let said = target
            .ask(
                "POST",
                &format!("/v2/team-b/app/blobs/uploads/?mount={layer}&from={from}"),
            )
            .await;
        assert_eq!(said.status, 202, "{from}: {said:?}");
    }
    for tag in ["..", "%00", "a%0d%0aX-Evil:1", "-a", "", "é"] {
        let said = target
            .ask("PUT", &format!("/v2/team-a/app/manifests/{digest}?tag={tag}"))
            .await;
        assert_eq!(said.status, 400, "{tag}: {said:?}");
        assert!(!said.text.to_lowercase().contains("\nx-evil"), "{said:?}");
    }
    for (n, status) in [
        ("18446744073709551615", 200),
        ("18446744073709551616", 400),
        ("-1", 400),
        ("1e9", 400),
        ("%00", 400),
        ("0", 200),
    ] {
        for list in ["/v2/team-a/app/tags/list", "/v2/_catalog"] {
            let said = target.ask("GET", &format!("{list}?n={n}")).await;
            assert_eq!(said.status, status, "{list} {n}: {said:?}");
        }
    }
    target.survived().await;
}

#[tokio::test]
async fn names_have_an_end() {
    let target = Target::start().await;

    for (path, statuses) in [
        (format!("/v2/{}/tags/list", "a".repeat(256)), vec![400]),
        (format!("/v2/{}a/tags/list", "a/".repeat(4000)), vec![400]),
        (format!("/v2/app/manifests/{}", "a".repeat(129)), vec![404]),
        (format!("/v2/app/manifests/{}", "a".repeat(8000)), vec![404]),
        (
            format!("/v2/app/blobs/sha256:{}", "a".repeat(8000)),
            vec![400, 404],
        ),
        (format!("/v2/app/blobs/uploads/{}", "a".repeat(8000)), vec![404]),
        (format!("/v2/app/tags/list?last={}", "a".repeat(8000)), vec![404]),
    ] {
        let said = target.ask("GET", &path).await;
        assert!(statuses.contains(&said.status), "{said:?}");
    }
    target.survived().await;
}

#[tokio::test]
async fn names_that_are_words_of_the_api_are_names() {
    for backend in Backend::BOTH {
        let target = Target::of(harness::Berth::builder().backend(backend)).await;
        for name in [
            "blobs",
            "manifests",
            "tags/list",
            "blobs/uploads",
            "uploads",
            "referrers",
            "v2",
            "a/manifests/b",
            "a/blobs/uploads/b",
            "tags",
        ] {
            let repository = target.repository.sibling(name);
            target.image.push(&repository, "list").await;
            target.image.assert_pullable(&repository, "list").await;
            let tags = repository.get("tags/list").await.expect(200).json();
            assert_eq!(tags, serde_json::json!({"name": name, "tags": ["list"]}));
            repository
                .get(&format!("referrers/{}", target.image.digest()))
                .await
                .expect(200);
        }
        // A name never begins with an underscore: what does is an extension's.
        for name in ["_catalog", "_oci", "_x/y"] {
            target.repository.sibling(name).get("tags/list").await.expect(400);
        }
        target.survived().await;
    }
}
