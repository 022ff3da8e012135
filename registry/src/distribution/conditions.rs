//! Conditional requests (RFC 9110 §13) on content whose ETag is its digest.

use http::HeaderMap;
use http::header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE};

use crate::domain::Digest;
use crate::metadata::Precondition;

/// The entity tags that a header lists, without quotes and weakness; clients send digests bare as well.
fn tags<'h>(headers: &'h HeaderMap, name: &'h http::HeaderName) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/").trim_matches('"'))
}

/// Whether the client has this content already: answer 304.
pub fn has_it(headers: &HeaderMap, digest: &Digest) -> bool {
    let digest = digest.to_string();
    headers.contains_key(IF_NONE_MATCH)
        && tags(headers, &IF_NONE_MATCH).any(|tag| tag == digest || tag == "*")
}

/// Whether a `Range` header counts: it does not when `If-Range` names other content.
pub fn range_counts(headers: &HeaderMap, digest: &Digest) -> bool {
    !headers.contains_key(IF_RANGE) || tags(headers, &IF_RANGE).any(|tag| tag == digest.to_string())
}

/// What a push demands of the tag that it sets.
pub fn precondition(headers: &HeaderMap) -> Precondition {
    if tags(headers, &IF_NONE_MATCH).any(|tag| tag == "*") {
        return Precondition::Absent;
    }
    if !headers.contains_key(IF_MATCH) {
        return Precondition::None;
    }
    if tags(headers, &IF_MATCH).any(|tag| tag == "*") {
        return Precondition::Present;
    }
    // Tags that are no digests match nothing.
    Precondition::Is(
        tags(headers, &IF_MATCH)
            .filter_map(|tag| tag.parse().ok())
            .collect(),
    )
}
