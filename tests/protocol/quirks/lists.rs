//! Pages of tags and of repositories.

use harness::content::sha256;
use harness::http::{Answer, Repository, send};
use harness::image::MANIFEST;
use reqwest::Method;
use serde_json::json;

use super::{push_artifact, registry};

/// The relative URL of the next page, if there is one.
pub(super) fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link");
    if link.is_empty() {
        return None;
    }
    let (url, relation) = link.split_once('>').expect("a Link has a URL");
    assert_eq!(relation.replace(' ', ""), ";rel=\"next\"");
    let url = url.trim_start_matches('<');
    assert!(
        url.starts_with("/v2/"),
        "a Link of another origin is refused by clients: {url}"
    );
    Some(url.to_owned())
}

/// Follows pages from `first` to the end and returns each page's entries below `key`.
async fn pages(repository: &Repository, first: &str, key: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut url = Some(first.to_owned());
    while let Some(at) = url {
        let answer = send(repository.at(Method::GET, &at)).await.expect(200);
        let entries = answer.json()[key].as_array().expect("a list").clone();
        pages.push(
            entries
                .iter()
                .map(|entry| entry.as_str().expect("a name").to_owned())
                .collect(),
        );
        url = next(&answer);
        assert!(pages.len() < 1000, "pages without an end");
    }
    pages
}

/// Pushes one artifact under all these tags.
async fn tag(repository: &Repository, tags: &[String]) {
    let manifest = push_artifact(repository, &tags[0], "application/x", None).await;
    let digest = sha256(&manifest);
    for tags in tags.chunks(40) {
        let reference = format!("{digest}?tag={}", tags.join("&tag="));
        repository
            .put_manifest(&reference, MANIFEST, &manifest)
            .await
            .expect(201);
    }
}

#[tokio::test]
async fn pages_of_any_size_put_together_are_the_whole_in_bytewise_order() {
    let (_berth, repository) = registry().await;
    let mut tags: Vec<String> = (0..97).map(|n| format!("v{n}")).collect();
    tags.extend(["A", "Z", "_", "a-b", "a.b", "a_b", "0", "aB", "ab", "latest"].map(str::to_owned));
    tag(&repository, &tags).await;
    tags.sort();

    for size in [1, 2, 7, 50, 106, 107, 108, 5000] {
        let pages = pages(&repository, &format!("/v2/team-a/app/tags/list?n={size}"), "tags").await;
        assert!(
            pages.iter().rev().skip(1).all(|page| page.len() == size),
            "{size}"
        );
        assert_eq!(pages.concat(), tags, "{size}");
        assert_eq!(pages.len(), tags.len().div_ceil(size), "{size}");
    }
}

#[tokio::test]
async fn a_page_begins_after_last_whether_that_exists_or_not() {
    let (_berth, repository) = registry().await;
    tag(&repository, &["a", "b", "c", "d"].map(str::to_owned)).await;

    for (query, expected) in [
        ("last=b", json!(["c", "d"])),
        ("last=bb", json!(["c", "d"])),
        ("last=0", json!(["a", "b", "c", "d"])),
        ("last=d", json!([])),
        ("last=", json!(["a", "b", "c", "d"])),
        ("last=a&n=1", json!(["b"])),
        ("n=1&last=%62", json!(["c"])),
        ("last=%C3%A9&n=5", json!([])),
        ("unknown=1", json!(["a", "b", "c", "d"])),
    ] {
        let answer = repository.get(&format!("tags/list?{query}")).await.expect(200);
        assert_eq!(answer.json()["tags"], expected, "{query}");
        assert_eq!(answer.json()["name"], "team-a/app");
    }
}

#[tokio::test]
async fn no_entries_are_a_page_and_what_is_no_number_is_refused() {
    let (_berth, repository) = registry().await;
    tag(&repository, &["a", "b"].map(str::to_owned)).await;

    for path in ["/v2/team-a/app/tags/list", "/v2/_catalog"] {
        let answer = send(repository.at(Method::GET, &format!("{path}?n=0")))
            .await
            .expect(200);
        assert_eq!(answer.header("link"), "", "{path}");
        assert!(answer.text().contains("[]"), "{}", answer.text());
        for bad in [
            "-1",
            "abc",
            "",
            "1.5",
            "+1",
            "%201",
            "0x10",
            "99999999999999999999999999",
        ] {
            let refused = send(repository.at(Method::GET, &format!("{path}?n={bad}"))).await;
            assert_eq!(refused.status, 400, "{path} {bad}");
            assert_eq!(refused.error_code(), "PAGINATION_NUMBER_INVALID", "{path} {bad}");
        }
        for huge in ["4294967296", "18446744073709551615", "1000000000"] {
            send(repository.at(Method::GET, &format!("{path}?n={huge}")))
                .await
                .expect(200);
        }
    }
}

#[tokio::test]
async fn the_catalog_lists_every_repository_in_pages() {
    let (_berth, repository) = registry().await;
    let mut names: Vec<String> = ["z", "a", "a/b", "a-b", "a.b/c", "m", "a0"]
        .map(str::to_owned)
        .to_vec();
    for name in &names {
        push_artifact(&repository.sibling(name), "v1", "application/x", None).await;
    }
    names.sort();

    for size in [1, 2, 3, 100] {
        let pages = pages(&repository, &format!("/v2/_catalog?n={size}"), "repositories").await;
        assert_eq!(pages.concat(), names, "{size}");
    }
    let rest = send(repository.at(Method::GET, "/v2/_catalog?last=a.b/c"))
        .await
        .expect(200);
    assert_eq!(
        rest.json()["repositories"],
        json!(names[names.iter().position(|n| n == "a.b/c").unwrap() + 1..])
    );
}

#[tokio::test]
async fn an_empty_registry_has_an_empty_catalog() {
    let (_berth, repository) = registry().await;

    let answer = send(repository.at(Method::GET, "/v2/_catalog")).await.expect(200);

    assert_eq!(answer.json(), json!({"repositories": []}));
}
