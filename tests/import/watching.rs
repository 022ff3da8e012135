//! Pass after pass, until it is told to end.

use std::process::Stdio;
use std::time::Duration;

use harness::{Fault, Signal};
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use super::{MIB, Place, WAIT, number, push_layer};

/// An import that goes on.
struct Watching {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(place: &Place, interval: &str) -> Watching {
        let command = place.command(&[&format!("--watch={interval}")]);
        let mut command = tokio::process::Command::from(command);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the import starts");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Watching { child, lines }
    }

    /// The next report that fits.
    async fn report(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let line = self.lines.next_line().await.expect("its output");
                let line: Value = serde_json::from_str(&line.expect("another line")).expect("JSON");
                if line["event"] == "report" && fits(&line) {
                    return line;
                }
            }
        };
        harness::within("a report", WAIT, found).await
    }

    /// Asks it to end; its exit code.
    async fn end(mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        self.ended().await
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().expect("it runs").cast_signed()).expect("a process id");
        kill_process(pid, signal).expect("it takes signals");
    }

    async fn ended(&mut self) -> Option<i32> {
        let ended = harness::within("its end", Duration::from_secs(10), self.child.wait()).await;
        ended.expect("it ends").code()
    }
}

fn tags(report: &Value, figure: &str) -> u64 {
    number(&report["tags"][figure])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_at_the_source_follow_and_nothing_else_is_copied() {
    let place = Place::new().await;
    place.pushed("app", "v1", 1).await;
    let mut watching = Watching::start(&place, "200ms");
    let first = watching.report(|_| true).await;
    assert_eq!((tags(&first, "set"), number(&first["pass"])), (1, 1), "{first}");
    let quiet = watching.report(|_| true).await;
    assert_eq!((tags(&quiet, "set"), number(&quiet["bytes"])), (0, 0), "{quiet}");

    let second = place.pushed("app", "v2", 2).await;
    let moved = place.pushed("app", "v1", 3).await;
    let new = place.pushed("another", "v1", 4).await;
    watching
        .report(|report| tags(report, "equal") == 3 && tags(report, "set") == 0)
        .await;
    second.assert_pullable(&place.here("app"), "v2").await;
    moved.assert_pullable(&place.here("app"), "v1").await;
    new.assert_pullable(&place.here("another"), "v1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_with_what_the_last_pass_has_found() {
    let place = Place::new().await;
    place.pushed("app", "v1", 1).await;
    for signal in [Signal::INT, Signal::TERM] {
        let mut watching = Watching::start(&place, "1h");
        let report = watching.report(|_| true).await;
        assert_eq!(report["equal"], true, "{report}");
        assert_eq!(watching.end(signal).await, Some(0));
    }
    place
        .way
        .always("GET", "/manifests/sha256", Fault::Answered(400, vec![]));
    place.pushed("app", "v2", 2).await;
    let mut watching = Watching::start(&place, "1h");
    let report = watching.report(|_| true).await;
    assert_eq!(report["equal"], false, "{report}");
    assert_eq!(watching.end(Signal::TERM).await, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_middle_of_a_pass_it_ends_at_once_and_says_so() {
    let place = Place::new().await;
    let layer = harness::content::blob(32 * MIB, 1);
    let digest = push_layer(&place.there("app"), "v1", &layer).await;
    let path = format!("/blobs/{digest}");
    place.way.once("GET", &path, Fault::Held(20 * MIB as u64));
    let mut watching = Watching::start(&place, "1h");
    harness::eventually("half of the layer", WAIT, async || {
        let asked = place.way.questions("GET", &path);
        asked
            .iter()
            .any(|question| question.sent() >= 20 * MIB as u64)
            .then_some(())
    })
    .await;
    watching.signal(Signal::INT);
    let report = watching.report(|_| true).await;
    assert_eq!(
        (&report["interrupted"], &report["equal"]),
        (&true.into(), &false.into()),
        "{report}"
    );
    assert_eq!(watching.ended().await, Some(1));
    place.way.release();

    place.import(&[]).await.all_equal();
    place.here("app").assert_blob(&digest, &layer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_gone_for_a_pass_does_not_end_it() {
    let place = Place::new().await;
    place.pushed("app", "v1", 1).await;
    let mut watching = Watching::start(&place, "200ms");
    watching.report(|_| true).await;
    place
        .way
        .times(2, "GET", "/_catalog", Fault::Answered(403, vec![]));
    place.pushed("app", "v2", 2).await;
    watching.report(|report| tags(report, "equal") == 2).await;
    assert!(place.way.count("GET", "/_catalog") >= 4);
}
