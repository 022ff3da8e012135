//! Flags, variables and the file; what `config` shows; what is refused.

use std::fs;
use std::process::Command;

use serde_yaml::Value;
use tempfile::TempDir;

use super::{Ended, program};

/// `config` with a file of these lines.
fn config(folder: &TempDir, lines: &str) -> Command {
    let path = folder.path().join("berth.yaml");
    fs::write(&path, lines).expect("a file of settings");
    let mut command = program();
    command.arg("config").arg("--config").arg(path);
    command
}

fn folder() -> TempDir {
    TempDir::with_prefix("berth-settings-").expect("a temporary folder")
}

fn shown(command: Command) -> (Value, String) {
    let text = Ended::of(command).expect(0, &[]).output;
    (serde_yaml::from_str(&text).expect("config prints YAML"), text)
}

#[test]
fn a_flag_goes_before_a_variable_and_a_variable_before_the_file() {
    let folder = folder();
    let mut command = config(
        &folder,
        "listen: 127.0.0.1:7001\nadmin-listen: 127.0.0.1:7002\ndomain: file.example\n",
    );
    command.args(["--listen=127.0.0.1:9001"]).envs([
        ("BERTH_LISTEN", "127.0.0.1:8001"),
        ("BERTH_ADMIN_LISTEN", "127.0.0.1:8002"),
    ]);

    let (settings, text) = shown(command);

    for (name, value, source) in [
        ("listen", "127.0.0.1:9001", "flag"),
        ("admin-listen", "127.0.0.1:8002", "BERTH_ADMIN_LISTEN"),
        ("domain", "file.example", "berth.yaml"),
        ("ops-listen", "127.0.0.1:5002", "default"),
    ] {
        assert_eq!(settings[name], value);
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name}: ")))
            .expect("a line");
        assert!(line.contains('#') && line.ends_with(source), "{line}");
    }
}

#[test]
fn what_config_prints_can_be_given_back_to_it() {
    let folder = folder();
    let mut first = config(&folder, "");
    first.args([
        "--trusted-proxies=10.0.0.0/8,192.168.0.0/16",
        "--upload-memory=64MiB",
        "--data=/srv/a b",
    ]);
    let (settings, text) = shown(first);

    let (again, _) = shown(config(&folder, &text));

    assert_eq!(settings, again);
    let mut json = config(&folder, &text);
    json.args(["-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&Ended::of(json).expect(0, &[]).output).expect("JSON");
    assert_eq!(json["upload-memory"]["value"], "64MiB");
    assert!(
        json["upload-memory"]["source"]
            .as_str()
            .is_some_and(|source| source.ends_with("berth.yaml"))
    );
}

#[test]
fn a_password_is_never_shown() {
    let folder = folder();
    let secret = "s3cr3t-p4ss";
    for form in ["text", "json"] {
        let mut command = config(
            &folder,
            &format!("metadata: postgres://berth:{secret}@db/berth\n"),
        );
        command.args([
            "-o",
            form,
            &format!("--blobs=s3://bucket/x?region=eu&secret-key={secret}"),
        ]);
        let ended = Ended::of(command);
        let all = format!("{}{}", ended.output, ended.error);
        assert!(!all.contains(secret), "{all}");
    }
    // Nor where the value is refused or the store cannot be reached.
    let mut command = program();
    command.args([
        "migrate",
        &format!("--metadata=postgres://berth:{secret}@127.0.0.1:1/berth"),
    ]);
    let ended = Ended::of(command);
    assert_eq!(ended.code, Some(1));
    assert!(
        !format!("{}{}", ended.output, ended.error).contains(secret),
        "{ended:?}"
    );
    let mut command = program();
    command.args(["config", &format!("--metadata=postgrs://berth:{secret}@db/berth")]);
    let refused = Ended::of(command).expect(2, &["--metadata"]);
    assert!(!refused.error.contains(secret), "{refused:?}");
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_costs_exit_code_2() {
    let folder = folder();
    let unknown = Ended::of(config(&folder, "lisen: 127.0.0.1:1\n"));
    unknown.expect(2, &["berth.yaml", "`lisen`", "`listen`"]);
    let nested = Ended::of(config(&folder, "listen: {a: 1}\n"));
    nested.expect(2, &["berth.yaml", "`listen`"]);
    Ended::of(config(&folder, "- a\n")).expect(2, &["berth.yaml", "mapping"]);
    let absent = {
        let mut command = program();
        command.args(["config", "--config=/nonexistent/berth.yaml"]);
        Ended::of(command)
    };
    absent.expect(2, &["/nonexistent/berth.yaml"]);

    for (flag, named) in [
        ("--listen=here", "--listen"),
        ("--upload-memory=much", "--upload-memory"),
        ("--open=Sometimes", "--open"),
        ("--header-timeout=-1s", "--header-timeout"),
        ("--max-connections=0", "--max-connections"),
        ("--tls-cert=/etc/tls.crt", "--tls-key"),
    ] {
        let mut command = program();
        command.args(["serve", flag]);
        Ended::of(command).expect(2, &[named]);
    }
    let mut variable = program();
    variable.arg("config").env("BERTH_DRAIN_TIMEOUT", "soon");
    Ended::of(variable).expect(2, &["BERTH_DRAIN_TIMEOUT", "--drain-timeout"]);
    let mut flag = program();
    flag.args(["serve", "--lisen=127.0.0.1:1"]);
    Ended::of(flag).expect(2, &["--lisen"]);
    Ended::of(program()).expect(2, &[]);
}

#[test]
fn help_shows_every_setting_with_its_variable() {
    let mut help = program();
    help.args(["serve", "--help"]);
    let help = Ended::of(help).expect(0, &[]).output;
    let mut command = program();
    command.arg("config");
    let (settings, _) = shown(command);

    let names: Vec<&str> = settings
        .as_mapping()
        .expect("a mapping")
        .keys()
        .filter_map(Value::as_str)
        .collect();
    assert!(names.len() > 30);
    for name in names {
        let variable = format!("BERTH_{}", name.to_uppercase().replace('-', "_"));
        assert!(
            help.contains(&format!("--{name} ")) && help.contains(&variable),
            "{name}"
        );
    }
}
