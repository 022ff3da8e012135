//! `berth-credential-provider` as the kubelet runs it, against a real registry that trusts a cluster's keys.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use harness::{Admin, Berth, Builder, Client, Image, Issuer, Layout, TlsFiles, setting, within};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::{DOMAIN, WAIT, settings, two_tenants};

const API_VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";

/// The host of the tenant under test.
fn host() -> String {
    format!("acme.{DOMAIN}")
}

/// A token as the kubelet gets one for a pod; `number` makes it another one.
fn account_token(cluster: &Issuer, audience: &str, account: (&str, &str), number: u64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock")
        .as_secs();
    let (namespace, name) = account;
    cluster.sign(&json!({
        "iss": "https://kubernetes.default.svc.cluster.local", "aud": [audience],
        "iat": now, "nbf": now, "exp": now + 3600, "jti": number.to_string(),
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "kubernetes.io": {
            "namespace": namespace, "node": { "name": "node-1", "uid": "n" },
            "pod": { "name": "web-0", "uid": "p" }, "serviceaccount": { "name": name, "uid": "s" },
        },
    }))
}

/// A rule that trusts the accounts `default` and `ci` of the namespace `build`.
fn rule(cluster: &Issuer) -> Value {
    json!({
        "kind": "ServiceAccounts", "jwks": cluster.jwks().to_string(),
        "namespaces": ["build"], "names": ["default", "ci"],
        "grants": [{ "repositories": ["team/**"], "actions": ["pull", "push"] }],
    })
}

/// What a run of the program left.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    /// The one login of a response, as (image, user name, password).
    fn login(&self) -> (String, String, String) {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""));
        let response: Value = serde_json::from_str(&self.stdout).expect("JSON");
        assert_eq!(response["apiVersion"], API_VERSION);
        assert_eq!(response["kind"], "CredentialProviderResponse");
        assert_eq!(response["cacheKeyType"], "Image");
        assert_eq!(response["cacheDuration"], "300s");
        let auth = response["auth"].as_object().expect("logins");
        assert_eq!(auth.len(), 1);
        let (image, login) = auth.iter().next().expect("a login");
        let text = |field: &str| login[field].as_str().expect("a text").to_owned();
        (image.clone(), text("username"), text("password"))
    }

    /// Fails unless nothing was given, and the message has all of these and not the token.
    fn refused(&self, token: &str, parts: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""));
        for part in parts {
            assert!(self.stderr.contains(part), "{part} is missing: {}", self.stderr);
        }
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        assert!(!self.stderr.contains(token), "the message holds the token");
    }
}

/// The program, as a node has it.
struct Provider {
    program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Provider {
    fn new(arguments: &[&str]) -> Provider {
        Provider {
            program: PathBuf::from(setting("BERTH_BIN")).with_file_name("berth-credential-provider"),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            variables: Vec::new(),
        }
    }

    /// One that reaches the tenants of a server by plain HTTP, the server being its proxy.
    fn of(berth: &Berth) -> Provider {
        let plain: Vec<String> = ["acme", "other"]
            .map(|tenant| format!("--plain-http={tenant}.{DOMAIN}"))
            .into();
        Provider::new(&plain.iter().map(String::as_str).collect::<Vec<_>>())
            .variable("HTTP_PROXY", &berth.url(""))
    }

    fn variable(mut self, name: &str, value: &str) -> Provider {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    async fn given(&self, input: &str) -> Run {
        let run = async {
            let mut child = tokio::process::Command::new(&self.program)
                .args(&self.arguments)
                .env_clear()
                .envs(self.variables.iter().cloned())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.program.display()));
            let mut stdin = child.stdin.take().expect("an input");
            // One that does not read all has ended with a message.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
            child.wait_with_output().await.expect("it ends")
        };
        let output = within("the provider", WAIT, run).await;
        Run {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    async fn asked_for(&self, image: &str, token: &str) -> Run {
        let request = json!({
            "apiVersion": API_VERSION, "kind": "CredentialProviderRequest", "image": image,
            "serviceAccountToken": token, "serviceAccountAnnotations": {},
        });
        self.given(&request.to_string()).await
    }
}

/// Two tenants, of which `acme` trusts a cluster and holds an image.
struct Scene {
    cluster: Issuer,
    berth: Berth,
    admin: Admin,
    image: Image,
}

impl Scene {
    async fn new() -> Scene {
        let cluster = Issuer::start().await;
        let (berth, admin) = two_tenants(settings()).await;
        let image = Image::new(7, 50_000);
        admin
            .put_tenant("acme", json!({ "trust": [rule(&cluster)] }))
            .await;
        let token = admin.token("acme", &["**"], &["pull", "push"]).await;
        let crane = Client::new("crane").variable("HTTP_PROXY", &berth.url(""));
        crane
            .run(&["auth", "login", &host(), "-u", "x-token", "-p", &token])
            .await;
        let layout = Layout::of_image(&crane.path("image"), &image, "v1");
        for repository in ["team/app", "private"] {
            let reference = format!("{}/{repository}:v1", host());
            crane
                .run(&["push", "--insecure", layout.path(), &reference])
                .await;
        }
        Scene {
            cluster,
            berth,
            admin,
            image,
        }
    }

    fn token(&self, account: (&str, &str), number: u64) -> String {
        account_token(&self.cluster, DOMAIN, account, number)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_clients_pull_by_what_a_trusted_account_gets() {
    let scene = Scene::new().await;
    let token = scene.token(("build", "default"), 1);
    let image = format!("{}/team/app", host());
    let (key, user, password) = Provider::of(&scene.berth).asked_for(&image, &token).await.login();
    assert_eq!(
        (key.as_str(), user.as_str()),
        (image.as_str(), "sa/build/default")
    );
    assert_ne!(password, token, "the token itself stays on the node");

    let crane = Client::new("crane").variable("HTTP_PROXY", &scene.berth.url(""));
    crane
        .run(&["auth", "login", &host(), "-u", &user, "-p", &password])
        .await;
    let digest = crane.run(&["digest", "--insecure", &format!("{image}:v1")]).await;
    assert_eq!(digest.text(), scene.image.digest());
    let pulled = crane.path_text("pulled");
    crane
        .run(&[
            "pull",
            "--insecure",
            "--format=oci",
            &format!("{image}:v1"),
            &pulled,
        ])
        .await;
    Layout::at(Path::new(&pulled)).assert_holds(&scene.image);
    let elsewhere = format!("{}/private:v1", host());
    assert!(!crane.attempt(&["digest", "--insecure", &elsewhere]).await.success);
    let copy = format!("{image}:v2");
    let copied = crane
        .attempt(&["copy", "--insecure", &format!("{image}:v1"), &copy])
        .await;
    assert!(!copied.success, "it pushes, though the account may");

    let skopeo = Client::new("skopeo").variable("HTTP_PROXY", &scene.berth.url(""));
    let (from, to) = (
        format!("docker://{image}:v1"),
        format!("oci:{}:v1", skopeo.path_text("pulled")),
    );
    let login = format!("--src-creds={user}:{password}");
    skopeo
        .run(&[
            "--insecure-policy",
            "copy",
            "--preserve-digests",
            "--src-tls-verify=false",
            &login,
            &from,
            &to,
        ])
        .await;
    Layout::at(&skopeo.path("pulled")).assert_holds(&scene.image);

    let log = scene.berth.log();
    assert!(
        !log.contains(&token) && !log.contains(&password),
        "the log holds a secret"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_pull_gets_nothing_and_is_told_why() {
    let scene = Scene::new().await;
    let provider = Provider::of(&scene.berth);
    let image = format!("{}/team/app:v1", host());
    let stranger = scene.token(("elsewhere", "default"), 1);
    let run = provider.asked_for(&image, &stranger).await;
    run.refused(
        &stranger,
        &[
            "sa/elsewhere/default",
            "no trust rule of this tenant accepts",
            "Tenant.spec.trust",
        ],
    );

    let known = scene.token(("build", "default"), 2);
    let run = provider.asked_for(&format!("{}/private", host()), &known).await;
    run.refused(&known, &["sa/build/default may not pull", "/private", "grants"]);
    // A tenant that trusts nobody.
    let run = provider
        .asked_for(&format!("other.{DOMAIN}/team/app"), &known)
        .await;
    run.refused(&known, &["other.registry.test", "no trust rule"]);
    let run = provider
        .asked_for(&format!("nobody.{DOMAIN}/team/app"), &known)
        .await;
    run.refused(&known, &[&format!("nobody.{DOMAIN}")]);

    let foreign = account_token(&Issuer::start().await, DOMAIN, ("build", "default"), 3);
    let run = provider.asked_for(&image, &foreign).await;
    run.refused(&foreign, &["no trust rule"]);
    let other = account_token(
        &scene.cluster,
        "https://kubernetes.default.svc",
        ("build", "default"),
        4,
    );
    let run = provider.asked_for(&image, &other).await;
    run.refused(
        &other,
        &["serviceAccountTokenAudience", "https://kubernetes.default.svc"],
    );

    let log = scene.berth.log();
    for token in [&stranger, &known, &foreign, &other] {
        assert!(!log.contains(token.as_str()), "the log holds a token");
    }
    assert!(
        log.contains("user:sa/elsewhere/default"),
        "the trail names who was refused"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_account_does_not_lock_out_another_of_its_node() {
    let scene = Scene::new().await;
    let provider = Provider::of(&scene.berth);
    let image = format!("{}/team/app", host());
    let mut told = String::new();
    for number in 0..12 {
        let stranger = scene.token(("elsewhere", "default"), number);
        let run = provider.asked_for(&image, &stranger).await;
        run.refused(&stranger, &[&host()]);
        told = run.stderr;
    }
    assert!(told.contains("too many failed logins"), "{told}");
    let known = scene.token(("build", "ci"), 12);
    provider.asked_for(&image, &known).await.login();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_ends_with_the_rule() {
    let scene = Scene::new().await;
    let provider = Provider::of(&scene.berth);
    let (image, token) = (format!("{}/team/app", host()), scene.token(("build", "ci"), 1));
    let (_, _, password) = provider.asked_for(&image, &token).await.login();
    let path = "/v2/team/app/manifests/v1";
    super::get(&scene.berth, &host(), &password, path)
        .await
        .expect(200);
    scene.admin.put_tenant("acme", json!({})).await;
    super::get(&scene.berth, &host(), &password, path)
        .await
        .expect(401);
    let run = provider.asked_for(&image, &token).await;
    run.refused(&token, &["no trust rule"]);
}

#[tokio::test]
async fn what_is_no_request_of_the_kubelet_is_refused() {
    let provider = Provider::new(&[]);
    let request = |version: &str, token: &str| {
        json!({
            "apiVersion": version, "kind": "CredentialProviderRequest", "image": "acme.registry.test/app",
            "serviceAccountToken": token,
        })
        .to_string()
    };
    let old = request("credentialprovider.kubelet.k8s.io/v1beta1", "secret");
    provider
        .given(&old)
        .await
        .refused("secret", &["set `apiVersion: "]);
    let none = request(API_VERSION, "");
    provider
        .given(&none)
        .await
        .refused("secret", &["tokenAttributes"]);
    let no_jwt = request(API_VERSION, "secret");
    provider.given(&no_jwt).await.refused("secret", &["no JWT"]);
    provider.given("\"secret\"").await.refused("secret", &["line 1"]);
    provider.given("").await.refused("secret", &["line 1"]);
    provider
        .given(&" ".repeat(2 << 20))
        .await
        .refused("secret", &["more than"]);
    let wrong = Provider::new(&["--nope"]).given("").await;
    assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(2), ""));
}

/// A server over TLS whose bare domain `localhost` is the tenant `acme`.
fn over_tls(files: &TlsFiles) -> Builder {
    Berth::builder()
        .flag("--apex-tenant", "acme")
        .flag("--tls-cert", files.certificate().to_str().expect("a plain path"))
        .flag("--tls-key", files.key().to_str().expect("a plain path"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_the_registry_s_authority_must_be_trusted() {
    let files = TlsFiles::new();
    let certificate = files.certificate();
    let cluster = Issuer::start().await;
    let berth = over_tls(&files).start().await;
    Admin::of(&berth)
        .put_tenant("acme", json!({ "trust": [rule(&cluster)] }))
        .await;
    let token = account_token(&cluster, "localhost", ("build", "default"), 1);
    let image = format!("{}/team/app", berth.address().replace("127.0.0.1", "localhost"));
    let certificate = certificate.to_str().expect("a plain path");

    let strict = Provider::new(&[]);
    strict
        .asked_for(&image, &token)
        .await
        .refused(&token, &["https://localhost", "--ca-file"]);
    let flag = format!("--ca-file={certificate}");
    let (key, _, _) = Provider::new(&[&flag]).asked_for(&image, &token).await.login();
    assert_eq!(key, image);
    strict
        .variable("SSL_CERT_FILE", certificate)
        .asked_for(&image, &token)
        .await
        .login();
}
