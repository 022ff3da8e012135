//! What whoever makes a release does, and whoever takes it.

use std::path::PathBuf;

use harness::http::client;
use harness::setting;
use tokio::process::Command;

use super::{PATIENCE, Reader, checkout, commands};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_to_releases_publishes_what_its_readers_verify() {
    let berth = harness::Berth::start(harness::Backend::Embedded).await;
    let host = berth.address();
    let reader = Reader::new(&[
        // The one that was uploaded to over plain HTTP says so.
        (
            "oci://registry.example.com/berth/charts",
            format!("oci://{host}/berth/charts --plain-http"),
        ),
        ("registry.example.com", host.clone()),
        ("$KEYS/", "$HOME/".to_owned()),
        ("cosign.pub", "$HOME/cosign.pub".to_owned()),
        ("cd target/release-", "cd $HOME/release-".to_owned()),
    ]);
    // The compiler is asked who it is, and is found in the home of whoever runs the tests.
    let programs = PathBuf::from(setting("BERTH_BIN"));
    let version = env!("CARGO_PKG_VERSION");
    let made = Command::new(checkout().join("tests/tools/release"))
        .args(["--trial", "--programs"])
        .arg(programs.parent().expect("a folder"))
        .arg("--output")
        .arg(reader.path(&format!("release-{version}")))
        .output();
    let made = harness::within("the files of a release", PATIENCE, made).await;
    let made = made.expect("the tool runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    reader
        .runs("cd $HOME && COSIGN_PASSWORD= cosign generate-key-pair")
        .await;
    let of = |title: &str| -> String {
        let [block] = commands("releasing.md", title).try_into().expect("one block");
        block
    };
    reader
        .runs(&format!("export COSIGN_PASSWORD=\n{}", of("Publish")))
        .await;
    let listed = reader.runs(&of("Verify")).await;
    for name in ["tokio 1.", "berth-registry 0.", "libsqlite3-sys 0."] {
        assert!(listed.contains(name), "{listed}");
    }

    // People see both in the explorer.
    let http = client();
    let api = |path: &str| http.get(berth.url(&format!("/explorer/api/r/berth/berth/-/{path}")));
    let told = harness::http::send(api(&format!("tags/{version}")))
        .await
        .expect(200)
        .json();
    let document = told["documents"]["packages"]["digest"].as_str();
    let document = document.unwrap_or_else(|| panic!("no packages: {told:#}"));
    let packages = harness::http::send(api(&format!("packages/{document}"))).await;
    let packages = packages.expect(200).json();
    assert_eq!(packages["format"], "CycloneDX 1.6", "{packages:#}");
    assert!(packages["found"].as_u64() > Some(200), "{packages:#}");
    let built = told["documents"]["provenance"]["digest"].as_str();
    assert!(built.is_some(), "{told:#}");
}
