//! The admin API and the command line of all that becomes of content: each endpoint and each command with content behind
//! it, on both pairs of stores.

mod collection;
mod retention;
mod tags;
mod usage;

use std::process::{Command, Output};
use std::time::Duration;

use harness::content::sha256;
use harness::http::{Answer, client, send};
use harness::image::{INDEX, MANIFEST};
use harness::{Admin, Backend, Berth, Builder, program};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

const DOMAIN: &str = "registry.test";
/// Longest wait for a condition.
const WAIT: Duration = Duration::from_secs(60);
/// No run begins by itself within a test.
const NEVER: &str = "0 0 1 1 *";

/// A server whose delays are short, at [`DOMAIN`].
fn settings(backend: Backend) -> Builder {
    Berth::builder()
        .backend(backend)
        .flag("--domain", DOMAIN)
        .flag("--apex-tenant", "none")
        .flag("--redirect", "Never")
        .flag("--lease", "2s")
        .flag("--gc-delay", "1s")
}

/// A registry under test, its admin API and its command line.
struct Place {
    berth: Berth,
    admin: Admin,
}

impl Place {
    /// With the tenants `acme` and `other`.
    async fn start(builder: Builder) -> Place {
        let berth = builder.start().await;
        let admin = Admin::of(&berth);
        for tenant in ["acme", "other"] {
            admin.put_tenant(tenant, json!({})).await;
        }
        Place { berth, admin }
    }

    async fn content(&self, tenant: &str) -> Content {
        Content {
            base: self.berth.url("/v2"),
            host: format!("{tenant}.{DOMAIN}"),
            token: self
                .admin
                .token(tenant, &["**"], &["pull", "push", "delete"])
                .await,
        }
    }

    async fn get(&self, path: &str) -> Value {
        self.admin.ask(Method::GET, path, None).await.expect(200).json()
    }

    async fn post(&self, path: &str) -> Answer {
        self.admin.ask(Method::POST, path, None).await
    }

    /// The reason and the message of a request that is refused with this status.
    async fn refused(&self, method: Method, path: &str, status: u16) -> (String, String) {
        let answer = self.admin.ask(method, path, None).await.expect(status).json();
        let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        (text("reason"), text("error"))
    }

    /// Runs a subcommand with the server's settings.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.berth.command(arguments[0]);
        command.args(&arguments[1..]).arg(format!("--domain={DOMAIN}"));
        command.args([
            "--apex-tenant=none",
            "--lease=2s",
            "--gc-delay=1s",
            "--redirect=Never",
        ]);
        let admin = self.berth.admin_url("");
        command.arg(format!("--admin-listen={}", admin.trim_start_matches("http://")));
        command.output().expect("the binary runs")
    }

    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).expect("JSON")
    }

    /// What a command that fails with this code complains of.
    fn complaint(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Runs a statement in the metadata store.
    fn sql(&self, statement: &str) {
        if let Some(database) = self.berth.storage().database() {
            database.query(statement);
            return;
        }
        let mut command = Command::new(program("sqlite3"));
        command.args(["-bail", "-cmd", ".timeout 10000"]);
        let output = command
            .arg(self.berth.data().join("berth.db"))
            .arg(statement)
            .output();
        let output = output.expect("sqlite3 runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{statement}: {error}");
    }
}

/// The content of a tenant, as one who may do everything sees it.
struct Content {
    base: String,
    host: String,
    token: String,
}

impl Content {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        client()
            .request(method, format!("{}/{path}", self.base))
            .header("host", &self.host)
            .basic_auth("x-token", Some(&self.token))
    }

    async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    async fn delete(&self, path: &str) {
        send(self.request(Method::DELETE, path)).await.expect(202);
    }

    async fn put(&self, repository: &str, tag: &str, kind: &str, manifest: &str) -> String {
        let request = self.request(Method::PUT, &format!("{repository}/manifests/{tag}"));
        let request = request.header("content-type", kind).body(manifest.to_owned());
        send(request).await.expect(201);
        sha256(manifest.as_bytes())
    }

    /// Pushes an image of one blob under a tag; the digest of its manifest.
    async fn push(&self, repository: &str, tag: &str, content: &[u8]) -> String {
        let digest = sha256(content);
        let upload = format!("{repository}/blobs/uploads/?digest={digest}");
        send(self.request(Method::POST, &upload).body(content.to_vec()))
            .await
            .expect(201);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": [], "artifactType": "application/x-test",
            "config": { "mediaType": "application/x-test", "digest": digest, "size": content.len() },
        });
        self.put(repository, tag, MANIFEST, &manifest.to_string()).await
    }

    /// Pushes an index over an image that is there already; the index's digest.
    async fn push_index(&self, repository: &str, tag: &str, child: &str) -> String {
        let manifest = self
            .get(&format!("{repository}/manifests/{child}"))
            .await
            .expect(200);
        let index = json!({
            "schemaVersion": 2, "mediaType": INDEX,
            "manifests": [{ "mediaType": MANIFEST, "digest": child, "size": manifest.body.len() }],
        });
        self.put(repository, tag, INDEX, &index.to_string()).await
    }
}
