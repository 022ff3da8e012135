//! TLS by the files that settings name, followed when they change. openssl is the client.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{Berth, TlsFiles, eventually};
use rustix::process::Signal;

use super::{ANY_PORTS, Ended, program};

async fn serve(files: &TlsFiles) -> Berth {
    Berth::builder()
        .flag("--tls-cert", text(&files.certificate()))
        .flag("--tls-key", text(&files.key()))
        .start()
        .await
}

/// What the server answers to a ping over TLS, and what openssl says of the connection. The
/// certificate is verified against the file as it is now.
fn ping(files: &TlsFiles, berth: &Berth, options: &[&str]) -> String {
    let mut client = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &berth.address(),
            "-servername",
            "localhost",
        ])
        .args([
            "-verify_return_error",
            "-verify_hostname",
            "localhost",
            "-ign_eof",
            "-CAfile",
        ])
        .arg(files.certificate())
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    let request = b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    if let Some(mut input) = client.stdin.take() {
        // A refused handshake closes the pipe.
        let _ = input.write_all(request);
    }
    let output = client.wait_with_output().expect("openssl ends");
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken_and_older_ones_are_not() {
    let files = TlsFiles::new();
    let berth = serve(&files).await;

    for version in ["-tls1_2", "-tls1_3"] {
        let answer = ping(&files, &berth, &[version, "-alpn", "http/1.1"]);
        assert!(answer.contains("HTTP/1.1 200 OK"), "{version}: {answer}");
        assert!(
            answer.contains("Verify return code: 0 (ok)"),
            "{version}: {answer}"
        );
        assert!(answer.contains("ALPN protocol: http/1.1"), "{version}: {answer}");
    }
    assert!(!ping(&files, &berth, &["-tls1_1"]).contains("HTTP/1.1"));
    let offered = ping(&files, &berth, &["-alpn", "h2,http/1.1"]);
    assert!(offered.contains("ALPN protocol: h2"), "{offered}");
    // A client that does not speak TLS is not taken for one that does.
    let plain = harness::http::client().get(berth.url("/v2/")).send().await;
    assert!(plain.is_err());
}

#[tokio::test]
async fn a_renewed_certificate_is_used_without_a_restart() {
    let files = TlsFiles::new();
    let berth = serve(&files).await;
    assert!(ping(&files, &berth, &[]).contains("O = first"));

    // By itself within seconds, at once after SIGHUP; `ping` trusts the new certificate only.
    for (organisation, told) in [("second", false), ("third", true)] {
        files.renew(organisation);
        if told {
            berth.signal(Signal::HUP);
        }
        eventually(
            "the new certificate is used",
            Duration::from_secs(15),
            async || {
                let answer = ping(&files, &berth, &[]);
                (answer.contains("HTTP/1.1 200 OK") && answer.contains(&format!("O = {organisation}")))
                    .then_some(())
            },
        )
        .await;
    }

    // A half of a pair leaves the whole one in use.
    let good = std::fs::read(files.certificate()).expect("the certificate");
    std::fs::write(files.key(), "no key").expect("a broken key");
    berth.signal(Signal::HUP);
    eventually(
        "the broken key is complained about",
        Duration::from_secs(15),
        async || berth.log().contains("the one before stays").then_some(()),
    )
    .await;
    std::fs::write(files.certificate(), good).expect("the certificate");
    assert!(ping(&files, &berth, &[]).contains("O = third"));
}

#[test]
fn files_that_are_no_certificate_and_key_end_the_start() {
    let files = TlsFiles::new();
    let other = TlsFiles::new();
    let data = tempfile::tempdir().expect("a temporary folder");
    let start = |certificate: &Path, key: &Path| {
        let mut command = program();
        command
            .arg("serve")
            .args(ANY_PORTS)
            .arg(format!("--data={}", data.path().join("data").display()))
            .arg(format!("--tls-cert={}", certificate.display()))
            .arg(format!("--tls-key={}", key.display()));
        Ended::of(command)
    };

    start(Path::new("/nonexistent"), &files.key()).expect(1, &["--tls-cert", "/nonexistent"]);
    start(&files.key(), &files.key()).expect(1, &["--tls-cert"]);
    start(&files.certificate(), &files.certificate()).expect(1, &["--tls-key"]);
    start(&files.certificate(), &other.key()).expect(1, &["--tls-cert", "--tls-key"]);
}
