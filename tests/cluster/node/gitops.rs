//! What GitOps tools do with Berth: charts and artifacts come from it, releases wait for its objects, and Berth itself
//! is installed from a chart that it holds.
//!
//! Flux's controllers cannot be built here. Their steps are taken by what they are made of: crane is the library by
//! which source-controller reads an OCIRepository, Helm the one by which it reads a HelmRepository of type `oci`, and
//! Helm's `--wait` judges objects by the rules of Flux's health checks (kstatus).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::content::sha256;
use harness::http::{Answer, send};
use harness::node::{Release, TenantOf, entry, helm, http, logged_in};
use harness::{Client, Output, chart, condition, within};
use reqwest::Method;
use serde_json::{Value, json};

const CONFIG: &str = "application/vnd.cncf.flux.config.v1+json";
const CONTENT: &str = "application/vnd.cncf.flux.content.v1.tar+gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Longest wait for a Helm that should not wait for its own limit, which is longer.
const AT_ONCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn berth_is_installed_from_a_chart_that_berth_holds() {
    const VERSION: &str = "0.1.0+kept.1";
    let shared = Release::shared().await;
    let acme = shared.new_tenant("charts", json!({})).await;
    let helm = acme.client("helm");
    let folder = chart::chart();
    let folder = folder.to_str().expect("text");
    helm.run(&["package", folder, "--version", VERSION]).await;
    let package = format!("berth-{VERSION}.tgz");
    let charts = format!("oci://{}/charts", acme.host);
    helm.run(&["push", &package, &charts]).await;

    // Those who install only read.
    let reader = logged_in("helm", &acme.pull_secret("flux").await);
    let berth = format!("{charts}/berth");
    reader.run(&["pull", &berth, "--version", VERSION]).await;
    let bytes = |client: &Client| std::fs::read(client.path(&package)).expect("a chart");
    assert!(
        bytes(&reader) == bytes(&helm),
        "the chart came back with other bytes"
    );

    let release = Release::install_from("keep", &reader, &berth, VERSION).await;
    let (plane, namespace) = (release.plane.clone(), release.name.clone());
    let listed = helm_list(&namespace).await;
    assert_eq!(listed[0]["chart"], format!("berth-{VERSION}"));
    assert_eq!(listed[0]["status"], "deployed");
    // It waited for the pods: they are there.
    let registry = plane.find("StatefulSet", &namespace, &namespace).await;
    assert_eq!(registry.expect("a StatefulSet")["status"]["readyReplicas"], 1);
    {
        let kept = release.new_tenant("kept", json!({})).await;
        assert!(kept.host.ends_with(".keep.registry.test"), "{}", kept.host);
        let image = kept.push_runnable("app", "1", 1000).await;
        let digest = kept.client("crane").run(&["digest", &image]).await.text();
        let path = format!("app/manifests/{digest}");
        let found = ask(&kept.host, Method::GET, &path, &kept.token())
            .await
            .expect(200);
        assert_eq!(sha256(&found.body), digest);
    }

    drop(release);
    assert_eq!(helm_list(&namespace).await, json!([]));
    plane.wait_gone("Namespace", "", &namespace).await;
    let label = format!("app.kubernetes.io/instance={namespace}");
    for kind in ["ClusterRole", "ClusterRoleBinding"] {
        let left = plane.list(kind, "", &label).await;
        assert!(left.is_empty(), "{left:#?}");
    }
}

/// Releases of a namespace.
async fn helm_list(namespace: &str) -> Value {
    let listed = helm()
        .run(&["list", "--namespace", namespace, "--output", "json"])
        .await;
    serde_json::from_slice(&listed.stdout).expect("JSON")
}

/// A chart with one Tenant in it, installed in a namespace of its own.
struct Waiting<'a> {
    release: &'a Release,
    helm: Client,
    name: String,
}

impl<'a> Waiting<'a> {
    async fn of(release: &'a Release, suffix: &str) -> Waiting<'a> {
        let name = format!("{suffix}-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        release.namespace(&name, json!({})).await;
        let helm = helm();
        helm.file(
            "tenant/Chart.yaml",
            b"apiVersion: v2\nname: tenant\nversion: 1.0.0\n",
        );
        let tenant = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Tenant",
            "metadata": {
                "name": "{{ .Release.Name }}", "labels": { "berth.dev/installation": "{{ .Values.installation }}" },
            },
            "spec": { "allowedNamespaces": { "from": "All" }, "hosts": ["{{ .Values.host }}"] },
        });
        let repository = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Repository", "metadata": { "name": "app" },
            "spec": { "tenantRef": { "name": "{{ .Release.Name }}" }, "name": "app" },
        });
        helm.file("tenant/templates/tenant.yaml", tenant.to_string().as_bytes());
        let repository = format!("{{{{ if .Values.repository }}}}\n{repository}\n{{{{ end }}}}\n");
        helm.file("tenant/templates/repository.yaml", repository.as_bytes());
        Waiting { release, helm, name }
    }

    /// `helm upgrade --install --wait`.
    async fn install(&self, installation: &str, host: &str, limit: &str, more: &[&str]) -> Output {
        let (installation, host) = (format!("installation={installation}"), format!("host={host}"));
        let arguments = [
            "upgrade",
            "--install",
            &self.name,
            "tenant",
            "--namespace",
            &self.name,
            "--wait",
            "--timeout",
            limit,
            "--set",
            &installation,
            "--set",
            &host,
        ];
        self.helm.attempt(&[&arguments[..], more].concat()).await
    }

    /// Whether its Tenant is ready at this moment.
    async fn is_ready(&self) -> bool {
        let tenant = self.release.plane.find("Tenant", "", &self.name).await;
        condition(&tenant.expect("a Tenant"), "Ready").is_some_and(|found| found["status"] == "True")
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let kubeconfig = self.release.plane.kubeconfig();
        let mut uninstall = Command::new(harness::program("helm"));
        uninstall
            .args(["uninstall", &self.name, "--namespace", &self.name, "--wait"])
            .arg("--timeout=60s")
            .env("KUBECONFIG", kubeconfig);
        let _ = uninstall.output();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_with_a_tenant_is_done_once_the_tenant_is_ready() {
    let shared = Release::shared().await;
    let chart = Waiting::of(&shared, "waits").await;
    let host = format!("{}.example.com", chart.name);
    // No operator looks at it: what has no status yet is not done.
    let unseen = chart.install("nobody", &host, "3s", &[]).await;
    assert!(!unseen.success, "{}", unseen.text());
    let told = format!("Tenant//{} not ready. status: InProgress", chart.name);
    assert!(unseen.stderr.contains(&told), "{}", unseen.stderr);

    let repository = ["--set", "repository=true"];
    let done = chart.install(&shared.name, &host, "90s", &repository).await;
    assert!(done.success, "{}", done.stderr);
    assert!(chart.is_ready().await, "Helm has not waited");
    let app = shared.plane.find("Repository", &chart.name, "app").await;
    let app = app.expect("a Repository");
    let ready = condition(&app, "Ready").expect("a condition");
    assert_eq!(ready["status"], "True", "{app:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_with_a_tenant_that_is_stalled_fails_at_once_and_says_why() {
    let shared = Release::shared().await;
    let holder = Waiting::of(&shared, "holder").await;
    let host = format!("{}.example.com", holder.name);
    let done = holder.install(&shared.name, &host, "90s", &[]).await;
    assert!(done.success, "{}", done.stderr);

    let late = Waiting::of(&shared, "late").await;
    let stalled = within(
        "Helm gives up",
        AT_ONCE,
        late.install(&shared.name, &host, "170s", &[]),
    )
    .await;
    assert!(!stalled.success, "{}", stalled.text());
    let why = format!(
        "Tenant//{} not ready. status: Failed, message: {host} is held by Tenant {}",
        late.name, holder.name
    );
    assert!(stalled.stderr.contains(&why), "{}", stalled.stderr);
    assert!(
        !stalled.stderr.contains("deadline exceeded"),
        "{}",
        stalled.stderr
    );

    // The next attempt, with what the message asks for.
    let other = format!("{}.example.com", late.name);
    let done = late.install(&shared.name, &other, "90s", &[]).await;
    assert!(done.success, "{}", done.stderr);
    assert!(late.is_ready().await, "Helm has not waited");
}

/// A request for what is in a tenant, as those ask who hold a token.
async fn ask(host: &str, method: Method, path: &str, token: &str) -> Answer {
    let request = http()
        .request(method, format!("https://{host}/v2/{path}"))
        .basic_auth("x-token", Some(token))
        .header("Accept", MANIFEST);
    send(request).await
}

/// Pushes a Repository in the way of `flux push artifact`, beside a layer of another kind; the digest.
async fn push_artifact(tenant: &TenantOf<'_>, oras: &Client, tag: &str, revision: &str) -> String {
    let repository = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Repository", "metadata": { "name": "from-flux" },
        "spec": { "tenantRef": { "name": tenant.name }, "name": "from/flux", "description": revision },
    });
    oras.file("deploy/repository.yaml", repository.to_string().as_bytes());
    oras.file("config.json", b"{}");
    oras.file("notes.md", format!("# {revision}\n").as_bytes());
    let packed = Command::new("tar")
        .args([
            "-czf",
            &oras.path_text("content.tgz"),
            "-C",
            &oras.path_text("deploy"),
            ".",
        ])
        .status();
    assert!(packed.expect("tar runs").success());
    let reference = format!("{}/manifests/app:{tag}", tenant.host);
    oras.run(&[
        "push",
        &reference,
        "--config",
        &format!("config.json:{CONFIG}"),
        "--annotation",
        &format!("org.opencontainers.image.revision={revision}"),
        "notes.md:text/markdown",
        &format!("content.tgz:{CONTENT}"),
    ])
    .await;
    let oras = tenant.client("oras");
    oras.run(&["resolve", &reference]).await.text()
}

/// All tags, in pages of two.
async fn tags_in_pages(host: &str, token: &str) -> Vec<String> {
    let (mut tags, mut pages) = (Vec::new(), 0);
    let mut next = Some("manifests/app/tags/list?n=2".to_owned());
    while let Some(path) = next.take() {
        let page = ask(host, Method::GET, &path, token).await.expect(200);
        let listed = page.json()["tags"].as_array().expect("tags").clone();
        assert!(listed.len() <= 2, "{listed:?}");
        let listed = listed.iter().map(|tag| tag.as_str().expect("a tag").to_owned());
        tags.extend(listed);
        pages += 1;
        let link = page.header("Link");
        if !link.is_empty() {
            let target = link
                .strip_prefix("</v2/")
                .and_then(|link| link.split_once(">; rel=\"next\""));
            next = Some(target.expect("a link to the next page").0.to_owned());
        }
    }
    assert!(pages > 1, "one page holds {tags:?}");
    tags
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_artifact_of_manifests_is_found_pulled_and_applied_as_flux_does() {
    let shared = Release::shared().await;
    let acme = shared.new_tenant("flux", json!({})).await;
    let oras = acme.client("oras");
    push_artifact(&acme, &oras, "1.0.0", "main@sha1:aaaa").await;
    push_artifact(&acme, &oras, "1.2.0", "main@sha1:bbbb").await;
    let digest = push_artifact(&acme, &oras, "latest", "main@sha1:cccc").await;

    // `OCIRepository.spec.secretRef`
    let secret = acme.pull_secret("flux").await;
    let login: Value = serde_json::from_str(&entry(&secret, ".dockerconfigjson")).expect("JSON");
    let token = login["auths"][&acme.host]["password"].as_str();
    let token = token.expect("a password").to_owned();
    let crane = logged_in("crane", &secret);
    let repository = format!("{}/manifests/app", acme.host);

    // By `ref.semver` the tags are listed.
    let tags = ["1.0.0", "1.2.0", "latest"];
    assert_eq!(tags_in_pages(&acme.host, &token).await, tags);
    let listed = crane.run(&["ls", &repository]).await.text();
    assert_eq!(listed.lines().collect::<Vec<_>>(), tags);

    // What the tag means now, without the manifest.
    let path = "manifests/app/manifests/latest";
    let head = ask(&acme.host, Method::HEAD, path, &token).await.expect(200);
    assert_eq!(head.header("Docker-Content-Digest"), digest);
    assert_eq!(head.header("Content-Type"), MANIFEST);
    let latest = format!("{repository}:latest");
    assert_eq!(crane.run(&["digest", &latest]).await.text(), digest);

    // The manifest by that digest, then the layer of the wanted kind.
    let manifest = crane.run(&["manifest", &format!("{repository}@{digest}")]).await;
    assert_eq!(head.header("Content-Length"), manifest.stdout.len().to_string());
    assert_eq!(sha256(&manifest.stdout), digest);
    let manifest: Value = serde_json::from_slice(&manifest.stdout).expect("JSON");
    assert_eq!(manifest["config"]["mediaType"], CONFIG);
    assert_eq!(
        manifest["annotations"]["org.opencontainers.image.revision"],
        "main@sha1:cccc"
    );
    let layers = manifest["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 2);
    let wanted = layers.iter().find(|layer| layer["mediaType"] == CONTENT);
    let wanted = wanted.expect("a layer of this kind")["digest"].as_str();
    let wanted = wanted.expect("a digest");
    let content = crane.run(&["blob", &format!("{repository}@{wanted}")]).await;
    assert_eq!(sha256(&content.stdout), wanted);

    // kustomize-controller applies what is in it.
    let archive = crane.file("content.tgz", &content.stdout);
    let applied = unpacked(&archive, crane.home());
    let namespace = format!("{}-flux", acme.name);
    let mut object: Value = serde_json::from_slice(&applied).expect("JSON");
    object["metadata"]["namespace"] = json!(namespace);
    shared.plane.apply(object).await.expect("a Repository");
    shared
        .plane
        .wait_for("Repository", &namespace, "from-flux", "Ready", "True", "")
        .await;

    // A push to the tag is seen, and what is in use can still be had.
    let newer = push_artifact(&acme, &oras, "latest", "main@sha1:dddd").await;
    assert_ne!(newer, digest);
    let head = ask(&acme.host, Method::HEAD, path, &token).await.expect(200);
    assert_eq!(head.header("Docker-Content-Digest"), newer);
    crane.run(&["manifest", &format!("{repository}@{digest}")]).await;
    // Its credential reads, and nothing else.
    let refused = crane.attempt(&["tag", &latest, "moved"]).await;
    assert!(
        !refused.success && refused.stderr.contains("DENIED"),
        "{}",
        refused.stderr
    );
}

/// The Repository of an archive.
fn unpacked(archive: &str, folder: &Path) -> Vec<u8> {
    let done = Command::new("tar")
        .args(["-xzf", archive, "-C"])
        .arg(folder)
        .status();
    assert!(done.expect("tar runs").success());
    std::fs::read(folder.join("repository.yaml")).expect("a file of the archive")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chart_is_chosen_among_its_tags_by_a_range_of_versions() {
    const VERSIONS: [&str; 5] = ["1.2.0", "1.9.0", "1.10.0", "1.10.1+build.5", "2.0.0-rc.1"];
    let shared = Release::shared().await;
    let acme = shared.new_tenant("ranges", json!({})).await;
    let helm = acme.client("helm");
    helm.file("web/Chart.yaml", b"apiVersion: v2\nname: web\nversion: 0.0.0\n");
    let charts = format!("oci://{}/charts", acme.host);
    for version in VERSIONS {
        helm.run(&["package", "web", "--version", version]).await;
        helm.run(&["push", &format!("web-{version}.tgz"), &charts]).await;
    }
    // A tag that is no version is passed over.
    let web = format!("{}/charts/web", acme.host);
    acme.client("crane")
        .run(&["tag", &format!("{web}:1.9.0"), "stable"])
        .await;

    let reader = logged_in("helm", &acme.pull_secret("flux").await);
    let chart = format!("{charts}/web");
    let ranges = [
        ("1.x", "1.10.1+build.5"),
        ("~1.9", "1.9.0"),
        (">=1.0.0 <1.10.0", "1.9.0"),
        ("*", "1.10.1+build.5"),
        (">=1.0.0-0", "2.0.0-rc.1"),
    ];
    for (range, version) in ranges {
        let shown = reader.run(&["show", "chart", &chart, "--version", range]).await;
        let shown = shown.text();
        assert!(
            shown.lines().any(|line| line == format!("version: {version}")),
            "{range}: {shown}"
        );
    }
    let none = reader
        .attempt(&["show", "chart", &chart, "--version", ">=3.0.0"])
        .await;
    assert!(!none.success, "{}", none.text());
}
