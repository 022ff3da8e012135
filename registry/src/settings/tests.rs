//! Parsing, precedence and printing of the settings.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Command;
use tempfile::NamedTempFile;

use super::*;

/// Resolves flags, variables and a file's text, as a start of the program would.
fn resolved(
    flags: &[&str],
    variables: &[(&str, &str)],
    file: Option<&str>,
) -> Result<Resolved, SettingsError> {
    let file = file.map(|text| {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    });
    let mut arguments = vec!["test".to_owned()];
    arguments.extend(flags.iter().map(|flag| flag.to_string()));
    if let Some(file) = &file {
        arguments.push(format!("--config={}", file.path().display()));
    }
    let matches = resolve::arguments(Command::new("test"))
        .try_get_matches_from(arguments)
        .unwrap();
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    resolve::resolve(&matches, &|name| {
        variables.get(name).map(|value| value.to_string())
    })
}

fn settings(
    flags: &[&str],
    variables: &[(&str, &str)],
    file: Option<&str>,
) -> Result<Settings, SettingsError> {
    Settings::new(&resolved(flags, variables, file)?)
}

fn source(resolved: &Resolved, name: &str) -> String {
    resolved
        .iter()
        .find(|(setting, _)| setting.name == name)
        .unwrap()
        .1
        .source
        .to_string()
}

#[test]
fn every_default_parses_and_is_what_the_contract_says() {
    let settings = settings(&[], &[], None).unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:5000");
    assert_eq!(settings.metadata, "sqlite:./berth-data/berth.db");
    assert_eq!(settings.blobs, "folder:./berth-data/blobs");
    assert_eq!(settings.admin_key_file, PathBuf::from("./berth-data/keys/admin"));
    assert_eq!(settings.upload_memory, 512 << 20);
    assert_eq!(settings.drain_timeout, Duration::from_secs(300));
    assert_eq!(settings.apex_tenant, None);
    assert!(settings.may_be_open());
    assert!(settings.holds_data_folder());
}

#[test]
fn every_example_would_be_accepted() {
    for setting in &table::SETTINGS {
        assert!((setting.check)(setting.example).is_ok(), "{}", setting.name);
    }
}

#[test]
fn a_flag_goes_before_a_variable_and_a_variable_before_the_file() {
    let file = Some("listen: 127.0.0.1:1\nadmin-listen: 127.0.0.1:1\nops-listen: 127.0.0.1:1\n");
    let variables = [
        ("BERTH_LISTEN", "127.0.0.1:2"),
        ("BERTH_ADMIN_LISTEN", "127.0.0.1:2"),
    ];
    let found = resolved(&["--listen=127.0.0.1:3"], &variables, file).unwrap();
    let settings = Settings::new(&found).unwrap();
    let ports = [
        settings.listen.port(),
        settings.admin_listen.port(),
        settings.ops_listen.port(),
    ];
    assert_eq!(ports, [3, 2, 1]);
    assert_eq!(source(&found, "listen"), "flag");
    assert_eq!(source(&found, "admin-listen"), "BERTH_ADMIN_LISTEN");
    assert_eq!(source(&found, "data"), "default");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    assert_eq!(
        settings(&[], &[("BERTH_DOMAIN", "")], None).unwrap().domain,
        "localhost"
    );
}

#[test]
fn the_defaults_of_the_stores_follow_the_data_folder() {
    let settings = settings(&["--data=/var/lib/berth/"], &[], None).unwrap();
    assert_eq!(settings.metadata, "sqlite:/var/lib/berth/berth.db");
    assert_eq!(settings.blobs, "folder:/var/lib/berth/blobs");
}

#[test]
fn lists_come_from_repeated_flags_commas_and_yaml_sequences() {
    let repeated = settings(&["--apex-hosts=a.b", "--apex-hosts=c,d"], &[], None).unwrap();
    assert_eq!(repeated.apex_hosts, ["a.b", "c", "d"]);
    let sequence = settings(&[], &[], Some("trusted-proxies: [10.0.0.0/8, 'fd00::/8']")).unwrap();
    assert_eq!(sequence.trusted_proxies.len(), 2);
}

#[test]
fn an_unknown_key_of_the_file_is_an_error_naming_the_nearest_key() {
    let error = settings(&[], &[], Some("uplod-memory: 1GiB"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`uplod-memory`") && error.contains("did you mean `upload-memory`?"),
        "{error}"
    );
}

#[test]
fn a_bad_value_names_the_setting_its_source_the_value_and_an_example() {
    let error = settings(&[], &[("BERTH_IDLE_TIMEOUT", "soon")], None)
        .unwrap_err()
        .to_string();
    for part in ["--idle-timeout", "BERTH_IDLE_TIMEOUT", "`soon`", "90s"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_bad_url_is_shown_without_its_password() {
    let error = settings(&["--metadata=mysql://u:hunter2@h/d"], &[], None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("mysql://u:REDACTED@h/d") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn a_certificate_without_a_key_is_refused() {
    let error = settings(&["--tls-cert=/c.pem"], &[], None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("--tls-key"), "{error}");
}

#[test]
fn tls_makes_the_external_scheme_https() {
    let secure = settings(&["--tls-cert=/c.pem", "--tls-key=/k.pem"], &[], None).unwrap();
    assert_eq!(secure.external_scheme, Scheme::Https);
    assert!(secure.may_be_open());
}

#[test]
fn anything_that_is_reached_from_elsewhere_is_not_open() {
    for flag in [
        "--open=Never",
        "--listen=0.0.0.0:5000",
        "--admin-listen=0.0.0.0:5001",
        "--ops-listen=[::]:5002",
        "--domain=registry.example.com",
        "--external-scheme=https",
    ] {
        assert!(!settings(&[flag], &[], None).unwrap().may_be_open(), "{flag}");
    }
    assert!(
        settings(&["--listen=[::1]:5000"], &[], None)
            .unwrap()
            .may_be_open()
    );
}

#[test]
fn replicas_on_postgres_and_s3_hold_no_data_folder() {
    let flags = ["--metadata=postgres://db/berth", "--blobs=s3://bucket"];
    assert!(!settings(&flags, &[], None).unwrap().holds_data_folder());
    assert!(settings(&flags[..1], &[], None).unwrap().holds_data_folder());
}

#[test]
fn regions_and_reading_alone_go_with_stores_that_others_share() {
    let (database, bucket) = ("--metadata=postgres://db/berth", "--blobs=s3://bucket");
    let reads = "--read-only=true";
    let fine = settings(
        &[database, bucket, reads, "--primary=http://a", "--regions=/r.yaml"],
        &[],
        None,
    );
    assert!(!fine.unwrap().migrate, "a standby takes no migration");
    for (flags, named) in [
        (&["--regions=/r.yaml"][..], "--regions"),
        (&[database, bucket, "--primary=http://a"], "--primary"),
        (&[bucket, reads], "--metadata"),
        (&[database, reads], "--blobs"),
        (&[database, bucket, reads, "--manifests=/m"], "--manifests"),
    ] {
        let error = settings(flags, &[], None).unwrap_err().to_string();
        assert!(error.contains(named), "{flags:?}: {error}");
    }
}

#[test]
fn the_printed_settings_read_back_as_the_same_and_show_no_secret() {
    let flags = [
        "--metadata=postgres://u:hunter2@db/berth",
        "--apex-hosts=a,b",
        "--log=info,access=off",
    ];
    let found = resolved(&flags, &[("BERTH_MIN_RATE", "2KiB")], None).unwrap();
    let yaml = print::yaml(&found);
    assert!(!yaml.contains("hunter2"), "{yaml}");
    assert!(yaml.contains("min-rate: 2KiB/s  # BERTH_MIN_RATE\n"), "{yaml}");
    assert!(yaml.contains("tls-cert: null  # default\n"), "{yaml}");
    let again = resolved(&[], &[], Some(&yaml)).unwrap();
    let text = |found: &Resolved| {
        found
            .iter()
            .map(|(setting, entry)| (setting.name, entry.value.clone()))
            .collect::<Vec<_>>()
    };
    let redacted: Vec<_> = text(&found)
        .into_iter()
        .map(|(name, value)| (name, value.map(|value| value.replace("hunter2", "REDACTED"))))
        .collect();
    assert_eq!(text(&again), redacted);
    assert_eq!(print::json(&found)["min-rate"]["source"], "BERTH_MIN_RATE");
}
