//! The keys Secret: made by the operator, mounted by the registry, rotated while both serve.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Berth, Installation, eventually, free_port};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

fn name(berth: &Installation) -> String {
    format!("{}-keys", berth.id)
}

/// What a node does with a Secret that a pod mounts.
fn mount(secret: &Value, folder: &Path) {
    let data = secret["data"].as_object().expect("entries");
    for (name, content) in data {
        let content = STANDARD.decode(content.as_str().expect("text")).expect("base64");
        let draft = folder.join(format!(".{name}"));
        std::fs::write(&draft, content).expect("a file");
        std::fs::rename(&draft, folder.join(name)).expect("a file");
    }
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("text");
        if !data.contains_key(&name) {
            std::fs::remove_file(folder.join(name)).expect("a file");
        }
    }
}

fn entry(secret: &Value, name: &str) -> String {
    let content = STANDARD.decode(secret["data"][name].as_str().expect("an entry"));
    String::from_utf8(content.expect("base64")).expect("text")
}

/// An installation whose registry starts with what the operator made.
struct Mounted {
    berth: Installation,
    registry: Berth,
    folder: tempfile::TempDir,
    address: String,
}

impl Mounted {
    /// With these flags of the operator.
    async fn start(flags: &[&str]) -> Mounted {
        let port = free_port();
        let address = format!("https://127.0.0.1:{port}");
        let installer = Installation::builder().keys_secret(&address);
        let installer = flags
            .iter()
            .fold(installer, |installer, flag| installer.flag(flag));
        let berth = installer.start().await;
        let secret = berth
            .plane
            .wait("Secret", &berth.id, &name(&berth), |_| true)
            .await;
        let folder = tempfile::tempdir().expect("a folder");
        mount(&secret, folder.path());
        let file = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
        let registry = Berth::builder()
            .admin_port(port)
            .flag("--domain", "registry.test")
            .flag("--keys", &file(""))
            .flag("--admin-key-file", &file("admin"))
            .flag("--admin-tls-cert", &file("tls.crt"))
            .flag("--admin-tls-key", &file("tls.key"))
            .start()
            .await;
        Mounted {
            berth,
            registry,
            folder,
            address,
        }
    }

    async fn secret(&self, is: impl Fn(&Value) -> bool) -> Value {
        self.berth
            .plane
            .wait("Secret", &self.berth.id, &name(&self.berth), is)
            .await
    }

    /// Waits until a step of the rotation is taken, and mounts what came of it.
    async fn step(&self, phase: &str) -> Value {
        let secret = self
            .secret(|secret| secret["metadata"]["annotations"]["berth.dev/keys-phase"] == phase)
            .await;
        mount(&secret, self.folder.path());
        secret
    }

    async fn annotate(&self, key: &str, value: &str) {
        let patch = json!({ "metadata": { "annotations": { key: value } } });
        self.berth
            .plane
            .merge("Secret", &self.berth.id, &name(&self.berth), patch)
            .await;
    }

    /// Waits until the registry answers a key, trusted by these certificates alone, with a status.
    async fn answers(&self, authority: &str, key: &str, status: u16) {
        let certificates = reqwest::Certificate::from_pem_bundle(authority.as_bytes()).expect("certificates");
        let client = reqwest::Client::builder().tls_certs_only(certificates).build();
        let client = client.expect("a client");
        let url = format!("{}/admin/v1/replicas", self.address);
        eventually("the registry knows the keys", PATIENCE, async || {
            let answer = client.get(&url).bearer_auth(key).send().await.ok()?;
            (answer.status() == status).then_some(())
        })
        .await;
    }

    async fn serves(&self, tenant: &str) {
        self.berth.ready_tenant(&self.berth.name(tenant), json!({})).await;
    }
}

#[tokio::test]
async fn keys_are_made_once_and_rotated_while_registry_and_operator_go_on() {
    // The rights on Secrets are those of the home Role alone.
    let mounted = Mounted::start(&["--namespaces=default"]).await;
    mounted.serves("first").await;
    let first = mounted.secret(|_| true).await;
    let (old, authority) = (entry(&first, "admin"), entry(&first, "ca.crt"));
    assert_eq!(old.trim().len(), 64);
    // Further replicas of the operator find the keys made.
    let mut mounted = mounted;
    mounted.berth.start_operator().await;
    mounted.annotate("berth.dev/rotate", "now").await;
    let added = mounted.step("added").await;
    assert!(added["metadata"]["annotations"]["berth.dev/rotate"].is_null());
    let both = entry(&added, "admin");
    let (first_line, second_line) = both.trim().split_once('\n').expect("two keys");
    assert_eq!(first_line, old.trim());
    mounted.answers(&entry(&added, "ca.crt"), second_line, 200).await;
    mounted.answers(&entry(&added, "ca.crt"), first_line, 200).await;
    mounted.serves("added").await;
    // Time passes.
    mounted
        .annotate("berth.dev/keys-since", "2026-01-01T00:00:00Z")
        .await;
    let preferred = mounted.step("preferred").await;
    assert!(!entry(&preferred, "ca.crt").contains(authority.trim()));
    mounted.serves("preferred").await;
    mounted
        .annotate("berth.dev/keys-since", "2026-01-01T00:00:00Z")
        .await;
    let settled = mounted.step("settled").await;
    assert_eq!(entry(&settled, "admin").trim(), second_line);
    mounted.answers(&entry(&settled, "ca.crt"), first_line, 401).await;
    mounted
        .answers(&entry(&settled, "ca.crt"), second_line, 200)
        .await;
    mounted.serves("settled").await;
    let log = mounted.registry.log();
    assert!(log.contains("a new TLS certificate is in use"), "{log}");
}

#[tokio::test]
async fn a_keys_secret_of_somebody_else_is_used_and_never_written() {
    let mut mounted = Mounted::start(&[]).await;
    let made = mounted.secret(|_| true).await;
    // Without the operator's label it is somebody else's.
    mounted
        .berth
        .plane
        .merge(
            "Secret",
            &mounted.berth.id,
            &name(&mounted.berth),
            json!({ "metadata": { "labels": null, "annotations": { "berth.dev/rotate": "now" } } }),
        )
        .await;
    mounted.berth.operator(0).signal(harness::Signal::TERM);
    mounted.berth.operator(0).ended(PATIENCE).await;
    mounted.berth.start_operator().await;
    mounted.serves("acme").await;
    let after = mounted.secret(|_| true).await;
    assert_eq!(after["data"], made["data"]);
    assert_eq!(after["metadata"]["annotations"]["berth.dev/rotate"], "now");
}
