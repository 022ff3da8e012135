//! What has to happen to one credential of a tenant: the token that the registry knows and the Secret that names it.
//!
//! Pure. A Secret keeps its name while its content changes; it names its token and that token's predecessor by
//! their ids. The registry learns of a token before the Secret is written and forgets the predecessor only after
//! the successor was seen in use, or after a grace period, so that no pull under way meets a 401.

use std::time::Duration;

use berth_crds::token::Token;
use berth_crds::{Grant, Span};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::secret::Contents;
use crate::registry::TokenInfo;

/// Pulls under way, and what a node has cached, are over by then.
const SHORTEST_OVERLAP: Duration = Duration::from_secs(600);

/// What a Secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Pods of a namespace pull with it.
    Pull,
    /// The organisation uses it as it likes.
    Organization,
}

/// A credential as the tenant wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct Credential {
    /// What it is for.
    pub purpose: Purpose,
    /// Name of its tokens at the registry: a DNS label.
    pub name: String,
    /// Namespace of its Secret.
    pub namespace: String,
    /// Name of its Secret.
    pub secret: String,
    /// What its tokens may do.
    pub grants: Vec<Grant>,
    /// Lifetime of a token.
    pub expires_after: Option<Span>,
    /// How often the token is replaced.
    pub rotate_every: Option<Span>,
    /// Hosts that the Secret is for, as clients write them; the first is the tenant's own.
    pub hosts: Vec<String>,
}

/// The Secret of that name, as the cluster has it.
#[derive(Debug, Clone, PartialEq)]
pub enum Observed {
    /// None.
    Absent,
    /// One that is not the tenant's.
    Foreign,
    /// The tenant's.
    Ours(Contents),
}

/// What has to happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// The Secret cannot be had.
    Conflict,
    /// A new token is made and handed over.
    Issue {
        /// Its predecessor, which ends later.
        previous: Option<String>,
        /// Tokens that end as soon as the Secret is written.
        revoke: Vec<String>,
    },
    /// The registry's record of the token is set right.
    Record,
    /// The Secret is written again with the same token.
    Rewrite,
    /// The predecessor ends.
    Retire(String),
}

/// When something is done.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Now.
    pub now: Timestamp,
    /// How long a replaced token stays valid if its successor is not seen in use.
    pub grace: Duration,
    /// Tokens issued before are replaced, and end at once.
    pub revoke_before: Option<Timestamp>,
}

/// The next step of a credential.
pub fn step(wanted: &Credential, observed: &Observed, tokens: &[TokenInfo], terms: Terms) -> Step {
    let contents = match observed {
        Observed::Absent => return fresh(None, Vec::new()),
        Observed::Foreign => return Step::Conflict,
        Observed::Ours(contents) => contents,
    };
    let known = |id: &str| tokens.iter().find(|token| token.id == id);
    let Some(token) = &contents.token else {
        // Whoever emptied it may have seen it.
        let revoke = contents.id.iter().chain(&contents.previous).cloned().collect();
        return fresh(None, revoke);
    };
    let id = token.id().as_str();
    let all = || {
        let previous = contents.previous.iter().cloned();
        std::iter::once(id.to_owned()).chain(previous).collect::<Vec<_>>()
    };
    let Some(info) = known(id).filter(|_| contents.id.as_deref() == Some(id)) else {
        return fresh(None, all().into_iter().filter(|id| known(id).is_some()).collect());
    };
    let issued = contents.issued.unwrap_or(Timestamp::UNIX_EPOCH);
    if contents.revoke_requested || terms.revoke_before.is_some_and(|before| issued < before) {
        return fresh(None, all());
    }
    let due = |every: &Span| elapsed(issued, terms.now) >= every.duration();
    let ends_soon = info
        .expires_at
        .as_deref()
        .and_then(|end| end.parse::<Timestamp>().ok())
        .is_some_and(|end| end <= terms.now || is_last_tenth(issued, end, terms.now));
    if contents.rotation_requested || wanted.rotate_every.as_ref().is_some_and(due) || ends_soon {
        // A second replacement within the overlap ends the one before the last.
        return fresh(Some(id.to_owned()), contents.previous.iter().cloned().collect());
    }
    if !same_record(wanted, info, issued) {
        return Step::Record;
    }
    if !contents.is_for(wanted, token) {
        return Step::Rewrite;
    }
    match &contents.previous {
        Some(previous) if known(previous).is_some() && is_over(info, issued, terms) => {
            Step::Retire(previous.clone())
        }
        _ => Step::Keep,
    }
}

/// When the credential has to be looked at again, from now.
pub fn next_look(wanted: &Credential, contents: &Contents, terms: Terms) -> Option<Duration> {
    let issued = contents.issued?;
    let age = elapsed(issued, terms.now);
    let rotation = wanted.rotate_every.as_ref().map(Span::duration);
    let expiry = wanted
        .expires_after
        .as_ref()
        .map(|span| span.duration().mul_f64(0.9));
    let retirement = contents.previous.as_ref().map(|_| {
        // From the shortest overlap on, use of the successor is looked for.
        if age < SHORTEST_OVERLAP {
            SHORTEST_OVERLAP
        } else {
            age + SHORTEST_OVERLAP / 10
        }
    });
    [rotation, expiry, retirement]
        .into_iter()
        .flatten()
        .map(|at| at.saturating_sub(age).max(Duration::from_secs(1)))
        .min()
}

/// Ids of tokens that this object made and no Secret names, older than `age`.
pub fn orphans<'a>(
    tokens: &'a [TokenInfo],
    creator: &str,
    named: &[String],
    now: Timestamp,
    age: Duration,
) -> Vec<&'a str> {
    let is_old = |token: &TokenInfo| {
        token
            .created_at
            .parse::<Timestamp>()
            .is_ok_and(|made| elapsed(made, now) > age)
    };
    tokens
        .iter()
        .filter(|token| token.created_by == creator && !named.contains(&token.id) && is_old(token))
        .map(|token| token.id.as_str())
        .collect()
}

fn fresh(previous: Option<String>, revoke: Vec<String>) -> Step {
    Step::Issue { previous, revoke }
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

fn is_last_tenth(issued: Timestamp, end: Timestamp, now: Timestamp) -> bool {
    elapsed(issued, now) >= elapsed(issued, end).mul_f64(0.9)
}

fn is_over(successor: &TokenInfo, issued: Timestamp, terms: Terms) -> bool {
    let age = elapsed(issued, terms.now);
    age >= terms.grace || (successor.last_used_at.is_some() && age >= SHORTEST_OVERLAP)
}

/// When a token of this credential that was issued then ends.
pub fn expiry(wanted: &Credential, issued: Timestamp) -> Option<Timestamp> {
    let life = wanted.expires_after.as_ref()?.duration();
    issued.checked_add(life).ok()
}

fn same_record(wanted: &Credential, info: &TokenInfo, issued: Timestamp) -> bool {
    let end = |text: &String| text.parse::<Timestamp>().ok().map(Timestamp::as_second);
    let same_end = info.expires_at.as_ref().and_then(end) == expiry(wanted, issued).map(Timestamp::as_second);
    same_end && grants(&wanted.grants) == info.grants
}

fn grants(grants: &[Grant]) -> Value {
    serde_json::to_value(grants).unwrap_or_default()
}

/// A token to hand over.
pub fn new_token() -> Token {
    Token::generate()
}

#[cfg(test)]
#[path = "credential_tests.rs"]
mod tests;
