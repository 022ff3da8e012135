//! Who asks: at the source and at the destination.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::content::sha256;
use harness::http::{Answer, Repository, client, send};
use harness::image::MANIFEST;
use harness::{Admin, Backend, Berth, Faulty, Guard, Image, Storage, TlsFiles, Upstream};
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use super::{KIB, Place, Told, import, push_referrer, run};

/// A registry whose tenant wants a token for everything, with an image that something refers to.
struct Private {
    berth: Berth,
    admin: Admin,
}

impl Private {
    async fn start() -> Private {
        let berth = Berth::builder().start().await;
        let admin = Admin::of(&berth);
        Private { berth, admin }
    }

    async fn close(&self) {
        self.admin.put_tenant("default", json!({})).await;
    }

    async fn token(&self, actions: &[&str]) -> String {
        self.admin.token("default", &["**"], actions).await
    }

    async fn get(&self, token: &str, path: &str) -> Answer {
        let request = client().request(Method::GET, self.berth.url(path));
        let request = request
            .header("accept", MANIFEST)
            .basic_auth("x-token", Some(token));
        send(request).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_private_berth_is_copied_to_another_with_its_referrers() {
    let (from, to) = (Private::start().await, Private::start().await);
    let repository = Repository::new(&from.berth.url(""), "team/app");
    let image = Image::new(1, KIB);
    image.push(&repository, "v1").await;
    let signature = push_referrer(&repository, None, &image.manifest, b"signed").await;
    // What refers to the signature in turn.
    let of_it = push_referrer(&repository, None, &signature, b"countersigned").await;
    from.close().await;
    to.close().await;
    let (reader, writer) = (from.token(&["pull"]).await, to.token(&["pull", "push"]).await);
    let home = TempDir::new().expect("a folder");
    let file = home.path().join("token");
    std::fs::write(&file, format!("{writer}\n")).expect("a file");

    let file = file.to_str().expect("a plain name").to_owned();
    let mut command = import(
        &to.berth,
        &home,
        &to.berth.url(""),
        &[
            &from.berth.url(""),
            "--source-username",
            "x-token",
            "--token-file",
            &file,
        ],
    );
    command.env("BERTH_SOURCE_PASSWORD", &reader);
    let told = run(command).await;
    let told = told.all_equal();
    assert_eq!(told.figure("manifestsCopied"), 3, "{told:?}");
    for bytes in [&image.manifest, &signature, &of_it] {
        let path = format!("/v2/team/app/manifests/{}", sha256(bytes));
        assert!(to.get(&writer, &path).await.expect(200).body == *bytes);
    }
    let listed = to
        .get(&writer, &format!("/v2/team/app/referrers/{}", image.digest()))
        .await;
    assert!(listed.expect(200).text().contains(&sha256(&signature)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_may_not_push_is_refused_by_name() {
    let place = Place::new().await;
    place.pushed("app", "v1", 1).await;
    let admin = Admin::of(&place.berth);
    admin.put_tenant("default", json!({})).await;
    let reader = admin.token("default", &["**"], &["pull"]).await;
    let mut command = place.command(&[]);
    command.env("BERTH_TOKEN", &reader);
    let told = run(command).await.failed(&["app", "may not push"]);
    assert_eq!(told.tags("missing"), 1, "{told:?}");

    let told = place.import(&[]).await;
    told.failed(&["app", "40"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_source_is_told_a_name_and_a_password_from_wherever_they_are() {
    let mut place = Place::new().await;
    let image = place.pushed("app", "v1", 1).await;
    place.upstream.ask_for_login().await;
    let source = format!("http://{}", place.upstream.address());
    let to = place.berth.url("");
    let ask = async |arguments: &[&str], password: Option<&str>| -> Told {
        let mut all = vec![source.as_str()];
        all.extend(arguments);
        let mut command = import(&place.berth, &place.home, &to, &all);
        if let Some(password) = password {
            command.env("BERTH_SOURCE_PASSWORD", password);
        }
        run(command).await
    };
    let named = ["--source-username", Upstream::USERNAME, "--repositories", "app"];
    let told = ask(&["--repositories", "app"], None).await;
    told.failed(&["401"]);
    let told = ask(&named, Some("wrong")).await;
    told.failed(&["401"]);
    assert_eq!(ask(&named, None).await.code, Some(1));
    ask(
        &["--source-username", Upstream::USERNAME],
        Some(Upstream::PASSWORD),
    )
    .await
    .all_equal();

    // As `docker login` leaves it.
    let auth = STANDARD.encode(format!("{}:{}", Upstream::USERNAME, Upstream::PASSWORD));
    let folder = place.home.path().join(".docker");
    std::fs::create_dir(&folder).expect("a folder");
    let config = json!({ "auths": { place.upstream.address(): { "auth": auth } } });
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a file");
    ask(&[], None).await.all_equal();
    image.assert_pullable(&place.here("app"), "v1").await;

    // As it is left to a program, which answers or does not.
    let config = json!({ "credHelpers": { place.upstream.address(): "ours" } });
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a file");
    let refused = |told: &Told, why: &str| {
        assert_eq!(told.code, Some(1), "{told:?}");
        assert!(told.stderr.contains(why), "{told:?}");
    };
    refused(&ask(&[], None).await, "docker-credential-ours: No such file");
    let programs = place.home.path().join("bin");
    std::fs::create_dir(&programs).expect("a folder");
    let program = programs.join("docker-credential-ours");
    let path = format!("{}:{}", programs.display(), harness::setting("PATH"));
    let with = async |script: &str| -> Told {
        std::fs::write(&program, format!("#!/bin/sh\nread registry\n{script}\n")).expect("a program");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a program");
        let mut command = import(&place.berth, &place.home, &to, &[&source]);
        command.env("PATH", &path);
        run(command).await
    };
    let answer = |username: &str| {
        format!(
            r#"[ "$1 $registry" = "get {}" ] && printf '{{"ServerURL":"%s","Username":"{username}","Secret":"{}"}}' "$registry""#,
            place.upstream.address(),
            Upstream::PASSWORD
        )
    };
    with(&answer(Upstream::USERNAME)).await.all_equal();
    // Its sign-in exchanges no tokens.
    refused(&with(&answer("<token>")).await, "401");
    refused(
        &with("echo locked; exit 1").await,
        "docker-credential-ours: locked",
    );
    refused(&with("echo nonsense").await, "answered no log-in");
    let nothing = "echo credentials not found in native keychain; exit 1";
    refused(&with(nothing).await, "401 Unauthorized");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_token_is_exchanged_for_tokens_of_each_repository() {
    let (from, to) = (Private::start().await, Berth::builder().start().await);
    for (name, seed) in [("team/app", 1), ("team/tool", 2)] {
        let repository = Repository::new(&from.berth.url(""), name);
        Image::new(seed, KIB).push(&repository, "v1").await;
    }
    from.close().await;
    let token = from.token(&["pull"]).await;
    let asked = client()
        .post(from.berth.url("/v2/token"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!(
            "grant_type=password&username=x-token&password={token}&service=test&client_id=test&access_type=offline"
        ));
    let given = send(asked).await.expect(200).json();
    let identity = given["refresh_token"].as_str().expect("a refresh token");

    let home = TempDir::new().expect("a folder");
    let source = from.berth.url("");
    let ask = async |identity: &str| {
        // As `docker login` leaves it.
        let nobody = STANDARD.encode("00000000-0000-0000-0000-000000000000:");
        let login = json!({ "auth": nobody, "identitytoken": identity });
        let config = home.path().join("config.json");
        let written = json!({ "auths": { from.berth.address(): login } }).to_string();
        std::fs::write(&config, written).expect("a file");
        let config = config.to_str().expect("a plain name");
        let arguments = [source.as_str(), "--docker-config", config];
        run(import(&to, &home, &to.url(""), &arguments)).await
    };
    let told = ask(identity).await;
    assert_eq!(told.all_equal().figure("manifestsCopied"), 2);
    let told = ask("nonsense").await;
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stderr.contains("401"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_told_to_a_realm_elsewhere_if_that_is_named() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 1).await;
    // Another address, at which the same tokens are given.
    let realm = Faulty::before(&place.way.address()).await;
    place.way.guard(
        Guard::bearer()
            .to(Upstream::USERNAME, Upstream::PASSWORD)
            .at_realm(&format!("{}/token", realm.url())),
    );
    let ask = async |more: &[&str]| {
        let mut arguments = vec!["--source-username", Upstream::USERNAME, "--repositories", "app"];
        arguments.extend(more);
        let mut command = place.command(&arguments);
        command.env("BERTH_SOURCE_PASSWORD", Upstream::PASSWORD);
        run(command).await
    };

    let told = ask(&[]).await;
    told.failed(&["app", "--source-realm-host"]);
    for question in realm.asked() {
        assert_eq!(question.header("authorization"), "", "{question:?}");
    }
    let named = realm.address();
    ask(&["--source-realm-host", &named]).await.all_equal();
    image.assert_pullable(&place.here("app"), "v1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_end_in_the_middle_are_fetched_anew() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 1).await;
    place.way.guard(harness::Guard::bearer().good_for(2));
    place.import(&[]).await.all_equal();
    image.assert_pullable(&place.here("app"), "v1").await;
    assert!(place.way.count("GET", "/token") > 1, "{:?}", place.way.asked());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_are_trusted_by_the_authorities_that_are_named() {
    let (files, others) = (TlsFiles::new(), TlsFiles::new());
    let storage = Arc::new(Storage::create(Backend::Embedded));
    let image = Image::new(1, KIB);
    let plain = Berth::builder().storage(storage.clone(), 0).start().await;
    image.push(&Repository::new(&plain.url(""), "app"), "v1").await;
    drop(plain);
    let speaking = |files: &TlsFiles| {
        let text = |path: PathBuf| path.to_str().expect("text").to_owned();
        Berth::builder()
            .flag("--tls-cert", &text(files.certificate()))
            .flag("--tls-key", &text(files.key()))
    };
    let from = speaking(&files).storage(storage, 0).start().await;
    let to = speaking(&others).start().await;
    let home = TempDir::new().expect("a folder");
    let source = from.address();
    let destination = format!("https://{}", to.address());
    let ask = async |source_ca: &TlsFiles| {
        let [source_ca, to_ca] = [source_ca, &others].map(|files| files.certificate());
        let (source_ca, to_ca) = (source_ca.to_str().expect("text"), to_ca.to_str().expect("text"));
        let arguments = [source.as_str(), "--source-ca", source_ca, "--to-ca", to_ca];
        run(import(&to, &home, &destination, &arguments)).await
    };
    ask(&files).await.all_equal();
    let told = ask(&others).await;
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(
        told.stderr.contains("no authority that is trusted here"),
        "{told:?}"
    );
}
