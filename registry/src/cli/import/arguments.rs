//! The flags of `import`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::NAME;
use crate::domain::RepositoryName;
use crate::domain::glob::{RepositoryGlob, TagGlob};
use crate::import::Address;
use crate::settings::units::Span;

const EXAMPLES: &str = "Examples:
  berth-registry import http://old.example.com:5000 --dry-run
  berth-registry import registry.example.com --to https://acme.registry.example.org --token-file token
  berth-registry import harbor.example.com --source-username 'robot$berth' --source-password-file secret \\
      --repositories 'shop/**' --strip-prefix shop --tags 'v*' --since 180d
  berth-registry import ghcr.io --repositories owner/app --watch=5m";

/// Its arguments.
pub(in crate::cli) fn command(output: Arg) -> Command {
    Command::new(NAME)
        .about("Copy repositories of another registry into a tenant: tags, indexes, signatures and what else refers to them")
        .long_about(
            "Copy repositories of another registry into a tenant: tags, indexes, signatures and what else refers to them.\n\n\
             It can be cut at any point and run again: what is there already is not fetched again. It ends with a comparison \
             of both sides, and with 1 if they differ or something failed. Where a tag is there with another manifest the \
             source wins.",
        )
        .arg(
            Arg::new("source")
                .value_name("SOURCE")
                .required(true)
                .value_parser(value_parser!(Address))
                .help("The registry to copy from, like registry.example.com; http://... for one without TLS"),
        )
        .arg(
            Arg::new("to")
                .long("to")
                .value_name("URL")
                .default_value("http://127.0.0.1:5000")
                .value_parser(value_parser!(Address))
                .help("The tenant's address"),
        )
        .args(meant())
        .args(credentials())
        .args(manner())
        .arg(output.help("Form of the output; json is one document a line, the last one of each pass its report"))
        .after_help(EXAMPLES)
}

/// What is copied, and to which names.
fn meant() -> [Arg; 6] {
    [
        text("repositories", "GLOB", "Repositories by their names at the source, like 'team/**'; repeatable. All if absent")
            .value_parser(value_parser!(RepositoryGlob))
            .action(ArgAction::Append)
            .value_delimiter(','),
        text("tags", "GLOB", "Tags, like 'v*'; repeatable. All if absent. Signatures and what else belongs to an image goes along")
            .value_parser(value_parser!(TagGlob))
            .action(ArgAction::Append)
            .value_delimiter(','),
        text("since", "TIME|AGE", "Only images made since a time, or not longer ago than an age like 90d")
            .value_parser(ValueParser::string()),
        text("referrers", "BOOL", "Whether signatures and what else refers to an image go along; tags of theirs that --tags matches do anyway")
            .num_args(0..=1)
            .require_equals(true)
            .default_value("true")
            .default_missing_value("true")
            .value_parser(value_parser!(bool)),
        text("strip-prefix", "NAME", "Components that names lose where they begin with them")
            .value_parser(value_parser!(RepositoryName)),
        text("prefix", "NAME", "Components that are put before every name")
            .value_parser(value_parser!(RepositoryName)),
    ]
}

fn credentials() -> [Arg; 8] {
    [
        text(
            "source-username",
            "NAME",
            "User name at the source; without it, what Docker's configuration has",
        )
        .value_parser(ValueParser::string()),
        file(
            "source-password-file",
            "File with its password; or the variable BERTH_SOURCE_PASSWORD",
        ),
        Arg::new("source-password-stdin")
            .long("source-password-stdin")
            .action(ArgAction::SetTrue)
            .conflicts_with("source-password-file")
            .help("Read its password from standard input"),
        file(
            "docker-config",
            "Docker's configuration file; ~/.docker/config.json if absent",
        ),
        text(
            "source-realm-host",
            "HOST",
            "Host of another domain that gives the source's tokens and may be told its password, with its port if it has one",
        )
        .value_parser(ValueParser::string()),
        file(
            "source-ca",
            "PEM certificates that the source's may be signed by, too",
        ),
        file(
            "token-file",
            "File with a token of the tenant, which may pull and push; or the variable BERTH_TOKEN",
        ),
        file(
            "to-ca",
            "PEM certificates that the destination's may be signed by, too",
        ),
    ]
}

fn manner() -> [Arg; 8] {
    [
        text(
            "concurrency",
            "N",
            "Blobs on their way at the same time, at most 64",
        )
        .default_value("4")
        .value_parser(value_parser!(u16).range(1..=64)),
        text(
            "retries",
            "N",
            "Failures in a row after which something is given up",
        )
        .default_value("8")
        .value_parser(value_parser!(u32).range(0..=1000)),
        text("timeout", "TIME", "How long a registry may be silent")
            .default_value("60s")
            .value_parser(span),
        file(
            "state",
            "Folder that remembers uploads that were cut; ~/.local/state/berth/import if absent",
        ),
        Arg::new("dry-run")
            .long("dry-run")
            .action(ArgAction::SetTrue)
            .conflicts_with("watch")
            .help("Only say what would be copied"),
        Arg::new("keep-existing")
            .long("keep-existing")
            .action(ArgAction::SetTrue)
            .help("Leave tags alone that are there with another manifest, and report them"),
        Arg::new("deep")
            .long("deep")
            .action(ArgAction::SetTrue)
            .help("Look at every blob of images that are there already, too"),
        text(
            "watch",
            "INTERVAL",
            "Go over everything again and again, with this pause, until SIGINT or SIGTERM",
        )
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("60s")
        .value_parser(span),
    ]
}

fn text(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn file(name: &'static str, help: &'static str) -> Arg {
    text(name, "PATH", help).value_parser(value_parser!(PathBuf))
}

fn span(text: &str) -> Result<Span, String> {
    text.parse::<Span>().map_err(str::to_owned)
}

/// All values of a flag that can be repeated.
pub(super) fn many<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Vec<T> {
    matches
        .get_many::<T>(name)
        .into_iter()
        .flatten()
        .cloned()
        .collect()
}

pub(super) fn concurrency(matches: &ArgMatches) -> NonZeroUsize {
    let given = matches.get_one::<u16>("concurrency").copied().unwrap_or(4);
    NonZeroUsize::new(given.into()).unwrap_or(NonZeroUsize::MIN)
}

pub(super) fn retries(matches: &ArgMatches) -> u32 {
    matches.get_one("retries").copied().unwrap_or(8)
}

pub(super) fn timeout(matches: &ArgMatches) -> Duration {
    matches
        .get_one::<Span>("timeout")
        .map_or(Duration::from_secs(60), |span| span.0)
}
