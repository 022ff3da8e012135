//! How an image was built and what it is made of, as documents beside it say.

use std::time::Duration;

use harness::content::{sha256, tar_of};
use harness::eventually;
use harness::http::Repository;
use harness::image::{INDEX, MANIFEST, descriptor};
use serde_json::{Value, json};

use super::House;

const IN_TOTO: &str = "application/vnd.in-toto+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const PATIENCE: Duration = Duration::from_secs(30);

fn statement(kind: &str, predicate: &Value) -> Vec<u8> {
    let subject = json!([{ "name": "app", "digest": { "sha256": "ab" } }]);
    json!({ "_type": "https://in-toto.io/Statement/v0.1", "predicateType": kind, "subject": subject, "predicate": predicate })
        .to_string()
        .into_bytes()
}

fn provenance(build: &str) -> Vec<u8> {
    let predicate = json!({
        "builder": { "id": "https://ci.test/runner" }, "buildType": "https://mobyproject.org/buildkit@v1",
        "invocation": {
            "configSource": { "uri": "https://git.test/a/b.git#refs/heads/main", "digest": { "sha1": "c0ffee42" }, "entryPoint": "Dockerfile" },
            "parameters": { "args": { "target": "<script>alert(1)</script>" } },
        },
        "metadata": { "buildInvocationID": build },
        "materials": [{ "uri": "pkg:docker/alpine@3.22", "digest": { "sha256": "aa" } }],
    });
    statement("https://slsa.dev/provenance/v0.2", &predicate)
}

fn packages(version: &str) -> Vec<u8> {
    let packages = json!([
        { "name": "zlib", "versionInfo": version, "licenseDeclared": "Zlib",
          "externalRefs": [{ "referenceType": "purl", "referenceLocator": "pkg:deb/debian/zlib" }] },
        { "name": "bash", "versionInfo": "5" }, { "name": "<img src=x onerror=alert(1)>" },
    ]);
    let document = json!({ "spdxVersion": "SPDX-2.3", "name": "app", "packages": packages });
    statement("https://spdx.dev/Document", &document)
}

/// An image with attestations beside it in its index, as `BuildKit` pushes it; the image's digest.
pub async fn push(repository: &Repository, tag: &str, build: &str, version: &str) -> String {
    let config =
        json!({ "architecture": "amd64", "os": "linux", "config": { "Env": [format!("V={version}")] } });
    let config = config.to_string().into_bytes();
    let layer = tar_of(&[("etc/motd", version.as_bytes()), ("bin/app", &[7; 2000])]);
    let image = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let image = image.to_string().into_bytes();
    let (provenance, packages, empty) = (provenance(build), packages(version), b"{}".to_vec());
    let mut layers = Vec::new();
    for (document, kind) in [
        (&provenance, "https://slsa.dev/provenance/v0.2"),
        (&packages, "https://spdx.dev/Document"),
    ] {
        let mut layer = descriptor(IN_TOTO, document);
        layer["annotations"] = json!({ "in-toto.io/predicate-type": kind });
        layers.push(layer);
    }
    let attestation = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &empty), "layers": layers,
    });
    let attestation = attestation.to_string().into_bytes();
    for blob in [&config, &layer, &provenance, &packages, &empty] {
        repository.push_blob(blob).await;
    }
    for manifest in [&image, &attestation] {
        repository
            .put_manifest(&sha256(manifest), MANIFEST, manifest)
            .await
            .expect(201);
    }
    let mut about = descriptor(MANIFEST, &attestation);
    about["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
    about["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": sha256(&image),
    });
    let mut child = descriptor(MANIFEST, &image);
    child["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [child, about] });
    let index = index.to_string();
    repository
        .put_manifest(tag, INDEX, index.as_bytes())
        .await
        .expect(201);
    sha256(&image)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_an_image_was_built_is_told_in_words() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    let image = push(&repository, "v1", "run-17", "1.3").await;
    let program = house.program("acme", &token);
    for page in [
        "/explorer/r/app/-/tags/v1".to_owned(),
        format!("/explorer/r/app/-/manifests/{image}"),
    ] {
        let told = program.json(&page).await;
        let provenance = &told["documents"]["provenance"]["content"];
        assert_eq!(provenance["sourceLink"], "https://git.test/a/b", "{page}: {told}");
        assert_eq!(
            (&provenance["commit"], &provenance["ref"]),
            (&json!("c0ffee42"), &json!("refs/heads/main"))
        );
        assert_eq!(provenance["buildId"], "run-17");
        let text = program.get(&page).await.expect(200).text();
        for part in [
            "https://git.test/a/b",
            "c0ffee42",
            "https://ci.test/runner",
            "pkg:docker/alpine@3.22",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("<script>alert"), "{text}");
    }
    // The build is found by what the document says, and leads to the tag.
    for id in ["run-17", "c0ffee42"] {
        let found = eventually("the provenance was read", PATIENCE, async || {
            let found = program.json(&format!("/explorer/builds/{id}")).await;
            (found["images"] != json!([])).then_some(found)
        })
        .await;
        assert_eq!(found["images"][0]["tags"], json!(["v1"]), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_image_is_made_of_is_listed_searched_and_compared() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    push(&repository, "v1", "run-1", "1.3").await;
    push(&repository, "v2", "run-2", "1.4").await;
    let program = house.program("acme", &token);
    let told = program.json("/explorer/r/app/-/tags/v1").await;
    let document = told["documents"]["packages"]["digest"]
        .as_str()
        .expect("a digest");
    let at = format!("/explorer/r/app/-/packages/{document}");
    let listed = program.json(&at).await;
    assert_eq!(
        (&listed["format"], &listed["found"]),
        (&json!("SPDX 2.3"), &json!(3))
    );
    let found = program.json(&format!("{at}?q=ZLIB")).await;
    assert_eq!(found["packages"][0]["licenses"], "Zlib");
    assert_eq!(found["found"], 1);
    let page = program.get(&at).await.expect(200).text();
    assert!(page.contains("&lt;img") && !page.contains("<img"), "{page}");

    let compared = program.json("/explorer/r/app/-/difference?from=v1&to=v2").await;
    let packages = &compared["compared"]["packages"];
    assert_eq!(packages["same"], 2);
    assert_eq!(packages["packages"][0]["name"], "zlib");
    assert_eq!(
        (&packages["packages"][0]["from"], &packages["packages"][0]["to"]),
        (&json!(["1.3"]), &json!(["1.4"]))
    );
    let page = program
        .get("/explorer/r/app/-/difference?from=v1&to=v2")
        .await
        .expect(200)
        .text();
    assert!(page.contains("2 are the same"), "{page}");

    // Something else is no bill of materials, and another's is not there.
    let config = repository.push_blob(b"{}").await;
    program
        .get(&format!("/explorer/r/app/-/packages/{config}"))
        .await
        .expect(409);
    let other = house.token("other").await;
    house.program("other", &other).get(&at).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_refers_to_an_image_is_a_tree() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    let image = harness::Image::new(1, 1000);
    image.push(&repository, "v1").await;
    let empty = b"{}".to_vec();
    repository.push_blob(&empty).await;
    let artifact = |kind: &str, subject: &[u8], layers: Value| {
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
            "config": descriptor("application/vnd.oci.empty.v1+json", &empty), "layers": layers,
            "subject": descriptor(MANIFEST, subject),
        })
        .to_string()
        .into_bytes()
    };
    let document = packages("9");
    repository.push_blob(&document).await;
    let bill = artifact(
        "application/spdx+json",
        &image.manifest,
        json!([descriptor("application/spdx+json", &document)]),
    );
    let signature = artifact(
        "application/vnd.dev.cosign.artifact.sig.v1+json",
        &bill,
        json!([]),
    );
    for manifest in [&bill, &signature] {
        repository
            .put_manifest(&sha256(manifest), MANIFEST, manifest)
            .await
            .expect(201);
    }
    let attached = format!("{}.sig", image.digest().replacen(':', "-", 1));
    repository
        .put_manifest(&attached, MANIFEST, &bill)
        .await
        .expect(201);
    let program = house.program("acme", &token);
    let told = program.json("/explorer/r/app/-/tags/v1").await;
    assert_eq!(told["referrers"][0]["kind"], "Sbom");
    assert_eq!(told["referrers"][0]["referrers"][0]["kind"], "Signature");
    assert_eq!(told["attached"], json!([attached]));
    assert_eq!(told["documents"]["packages"]["digest"], sha256(&document));
    let page = program.get("/explorer/r/app/-/tags/v1").await.expect(200).text();
    assert!(
        page.contains("software bill of materials") && page.contains("about the one above"),
        "{page}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_are_too_long_or_no_documents_hide_nothing() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    let long = vec![b' '; 3 << 20];
    let deep = "[".repeat(300_000).into_bytes();
    let program = house.program("acme", &token);
    for (tag, document, media_type, page) in [
        ("long", &long, IN_TOTO, 200),
        ("deep", &deep, IN_TOTO, 200),
        ("bill", &deep, "application/spdx+json", 409),
    ] {
        let empty = b"{}".to_vec();
        for blob in [document, &empty] {
            repository.push_blob(blob).await;
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": media_type,
            "config": descriptor("application/vnd.oci.empty.v1+json", &empty), "layers": [descriptor(media_type, document)],
        });
        let manifest = manifest.to_string();
        repository
            .put_manifest(tag, MANIFEST, manifest.as_bytes())
            .await
            .expect(201);
        let text = program
            .get(&format!("/explorer/r/app/-/tags/{tag}"))
            .await
            .expect(200)
            .text();
        match page {
            200 => assert!(text.contains("says how this was built"), "{text}"),
            status => drop(
                program
                    .get(&format!("/explorer/r/app/-/packages/{}", sha256(document)))
                    .await
                    .expect(status),
            ),
        }
    }
}
