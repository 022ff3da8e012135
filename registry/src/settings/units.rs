//! Sizes, rates and times as people write them: `16MiB`, `1KiB/s`, `90s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes: `512MiB`, `5GB`, `4096`. At most 2⁶³ bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// A number of bytes a second: a [`Size`], with or without `/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64);

/// A length of time above zero: `500ms`, `30s`, `5m`, `24h`, `7d`, or several of them, `1h30m`.
/// At most ten years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

const SPANS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

const LONGEST_SPAN_MS: u64 = 3650 * 86_400_000;

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = split_number(text.trim())?;
        let unit = unit.trim();
        let factor = if unit.is_empty() {
            1
        } else {
            let known = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
            known
                .ok_or("the unit is none of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB")?
                .1
        };
        let bytes = number
            .checked_mul(factor)
            .filter(|bytes| *bytes <= i64::MAX as u64);
        bytes.map(Self).ok_or("that is too large")
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, factor): &&(&str, u64)| self.0 >= *factor && self.0.is_multiple_of(*factor);
        match SIZES.iter().take(4).find(fits) {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        text.strip_suffix("/s")
            .unwrap_or(text)
            .parse::<Size>()
            .map(|size| Self(size.0))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", Size(self.0))
    }
}

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rest = text.trim();
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (number, after) = split_number(rest)?;
            let unit_length = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, next) = after.split_at(unit_length);
            let known = SPANS.iter().find(|(name, _)| *name == unit.trim());
            let factor = known.ok_or("the unit is none of ms, s, m, h, d")?.1;
            let part = number.checked_mul(factor);
            total = part
                .and_then(|part| total.checked_add(part))
                .ok_or("that is too long")?;
            rest = next;
        }
        match total {
            0 => Err("a time must be longer than zero"),
            total if total > LONGEST_SPAN_MS => Err("that is longer than ten years"),
            total => Ok(Self(Duration::from_millis(total))),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let fits = |(_, factor): &&(&str, u64)| milliseconds.is_multiple_of(*factor) && milliseconds > 0;
        // 24h reads better than 1d, 90s better than 1m30s: one unit, and days only from two on.
        let suitable = SPANS
            .iter()
            .filter(|(name, factor)| *name != "d" || milliseconds >= 2 * factor);
        match suitable.clone().find(fits) {
            Some((name, factor)) => write!(f, "{}{name}", milliseconds / factor),
            None => write!(f, "{milliseconds}ms"),
        }
    }
}

/// The whole number at the start of `text`, and what follows it.
fn split_number(text: &str) -> Result<(u64, &str), &'static str> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if end == 0 {
        return Err("it does not start with a whole number");
    }
    let (number, rest) = text.split_at(end);
    number
        .parse()
        .map(|number| (number, rest))
        .map_err(|_| "the number is too large")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_in_decimal_and_binary_units_and_print_in_the_largest_that_fits() {
        for (text, bytes, printed) in [
            ("512MiB", 536_870_912, "512MiB"),
            ("16 mib", 16_777_216, "16MiB"),
            ("5GB", 5_000_000_000, "5000000000"),
            ("4096", 4096, "4KiB"),
            ("0", 0, "0"),
            ("1000B", 1000, "1000"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, printed), "{text}");
            assert_eq!(size.to_string().parse(), Ok(size), "{text}");
        }
    }

    #[test]
    fn sizes_that_are_not_sizes_are_refused() {
        for text in [
            "",
            "MiB",
            "-1",
            "1.5GiB",
            "1Mib2",
            "99999999999TiB",
            "18446744073709551615",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn times_read_with_units_and_print_in_one_unit() {
        for (text, milliseconds, printed) in [
            ("30s", 30_000, "30s"),
            ("90s", 90_000, "90s"),
            ("5m", 300_000, "5m"),
            ("24h", 86_400_000, "24h"),
            ("7d", 604_800_000, "7d"),
            ("1h30m", 5_400_000, "90m"),
            ("250ms", 250, "250ms"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0, Duration::from_millis(milliseconds), "{text}");
            assert_eq!(span.to_string(), printed, "{text}");
            assert_eq!(span.to_string().parse(), Ok(span), "{text}");
        }
    }

    #[test]
    fn times_that_are_not_times_are_refused() {
        for text in [
            "",
            "0s",
            "30",
            "s",
            "-5s",
            "1.5h",
            "5 minutes",
            "9999999999999999999h",
            "4000d",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn rates_take_a_size_with_or_without_per_second() {
        assert_eq!("1KiB/s".parse(), Ok(Rate(1024)));
        assert_eq!("1KiB".parse(), Ok(Rate(1024)));
        assert_eq!(Rate(1024).to_string(), "1KiB/s");
    }
}
