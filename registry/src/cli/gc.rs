//! `gc`: what waits for its collection, rounds, and the switch.

use std::error::Error;
use std::time::Duration;

use clap::Command;
use http::Method;
use serde_json::{Value, json};

use super::administer::{group, leaf, plain, show};
use super::client::Client;
use super::table::{Table, bytes};
use super::{Ended, Output};
use crate::settings::Settings;

/// Its name on the command line.
pub(super) const NAME: &str = "gc";

/// Its path in the admin API.
const PATH: &str = "/admin/v1/gc";
/// Between two looks at a round.
const EVERY: Duration = Duration::from_millis(500);
/// What is counted.
const COUNTED: [&str; 4] = ["manifests", "blobs", "objects", "bytes"];

/// Its arguments.
pub(super) fn command() -> Command {
    let status = leaf(
        "status",
        "Show what waits for its collection",
        "  berth-registry gc status -o json",
    );
    let run = leaf(
        "run",
        "Collect all that is due now, also while collection is paused",
        "  berth-registry gc run",
    );
    let pause = leaf(
        "pause",
        "Collect nothing, on any replica, until `gc resume`",
        "  berth-registry gc pause",
    );
    let resume = leaf("resume", "Let collection go on", "  berth-registry gc resume");
    group(
        NAME,
        "Garbage collection: status, run, pause, resume",
        [status, run, pause, resume],
    )
}

/// Does what the matches of a leaf say.
pub(super) async fn run(settings: &Settings, leaf: &str, output: Output) -> Ended {
    let client = Client::open(settings).await?;
    match leaf {
        "status" => show(output, &client.ask(Method::GET, PATH, None).await?, status),
        "run" => show(output, &round(&client).await?, ran),
        _ => {
            let body = json!({ "paused": leaf == "pause" });
            let switch = client
                .ask(Method::PUT, &format!("{PATH}/paused"), Some(&body))
                .await?;
            show(output, &switch, |switch| format!("{}\n", standing(switch)))
        }
    }
}

/// A round; one that this process does itself to its end.
async fn round(client: &Client) -> Result<Value, Box<dyn Error>> {
    let before = client.ask(Method::GET, PATH, None).await?;
    let ran = client.ask(Method::POST, &format!("{PATH}/run"), None).await?;
    if ran["done"] == true || client.is_server() {
        return Ok(ran);
    }
    loop {
        tokio::time::sleep(EVERY).await;
        let now = client.ask(Method::GET, PATH, None).await?;
        if now["running"] != true {
            return Ok(ended(&before, &now)?);
        }
    }
}

/// A round that was waited for failed.
#[derive(Debug, thiserror::Error)]
#[error("the round failed after it had collected {collected}: {why}; run it again, it goes on where it was")]
struct RoundFailed {
    collected: String,
    why: String,
}

/// What came of a round between two looks.
fn ended(before: &Value, now: &Value) -> Result<Value, RoundFailed> {
    let mut ran = json!({ "done": true });
    for field in COUNTED {
        let number = |state: &Value| state["collected"][field].as_u64().unwrap_or_default();
        ran[field] = number(now).saturating_sub(number(before)).into();
    }
    match now["lastError"].as_str() {
        None => Ok(ran),
        Some(why) => Err(RoundFailed {
            collected: amounts(&ran, "bytes"),
            why: why.to_owned(),
        }),
    }
}

fn standing(switch: &Value) -> String {
    match switch["paused"].as_bool() {
        Some(true) => format!("paused since {}", plain(&switch["since"])),
        _ => "not paused".to_owned(),
    }
}

fn amounts(counts: &Value, of_bytes: &str) -> String {
    format!(
        "{} manifests, {} blobs, {} objects, {}",
        plain(&counts["manifests"]),
        plain(&counts["blobs"]),
        plain(&counts["objects"]),
        bytes(counts[of_bytes].as_u64().unwrap_or_default())
    )
}

fn ran(ran: &Value) -> String {
    let collected = amounts(ran, "bytes");
    if ran["done"] == true {
        format!("collected: {collected}\n")
    } else {
        format!(
            "collected so far: {collected}; it goes on in the server, `berth-registry gc status` shows how far\n"
        )
    }
}

fn status(state: &Value) -> String {
    let queues = &state["queues"];
    let mut text = format!(
        "{}\nwaiting: {}\n",
        standing(state),
        amounts(queues, "objectBytes")
    );
    if let Some(until) = state["heldUntil"].as_str() {
        text.push_str(&format!(
            "no object is deleted before {until}: a backup is being made\n"
        ));
    }
    if let Some(due) = queues["oldestDue"].as_str() {
        text.push_str(&format!("oldest due: {due}\n"));
    }
    text.push_str(&format!("collected: {}\n", amounts(&state["collected"], "bytes")));
    if let Some(why) = state["lastError"].as_str() {
        text.push_str(&format!("the last round that was asked for failed: {why}\n"));
    }
    let purges = state["purges"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !purges.is_empty() {
        let row = |purge: &Value| {
            let left = &purge["left"];
            json!({
                "tenant": purge["tenant"], "repository": purge["repository"], "since": purge["requestedAt"],
                "tags": left["tags"], "bytes": bytes(left["bytes"].as_u64().unwrap_or_default()),
            })
        };
        let rows: Vec<Value> = purges.iter().map(row).collect();
        let columns = ["ERASED TENANT", "REPOSITORY", "SINCE", "TAGS LEFT", "BYTES LEFT"];
        let fields = ["tenant", "repository", "since", "tags", "bytes"];
        text.push_str(&format!("\n{}", Table::of(columns, fields, &rows.into())));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_that_failed_after_its_request_is_no_success() {
        let state = |blobs: u64, why: Option<&str>| {
            json!({
                "running": false, "lastError": why,
                "collected": { "manifests": 0, "blobs": blobs, "objects": 0, "bytes": 0 },
            })
        };
        let ran = ended(&state(1, Some("the one before")), &state(3, None)).unwrap();
        assert_eq!((&ran["done"], &ran["blobs"]), (&json!(true), &json!(2)));
        let failed = ended(&state(1, None), &state(3, Some("no answer")))
            .unwrap_err()
            .to_string();
        assert!(
            failed.contains("2 blobs") && failed.contains("no answer"),
            "{failed}"
        );
        assert!(status(&state(0, Some("no answer"))).contains("failed: no answer\n"));
    }

    #[test]
    fn a_status_tells_what_waits_and_what_is_erased() {
        let state = json!({
            "paused": true, "since": "2026-11-01T00:00:00Z", "running": false,
            "queues": { "manifests": 2, "blobs": 1, "objects": 3, "objectBytes": 2048 },
            "collected": { "manifests": 0, "blobs": 0, "objects": 0, "bytes": 0 },
            "purges": [{ "tenant": "acme", "requestedAt": "2026-11-01T00:00:00Z",
                         "left": { "bytes": 1, "tags": 2, "repositories": 1 } }],
        });
        let text = status(&state);
        for part in [
            "paused since 2026-11-01T00:00:00Z\n",
            "waiting: 2 manifests, 1 blobs, 3 objects, 2.0 KiB\n",
            "acme           -           2026-11-01T00:00:00Z  2          1 B\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
