//! Byte ranges: `Range` of downloads (RFC 9110 §14) and `Content-Range` of upload chunks
//! (distribution-spec, "Pushing a blob in chunks").

use std::ops::Range;

/// Most ranges of one request that are answered as such; more, and the whole content is sent.
pub const RANGE_LIMIT: usize = 16;

/// What a `Range` header asks of content of a known size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requested {
    /// No usable range: send everything.
    Whole,
    /// One range, half open, not empty, within the content.
    One(Range<u64>),
    /// Several disjoint ranges in the order asked for.
    Many(Vec<Range<u64>>),
    /// A byte range, but nothing of it lies within the content.
    Unsatisfiable,
}

/// One `first-last`, `first-` or `-suffix`: outer `None` if it is not of the grammar, inner `None` if it
/// lies outside of the content.
fn parse_one(spec: &str, size: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = spec.trim().split_once('-')?;
    let number = |text: &str| -> Option<u64> {
        // Digits only: u64's own parser would let a '+' through. Numbers beyond 64 bits lie beyond any content.
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    if first.is_empty() {
        let suffix = number(last)?;
        return Some((suffix > 0 && size > 0).then(|| size.saturating_sub(suffix)..size));
    }
    let first = number(first)?;
    let end = if last.is_empty() {
        size
    } else {
        number(last)?.saturating_add(1).min(size)
    };
    Some((first < end).then_some(first..end))
}

/// Reads a `Range` header for content of `size` bytes. Malformed headers and other units are ignored, as
/// RFC 9110 allows; `500-0` is answered as unsatisfiable, which the conformance suite asks for.
pub fn requested(header: &str, size: u64) -> Requested {
    let Some((unit, specs)) = header.split_once('=') else {
        return Requested::Whole;
    };
    // An empty blob has no byte to name: the whole of it is the useful answer.
    if !unit.trim().eq_ignore_ascii_case("bytes") || size == 0 {
        return Requested::Whole;
    }
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (count, spec) in specs.split(',').enumerate() {
        if count >= RANGE_LIMIT {
            return Requested::Whole;
        }
        match parse_one(spec, size) {
            None => return Requested::Whole,
            Some(Some(range)) => ranges.push(range),
            Some(None) => {}
        }
    }
    match ranges.len() {
        0 => Requested::Unsatisfiable,
        1 => Requested::One(ranges.remove(0)),
        _ => coalesce(ranges),
    }
}

/// Joins ranges that touch or overlap. Overlapping ranges are how a small request asks for many times the
/// content (RFC 9110 §14.2), so they never stay apart.
fn coalesce(ranges: Vec<Range<u64>>) -> Requested {
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        let mut range = range;
        joined.retain(|other| {
            let touches = other.start <= range.end && range.start <= other.end;
            if touches {
                range = other.start.min(range.start)..other.end.max(range.end);
            }
            !touches
        });
        joined.push(range);
    }
    if joined.len() == 1 {
        Requested::One(joined.remove(0))
    } else {
        Requested::Many(joined)
    }
}

/// Reads an upload chunk's `Content-Range`: `start-end`, inclusive, without unit; `bytes start-end/size`
/// is accepted too. Half open on return. `None` if it is neither.
pub fn chunk(header: &str) -> Option<Range<u64>> {
    let text = header.trim();
    let text = text
        .strip_prefix("bytes")
        .map_or(text, |rest| rest.trim_start_matches(['=', ' ']));
    let text = text.split('/').next()?;
    let (start, end) = text.split_once('-')?;
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if digits { text.parse().ok() } else { None }
    };
    let (start, last) = (number(start)?, number(end)?);
    let end = last.checked_add(1)?;
    (start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn single_suffix_open_and_impossible_ranges() {
        let cases = [
            ("bytes=0-4", Requested::One(0..5)),
            ("bytes=5-", Requested::One(5..10)),
            ("bytes=-3", Requested::One(7..10)),
            ("bytes=-30", Requested::One(0..10)),
            ("bytes=8-100", Requested::One(8..10)),
            ("bytes=10-", Requested::Unsatisfiable),
            ("bytes=500-0", Requested::Unsatisfiable),
            ("bytes=-0", Requested::Unsatisfiable),
            ("bytes=99999999999999999999999-", Requested::Unsatisfiable),
            ("bytes=a-b", Requested::Whole),
            ("bytes=+1-2", Requested::Whole),
            ("items=0-4", Requested::Whole),
            ("bytes", Requested::Whole),
            ("bytes=0-1,4-5", Requested::Many(vec![0..2, 4..6])),
            ("bytes=0-1,2-5", Requested::One(0..6)),
            ("bytes=0-1,20-30", Requested::One(0..2)),
        ];
        for (header, expected) in cases {
            assert_eq!(requested(header, 10), expected, "{header}");
        }
        assert_eq!(requested("bytes=0-4", 0), Requested::Whole);
    }

    #[test]
    fn chunk_ranges_are_inclusive_and_strict() {
        assert_eq!(chunk("0-9"), Some(0..10));
        assert_eq!(chunk("bytes 5-9/100"), Some(5..10));
        assert_eq!(chunk("bytes=5-9"), Some(5..10));
        for bad in [
            "",
            "-",
            "5-",
            "-5",
            "9-5",
            "a-b",
            "0-18446744073709551615",
            "0-99999999999999999999",
        ] {
            assert_eq!(chunk(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn ranges_stay_inside_are_disjoint_and_cover_what_was_asked(
            asked in prop::collection::vec((0u64..50, 0u64..50), 1..16), size in 1u64..40
        ) {
            let header = asked.iter().map(|(a, b)| format!("{a}-{}", a + b)).collect::<Vec<_>>().join(",");
            let ranges = match requested(&format!("bytes={header}"), size) {
                Requested::One(one) => vec![one],
                Requested::Many(many) => many,
                Requested::Whole => return Err(TestCaseError::fail("a valid header was ignored")),
                Requested::Unsatisfiable => vec![],
            };
            for at in 0..size {
                let wanted = asked.iter().any(|(a, b)| (*a..=a + b).contains(&at));
                let given = ranges.iter().filter(|r| r.contains(&at)).count();
                prop_assert_eq!(given, usize::from(wanted));
            }
            prop_assert!(ranges.iter().all(|r| r.start < r.end && r.end <= size));
        }

        #[test]
        fn no_header_panics(text in ".{0,60}", size: u64) {
            let _ = requested(&text, size);
            let _ = requested(&format!("bytes={text}"), size);
            let _ = chunk(&text);
        }
    }
}
