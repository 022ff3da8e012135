//! How far something is: a bar on a terminal, lines where there is none, JSON lines where those are asked for.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::Output;
use super::signals::Signals;
use super::table::bytes;
use crate::backup::progress::{Progress, Seen};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(100);
/// Between two lines for people.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Between two lines of JSON.
const EVENT_EVERY: Duration = Duration::from_secs(1);

/// The person went away.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; what has been copied stays, and the same command goes on from there")]
struct Interrupted;

/// Does the work and shows how far it is; a signal ends it.
pub(super) async fn shown<T, E>(
    output: Output,
    progress: &Arc<Progress>,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Box<dyn Error>>
where
    E: Into<Box<dyn Error>>,
{
    let mut signals = Signals::new()?;
    let mut display = Display::new(output);
    let mut ticks = tokio::time::interval(EVERY);
    tokio::pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done.map_err(Into::into),
            _ = signals.stop() => break Err(Interrupted.into()),
            _ = ticks.tick() => display.show(progress.seen()),
        }
    };
    display.clear();
    done
}

/// The last line of JSON, or text.
pub(super) fn done(output: Output, result: Value, text: impl FnOnce(&Value) -> String) -> io::Result<()> {
    let shown = match output {
        Output::Text => text(&result),
        Output::Json => {
            let mut line = json!({ "event": "done" });
            if let (Some(line), Value::Object(fields)) = (line.as_object_mut(), result) {
                line.extend(fields);
            }
            format!("{line}\n")
        }
    };
    io::stdout().write_all(shown.as_bytes())
}

struct Display {
    output: Output,
    bar: Option<ProgressBar>,
    said: Option<(Instant, &'static str)>,
}

impl Display {
    fn new(output: Output) -> Self {
        let style = ProgressStyle::with_template("{bar:32} {percent:>3} % {msg} {eta}");
        let bar = style
            .ok()
            .filter(|_| output == Output::Text && io::stderr().is_terminal())
            .map(|style| ProgressBar::new(1000).with_style(style.progress_chars("=> ")));
        Self {
            output,
            bar,
            said: None,
        }
    }

    fn show(&mut self, seen: Seen) {
        if seen.step.is_empty() {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.set_position(permille(&seen));
            bar.set_message(line(&seen));
            bar.tick();
            return;
        }
        let every = match self.output {
            Output::Text => LINE_EVERY,
            Output::Json => EVENT_EVERY,
        };
        // A new step is told at once.
        let is_due = |(said, step): (Instant, &str)| said.elapsed() >= every || step != seen.step;
        if !self.said.is_none_or(is_due) {
            return;
        }
        self.said = Some((Instant::now(), seen.step));
        // Nobody may be reading.
        let _ = match self.output {
            Output::Text => writeln!(io::stderr(), "{}", line(&seen)),
            Output::Json => writeln!(io::stdout(), "{}", event(&seen)),
        };
    }

    fn clear(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How far a step is, from 0 to 1000.
fn permille(seen: &Seen) -> u64 {
    let (done, total) = match seen.total_bytes {
        0 => (seen.done, seen.total),
        _ => (seen.done_bytes, seen.total_bytes),
    };
    let permille = u128::from(done.min(total)) * 1000 / u128::from(total.max(1));
    u64::try_from(permille).unwrap_or(1000)
}

fn line(seen: &Seen) -> String {
    let mut text = seen.step.to_owned();
    if seen.total > 0 {
        text.push_str(&format!(": {} of {}", seen.done, seen.total));
    }
    if seen.total_bytes > 0 {
        text.push_str(&format!(
            ", {} of {}",
            bytes(seen.done_bytes),
            bytes(seen.total_bytes)
        ));
    }
    text
}

fn event(seen: &Seen) -> Value {
    json!({
        "event": "progress", "step": seen.step, "done": seen.done, "total": seen.total,
        "doneBytes": seen.done_bytes, "totalBytes": seen.total_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_by_what_is_counted_in_it() {
        let seen = Seen {
            step: "objects",
            done: 3,
            total: 4,
            done_bytes: 1 << 20,
            total_bytes: 2 << 20,
        };
        assert_eq!(line(&seen), "objects: 3 of 4, 1.0 MiB of 2.0 MiB");
        assert_eq!(permille(&seen), 500);
        let rows = Seen {
            total_bytes: 0,
            ..seen
        };
        assert_eq!((permille(&rows), line(&rows).as_str()), (750, "objects: 3 of 4"));
        assert_eq!(event(&seen)["doneBytes"], 1 << 20);
    }
}
