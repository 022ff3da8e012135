//! `webhook`: how webhooks fare, what was given up, sending it again, and whether a receiver is there.

use clap::{Arg, ArgMatches, Command};
use http::Method;
use serde_json::{Value, json};

use super::administer::{group, leaf, plain, positional, query, show, tenant_flag, tenant_path};
use super::client::Client;
use super::table::Table;
use super::{Ended, Output};
use crate::settings::Settings;

/// Its name on the command line.
pub(super) const NAME: &str = "webhook";

/// The receiver has not taken the event.
#[derive(Debug, thiserror::Error)]
#[error("the event was not delivered: {0}")]
struct NotDelivered(String);

/// Nothing of this name.
#[derive(Debug, thiserror::Error)]
#[error("the tenant has no webhook {0}; `berth-registry webhook list` shows ids and URLs")]
struct NoWebhook(String);

/// Its arguments.
pub(super) fn command() -> Command {
    let webhook = || positional("webhook", "Its id or its URL, as `webhook list` shows them");
    let list = leaf(
        "list",
        "List webhooks: what waits for them, what was given up, and how their last deliveries went",
        "  berth-registry webhook list --tenant acme",
    )
    .arg(tenant_flag());
    let dead = leaf(
        "dead",
        "List events that were given up, newest first",
        "  berth-registry webhook dead https://hooks.example.com/berth --tenant acme",
    )
    .arg(webhook())
    .arg(
        Arg::new("limit")
            .long("limit")
            .value_name("COUNT")
            .value_parser(clap::value_parser!(u32))
            .help("Most events, at most 1000; 100 if absent"),
    )
    .arg(
        Arg::new("before")
            .long("before")
            .value_name("NEXT")
            .value_parser(clap::value_parser!(i64))
            .help("Where the page begins: the next of the page before"),
    )
    .arg(tenant_flag());
    let replay = leaf(
        "replay",
        "Send again what was given up: one event, or all",
        "  berth-registry webhook replay https://hooks.example.com/berth --tenant acme\n  \
           berth-registry webhook replay https://hooks.example.com/berth --event 0b9d…  --tenant acme",
    )
    .arg(webhook())
    .arg(
        Arg::new("event")
            .long("event")
            .value_name("ID")
            .help("This event alone"),
    )
    .arg(tenant_flag());
    let test = leaf(
        "test",
        "Send an event that tells of nothing, once, and say what came of it",
        "  berth-registry webhook test https://hooks.example.com/berth --tenant acme",
    )
    .arg(webhook())
    .arg(tenant_flag());
    group(
        NAME,
        "Webhooks: list, dead, replay, test",
        [list, dead, replay, test],
    )
}

/// Does what the matches of a leaf say.
pub(super) async fn run(settings: &Settings, leaf: &str, matches: &ArgMatches, output: Output) -> Ended {
    let path = format!("{}/webhooks", tenant_path(matches));
    let client = Client::open(settings).await?;
    let all = client.ask(Method::GET, &path, None).await?;
    if leaf == "list" {
        return show(output, &all, list);
    }
    let named = matches.get_one::<String>("webhook").map_or("", String::as_str);
    let found = all
        .as_array()
        .into_iter()
        .flatten()
        .find(|webhook| webhook["id"] == named || webhook["url"] == named);
    let found = found.ok_or_else(|| NoWebhook(named.to_owned()))?;
    let path = format!("{path}/{}", plain(&found["id"]));
    match leaf {
        "dead" => {
            let limit = matches.get_one::<u32>("limit").copied().unwrap_or(100);
            let mut path = format!("{path}/dead?limit={limit}");
            if let Some(before) = matches.get_one::<i64>("before") {
                path = format!("{path}&before={before}");
            }
            show(output, &client.ask(Method::GET, &path, None).await?, dead)
        }
        "replay" => {
            let replayed = match matches.get_one::<String>("event") {
                Some(event) => {
                    let path = format!("{path}/replay?event={}", query(event));
                    client.ask(Method::POST, &path, None).await?
                }
                None => replay_all(&client, &format!("{path}/replay")).await?,
            };
            show(output, &replayed, |replayed| {
                format!("{} events are sent again\n", replayed["replayed"])
            })
        }
        _ => {
            let tested = client.ask(Method::POST, &format!("{path}/test"), None).await?;
            show(output, &tested, |tested| match tested["delivered"].as_bool() {
                Some(true) => format!(
                    "delivered as {}: {} after {} ms\n",
                    plain(&tested["id"]),
                    tested["status"],
                    tested["milliseconds"]
                ),
                _ => String::new(),
            })?;
            match tested["error"].as_str() {
                Some(error) => Err(NotDelivered(error.to_owned()).into()),
                None => Ok(()),
            }
        }
    }
}

/// All, a request's worth at a time.
async fn replay_all(client: &Client, path: &str) -> Result<Value, Box<dyn std::error::Error>> {
    let mut sum = 0;
    loop {
        let replayed = client.ask(Method::POST, path, None).await?;
        let count = replayed["replayed"].as_u64().unwrap_or_default();
        sum += count;
        if count < 1000 {
            return Ok(json!({ "replayed": sum }));
        }
    }
}

fn list(webhooks: &Value) -> String {
    let row = |webhook: &Value| {
        let state = match (&webhook["lastError"], &webhook["lastDelivery"]) {
            (Value::String(error), _) => format!("fails: {error}"),
            (_, Value::String(_)) => "delivers".to_owned(),
            _ => "nothing sent yet".to_owned(),
        };
        json!({
            "id": webhook["id"], "url": webhook["url"], "pending": webhook["pending"], "dead": webhook["dead"],
            "last": webhook["lastDelivery"], "state": state,
        })
    };
    let rows: Vec<Value> = webhooks.as_array().into_iter().flatten().map(row).collect();
    Table::of(
        ["ID", "URL", "PENDING", "DEAD", "LAST DELIVERY", "STATE"],
        ["id", "url", "pending", "dead", "last", "state"],
        &rows.into(),
    )
    .to_string()
}

fn dead(page: &Value) -> String {
    let table = Table::of(
        ["ID", "TYPE", "SUBJECT", "DEAD SINCE", "TRIES", "ERROR"],
        ["id", "type", "subject", "deadSince", "attempts", "error"],
        &page["events"],
    )
    .to_string();
    match page["next"].as_i64() {
        Some(next) => format!("{table}More: --before {next}\n"),
        None => table,
    }
}
