//! The programs take the flags that the chart gives them.

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::setting;
use serde_json::Value;

use super::{arguments, find, objects, sets};

fn flags(objects: &[Value], kind: &str, name: &str) -> Vec<String> {
    let container = &find(objects, kind, name)["spec"]["template"]["spec"]["containers"][0];
    let flags = container["args"].as_array().expect("arguments").iter();
    flags
        .map(|flag| flag.as_str().expect("a text").to_owned())
        .collect()
}

fn run(program: &Path, arguments: &[String]) -> (bool, String) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("the program runs");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[test]
fn the_registry_takes_every_flag_that_the_chart_gives_it() {
    let registry = PathBuf::from(setting("BERTH_BIN"));
    for set in sets() {
        let objects = objects(&arguments(&set));
        let kind = objects.iter().find(|object| object["kind"] == "StatefulSet");
        let kind = if kind.is_some() {
            "StatefulSet"
        } else {
            "Deployment"
        };
        let mut flags = flags(&objects, kind, "berth");
        assert_eq!(flags[0], "serve");
        // The same settings, looked at and not used; in a pod the kubelet has put its address in.
        flags[0] = "config".to_owned();
        for flag in &mut flags {
            *flag = flag.replace("$(POD_IP)", "10.244.1.7");
        }
        if kind == "Deployment" {
            // As variables from Secrets and values.
            flags.extend(["--metadata=postgres://db/berth", "--blobs=s3://blobs"].map(str::to_owned));
        }
        let (success, text) = run(&registry, &flags);
        assert!(success, "{flags:?}: {text}");
    }
}

#[test]
fn the_operator_knows_every_flag_that_the_chart_gives_it() {
    let operator = PathBuf::from(setting("BERTH_BIN")).with_file_name("berth-operator");
    let (_, help) = run(&operator, &["--help".to_owned()]);
    for set in sets() {
        for flag in flags(&objects(&arguments(&set)), "Deployment", "berth-operator") {
            let (name, _) = flag.split_once('=').expect("a flag with a value");
            let is_known = help
                .lines()
                .any(|line| line.trim_start().starts_with(&format!("{name} ")));
            assert!(is_known, "{name} with {set:?}");
        }
    }
}

#[test]
fn further_flags_are_given_as_they_were_written() {
    let objects = objects(&[
        "--set",
        "registry.extraArgs.max-open-uploads=2000000,registry.extraArgs.migrate=false",
        "--set",
        "registry.extraArgs.manifests={/a,/b}",
    ]);
    let flags = flags(&objects, "StatefulSet", "berth");
    for flag in [
        "--max-open-uploads=2000000",
        "--migrate=false",
        "--manifests=/a",
        "--manifests=/b",
    ] {
        assert!(flags.iter().any(|given| given == flag), "{flag} in {flags:?}");
    }
}
