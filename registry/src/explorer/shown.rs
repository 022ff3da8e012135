//! Figures and times as people read them.

use maud::{Markup, html};

use super::path;
use crate::metadata::Time;
use crate::rfc3339;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const SECOND: i64 = 1_000_000;

/// A number of bytes, to three digits; the exact one is what the pointer shows.
pub fn size(bytes: u64) -> Markup {
    html! { data value=(bytes) title=(format!("{} bytes", grouped(bytes))) { (size_text(bytes)) } }
}

/// The same as text.
pub fn size_text(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Shown to three digits: what a float loses is not seen.
    #[expect(clippy::cast_precision_loss)]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time by how long ago it is; the exact one is what the pointer shows.
pub fn time(at: Time, now: Time) -> Markup {
    let exact = rfc3339::write(Time(at.0 / SECOND * SECOND));
    html! { time datetime=(exact) title=(exact) { (ago(at, now)) } }
}

/// How long ago.
pub fn ago(at: Time, now: Time) -> String {
    let seconds = (now.0 - at.0) / SECOND;
    let (count, unit) = match seconds.unsigned_abs() {
        0..60 => return "just now".to_owned(),
        seconds @ 60..3600 => (seconds / 60, "minute"),
        seconds @ 3600..86_400 => (seconds / 3600, "hour"),
        seconds @ 86_400..2_592_000 => (seconds / 86_400, "day"),
        seconds @ 2_592_000..31_536_000 => (seconds / 2_592_000, "month"),
        seconds => (seconds / 31_536_000, "year"),
    };
    let plural = if count == 1 { "" } else { "s" };
    match seconds {
        0.. => format!("{count} {unit}{plural} ago"),
        _ => format!("in {count} {unit}{plural}"),
    }
}

/// A span of time by its largest unit.
pub fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// The heading of a column.
#[derive(Debug, Clone, Copy)]
pub enum Column<'t> {
    /// Of texts.
    Text(&'t str),
    /// Of numbers, which stand below each other.
    Number(&'t str),
    /// Of what says itself what it is; only heard.
    Hidden(&'t str),
}

/// A table that scrolls by itself where it is wider than the page.
pub fn table(title: &str, columns: &[Column<'_>], rows: &Markup) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label=(format!("Table: {title}")) {
            table {
                caption.hidden { (title) }
                thead { tr {
                    @for column in columns {
                        @match column {
                            Column::Text(title) => th scope="col" { (title) },
                            Column::Number(title) => th.number scope="col" { (title) },
                            Column::Hidden(title) => th scope="col" { span.hidden { (title) } },
                        }
                    }
                } }
                tbody { (rows) }
            }
        }
    }
}

/// Longest text of one cell, in characters.
const CELL: usize = 2000;

/// At most the beginning of a text.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What is said where a table ends before its content does.
pub fn more(count: usize, rows: usize) -> Markup {
    html! {
        @if count > rows { p.hint { "The first " (rows) " of " (count) " are shown; the JSON has all." } }
    }
}

/// The way to a page of a repository.
pub fn crumbs(repository: Option<&str>) -> Markup {
    html! {
        nav.crumbs aria-label="Place" {
            a href=(path::ROOT) { "Repositories" }
            @if let Some(name) = repository { " / " a href=(path::of_repository(name)) { (name) } }
        }
    }
}

/// The beginning of a digest; the whole is what the pointer shows, and what is copied.
pub fn digest(digest: &str) -> Markup {
    let (algorithm, hash) = digest.split_once(':').unwrap_or(("", digest));
    let short = hash.get(..12).unwrap_or(hash);
    html! { code.digest title=(digest) { (algorithm) ":" (short) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (10 * 1024 * 1024, "10.0 MiB"),
            (123 * 1024 * 1024, "123 MiB"),
            (1023 * 1024, "1.00 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size_text(bytes), expected, "{bytes}");
        }
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
    }

    #[test]
    fn times_are_told_by_their_largest_unit() {
        let now = Time(1_000_000_000 * SECOND);
        let before = |seconds: i64| ago(Time(now.0 - seconds * SECOND), now);
        assert_eq!(before(3), "just now");
        assert_eq!(before(61), "1 minute ago");
        assert_eq!(before(7200), "2 hours ago");
        assert_eq!(before(86_400 * 40), "1 month ago");
        assert_eq!(before(-86_400 * 3), "in 3 days");
    }
}
