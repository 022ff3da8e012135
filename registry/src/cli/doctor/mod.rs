//! `doctor`: looks at everything that an installation stands on, from where it runs, and says of whatever is wrong which
//! command or setting mends it.
//!
//! It takes the server's own settings, so that it sees what the server sees: beside it on the same machine, by
//! `kubectl exec` in a pod, or in a Job with the pod's configuration. It changes nothing but for one object in the blob
//! store, which it deletes again.

mod blobs;
mod bundle;
mod files;
mod hosts;
mod metadata;
mod report;
mod server;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;

use self::report::{Report, Status};
use super::administer::leaf;
use super::client::Client;
use super::web;
use super::{Ended, Output};
use crate::settings::{Resolved, Settings};

/// Its name on the command line.
pub(super) const NAME: &str = "doctor";

/// Something does not work.
#[derive(Debug, thiserror::Error)]
#[error("{0} of what was looked at does not work; each says above what mends it")]
struct Sick(usize);

/// Its arguments.
pub(super) fn command() -> Command {
    leaf(
        NAME,
        "Look at settings, stores, hosts, certificates and upstreams, and say what mends whatever is wrong",
        "  berth-registry doctor\n  berth-registry doctor --bundle support.tar.gz\n  \
         berth-registry doctor --host acme.registry.example.com --at 203.0.113.7:443",
    )
    .arg(
        Arg::new("host")
            .long("host")
            .value_name("HOST")
            .action(ArgAction::Append)
            .help("A host that clients use, besides the apex and those of the tenants; repeatable"),
    )
    .arg(
        Arg::new("at")
            .long("at")
            .value_name("ADDRESS:PORT")
            .value_parser(clap::value_parser!(SocketAddr))
            .help("Look for the hosts there, whatever their names stand for: an edge before its names point to it"),
    )
    .arg(
        Arg::new("ca-file")
            .long("ca-file")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Authorities in PEM that clients trust besides those of this machine"),
    )
    .arg(
        Arg::new("skip")
            .long("skip")
            .value_name("PART")
            .action(ArgAction::Append)
            .value_parser(["files", "metadata", "blobs", "server", "hosts"])
            .help("A part that is not looked at; repeatable"),
    )
    .arg(
        Arg::new("thorough")
            .long("thorough")
            .action(ArgAction::SetTrue)
            .help("Have SQLite check all of its file, which reads all of it"),
    )
    .arg(
        Arg::new("bundle")
            .long("bundle")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Also write all of this for somebody else to look at: a .tar.gz without secrets"),
    )
}

/// Looks at everything.
pub(super) async fn run(
    resolved: &Resolved,
    settings: &Settings,
    matches: &ArgMatches,
    output: Output,
) -> Ended {
    let skipped: Vec<&String> = matches.get_many("skip").into_iter().flatten().collect();
    let looks_at = |part: &str| !skipped.iter().any(|skipped| *skipped == part);
    let roots = web::roots(matches.get_one::<PathBuf>("ca-file").map(PathBuf::as_path))?;
    let mut report = Report::new(output == Output::Text);

    // 1. What lies on this machine.
    if looks_at("files") {
        report.begin("Files");
        files::look(&mut report, settings);
    }
    // 2. The stores, each by itself.
    if looks_at("metadata") {
        report.begin("Metadata store");
        metadata::look(&mut report, settings, matches.get_flag("thorough")).await;
    }
    // 3. The server, if one runs here, and what it knows.
    let server = Client::of_server(settings).await;
    if looks_at("blobs") {
        report.begin("Blob store");
        blobs::look(&mut report, settings, &roots, matches!(server, Ok(Some(_)))).await;
    }
    let mut hosts: Vec<String> = matches.get_many("host").into_iter().flatten().cloned().collect();
    let mut told = None;
    if looks_at("server") {
        report.begin("Server");
        told = server::look(&mut report, settings, server).await;
    }
    // 4. The way of a client.
    if looks_at("hosts") {
        report.begin("Hosts");
        hosts.extend(told.iter().flat_map(|told| told.hosts.iter().cloned()));
        let asked = hosts::Asked {
            hosts,
            at: matches.get_one("at").copied(),
            roots: &roots,
        };
        hosts::look(&mut report, settings, asked).await;
    }

    if let Some(path) = matches.get_one::<PathBuf>("bundle") {
        bundle::write(path, resolved, settings, &report, told.as_ref()).await?;
        if output == Output::Text {
            println!(
                "{} holds this report, the settings and the figures, without secrets",
                path.display()
            );
        }
    }
    let (failed, warned) = (report.count(Status::Failed), report.count(Status::Warning));
    match output {
        Output::Json => println!(
            "{:#}",
            json!({ "failed": failed, "warnings": warned, "findings": report.findings() })
        ),
        Output::Text if failed == 0 && warned == 0 => println!("All that was looked at is as it should be."),
        Output::Text => println!("{failed} failed, {warned} to be seen to."),
    }
    match failed {
        0 => Ok(()),
        failed => Err(Sick(failed).into()),
    }
}
