//! `tag`: what became of tags, and how deleted ones come back.

use clap::{Arg, ArgMatches, Command, value_parser};
use http::Method;
use serde_json::Value;

use super::administer::{group, leaf, pages, plain, positional, query, show, tenant_flag, tenant_path};
use super::client::Client;
use super::table::Table;
use super::{Ended, Output};
use crate::settings::Settings;

/// Its name on the command line.
pub(super) const NAME: &str = "tag";

/// Its arguments.
pub(super) fn command() -> Command {
    let repository = || positional("repository", "The repository, by its name or an alias");
    let history = leaf(
        "history",
        "Show what became of a tag, newest first",
        "  berth-registry tag history team-a/api latest --tenant acme",
    )
    .arg(repository())
    .arg(positional("tag", "The tag"))
    .arg(
        Arg::new("limit")
            .long("limit")
            .value_name("COUNT")
            .value_parser(value_parser!(u32).range(1..=1000))
            .default_value("100")
            .help("At most this many entries"),
    )
    .arg(tenant_flag());
    let deleted = leaf(
        "deleted",
        "List the deleted tags that can be brought back, the last deleted first",
        "  berth-registry tag deleted team-a/api --tenant acme",
    )
    .arg(repository())
    .arg(tenant_flag());
    let restore = leaf(
        "restore",
        "Bring a deleted tag back, with what it pointed to",
        "  berth-registry tag restore team-a/api v1.2.3 --tenant acme",
    )
    .arg(repository())
    .arg(positional("tag", "The tag"))
    .arg(tenant_flag());
    group(
        NAME,
        "Tags: history, deleted, restore",
        [history, deleted, restore],
    )
}

/// Does what the matches of a leaf say.
pub(super) async fn run(settings: &Settings, leaf: &str, matches: &ArgMatches, output: Output) -> Ended {
    let value = |name: &str| query(matches.get_one::<String>(name).map_or("", String::as_str));
    let path = format!(
        "{}/tags/{leaf}?repository={}",
        tenant_path(matches),
        value("repository")
    );
    let client = Client::open(settings).await?;
    match leaf {
        "history" => {
            let limit = matches.get_one::<u32>("limit").copied().unwrap_or(100);
            let path = format!("{path}&tag={}&limit={limit}", value("tag"));
            let mut page = client.ask(Method::GET, &path, None).await?;
            show(output, &page["events"].take(), events)
        }
        "deleted" => show(
            output,
            &pages(&client, &format!("{path}&limit=1000"), "tags").await?,
            deleted,
        ),
        _ => {
            let path = format!("{path}&tag={}", value("tag"));
            show(output, &client.ask(Method::POST, &path, None).await?, |back| {
                format!(
                    "{}:{} points to {} again\n",
                    plain(&back["repository"]),
                    plain(&back["tag"]),
                    plain(&back["digest"])
                )
            })
        }
    }
}

fn events(events: &Value) -> String {
    let columns = ["AT", "ACTION", "DIGEST", "BY"];
    Table::of(columns, ["at", "action", "digest", "by"], events).to_string()
}

fn deleted(tags: &Value) -> String {
    let columns = ["TAG", "DIGEST", "DELETED", "BY", "UNTIL"];
    let fields = ["tag", "digest", "deletedAt", "deletedBy", "restorableUntil"];
    Table::of(columns, fields, tags).to_string()
}
