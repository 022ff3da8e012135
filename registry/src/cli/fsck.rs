//! `fsck`: has the stores checked against each other, and shows how far that is.
//!
//! The server does it, if one answers; else this process, on the server's stores. Either way the state of the check
//! is in the metadata store, and the same command goes on with a check that was cut off.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command};
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::administer::{leaf, plain, show};
use super::client::{AskError, Client};
use super::signals::Signals;
use super::table::{Table, bytes};
use super::{Ended, Output};
use crate::settings::Settings;
use crate::settings::units::Rate;

/// Its name on the command line.
pub(super) const NAME: &str = "fsck";

/// Its path in the admin API.
const PATH: &str = "/admin/v1/fsck";
/// Between two looks at a check: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Between two lines where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How long a server that is started again is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Repositories of a finding that are named in a line.
const NAMED: usize = 3;

/// Why the stores are not known to be sound.
#[derive(Debug, thiserror::Error)]
enum FsckError {
    #[error("{0} findings remain; docs/fsck.md says what each of them means and what to do")]
    Remain(u64),
    #[error("the check was stopped before it had seen everything")]
    Stopped,
    #[error("the check cannot go on: {0}")]
    Failed(String),
    #[error(
        "a check with other options runs since {0}: wait for its end, or stop it by `berth-registry fsck --stop`"
    )]
    Other(String),
    #[error("no server answers, and this process would end: leave out --detach")]
    Alone,
    #[error("interrupted; {0}")]
    Interrupted(&'static str),
}

/// Its arguments.
pub(super) fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    leaf(
        NAME,
        "Check the blob store against the metadata store; 0 if nothing is wrong, or all of it was repaired",
        "  berth-registry fsck\n  berth-registry fsck --rehash --rate 50MiB\n  berth-registry fsck --repair -o json",
    )
    .arg(flag("rehash", "Read every object and compare its digest"))
    .arg(flag("repair", "Take care of what can be taken care of without a loss"))
    .arg(flag("forget-lost", "Forget blobs whose objects are gone, so that clients push them again"))
    .arg(
        Arg::new("rate")
            .long("rate")
            .value_name("SIZE")
            .value_parser(rate)
            .help("Most bytes a second that --rehash reads, like 50MiB"),
    )
    .arg(flag("detach", "Only start it; the server goes on alone"))
    .arg(flag("stop", "Stop the check that runs").conflicts_with_all(["rehash", "repair", "forget-lost", "rate", "detach"]))
}

fn rate(text: &str) -> Result<u64, String> {
    match text.parse::<Rate>() {
        Ok(Rate(0)) => Err("at least one byte a second".to_owned()),
        Ok(Rate(rate)) => Ok(rate),
        Err(error) => Err(error.to_owned()),
    }
}

/// Starts a check, or finds the one that runs, and follows it to its end.
pub(super) async fn run(settings: &Settings, matches: &ArgMatches, output: Output) -> Ended {
    let mut signals = Signals::new()?;
    let client = Client::open(settings).await?;
    if matches.get_flag("stop") {
        let stopped = client.ask(Method::DELETE, PATH, None).await?;
        return show(output, &stopped, |stopped| format!("{}\n", summary(stopped)));
    }
    if matches.get_flag("detach") && !client.is_server() {
        return Err(FsckError::Alone.into());
    }
    let mut options = json!({ "rehash": matches.get_flag("rehash"), "repair": matches.get_flag("repair") });
    if matches.get_flag("forget-lost") {
        options["forgetLost"] = true.into();
    }
    if let Some(rate) = matches.get_one::<u64>("rate") {
        options["rate"] = (*rate).into();
    }

    // 1. The check that runs, or a new one.
    let found = client.ask(Method::GET, PATH, None).await?;
    let started = match found["state"].as_str() {
        Some("Running") if found["options"] == options => {
            eprintln!(
                "a check runs since {}; this is how far it is",
                plain(&found["startedAt"])
            );
            found
        }
        Some("Running") => return Err(FsckError::Other(plain(&found["startedAt"])).into()),
        _ => client.ask(Method::POST, PATH, Some(&options)).await?,
    };
    if matches.get_flag("detach") {
        return show(output, &started, |_| {
            "the check has been started; `berth-registry fsck` with the same options shows how far it is\n"
                .to_owned()
        });
    }

    // 2. To its end.
    let progress = Display::new();
    let ended = tokio::select! {
        ended = follow(&client, &options, progress) => ended?,
        _ = signals.stop() => return Err(FsckError::Interrupted(what_goes_on(&client)).into()),
    };

    // 3. What it has found.
    show(output, &ended, report)?;
    match (ended["state"].as_str(), ended["remaining"].as_u64()) {
        (Some("Done"), Some(0)) => Ok(()),
        (Some("Done"), remaining) => Err(FsckError::Remain(remaining.unwrap_or_default()).into()),
        (Some("Failed"), _) => Err(FsckError::Failed(plain(&ended["trouble"])).into()),
        _ => Err(FsckError::Stopped.into()),
    }
}

fn what_goes_on(client: &Client) -> &'static str {
    if client.is_server() {
        "the check goes on in the server: the same command shows how far it is, `berth-registry fsck --stop` stops it"
    } else {
        "what has been checked is stored: the same command goes on from there"
    }
}

async fn follow(client: &Client, options: &Value, mut display: Display) -> Result<Value, Box<dyn Error>> {
    let (mut answered, mut pause) = (Instant::now(), PAUSES.0);
    loop {
        match client.ask(Method::GET, PATH, None).await {
            Ok(state) => {
                answered = Instant::now();
                match state["state"].as_str() {
                    Some("Running") => display.show(&state),
                    // Whoever worked on it has died. Another process may take it up first, which is as good.
                    Some("Interrupted") => drop(client.ask(Method::POST, PATH, Some(options)).await),
                    _ => {
                        display.clear();
                        return Ok(state);
                    }
                }
            }
            Err(error) if is_passing(&*error) && answered.elapsed() < PATIENCE => {
                display.say("the server does not answer; waiting");
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(PAUSES.1);
    }
}

/// Whether a server may only be starting again.
fn is_passing(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(AskError::Unreachable { .. }))
}

/// A bar on a terminal, else a line now and then; both on standard error.
struct Display {
    bar: Option<ProgressBar>,
    said: Option<Instant>,
}

impl Display {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{bar:32} {msg}");
        let bar = style
            .ok()
            .filter(|_| io::stderr().is_terminal())
            .map(|style| ProgressBar::new(1000).with_style(style.progress_chars("=> ")));
        Self { bar, said: None }
    }

    fn show(&mut self, state: &Value) {
        if let (Some(bar), Some(percent)) = (&self.bar, state["percent"].as_f64()) {
            // Between 0 and 1000.
            bar.set_position((percent * 10.0) as u64);
        }
        self.say(&progress(state));
    }

    fn say(&mut self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
            bar.tick();
        } else if self.said.is_none_or(|said| said.elapsed() >= LINE_EVERY) {
            self.said = Some(Instant::now());
            // Nobody may be reading.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    fn clear(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How far a check is, in a line.
fn progress(state: &Value) -> String {
    let percent = state["percent"].as_f64();
    let mut text = percent
        .map(|percent| format!("{percent:.1} %, "))
        .unwrap_or_default();
    text.push_str(&plain(&state["phase"]));
    let is_bytes = state["phase"] == "contents of blobs";
    let amount = |field: &str| state[field].as_u64().map(|number| amount(number, is_bytes));
    if let Some(done) = amount("done") {
        text.push_str(&format!(": {done}"));
    }
    if let Some(total) = amount("total") {
        text.push_str(&format!(" of {total}"));
    }
    if let Some(found) = state["found"].as_u64().filter(|found| *found > 0) {
        text.push_str(&format!(", {found} findings"));
    }
    if let Some(trouble) = state["trouble"].as_str() {
        text.push_str(&format!(", waiting: {trouble}"));
    }
    text
}

fn amount(number: u64, is_bytes: bool) -> String {
    if is_bytes {
        bytes(number)
    } else {
        number.to_string()
    }
}

/// What came of a check, in a line.
fn summary(state: &Value) -> String {
    if state["state"] == "Never" {
        return "there was no check yet".to_owned();
    }
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let checked = &state["checked"];
    let mut text = format!(
        "{}: {} rows, {} blobs and {} objects checked",
        plain(&state["state"]).to_lowercase(),
        number(&checked["rows"]),
        number(&checked["blobs"]),
        number(&checked["objects"])
    );
    if number(&checked["bytesRehashed"]) > 0 {
        text.push_str(&format!(", {} read", bytes(number(&checked["bytesRehashed"]))));
    }
    let found = number(&state["found"]);
    if found == 0 {
        text.push_str("; nothing is wrong");
    } else {
        text.push_str(&format!(
            "; {found} findings, {} repaired",
            number(&state["repaired"])
        ));
    }
    text
}

/// What came of a check, for people.
fn report(state: &Value) -> String {
    let findings = state["findings"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut text = String::new();
    if !findings.is_empty() {
        let rows: Vec<Value> = findings.iter().map(row).collect();
        let columns = ["KIND", "TENANT", "REPOSITORY", "WHAT", "REPAIRED", "DETAIL"];
        let fields = ["kind", "tenant", "repository", "what", "repaired", "detail"];
        text.push_str(&Table::of(columns, fields, &rows.into()).to_string());
        text.push('\n');
    }
    let found = state["found"].as_u64().unwrap_or_default();
    if found > findings.len() as u64 {
        text.push_str(&format!(
            "{} more are only counted\n",
            found - findings.len() as u64
        ));
    }
    if let Some(warning) = state["warning"].as_str() {
        text.push_str(&format!("{warning}\n"));
    }
    text.push_str(&summary(state));
    text.push('\n');
    text
}

fn row(finding: &Value) -> Value {
    let named: Vec<&str> = finding["repositories"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut repository = plain(&finding["repository"]);
    if !named.is_empty() {
        repository = named[..named.len().min(NAMED)].join(",");
        if named.len() > NAMED {
            repository.push_str(&format!(",+{}", named.len() - NAMED));
        }
    }
    let what: Vec<String> = ["tag", "digest", "object"]
        .iter()
        .filter_map(|field| finding[*field].as_str().map(str::to_owned))
        .collect();
    json!({
        "kind": finding["kind"],
        "tenant": finding["tenant"],
        "repository": repository,
        "what": what.join(" "),
        "repaired": if finding["repaired"] == true { "yes" } else { "no" },
        "detail": finding["detail"].as_str().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_each_finding_and_what_is_only_counted() {
        let repositories = ["a", "b", "c", "d", "e"];
        let state = json!({
            "state": "Done", "found": 3, "repaired": 1, "remaining": 2,
            "checked": { "rows": 10, "blobs": 2, "objects": 3, "bytesRehashed": 3 << 20 },
            "findings": [
                { "kind": "MissingObject", "tenant": "acme", "repositories": repositories, "digest": "sha256:1",
                  "object": "blobs/aa/1", "detail": "9 bytes are lost", "repaired": false },
                { "kind": "OrphanObject", "object": "blobs/aa/2", "repaired": true },
            ],
        });
        let text = report(&state);
        for part in [
            "MissingObject  acme    a,b,c,+2    sha256:1 blobs/aa/1  no",
            "OrphanObject   -       -           blobs/aa/2           yes",
            "1 more are only counted",
            "done: 10 rows, 2 blobs and 3 objects checked, 3.0 MiB read; 3 findings, 1 repaired",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn progress_is_a_line() {
        let state = json!({ "phase": "contents of blobs", "done": 3_u64 << 30, "total": 4_u64 << 30, "percent": 75.25, "found": 2 });
        assert_eq!(
            progress(&state),
            "75.2 %, contents of blobs: 3.0 GiB of 4.0 GiB, 2 findings"
        );
        assert_eq!(progress(&json!({ "phase": "counting" })), "counting");
    }
}
