//! Parts of requests and of answers to ours.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::text;
use crate::distribution::route;
use crate::domain::range::{self, RANGE_LIMIT, Requested};
use crate::explorer::path;
use crate::identity::presented::Presented;
use crate::identity::sign_in::answer::Answer;
use crate::identity::trust::{check_expression, jwks, unverified};
use crate::ops::route::Route;
use crate::telemetry::traceparent::Parent;
use crate::tenancy::Namespace;
use crate::upstream::challenge::Challenge;
use crate::upstream::{Allowance, next_query, retry_after};

/// The way to something.
pub(super) fn paths(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(route) = route::parse(text)
        && let Some(name) = route.name
    {
        assert_eq!(name.as_str().parse().ok(), Some(name));
    }
    let _ = path::read(text);
    let _ = Route::of(text);
    if let Ok(Some(namespace)) = Namespace::of(text) {
        assert_eq!(Namespace::of(&namespace.parameter()), Ok(Some(namespace)));
    }
}

/// The size of the content in eight bytes, then the header.
pub(super) fn ranges(bytes: &[u8]) {
    let Some((size, header)) = bytes.split_first_chunk::<8>() else {
        return;
    };
    let Some(header) = text(header) else { return };
    let size = u64::from_be_bytes(*size);
    let within = |range: &std::ops::Range<u64>| range.start < range.end && range.end <= size;
    match range::requested(header, size) {
        Requested::Whole | Requested::Unsatisfiable => {}
        Requested::One(range) => assert!(within(&range), "{range:?} of {size}"),
        Requested::Many(ranges) => {
            assert!((2..=RANGE_LIMIT).contains(&ranges.len()) && ranges.iter().all(within));
            let mut sorted = ranges;
            sorted.sort_by_key(|range| range.start);
            let apart = sorted.windows(2).all(|pair| pair[0].end <= pair[1].start);
            assert!(apart, "{sorted:?}");
        }
    }
    if let Some(range) = range::chunk(header) {
        assert!(range.start < range.end);
    }
}

/// Lines of `name: value`.
pub(super) fn headers(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(64) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
            continue;
        };
        let value = HeaderValue::from_bytes(value.trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            headers.append(name, value);
        }
    }
    let _ = Presented::of(&headers);
    let _ = Challenge::of(&headers);
    let _ = Allowance::of(&headers);
    let _ = retry_after(&headers, SystemTime::UNIX_EPOCH);
    let _ = Parent::of(&headers);
    for link in headers.get_all("link") {
        if let Some(query) = link.to_str().ok().and_then(next_query) {
            assert!(!query.contains('>'));
        }
    }
}

/// What issuers and those who come from them send, and what is demanded of their claims.
pub(super) fn tokens(bytes: &[u8]) {
    let _ = jwks::parse(bytes);
    let Some(text) = text(bytes) else { return };
    let _ = unverified(text);
    let _ = Answer::read(text);
    // Panics of a parser that is not ours are caught; libFuzzer would take them for ours.
    if cfg!(test) {
        let _ = check_expression(text);
    }
}
