//! The command line: one file a subcommand, and what they share.
//!
//! [`run`] parses the arguments, resolves the settings, starts the log and the runtime, and turns the
//! outcome into an exit code: 0 done, 1 failed, 2 wrong usage. It may use every part of the crate; nothing
//! uses it but `main.rs`.

mod administer;
mod backup;
mod beside;
mod cache;
mod client;
mod config;
mod convert;
mod data_folder;
mod doctor;
mod file_limit;
mod fsck;
mod gc;
mod import;
mod log;
mod log_json;
mod log_writer;
mod migrate;
mod probe;
mod progress;
mod restore;
mod retention;
mod serve;
mod signals;
mod startup;
mod stores;
mod table;
mod tags;
mod usage;
mod web;
mod webhooks;

use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};

use crate::settings::{Resolved, Settings, SettingsError, resolve};
use crate::telemetry::Traces;

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

/// How long what still runs in the background after the end may take to notice.
const RUNTIME_END: Duration = Duration::from_millis(500);

/// The form of a subcommand's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

fn command() -> Command {
    let output = Arg::new("output")
        .short('o')
        .long("output")
        .value_name("FORMAT")
        .value_parser(["text", "json"])
        .default_value("text")
        .help("Form of the output");
    let serve = Command::new("serve").about("Run the registry");
    let migrate = Command::new("migrate").about("Bring the metadata store's schema up to date, and end");
    let config = Command::new("config")
        .about("Print the effective settings as YAML, each with its source; secrets redacted");
    Command::new("berth-registry")
        .about("Berth: a multi-tenant OCI registry")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(resolve::arguments(serve))
        .subcommand(resolve::arguments(migrate.arg(output.clone())))
        .subcommand(resolve::arguments(config.arg(output.clone())))
        .subcommand(probe::command(output.clone()))
        .subcommand(import::command(output))
        .subcommands(administer::commands())
        .subcommands([
            tags::command(),
            retention::command(),
            cache::command(),
            usage::command(),
            gc::command(),
            webhooks::command(),
        ])
        .subcommand(fsck::command())
        .subcommand(doctor::command())
        .subcommands([backup::command(), restore::command(), convert::command()])
}

/// Does what the process's arguments say.
pub fn run() -> ExitCode {
    // Prints help, version and usage errors itself, and ends with 0 or 2.
    let matches = command().get_matches();
    let (mut path, mut matches) = (Vec::new(), &matches);
    while let Some((name, inner)) = matches.subcommand() {
        path.push(name);
        matches = inner;
    }
    if path.is_empty() {
        return ExitCode::from(WRONG_USAGE);
    }
    // These have no settings: what they ask need not be on this machine.
    match *path {
        [probe::NAME] => return ended(with_runtime(probe::run(matches, output(matches)))),
        [import::NAME] => return ended(with_runtime(import::run(matches, output(matches)))),
        _ => {}
    }
    match settings(&path, matches) {
        Ok((resolved, settings)) => act(&path, matches, &resolved, settings),
        Err(error) => {
            complain(&error);
            ExitCode::from(WRONG_USAGE)
        }
    }
}

fn settings(path: &[&str], matches: &ArgMatches) -> Result<(Resolved, Settings), SettingsError> {
    let beside = match path {
        ["serve"] => BTreeMap::new(),
        _ => beside::settings(command()),
    };
    let variable = |name: &str| std::env::var(name).ok().or_else(|| beside.get(name).cloned());
    let resolved = resolve::resolve(matches, &variable)?;
    let settings = Settings::new(&resolved)?;
    Ok((resolved, settings))
}

fn act(path: &[&str], matches: &ArgMatches, resolved: &Resolved, settings: Settings) -> ExitCode {
    let name = path[0];
    ended(match name {
        "config" => config::run(resolved, output(matches)),
        "migrate" => with_log(&settings, async |_| {
            migrate::run(&settings, output(matches)).await
        }),
        fsck::NAME => {
            // What it finds is its answer.
            let quiet = Settings {
                log: "error".to_owned(),
                ..settings.clone()
            };
            with_log(&quiet, async |_| {
                fsck::run(&settings, matches, output(matches)).await
            })
        }
        doctor::NAME => {
            // What it finds is its answer.
            let quiet = Settings {
                log: "off".to_owned(),
                ..settings.clone()
            };
            with_log(&quiet, async |_| {
                doctor::run(resolved, &settings, matches, output(matches)).await
            })
        }
        backup::NAME | restore::NAME | convert::NAME => {
            let quiet = Settings {
                log: "error".to_owned(),
                ..settings.clone()
            };
            with_log(&quiet, async |_| copy(&settings, path, matches).await)
        }
        name if asks(name) => {
            // What a command prints is its answer; the log has only what went wrong.
            let quiet = Settings {
                log: "warn".to_owned(),
                ..settings.clone()
            };
            with_log(&quiet, async |_| ask(&settings, path, matches).await)
        }
        _ => serve(&settings),
    })
}

/// Whether a command asks the admin API and shows its answer.
fn asks(name: &str) -> bool {
    let others = [
        cache::NAME,
        gc::NAME,
        retention::NAME,
        tags::NAME,
        usage::NAME,
        webhooks::NAME,
    ];
    administer::NAMES.contains(&name) || others.contains(&name)
}

async fn ask(settings: &Settings, path: &[&str], matches: &ArgMatches) -> Ended {
    let output = output(matches);
    match path {
        [cache::NAME, leaf] => cache::run(settings, leaf, matches, output).await,
        [webhooks::NAME, leaf] => webhooks::run(settings, leaf, matches, output).await,
        [gc::NAME, leaf] => gc::run(settings, leaf, output).await,
        [retention::NAME, leaf] => retention::run(settings, leaf, matches, output).await,
        [tags::NAME, leaf] => tags::run(settings, leaf, matches, output).await,
        [usage::NAME] => usage::run(settings, matches, output).await,
        _ => administer::run(settings, path, matches, output).await,
    }
}

/// What works on stores and copies of them.
async fn copy(settings: &Settings, path: &[&str], matches: &ArgMatches) -> Ended {
    let output = output(matches);
    match path {
        [backup::NAME, leaf] => backup::run(settings, leaf, matches, output).await,
        [restore::NAME] => restore::run(settings, matches, output).await,
        _ => convert::run(settings, matches, output).await,
    }
}

/// The form that is asked for; `serve` has no choice.
fn output(matches: &ArgMatches) -> Output {
    match matches.try_get_one::<String>("output") {
        Ok(Some(form)) if form == "json" => Output::Json,
        _ => Output::Text,
    }
}

fn ended(ended: Ended) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&*error);
            ExitCode::from(FAILED)
        }
    }
}

/// What a subcommand ends with. Its error is only ever shown.
type Ended = Result<(), Box<dyn Error>>;

/// Starts the log and the traces, and serves to the end.
fn serve(settings: &Settings) -> Ended {
    let traces = Traces::of(settings.otlp_endpoint.as_deref(), settings.trace_sample);
    let log = log::start(&settings.log, settings.log_format, traces.as_ref())?;
    with_runtime(serve::run(settings, log.form(), traces))
}

/// Starts the log, and runs `work` to its end.
fn with_log(settings: &Settings, work: impl AsyncFnOnce(log::Form) -> Ended) -> Ended {
    let log = log::start(&settings.log, settings.log_format, None)?;
    with_runtime(work(log.form()))
}

/// Starts the TLS provider and the runtime, and runs `work` to its end.
fn with_runtime(work: impl Future<Output = Ended>) -> Ended {
    // Fails only if a provider is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(work);
    runtime.shutdown_timeout(RUNTIME_END);
    ended
}

/// The error and, where they say more, its causes.
fn complain(error: &dyn Error) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    eprintln!("error: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn help_names_every_setting_its_variable_and_its_heading() {
        let mut command = command();
        let serve = command.find_subcommand_mut("serve").unwrap();
        let help = serve.render_long_help().to_string();
        for setting in &crate::settings::table::SETTINGS {
            assert!(help.contains(&format!("--{} ", setting.name)), "{}", setting.name);
            assert!(help.contains(&setting.variable()), "{}", setting.name);
            assert!(help.contains(&format!("{}:", setting.group)), "{}", setting.group);
        }
    }

    #[test]
    fn an_unknown_flag_is_wrong_usage() {
        let error = command()
            .try_get_matches_from(["berth-registry", "serve", "--lisen=x"])
            .unwrap_err();
        assert_eq!(error.exit_code(), i32::from(WRONG_USAGE));
    }
}
