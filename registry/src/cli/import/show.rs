//! How an import is shown: a bar where people look, else lines; and its report.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _, stderr, stdout};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::super::Output;
use super::super::table::{Table, bytes};
use crate::import::{Event, Problem, Report, Trouble, Watcher};
use crate::rfc3339;

/// Where one pass is shown.
pub(super) struct Shown {
    output: Output,
    bar: Option<ProgressBar>,
    tags: Cell<(usize, usize)>,
}

impl Shown {
    /// A bar on a terminal, unless the output is for programs.
    pub(super) fn new(output: Output) -> Self {
        let bar = (output == Output::Text && stderr().is_terminal())
            .then(bar)
            .flatten();
        Self {
            output,
            bar,
            tags: Cell::default(),
        }
    }

    /// No bar: nothing is known yet that it could show.
    pub(super) fn without_bar(output: Output) -> Self {
        Self {
            output,
            bar: None,
            tags: Cell::default(),
        }
    }

    /// A line for people.
    pub(super) fn say(&self, line: &str) {
        let write = || {
            let _ = writeln!(stderr(), "{line}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// What came of it.
    pub(super) fn report(
        &self,
        report: &Report,
        pass: u32,
        took: Duration,
        dry_run: bool,
        interrupted: bool,
    ) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        match self.output {
            Output::Json => line(&document(report, pass, took, dry_run, interrupted)),
            Output::Text => print(&text(report, took, dry_run)),
        }
    }

    fn count(&self, done: usize, all: usize) {
        let (before_done, before_all) = self.tags.get();
        let (done, all) = (before_done + done, before_all + all);
        self.tags.set((done, all));
        if let Some(bar) = &self.bar {
            bar.set_message(format!("tags {done}/{all}"));
        }
    }
}

impl Watcher for Shown {
    fn hear(&self, event: &Event<'_>) {
        match *event {
            Event::Repositories(_) => {}
            Event::Tags(count) => self.count(0, count),
            Event::TagDone => self.count(1, 0),
            Event::Found(size) => {
                if let Some(bar) = &self.bar {
                    bar.inc_length(size);
                }
            }
            Event::Moved(size) => {
                if let Some(bar) = &self.bar {
                    bar.inc(size);
                }
            }
            Event::Set {
                repository,
                tag,
                digest,
            } => {
                if self.output == Output::Json {
                    line(&json!({ "event": "set", "repository": repository, "tag": tag, "digest": digest }));
                }
            }
            Event::Trouble(problem) => match self.output {
                Output::Json => {
                    let mut told = json!(problem);
                    told["event"] = "problem".into();
                    line(&told);
                }
                Output::Text => self.say(&told(problem)),
            },
            Event::Waiting { host, until } => {
                let until = rfc3339::write(until);
                match self.output {
                    Output::Json => line(&json!({ "event": "waiting", "host": host, "until": until })),
                    Output::Text => self.say(&format!(
                        "{host} is limited: nothing is asked of it until {until}"
                    )),
                }
            }
        }
    }
}

fn bar() -> Option<ProgressBar> {
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::new(0).with_style(style.ok()?).with_message("tags");
    bar.enable_steady_tick(Duration::from_millis(200));
    Some(bar)
}

/// Whoever does not listen any more misses nothing that matters.
fn print(text: &str) {
    let _ = stdout().write_all(text.as_bytes());
}

fn line(document: &Value) {
    print(&format!("{document}\n"));
}

fn told(problem: &Problem) -> String {
    let Problem {
        repository,
        reference,
        kind,
        why,
    } = problem;
    let kind = match kind {
        Trouble::Failed => "failed",
        Trouble::Skipped => "skipped",
        Trouble::Sparse => "absent",
    };
    let separator = match reference.as_str() {
        "" => "",
        digest if digest.contains(':') => "@",
        _ => ":",
    };
    let text = format!("{kind}: {repository}{separator}{reference}: {why}");
    // Some of it are the source's words.
    text.chars().filter(|c| !c.is_control()).collect()
}

/// The report as JSON.
fn document(report: &Report, pass: u32, took: Duration, dry_run: bool, interrupted: bool) -> Value {
    let mut document = json!(report.figures());
    document["event"] = "report".into();
    document["pass"] = pass.into();
    document["seconds"] = took.as_secs_f64().into();
    document["dryRun"] = dry_run.into();
    document["interrupted"] = interrupted.into();
    document["equal"] = (report.is_equal() && !interrupted).into();
    document["tags"] = json!(report.tags());
    document["repositories"] = json!(report.repositories());
    document["problems"] = json!(report.problems());
    document
}

/// The report for people.
fn text(report: &Report, took: Duration, dry_run: bool) -> String {
    let fields = [
        "source",
        "destination",
        "tags",
        "equal",
        "missing",
        "different",
        "unknown",
        "skipped",
        "set",
    ];
    let columns = [
        "SOURCE",
        "DESTINATION",
        "TAGS",
        "EQUAL",
        "MISSING",
        "DIFFERENT",
        "UNKNOWN",
        "SKIPPED",
        "SET",
    ];
    let table = Table::of(columns, fields, &json!(report.repositories()));
    let (figures, tags) = (report.figures(), report.tags());
    let mut summary = String::new();
    if dry_run {
        summary.push_str(&format!(
            "would copy {} manifests and {} blobs, {} in all, and set {} tags\n",
            figures.manifests_copied,
            figures.blobs_copied,
            bytes(figures.bytes_missing),
            tags.set
        ));
    } else {
        summary.push_str(&format!(
            "copied {} manifests and {} blobs, {} in {:.0?}; {} blobs were mounted, {} manifests and {} blobs were there\n",
            figures.manifests_copied,
            figures.blobs_copied,
            bytes(figures.bytes),
            took,
            figures.blobs_mounted,
            figures.manifests_present,
            figures.blobs_present
        ));
        if figures.bytes == 0 {
            summary.push_str("nothing was transferred: 0 bytes\n");
        }
    }
    summary.push_str(&format!(
        "{} of {} tags are equal; {} failed, {} skipped, {} absent at the source\n",
        tags.equal, tags.tags, figures.failed, figures.skipped, figures.sparse
    ));
    format!("{table}\n{summary}")
}
