//! The edge with TLS: names that nodes and pods resolve, certificates that they verify, routes that come and go.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use harness::content::{blob, sha256};
use harness::http::{Answer, attempt, send, with_query};
use harness::node::{Release, TenantOf, entry, http, in_phase, kubectl, logs, node_file, pod, told};
use harness::{Backend, Client, condition, eventually, setting, within};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::apps::resident;

/// Longest wait for the edge to follow a route.
const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// What is hashed and sent at a time, without being copied.
const PIECE: u64 = 4 * MIB;
/// What a large upload may take of a replica, others being at work there: a quarter of its limit.
const RESIDENT: u64 = 256 * MIB;
/// Berth's own image, which holds nothing but its programs.
const BERTH: &str = "docker.io/library/berth:0.1.0";

mod long {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn five_gibibytes_are_pushed_through_the_edge_in_bounded_memory() {
        super::a_large_push(5 * super::GIB).await;
    }
}

/// What a host answers to the ping; nothing if there is no connection, or no name.
async fn ping(host: &str, token: Option<&str>) -> Option<Answer> {
    let request = http().get(format!("https://{host}/v2/"));
    attempt(match token {
        Some(token) => request.basic_auth("x-token", Some(token)),
        None => request,
    })
    .await
}

/// Waits until a host answers the ping with a token.
async fn answers(host: &str, token: &str) {
    eventually(&format!("200 from {host}"), PATIENCE, async || {
        let answer = ping(host, Some(token)).await?;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// Waits until the edge has no route to a host: it has no certificate for it then, and ends the handshake; a client that
/// speaks plain HTTP gets its own 404. A registry's refusal says so in its body.
async fn is_closed(host: &str) {
    eventually(&format!("no route to {host}"), PATIENCE, async || {
        // A connection that was made while there was a route may outlive it.
        let http = http();
        let secure = http.get(format!("https://{host}/v2/")).send().await;
        let plain = attempt(http.get(format!("http://{host}/v2/"))).await?;
        let is_edges_own = plain.status == 404 && plain.body.is_empty() && plain.header("server") == "envoy";
        (secure.is_err_and(|error| error.is_connect()) && is_edges_own).then_some(())
    })
    .await;
}

/// The subject of the certificate that a host shows to a client which verifies it.
async fn subject(host: &str) -> String {
    let shown = Client::new("openssl")
        .run(&[
            "s_client",
            "-connect",
            &format!("{host}:443"),
            "-servername",
            host,
            "-verify_hostname",
            host,
            "-verify_return_error",
            "-CAfile",
            &setting("BERTH_TEST_EDGE_CA"),
        ])
        .await
        .text();
    let subject = shown.lines().find_map(|line| line.strip_prefix("subject="));
    subject.expect("a certificate").replace(' ', "")
}

/// A namespace whose pods may pull from a tenant, with the edge's authority in the ConfigMap `edge`.
async fn apps(tenant: &TenantOf<'_>) -> String {
    let apps = super::apps::apps(tenant, "apps").await;
    let file = format!("--from-file=ca.crt={}", setting("BERTH_TEST_EDGE_CA"));
    kubectl()
        .run(&["create", "configmap", "edge", "--namespace", &apps, &file])
        .await;
    apps
}

/// A pod that asks whether a registry answers at a host, and trusts this file of authorities.
fn probe(namespace: &str, name: &str, host: &str, authorities: &str) -> Value {
    let more = json!({
        "containers": [{
            "name": "main", "image": BERTH, "imagePullPolicy": "Never",
            "command": ["/berth-registry", "probe", format!("https://{host}/v2/")],
            "env": [{ "name": "SSL_CERT_FILE", "value": authorities }],
            "volumeMounts": [{ "name": "edge", "mountPath": "/edge" }],
        }],
        "volumes": [{ "name": "edge", "configMap": { "name": "edge" } }],
    });
    pod(namespace, name, BERTH, "", more)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_and_pods_resolve_a_tenant_s_host_and_trust_the_authority_of_its_edge() {
    let release = Release::shared().await;
    let acme = release.new_tenant("acme", json!({})).await;
    let anonymous = ping(&acme.host, None).await.expect("an answer").expect(401);
    let challenge = anonymous.header("www-authenticate");
    assert!(
        challenge.contains(&format!("realm=\"https://{}/v2/token\"", acme.host)),
        "{challenge}"
    );

    let apps = apps(&acme).await;
    // The image brings the public authorities, which have never heard of this edge.
    for (name, authorities) in [
        ("trusts", "/edge/ca.crt"),
        ("does-not", "/etc/ssl/certs/ca-certificates.crt"),
    ] {
        let probe = probe(&apps, name, &acme.host, authorities);
        release.plane.apply(probe).await.expect("a pod");
    }
    in_phase(&release.plane, &apps, "trusts", "Succeeded").await;
    let told = logs(&apps, "trusts").await;
    assert_eq!(
        told,
        format!("https://{}/v2/ is a registry: 401 Unauthorized", acme.host)
    );
    in_phase(&release.plane, &apps, "does-not", "Failed").await;
    let told = logs(&apps, "does-not").await;
    assert!(
        told.contains("does not answer") && told.contains("UnknownIssuer"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_a_suspended_tenant_wait_at_a_closed_route_and_go_on_once_it_is_resumed() {
    let release = Release::shared().await;
    let (acme, other) = (
        release.new_tenant("acme", json!({})).await,
        release.new_tenant("other", json!({})).await,
    );
    let image = acme.push_runnable("team/app", "v1", 1000).await;
    let apps = apps(&acme).await;
    let suspend = async |suspend: bool| {
        let patch = json!({ "spec": { "suspend": suspend } });
        release.plane.merge("Tenant", "", &acme.name, patch).await
    };
    suspend(true).await;
    release
        .plane
        .wait_for("Tenant", "", &acme.name, "Exposed", "False", "Suspended")
        .await;
    is_closed(&acme.host).await;
    answers(&other.host, &other.token()).await;

    let waits = pod(&apps, "waits", &image, "echo resumed", json!({}));
    let made = release.plane.apply(waits).await.expect("a pod");
    // What this edge does with a host that it does not know, as it reaches the pod's owner.
    let events = told(&apps, "waits", "Failed to pull image").await;
    assert!(
        events.contains(&format!("failed to resolve reference \"{image}\""))
            && ["connection reset by peer", "EOF"]
                .iter()
                .any(|end| events.contains(end)),
        "{events}"
    );

    suspend(false).await;
    answers(&acme.host, &acme.token()).await;
    let ran = in_phase(&release.plane, &apps, "waits", "Succeeded").await;
    assert_eq!(ran["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(logs(&apps, "waits").await, "resumed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_nobody_s_ends_at_the_edge() {
    let release = Release::shared().await;
    let (acme, other) = (
        release.new_tenant("acme", json!({})).await,
        release.new_tenant("other", json!({})).await,
    );
    for host in [
        format!("nobody.{}", release.domain),
        format!("nobody-{}", acme.host),
        // Names below a tenant's host, and below domains of tenants' own, are nobody's either.
        format!("nobody.{}", acme.host),
        format!("{}.example.com", acme.name),
    ] {
        is_closed(&host).await;
    }
    // A connection that was made to one host is no way to another, not even for who may enter there.
    let fronted = async |host: &str, token: &str| {
        let asked = Client::new("curl")
            .run(&[
                "--silent",
                "--show-error",
                "--cacert",
                &setting("BERTH_TEST_EDGE_CA"),
                "--user",
                &format!("x-token:{token}"),
                "--header",
                &format!("host: {host}"),
                "--write-out",
                "%{http_code}",
                "--output",
                "/dev/null",
                &format!("https://{}/v2/", acme.host),
            ])
            .await;
        asked.text()
    };
    assert_eq!(fronted(&acme.host, &acme.token()).await, "200");
    assert_eq!(fronted(&other.host, &other.token()).await, "421");
    let nobody = format!("nobody.{}", release.domain);
    assert_eq!(fronted(&nobody, &acme.token()).await, "421");
}

/// `size` bytes in pieces, no two alike though all share their bytes but for the first eight, hashed as they are sent.
fn generated(
    size: u64,
    hash: Arc<Mutex<Sha256>>,
) -> impl futures_util::Stream<Item = Result<bytes::Bytes, std::io::Error>> {
    let pattern = bytes::Bytes::from(blob(PIECE as usize - 8, size));
    futures_util::stream::iter(0..size / PIECE).flat_map(move |number| {
        let stamp = bytes::Bytes::copy_from_slice(&number.to_le_bytes());
        let mut hash = hash.lock().expect("only this stream hashes");
        let piece = [stamp, pattern.clone()];
        piece.iter().for_each(|part| hash.update(part));
        futures_util::stream::iter(piece.map(Ok))
    })
}

/// What of the S3 server's disk is an object of this size; removed when dropped, because this release of Berth collects
/// no garbage.
struct OnDisk {
    size: u64,
}

impl OnDisk {
    fn files(&self) -> Vec<PathBuf> {
        let mut folders = vec![PathBuf::from(setting("BERTH_TEST_S3_FOLDER"))];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            // Other tests remove theirs meanwhile.
            let Ok(entries) = std::fs::read_dir(folder) else {
                continue;
            };
            for entry in entries.flatten() {
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                    Ok(metadata) if metadata.size() == self.size => found.push(entry.path()),
                    _ => {}
                }
            }
        }
        found
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        for file in self.files() {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Where an answer's Location leads on the same host.
fn next(host: &str, answer: &Answer) -> String {
    let location = answer.header("location");
    match location.strip_prefix('/') {
        Some(path) => format!("https://{host}/{path}"),
        None => {
            assert!(
                location.starts_with(&format!("https://{host}/v2/")),
                "it leads elsewhere: {location}"
            );
            location.to_owned()
        }
    }
}

/// Pushes a blob of `size` bytes as programs do that do not know its size beforehand, and reads its end.
async fn a_large_push(size: u64) {
    let release = Release::shared().await;
    let acme = release.new_tenant("large", json!({ "redirect": "Never" })).await;
    let token = acme.token();
    let http = http();
    let request = |method: Method, url: &str| http.request(method, url).basic_auth("x-token", Some(&token));
    // A run that was killed may have left one.
    drop(OnDisk { size });
    let on_disk = OnDisk { size };
    let before = resident(&release).await;
    assert_eq!(before.len(), 2, "{before:?}");

    let started = Instant::now();
    let opened = send(request(
        Method::POST,
        &format!("https://{}/v2/app/blobs/uploads/", acme.host),
    ))
    .await
    .expect(202);
    let hash = Arc::new(Mutex::new(Sha256::new()));
    let body = reqwest::Body::wrap_stream(generated(size, hash.clone()));
    let patch = request(Method::PATCH, &next(&acme.host, &opened)).body(body);
    let mut push = tokio::spawn(attempt(patch));
    let mut peak = before.clone();
    // As often as they answer while the push lasts.
    let patched = within("the push", Duration::from_secs(300), async {
        loop {
            let looked = resident(&release).await;
            for (name, bytes) in looked {
                if let Some(found) = peak.iter_mut().find(|found| found.0 == name) {
                    found.1 = found.1.max(bytes);
                }
            }
            if let Ok(done) = tokio::time::timeout(Duration::from_millis(100), &mut push).await {
                break done.expect("no panic").expect("an answer");
            }
        }
    })
    .await
    .expect(202);
    let sent = started.elapsed();
    assert_eq!(patched.header("range"), format!("0-{}", size - 1));
    let digest = hash.lock().expect("the stream has ended").clone().finalize();
    let digest = format!("sha256:{}", hex::encode(digest));
    // The registry has hashed what came, and takes nothing that has another digest.
    let url = with_query(&next(&acme.host, &patched), &format!("digest={digest}"));
    let stored = within(
        "the commit",
        Duration::from_secs(180),
        send(request(Method::PUT, &url)),
    )
    .await
    .expect(201);
    println!(
        "{} MiB in {sent:.1?}, committed after {:.1?}; memory before {before:?}, at most {peak:?}",
        size / MIB,
        started.elapsed()
    );
    for (found, peak) in before.iter().zip(&peak) {
        assert!(
            peak.1 < found.1 + RESIDENT,
            "{}: from {} to {} bytes",
            found.0,
            found.1,
            peak.1
        );
    }

    let url = next(&acme.host, &stored);
    assert!(url.ends_with(&format!("/v2/app/blobs/{digest}")), "{url}");
    let head = send(request(Method::HEAD, &url)).await.expect(200);
    assert_eq!(head.header("content-length"), size.to_string());
    // The last piece begins with its number.
    let range = format!("bytes={}-", size - PIECE);
    let end = send(request(Method::GET, &url).header("range", range))
        .await
        .expect(206);
    assert_eq!(
        end.header("content-range"),
        format!("bytes {}-{}/{size}", size - PIECE, size - 1)
    );
    let mut last = (size / PIECE - 1).to_le_bytes().to_vec();
    last.extend(blob(PIECE as usize - 8, size));
    assert_eq!(sha256(&end.body), sha256(&last));

    assert_eq!(on_disk.files().len(), 1, "{:?}", on_disk.files());
    send(request(Method::DELETE, &url)).await.expect(202);
    send(request(Method::HEAD, &url)).await.expect(404);
    drop(on_disk);
    assert!(OnDisk { size }.files().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gibibyte_is_pushed_through_the_edge_in_bounded_memory() {
    a_large_push(GIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_of_a_tenant_s_own_is_served_by_its_own_certificate_and_pods_pull_from_it() {
    let release = Release::shared().await;
    let own = format!(
        "own-{}.example.com",
        &uuid::Uuid::new_v4().simple().to_string()[..8]
    );
    let acme = release.new_tenant("acme", json!({ "hosts": [own] })).await;
    answers(&own, &acme.token()).await;
    assert_eq!(subject(&own).await, "CN=*.example.com");
    assert_eq!(subject(&acme.host).await, "CN=registry.test");
    let anonymous = ping(&own, None).await.expect("an answer").expect(401);
    let challenge = anonymous.header("www-authenticate");
    assert!(
        challenge.contains(&format!("realm=\"https://{own}/v2/token\"")),
        "{challenge}"
    );

    // Pushed to the host that every tenant has, pulled from its own: one registry, one Secret.
    acme.push_runnable("team/app", "v1", 1000).await;
    let apps = apps(&acme).await;
    let secret = release
        .plane
        .find("Secret", &apps, &format!("berth-{}", acme.name))
        .await
        .expect("the pull Secret");
    let logins: Value = serde_json::from_str(&entry(&secret, ".dockerconfigjson")).expect("JSON");
    let mut hosts: Vec<&String> = logins["auths"].as_object().expect("logins").keys().collect();
    let mut both = vec![&acme.host, &own];
    hosts.sort();
    both.sort();
    assert_eq!(hosts, both);

    let hello = pod(
        &apps,
        "hello",
        &format!("{own}/team/app:v1"),
        "echo from their own host",
        json!({}),
    );
    release.plane.apply(hello).await.expect("a pod");
    let probe = probe(&apps, "probe", &own, "/edge/ca.crt");
    release.plane.apply(probe).await.expect("a pod");
    in_phase(&release.plane, &apps, "hello", "Succeeded").await;
    assert_eq!(logs(&apps, "hello").await, "from their own host");
    in_phase(&release.plane, &apps, "probe", "Succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_ingress_the_tenants_are_served_with_the_certificate_of_a_secret() {
    let release = Release::install(
        "ingress",
        Backend::Embedded,
        &[
            "registry.persistence.enabled=false",
            "exposure.mode=ingress",
            "exposure.ingress.className=edge",
            "exposure.ingress.tlsSecret=wildcard",
            // This edge ends an answer after 15 seconds; a layer may take longer.
            r"exposure.routeAnnotations.projectcontour\.io/response-timeout=infinity",
        ],
    )
    .await;
    // It comes after the Ingress of the apex, as one does that an issuer has yet to write.
    let file = |name: &str| Path::new(&node_file("contour")).join(name).display().to_string();
    let (certificate, key) = (file("tenants.crt"), file("tenants.key"));
    kubectl()
        .run(&[
            "create",
            "secret",
            "tls",
            "wildcard",
            "--namespace",
            &release.name,
            "--cert",
            &certificate,
            "--key",
            &key,
        ])
        .await;
    let acme = release.new_tenant("acme", json!({})).await;
    let route = release
        .plane
        .find("Ingress", &release.name, &format!("berth-{}", acme.name))
        .await
        .expect("the tenant's Ingress");
    assert_eq!(
        route["spec"]["tls"],
        json!([{ "hosts": [acme.host], "secretName": "wildcard" }])
    );
    let tenant = release
        .plane
        .find("Tenant", "", &acme.name)
        .await
        .expect("the Tenant");
    assert_eq!(
        condition(&tenant, "Exposed").expect("a condition")["reason"],
        "Accepted"
    );
    assert_eq!(subject(&acme.host).await, "CN=registry.test");
    assert_eq!(subject(&release.domain).await, "CN=registry.test");
    let apex = ping(&release.domain, None).await.expect("an answer").expect(401);
    assert!(
        apex.header("www-authenticate")
            .contains(&format!("https://{}/v2/token", release.domain)),
        "{apex:?}"
    );
    is_closed(&format!("nobody.{}", release.domain)).await;
    let image = acme.push_runnable("team/app", "v1", 1000).await;
    let apps = apps(&acme).await;
    let hello = pod(&apps, "hello", &image, "echo by Ingress", json!({}));
    release.plane.apply(hello).await.expect("a pod");
    in_phase(&release.plane, &apps, "hello", "Succeeded").await;
    assert_eq!(logs(&apps, "hello").await, "by Ingress");
}
