//! Tokens that a Secret has handed over before its present one, and the annotation that lists them.
//!
//! The list is all that remembers them and when each was replaced: `id=time`, the newest first, separated by commas.
//! Others may write the annotation as well, so that reading it never fails.

use std::collections::BTreeSet;

use berth_crds::token::TokenId;
use k8s_openapi::jiff::Timestamp;

/// A token that was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predecessor {
    /// Its public part.
    pub id: TokenId,
    /// When its successor was issued.
    pub replaced: Timestamp,
}

/// Reads a list, for a Secret whose present token was issued then. What is no token's id is passed over, and so is the
/// present one's. A time that is missing, unreadable or later than that is that: nothing was replaced since.
pub fn parse(text: &str, present: Option<&TokenId>, issued: Timestamp) -> Vec<Predecessor> {
    let (mut list, mut seen) = (Vec::new(), BTreeSet::new());
    for entry in text.split(',') {
        let (id, time) = entry.split_once('=').unwrap_or((entry, ""));
        let Ok(id) = id.trim().parse::<TokenId>() else {
            continue;
        };
        if present == Some(&id) || !seen.insert(id.clone()) {
            continue;
        }
        let replaced = time.trim().parse().unwrap_or(issued).min(issued);
        list.push(Predecessor { id, replaced });
    }
    list
}

/// Writes a list.
pub fn format(list: &[Predecessor]) -> String {
    let entries: Vec<String> = list
        .iter()
        .map(|predecessor| format!("{}={}", predecessor.id, predecessor.replaced))
        .collect();
    entries.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbb";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn predecessor(id: &str, second: i64) -> Predecessor {
        Predecessor {
            id: id.parse().unwrap(),
            replaced: at(second),
        }
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let list = vec![predecessor(A, 1000), predecessor(B, 998)];
        let text = format(&list);
        assert_eq!(
            text,
            "aaaaaaaaaaaa=1970-01-01T00:16:40Z,bbbbbbbbbbbb=1970-01-01T00:16:38Z"
        );
        assert_eq!(parse(&text, None, at(1000)), list);
        assert_eq!(format(&[]), "");
    }

    #[test]
    fn an_id_alone_was_replaced_when_the_present_token_was_issued() {
        assert_eq!(parse(A, None, at(1000)), [predecessor(A, 1000)]);
    }

    #[test]
    fn whatever_else_the_annotation_says_is_passed_over() {
        for text in [
            "",
            ",",
            "=",
            ",=,==,",
            "short=1970-01-01T00:00:00Z",
            "../../tenants",
            "äöüäöü",
            "aaaaaaaaaaa\0",
            "=1970-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text, None, at(1000)), [], "{text}");
        }
        let present = "cccccccccccc";
        let text = format!(
            "{present}, {A} = never ,?,{B}=9999-12-31T00:00:00Z=,{A}=1970-01-01T00:00:01Z,{present}="
        );
        assert_eq!(
            parse(&text, present.parse().ok().as_ref(), at(1000)),
            [predecessor(A, 1000), predecessor(B, 1000)]
        );
        let future = format!("{A}=2999-12-31T00:00:00Z");
        assert_eq!(
            parse(&future, None, at(1000)),
            [predecessor(A, 1000)],
            "it would never end"
        );
    }
}
