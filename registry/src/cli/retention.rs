//! `retention`: what policies have done and would do, runs, and why a tag stays or goes.

use std::error::Error;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use http::Method;
use serde_json::{Value, json};

use super::administer::{group, leaf, plain, positional, query, show, tenant_flag, tenant_path, yaml};
use super::client::Client;
use super::table::{Table, bytes};
use super::{Ended, Output};
use crate::settings::Settings;

/// Its name on the command line.
pub(super) const NAME: &str = "retention";

/// Between two looks at a run.
const EVERY: Duration = Duration::from_millis(500);

/// The last run failed.
#[derive(Debug, thiserror::Error)]
#[error("the run failed: {0}")]
struct RunFailed(String);

/// Its arguments.
pub(super) fn command() -> Command {
    let flag = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let list = leaf(
        "list",
        "List retention policies: their last runs, and what the next ones would delete",
        "  berth-registry retention list --tenant acme",
    )
    .arg(tenant_flag());
    let preview = leaf(
        "preview",
        "Show what a run would delete now; nothing is changed",
        "  berth-registry retention preview --tenant acme\n  \
           berth-registry retention preview --tenant acme --policy apps/ci\n  \
           berth-registry retention preview --tenant acme --repository team-a/api -o json",
    )
    .arg(
        flag(
            "policy",
            "POLICY",
            "By this policy; each of the tenant's if absent",
        )
        .conflicts_with("repository"),
    )
    .arg(flag(
        "repository",
        "REPOSITORY",
        "In this repository, by all policies that cover it",
    ))
    .arg(tenant_flag());
    let run = leaf(
        "run",
        "Run a retention policy now",
        "  berth-registry retention run apps/ci --tenant acme",
    )
    .arg(positional("policy", "Its name, as `retention list` shows it"))
    .arg(tenant_flag());
    let explain = leaf(
        "explain",
        "Say why a tag stays or goes",
        "  berth-registry retention explain team-a/api v1.2.3 --tenant acme",
    )
    .arg(positional(
        "repository",
        "The repository, by its name or an alias",
    ))
    .arg(positional("tag", "The tag"))
    .arg(tenant_flag());
    group(
        NAME,
        "Retention policies: list, preview, run, explain",
        [list, preview, run, explain],
    )
}

/// Does what the matches of a leaf say.
pub(super) async fn run(settings: &Settings, leaf: &str, matches: &ArgMatches, output: Output) -> Ended {
    let text = |name: &str| matches.get_one::<String>(name).map_or("", String::as_str);
    let path = format!("{}/retention", tenant_path(matches));
    let client = Client::open(settings).await?;
    match leaf {
        "list" => show(output, &client.ask(Method::GET, &path, None).await?, list),
        "preview" => match ["policy", "repository"]
            .into_iter()
            .find(|kind| !text(kind).is_empty())
        {
            None => show(output, &preview_all(&client, &path).await?, previews),
            Some(kind) => {
                let path = format!("{path}/preview?{kind}={}", query(text(kind)));
                show(output, &client.ask(Method::POST, &path, None).await?, preview)
            }
        },
        "run" => {
            let ran = to_its_end(&client, &path, text("policy")).await?;
            show(output, &ran, outcome)?;
            match ran["lastRun"]["error"].as_str() {
                Some(error) => Err(RunFailed(error.to_owned()).into()),
                None => Ok(()),
            }
        }
        _ => {
            let (repository, tag) = (query(text("repository")), query(text("tag")));
            let path = format!("{path}/explain?repository={repository}&tag={tag}");
            show(output, &client.ask(Method::GET, &path, None).await?, yaml)
        }
    }
}

/// What each policy would delete, with its name.
async fn preview_all(client: &Client, path: &str) -> Result<Value, Box<dyn Error>> {
    let policies = client.ask(Method::GET, path, None).await?;
    let mut all = Vec::new();
    for policy in policies.as_array().into_iter().flatten() {
        let name = plain(&policy["policy"]);
        let path = format!("{path}/preview?policy={}", query(&name));
        let mut would = client.ask(Method::POST, &path, None).await?;
        would["policy"] = name.into();
        all.push(would);
    }
    Ok(all.into())
}

/// Runs a policy, and waits for the end of the run however long it takes.
async fn to_its_end(client: &Client, path: &str, policy: &str) -> Result<Value, Box<dyn Error>> {
    let of = format!("policy={}", query(policy));
    let mut state = client
        .ask(Method::POST, &format!("{path}/run?{of}"), None)
        .await?;
    while state["running"] == true {
        tokio::time::sleep(EVERY).await;
        state = client.ask(Method::GET, &format!("{path}?{of}"), None).await?;
    }
    Ok(state)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn list(policies: &Value) -> String {
    let row = |policy: &Value| {
        let (run, preview) = (&policy["lastRun"], &policy["preview"]);
        let told = |value: &Value| value.as_u64().map(bytes);
        let outcome = match run["error"].as_str() {
            Some(error) => format!("failed: {error}"),
            None if run["dryRun"] == true => "dry run".to_owned(),
            None => plain(&run["deletedTags"]),
        };
        json!({
            "policy": policy["policy"], "last": run["at"], "deleted": outcome, "next": policy["nextRun"],
            "would": preview["wouldDelete"], "reclaimable": told(&preview["reclaimable"]),
        })
    };
    let rows: Vec<Value> = policies.as_array().into_iter().flatten().map(row).collect();
    let columns = [
        "POLICY",
        "LAST RUN",
        "DELETED",
        "WOULD DELETE",
        "RECLAIMABLE",
        "NEXT RUN",
    ];
    Table::of(
        columns,
        ["policy", "last", "deleted", "would", "reclaimable", "next"],
        &rows.into(),
    )
    .to_string()
}

fn preview(would: &Value) -> String {
    let going = number(&would["wouldDelete"]);
    let mut text = format!(
        "{going} of {} tags would be deleted, {} would become free\n",
        number(&would["evaluated"]),
        bytes(number(&would["reclaimable"]))
    );
    let sample = would["sample"].as_array().map(Vec::as_slice).unwrap_or_default();
    for tag in sample {
        text.push_str(&format!("  {}\n", plain(tag)));
    }
    let more = going.saturating_sub(sample.len() as u64);
    if more > 0 && !sample.is_empty() {
        text.push_str(&format!("  and {more} more\n"));
    }
    text
}

fn previews(all: &Value) -> String {
    let each = |would: &Value| format!("{}: {}", plain(&would["policy"]), preview(would));
    let policies = all.as_array().map(Vec::as_slice).unwrap_or_default();
    if policies.is_empty() {
        return "there is no retention policy: every tag stays\n".to_owned();
    }
    policies.iter().map(each).collect()
}

fn outcome(state: &Value) -> String {
    let run = &state["lastRun"];
    let (policy, evaluated) = (plain(&state["policy"]), number(&run["evaluated"]));
    if run["error"].is_string() {
        return String::new();
    }
    if run["dryRun"] == true {
        let would = preview(&state["preview"]);
        return format!("{policy} only reports: {would}");
    }
    format!(
        "{policy}: {} of {evaluated} tags deleted; {} become free once they cannot be brought back any more\n",
        number(&run["deletedTags"]),
        bytes(number(&run["reclaimable"]))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_names_some_tags_and_counts_the_others() {
        let would =
            json!({ "evaluated": 9, "wouldDelete": 3, "reclaimable": 2048, "sample": ["a:1", "a:2"] });
        assert_eq!(
            preview(&would),
            "3 of 9 tags would be deleted, 2.0 KiB would become free\n  a:1\n  a:2\n  and 1 more\n"
        );
        assert_eq!(
            previews(&json!([])),
            "there is no retention policy: every tag stays\n"
        );
    }

    #[test]
    fn a_list_shows_what_failed_and_what_never_ran() {
        let policies = json!([
            { "policy": "ns/new" },
            { "policy": "ns/bad", "lastRun": { "at": "2026-11-01T00:00:00Z", "error": "no answer", "deletedTags": 0 } },
        ]);
        let text = list(&policies);
        assert!(text.contains("ns/new  -                     -"), "{text}");
        assert!(
            text.contains("ns/bad  2026-11-01T00:00:00Z  failed: no answer"),
            "{text}"
        );
    }
}
