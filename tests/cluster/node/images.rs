//! Images put together by plain HTTP, of which every layer is known: busybox, and more on top.

use harness::content::sha256;
use harness::http::{Answer, send};
use harness::image::{MANIFEST, descriptor};
use harness::node::{TenantOf, http, node_file};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// One repository of a tenant, by a token that may do everything.
pub struct Pushing<'a> {
    tenant: &'a TenantOf<'a>,
    repository: String,
    http: Client,
}

/// An image that runs, before it is pushed.
#[derive(Clone)]
pub struct Draft {
    config: Value,
    manifest: Value,
}

impl<'a> Pushing<'a> {
    /// A repository whose name no other tenant has.
    pub fn to(tenant: &'a TenantOf<'a>, name: &str) -> Pushing<'a> {
        Pushing {
            tenant,
            repository: format!("{}/{name}", tenant.name),
            http: http(),
        }
    }

    /// Its name.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// How pods write it.
    pub fn image(&self) -> String {
        format!("{}/{}", self.tenant.host, self.repository)
    }

    /// A request for a path below it.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("https://{}/v2/{}/{path}", self.tenant.host, self.repository);
        self.http
            .request(method, url)
            .basic_auth("x-token", Some(self.tenant.token()))
    }

    /// Pushes a blob; its digest.
    pub async fn blob(&self, content: Vec<u8>) -> String {
        let digest = sha256(&content);
        let push = self.request(Method::POST, &format!("blobs/uploads/?digest={digest}"));
        send(push.body(content)).await.expect(201);
        digest
    }

    /// Pushes a manifest; its digest.
    pub async fn manifest(&self, reference: &str, media_type: &str, manifest: &Value) -> String {
        let bytes = manifest.to_string().into_bytes();
        let digest = sha256(&bytes);
        let push = self.request(Method::PUT, &format!("manifests/{reference}"));
        send(push.header("content-type", media_type).body(bytes))
            .await
            .expect(201);
        digest
    }

    /// A shell with all that busybox knows. Its layer is pushed.
    pub async fn busybox(&self) -> Draft {
        let crane = self.tenant.client("crane");
        let folder = crane.path_text("base");
        std::fs::create_dir(&folder).expect("a folder");
        let archive = node_file("images/busybox.tar");
        let unpacked = std::process::Command::new("tar")
            .args(["-xf", &archive, "-C", &folder])
            .status();
        assert!(unpacked.expect("tar runs").success());
        let reference = format!("{}:busybox", self.image());
        crane.run(&["push", &folder, &reference]).await;
        let read = |answer: Answer| answer.expect(200).json();
        let manifest = self.request(Method::GET, "manifests/busybox");
        let manifest = read(send(manifest.header("accept", MANIFEST)).await);
        let config = format!(
            "blobs/{}",
            manifest["config"]["digest"].as_str().expect("a digest")
        );
        let config = read(send(self.request(Method::GET, &config)).await);
        Draft { config, manifest }
    }

    /// Pushes a layer, an archive that is not compressed, and puts it on top.
    pub async fn layer(&self, draft: &mut Draft, archive: Vec<u8>) {
        let size = archive.len() as u64;
        let digest = self.blob(archive).await;
        draft.add(&digest, size);
    }

    /// Pushes config and manifest; the manifest's digest.
    pub async fn finish(&self, draft: &Draft, reference: &str) -> String {
        let config = draft.config.to_string().into_bytes();
        let mut manifest = draft.manifest.clone();
        let media_type = manifest["config"]["mediaType"]
            .as_str()
            .expect("a type")
            .to_owned();
        manifest["config"] = descriptor(&media_type, &config);
        self.blob(config).await;
        let media_type = manifest["mediaType"].as_str().unwrap_or(MANIFEST).to_owned();
        self.manifest(reference, &media_type, &manifest).await
    }

    /// A manifest of the repository as it is stored.
    pub async fn stored(&self, reference: &str) -> Vec<u8> {
        let get = self.request(Method::GET, &format!("manifests/{reference}"));
        send(get.header("accept", "*/*")).await.expect(200).body
    }
}

impl Draft {
    /// Puts a layer on top that has been pushed: an archive that is not compressed.
    pub fn add(&mut self, digest: &str, size: u64) {
        let layer = json!({ "mediaType": LAYER, "digest": digest, "size": size });
        push(&mut self.manifest["layers"], layer);
        push(&mut self.config["rootfs"]["diff_ids"], json!(digest));
        push(
            &mut self.config["history"],
            json!({ "created_by": "a layer of the test" }),
        );
    }
}

fn push(list: &mut Value, entry: Value) {
    match list {
        Value::Array(entries) => entries.push(entry),
        other => *other = json!([entry]),
    }
}
