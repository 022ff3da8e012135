//! The settings of the server whose container a command runs in.
//!
//! `kubectl exec` starts a command with the container's environment, but without the flags that its server was given. So
//! where the first process is `berth-registry serve`, its flags stand for variables that are not set; what a command is
//! given itself goes before them.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Command;

use crate::settings::table::SETTINGS;

/// The flags of the first process as variables; none if it is no server, or this one.
pub(super) fn settings(command: Command) -> BTreeMap<String, String> {
    if std::process::id() == 1 {
        return BTreeMap::new();
    }
    let line = std::fs::read("/proc/1/cmdline").unwrap_or_default();
    let arguments = line.split(|byte| *byte == 0).filter(|part| !part.is_empty());
    let arguments = arguments.map(|part| String::from_utf8_lossy(part).into_owned());
    of(command, arguments.collect())
}

fn of(command: Command, arguments: Vec<String>) -> BTreeMap<String, String> {
    let program = arguments.first().map(|program| Path::new(program).file_name());
    let is_server = program.flatten().is_some_and(|name| name == "berth-registry")
        && arguments.get(1).is_some_and(|word| word == "serve");
    if !is_server {
        return BTreeMap::new();
    }
    let Ok(matches) = command.try_get_matches_from(arguments) else {
        return BTreeMap::new();
    };
    let Some(flags) = matches.subcommand_matches("serve") else {
        return BTreeMap::new();
    };
    let mut settings = BTreeMap::new();
    if let Some(path) = flags.get_one::<String>("config") {
        settings.insert("BERTH_CONFIG".to_owned(), path.clone());
    }
    for setting in &SETTINGS {
        if let Some(values) = flags.get_many::<String>(setting.name) {
            let values: Vec<String> = values.cloned().collect();
            settings.insert(setting.variable(), values.join(","));
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_line(line: &str) -> Vec<(String, String)> {
        let arguments = line.split(' ').map(str::to_owned).collect();
        of(super::super::command(), arguments).into_iter().collect()
    }

    #[test]
    fn the_flags_of_a_server_stand_for_variables() {
        let settings = of_line(
            "/usr/bin/berth-registry serve --domain=registry.test --egress-allow=10.0.0.0/8 --egress-allow a.test",
        );
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            settings,
            [
                pair("BERTH_DOMAIN", "registry.test"),
                pair("BERTH_EGRESS_ALLOW", "10.0.0.0/8,a.test")
            ]
        );
    }

    #[test]
    fn what_is_no_server_has_no_settings() {
        for line in [
            "/sbin/init",
            "berth-registry gc status",
            "other serve --domain=x",
            "berth-registry serve --none",
        ] {
            assert_eq!(of_line(line), [], "{line}");
        }
    }
}
