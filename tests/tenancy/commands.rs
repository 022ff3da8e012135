//! The command line, beside a running server and without one.

use std::process::Output;

use harness::Berth;
use serde_json::Value;

use super::{DOMAIN, get, settings};

/// Runs a subcommand with the settings of a server.
fn run(berth: &Berth, arguments: &[&str]) -> Output {
    let mut command = berth.command(arguments[0]);
    command.args(&arguments[1..]).arg(format!("--domain={DOMAIN}"));
    let admin = berth.admin_url("");
    command.arg(format!("--admin-listen={}", admin.trim_start_matches("http://")));
    command.output().expect("the binary runs")
}

fn json(berth: &Berth, arguments: &[&str]) -> Value {
    let output = run(berth, &[arguments, &["-o", "json"]].concat());
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn text(berth: &Berth, arguments: &[&str]) -> String {
    let output = run(berth, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

fn refused(berth: &Berth, arguments: &[&str], code: i32) -> String {
    let output = run(berth, arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_tokens_and_repositories_are_managed_from_the_command_line() {
    let mut berth = settings().start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("acme.yaml");
    std::fs::write(
        &file,
        "apiVersion: berth.dev/v1alpha1\nkind: Tenant\nmetadata: {name: acme}\nspec: {displayName: Acme}\n",
    )
    .unwrap();
    let file = file.to_str().unwrap().to_owned();
    let host = format!("acme.{DOMAIN}");

    assert!(text(&berth, &["apply", "-f", &file]).contains("1 documents applied, 1 changed"));
    assert_eq!(json(&berth, &["apply", "-f", &file])["changed"], 0);
    let made = json(
        &berth,
        &[
            "token",
            "create",
            "ci",
            "--tenant",
            "acme",
            "--repository",
            "team/**",
            "--expires-after",
            "1h",
        ],
    );
    let (token, id) = (
        made["token"].as_str().unwrap().to_owned(),
        made["id"].as_str().unwrap().to_owned(),
    );
    assert_eq!(
        (&made["kind"], &made["grants"][0]["actions"]),
        (&"project".into(), &serde_json::json!(["pull", "push"]))
    );
    super::push(&berth, &host, &token, "team/app", b"content", "v1").await;
    assert!(text(&berth, &["token", "list", "--tenant", "acme"]).contains("team/**: pull,push"));
    assert!(text(&berth, &["repository", "list", "--tenant", "acme"]).contains("team/app"));
    assert_eq!(
        json(&berth, &["repository", "show", "team/app", "--tenant", "acme"])["tags"],
        1
    );
    assert_eq!(json(&berth, &["usage", "--tenant", "acme"])[0]["repositories"], 1);
    assert_eq!(
        json(&berth, &["tenant", "show", "acme"])["spec"]["displayName"],
        "Acme"
    );
    assert!(text(&berth, &["tenant", "list"]).contains("acme"));

    text(&berth, &["tenant", "suspend", "acme", "--reason", "maintenance"]);
    let suspended = get(&berth, &host, &token, "/v2/team/app/tags/list")
        .await
        .expect(403);
    assert!(suspended.text().contains("maintenance"));
    text(&berth, &["tenant", "suspend", "acme", "--resume"]);
    get(&berth, &host, &token, "/v2/team/app/tags/list")
        .await
        .expect(200);
    let new = json(
        &berth,
        &["token", "rotate", &id, "--tenant", "acme", "--overlap", "1h"],
    );
    get(&berth, &host, new["token"].as_str().unwrap(), "/v2/")
        .await
        .expect(200);
    text(&berth, &["token", "revoke", &id, "--tenant", "acme"]);
    super::eventually("it is revoked", async || {
        get(&berth, &host, &token, "/v2/").await.status == 401
    })
    .await;

    // Without a server the stores are asked; what was made then is served later.
    berth.kill9();
    let offline = json(
        &berth,
        &["token", "create", "later", "--tenant", "acme", "--action", "pull"],
    );
    berth.restart().await;
    get(&berth, &host, offline["token"].as_str().unwrap(), "/v2/")
        .await
        .expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_end_with_a_code_and_a_message_that_says_what_to_change() {
    let berth = settings().start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.yaml");
    std::fs::write(
        &file,
        "apiVersion: berth.dev/v1alpha1\nkind: Tenant\nmetadata: {name: acme}\nspec: {hosts: [localhost]}\n",
    )
    .unwrap();
    let file = file.to_str().unwrap().to_owned();
    let message = refused(&berth, &["apply", "-f", &file], 1);
    assert!(message.contains("bad.yaml:4: spec.hosts[0]"), "{message}");
    assert!(
        refused(&berth, &["token", "create", "ci", "--tenant", "nobody"], 1)
            .contains("there is no tenant nobody")
    );
    assert!(refused(&berth, &["token", "create", "Bad_Name", "--tenant", "nobody"], 1).contains("no tenant"));
    assert!(refused(&berth, &["token", "create"], 2).contains("name"));
    assert!(refused(&berth, &["tenant", "show", "../state"], 1).contains("there is no"));
    assert!(refused(&berth, &["token", "create", "ci", "--action", "admin"], 2).contains("pull"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_tells_a_registry_from_anything_else() {
    let berth = settings().start().await;
    let probe = |arguments: &[&str]| {
        let mut command = std::process::Command::new(harness::setting("BERTH_BIN"));
        let output = command.arg("probe").args(arguments).output();
        let output = output.expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let registry = berth.url("/v2/");
    // It asks for a credential, which is an answer.
    let (code, out, _) = probe(&[&registry]);
    assert_eq!((code, out.contains("401")), (Some(0), true), "{out}");
    let (code, out, _) = probe(&[&registry, "-o", "json"]);
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &answer["status"]), (Some(0), &Value::from(401)));
    for (address, why) in [
        (berth.url("/nowhere"), "no registry"),
        (berth.ops_url("/v2/"), "no registry"),
        (
            format!("http://127.0.0.1:{}/v2/", harness::free_port()),
            "does not answer",
        ),
        ("berth:5000".to_owned(), "an address is like"),
        ("not an address".to_owned(), "an address is like"),
    ] {
        let (code, _, error) = probe(&[&address, "--timeout=5s"]);
        assert_eq!((code, error.contains(why)), (Some(1), true), "{address}: {error}");
    }
    assert_eq!(probe(&[]).0, Some(2));
}
