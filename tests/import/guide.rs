//! `docs/migrate.md`, followed to the letter.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use harness::http::{Repository, client, send};
use harness::image::MANIFEST;
use harness::{Admin, Berth, Image, setting};
use serde_json::json;

use super::{KIB, Place, WAIT};

const GUIDE: &str = include_str!("../../docs/migrate.md");

/// The commands below a heading.
fn commands(heading: &str) -> &'static str {
    let (_, section) = GUIDE
        .split_once(&format!("### {heading}\n"))
        .expect("the heading");
    let (_, block) = section.split_once("```sh\n").expect("commands");
    block.split_once("```").expect("their end").0
}

/// Runs them in a folder with these addresses in place of the examples'.
async fn follow(folder: &Path, commands: &str, addresses: &[(&str, &str)]) -> String {
    let mut script = commands.to_owned();
    for (example, address) in addresses {
        assert!(script.contains(example), "{example} in {script}");
        script = script.replace(example, address);
    }
    let programs = folder.join("bin");
    std::fs::create_dir(&programs).expect("a folder");
    symlink(setting("BERTH_BIN"), programs.join("berth-registry")).expect("a link");
    let mut command = Command::new("sh");
    command
        .args(["-eu", "-c", &script])
        .current_dir(folder)
        .env("HOME", folder)
        .env("PATH", format!("{}:{}", programs.display(), setting("PATH")));
    for name in [
        "XDG_STATE_HOME",
        "DOCKER_CONFIG",
        "BERTH_TOKEN",
        "BERTH_SOURCE_PASSWORD",
    ] {
        command.env_remove(name);
    }
    let mut command = tokio::process::Command::from(command);
    let output = harness::within("the guide's commands", WAIT, command.kill_on_drop(true).output()).await;
    let output = output.expect("a shell");
    assert!(output.status.success(), "{script}\n{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Closes a registry to everybody without a token; a token, also in a file.
async fn closed(berth: &Berth, actions: &[&str], file: &Path) -> String {
    let admin = Admin::of(berth);
    admin.put_tenant("default", json!({})).await;
    let token = admin.token("default", &["**"], actions).await;
    std::fs::write(file, format!("{token}\n")).expect("a file");
    token
}

async fn assert_there(berth: &Berth, token: &str, image: &Image) {
    let request = client()
        .get(berth.url("/v2/team/app/manifests/v1"))
        .header("accept", MANIFEST)
        .basic_auth("x-token", Some(token));
    assert!(send(request).await.expect(200).body == image.manifest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_for_distribution_do_what_they_say() {
    let place = Place::new().await;
    let image = place.pushed("team/app", "v1", 1).await;
    let folder = place.home.path();
    let token = closed(&place.berth, &["pull", "push"], &folder.join("berth-token")).await;
    let addresses = [
        ("http://old.example.com:5000", place.way.url()),
        ("https://registry.example.com", place.berth.url("")),
    ];
    let addresses = addresses
        .each_ref()
        .map(|(example, address)| (*example, address.as_str()));
    let told = follow(folder, commands("distribution"), &addresses).await;
    assert!(told.contains("1 of 1 tags are equal"), "{told}");
    assert_there(&place.berth, &token, &image).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_for_another_berth_do_what_they_say() {
    let (old, new) = (Berth::builder().start().await, Berth::builder().start().await);
    let image = Image::new(1, KIB);
    image.push(&Repository::new(&old.url(""), "team/app"), "v1").await;
    let folder = tempfile::TempDir::new().expect("a folder");
    closed(&old, &["pull"], &folder.path().join("old-token")).await;
    let token = closed(&new, &["pull", "push"], &folder.path().join("berth-token")).await;
    let addresses = [
        ("https://old.example.com", old.url("")),
        ("https://registry.example.com", new.url("")),
    ];
    let addresses = addresses
        .each_ref()
        .map(|(example, address)| (*example, address.as_str()));
    let told = follow(folder.path(), commands("Another Berth"), &addresses).await;
    assert!(told.contains("1 of 1 tags are equal"), "{told}");
    assert_there(&new, &token, &image).await;
}
