//! Manifests of formats that are not known, to a tenant that takes them and to one that does not.

use harness::content::sha256;
use harness::http::Repository;
use harness::image::MANIFEST;
use harness::{Admin, Berth, Image, RoundRobin};
use serde_json::json;
use tempfile::TempDir;

use super::{KIB, Told, import, run};

const BUNDLE: &str = "application/vnd.acme.bundle.v1+json";

/// A registry with one tenant.
struct Side {
    berth: Berth,
    /// Logged in, with all rights.
    door: RoundRobin,
}

impl Side {
    async fn new(takes_all: bool) -> Side {
        let berth = Berth::builder().start().await;
        let admin = Admin::of(&berth);
        let policy = json!({ "policy": { "opaqueMediaTypes": takes_all } });
        admin.put_tenant("default", policy).await;
        let token = admin.token("default", &["**"], &["pull", "push"]).await;
        let door = RoundRobin::with_token(berth.address(), &token).await;
        Side { berth, door }
    }

    fn url(&self) -> String {
        format!("http://{}", self.door.address())
    }

    fn repository(&self) -> Repository {
        Repository::new(&self.url(), "team/app")
    }

    async fn import(&self, from: &Side) -> Told {
        let home = TempDir::with_prefix("berth-import-").expect("a temporary folder");
        run(import(&self.berth, &home, &self.url(), &[&from.url()])).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_of_an_unknown_format_comes_with_what_it_names_where_it_is_taken() {
    let from = Side::new(true).await;
    let there = from.repository();
    let (image, named) = (Image::new(1, KIB), Image::new(2, KIB));
    image.push(&there, "image").await;
    // Without a tag, and of which the document does not say that it is a manifest.
    named.push(&there, &named.digest()).await;
    let part = there.push_blob(b"a part").await;
    let bundle = json!({
        "mediaType": BUNDLE,
        "parts": [
            { "digest": part },
            { "mediaType": MANIFEST, "digest": image.digest() },
            { "of": { "digest": named.digest() } },
            { "digest": sha256(b"what nobody has") },
        ],
    });
    let bundle = bundle.to_string().into_bytes();
    there.put_manifest("bundle", BUNDLE, &bundle).await.expect(201);

    let taking = Side::new(true).await;
    taking.import(&from).await.all_equal();
    let here = taking.repository();
    let answer = here.get_manifest("bundle").await.expect(200);
    assert_eq!((answer.header("content-type"), &answer.body), (BUNDLE, &bundle));
    here.assert_blob(&part, b"a part").await;
    image.assert_pullable(&here, "image").await;
    named.assert_pullable(&here, &named.digest()).await;

    let refusing = Side::new(false).await;
    let told = refusing.import(&from).await;
    assert_eq!((told.code, told.tags("skipped")), (Some(0), 1), "{told:?}");
    let problems = told.report()["problems"].to_string();
    assert!(problems.contains("opaqueMediaTypes"), "{problems}");
    image.assert_pullable(&refusing.repository(), "image").await;
}
