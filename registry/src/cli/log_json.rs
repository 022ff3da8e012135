//! Log lines as JSON, one object a line, cheap enough for one per request.
//!
//! An event's fields and those of the spans around it stand side by side; where names meet, the inner one
//! counts. Times are UTC with microseconds.

use std::cell::RefCell;
use std::fmt::{self, Debug, Write as _};
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::log_writer::Lines;

/// Writes every event that reaches it.
pub(super) struct JsonLines {
    lines: Lines,
}

impl JsonLines {
    pub(super) fn new(lines: Lines) -> Self {
        Self { lines }
    }
}

/// A span's fields, their values as JSON already.
#[derive(Default)]
struct SpanFields(Vec<(&'static str, String)>);

thread_local! {
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

impl<S> Layer<S> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = SpanFields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<SpanFields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        LINE.with_borrow_mut(|line| {
            line.clear();
            line.push_str("{\"timestamp\":\"");
            push_time(line, SystemTime::now());
            line.push_str("\",\"level\":\"");
            line.push_str(event.metadata().level().as_str());
            line.push_str("\",\"target\":");
            push_string(line, event.metadata().target());
            event.record(&mut Pairs(line));
            let mut seen: Vec<&'static str> = Vec::new();
            for span in context.event_scope(event).into_iter().flatten() {
                let extensions = span.extensions();
                let Some(SpanFields(fields)) = extensions.get() else {
                    continue;
                };
                for (name, value) in fields {
                    if event.metadata().fields().field(name).is_none() && !seen.contains(name) {
                        seen.push(name);
                        push_name(line, name);
                        line.push_str(value);
                    }
                }
            }
            line.push_str("}\n");
            // Lines only collects bytes; it does not fail.
            let _ = self.lines.clone().write_all(line.as_bytes());
        });
    }
}

impl SpanFields {
    fn set(&mut self, field: &Field, value: String) {
        // What is for traces alone.
        if field.name().starts_with("otel.") {
            return;
        }
        match self.0.iter_mut().find(|(name, _)| *name == field.name()) {
            Some((_, old)) => *old = value,
            None => self.0.push((field.name(), value)),
        }
    }
}

impl Visit for SpanFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        let mut text = String::with_capacity(value.len() + 2);
        push_string(&mut text, value);
        self.set(field, text);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        push_debug(&mut text, value);
        self.set(field, text);
    }
}

/// Appends an event's fields to its line.
struct Pairs<'a>(&'a mut String);

impl Pairs<'_> {
    fn push(&mut self, field: &Field, value: impl fmt::Display) {
        push_name(self.0, field.name());
        // Writing to a string does not fail.
        let _ = write!(self.0, "{value}");
    }
}

impl Visit for Pairs<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        push_name(self.0, field.name());
        push_string(self.0, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.push(field, value)
        } else {
            self.push(field, "null")
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        push_name(self.0, field.name());
        push_debug(self.0, value);
    }
}

fn push_name(line: &mut String, name: &str) {
    line.push(',');
    push_string(line, name);
    line.push(':');
}

fn push_debug(line: &mut String, value: &dyn Debug) {
    line.push('"');
    let _ = write!(Escaped(line), "{value:?}");
    line.push('"');
}

fn push_string(line: &mut String, text: &str) {
    line.push('"');
    let _ = Escaped(line).write_str(text);
    line.push('"');
}

/// Escapes what JSON must have escaped, and nothing else.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\' || byte == 0x7f;
        if !text.bytes().any(special) {
            self.0.push_str(text);
            return Ok(());
        }
        for character in text.chars() {
            match character {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                // Terminals act on the other control characters, also on DEL.
                control if control < ' ' || control == '\x7f' => write!(self.0, "\\u{:04x}", control as u32)?,
                other => self.0.push(other),
            }
        }
        Ok(())
    }
}

/// `2026-11-24T00:04:05.000006Z`.
fn push_time(line: &mut String, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let micros = since.subsec_micros();
    let _ = write!(
        line,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
    );
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. The year is taken to
/// begin in March, so that the leap day is its last; 719,468 days lie between 0000-03-01 and 1970-01-01.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let era = day / 146_097;
    let of_era = day % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (
        era * 400 + year_of_era + u64::from(month <= 2),
        month,
        day_of_month,
    )
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::log_writer::LogWriter;
    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines_of(work: impl FnOnce()) -> Vec<Value> {
        let kept = Kept::default();
        let writer = LogWriter::start(kept.clone()).unwrap();
        let subscriber = tracing_subscriber::registry().with(JsonLines::new(writer.lines()));
        tracing::subscriber::with_default(subscriber, work);
        drop(writer);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn every_kind_of_value_reads_back_and_nothing_breaks_out_of_its_string() {
        let evil = "a\"b\\c\nd\u{1b}[31me\u{7f}é";
        let lines = lines_of(|| {
            tracing::warn!(evil, shown = %evil, u = 1_u64, i = -2_i64, f = 0.5_f64, nan = f64::NAN, yes = true, "said {evil}");
        });
        let line = &lines[0];
        assert_eq!(line["evil"], evil);
        assert_eq!(line["shown"], evil);
        assert_eq!(line["message"], format!("said {evil}"));
        assert_eq!(
            [&line["u"], &line["i"], &line["f"], &line["nan"], &line["yes"]].map(Value::clone),
            [json!(1), json!(-2), json!(0.5), Value::Null, json!(true)]
        );
        assert_eq!(line["level"], "WARN");
    }

    #[test]
    fn an_event_carries_the_fields_of_its_spans_and_the_inner_name_counts() {
        let lines = lines_of(|| {
            let outer = tracing::info_span!(
                "outer",
                request_id = "r1",
                tenant = "a",
                late = tracing::field::Empty
            );
            outer.record("late", 7);
            let _outer = outer.enter();
            let _inner = tracing::info_span!("inner", tenant = "b").entered();
            tracing::info!(request_id = "r2", "done");
        });
        assert_eq!(lines[0]["request_id"], "r2");
        assert_eq!(lines[0]["tenant"], "b");
        assert_eq!(lines[0]["late"], 7);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            let mut line = String::new();
            push_time(&mut line, UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(line, text);
        }
    }
}
