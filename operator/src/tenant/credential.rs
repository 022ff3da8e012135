//! What has to happen to one credential of a tenant: the token that the registry knows and the Secret that names it.
//!
//! Pure. A Secret keeps its name while its content changes; it names its token and that token's predecessors by
//! their ids. The registry learns of a token before the Secret is written. A kubelet reads the Secret once for all
//! pulls of a pod, however often it is replaced meanwhile: the registry forgets each predecessor only when it was
//! replaced some time ago and a successor was seen in use, or after a grace period, so that no pull under way meets
//! a 401.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_crds::token::Token;
use berth_crds::{Grant, Span};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::predecessor::Predecessor;
use super::secret::Contents;
use crate::registry::TokenInfo;

/// Pulls under way, and what a node has cached, are over by then.
const SHORTEST_OVERLAP: Duration = Duration::from_secs(600);
/// With more predecessors, those that were replaced that long ago do not wait for a successor's use.
const KEPT: usize = 16;
/// With more predecessors, a request for a new token waits until the oldest was replaced that long ago. A rotation
/// every three seconds never does; what comes by itself, once a minute at most, does not wait.
const MOST: usize = 256;

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
        /// Its predecessors, which end later; the newest first.
        previous: Vec<Predecessor>,
        /// Tokens that end as soon as the Secret is written.
        revoke: Vec<String>,
    },
    /// The registry's record of the token is set right.
    Record,
    /// The Secret is written again with the same token.
    Rewrite,
    /// Predecessors end.
    Retire(Vec<String>),
}

/// When something is done.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Now.
    pub now: Timestamp,
    /// How long a replaced token stays valid if its successor is not seen in use.
    pub grace: Duration,
    /// Tokens issued before are replaced, and end at once, as do their predecessors.
    pub revoke_before: Option<Timestamp>,
}

/// The next step of a credential.
pub fn step(wanted: &Credential, observed: &Observed, tokens: &[TokenInfo], terms: Terms) -> Step {
    let contents = match observed {
        Observed::Absent => return fresh(Vec::new()),
        Observed::Foreign => return Step::Conflict,
        Observed::Ours(contents) => contents,
    };
    let Some(token) = &contents.token else {
        // Whoever emptied it may have seen it.
        return fresh(contents.ids());
    };
    let id = token.id().as_str();
    let Some(info) = known(tokens, id).filter(|_| contents.id.as_deref() == Some(id)) else {
        let mut revoke = contents.ids();
        revoke.push(id.to_owned());
        revoke.retain(|id| known(tokens, id).is_some());
        return fresh(revoke);
    };
    let issued = contents.issued.unwrap_or(Timestamp::UNIX_EPOCH);
    if contents.revoke_requested || terms.revoke_before.is_some_and(|before| issued < before) {
        return fresh(contents.ids());
    }
    let due = |every: &Span| elapsed(issued, terms.now) >= every.duration();
    let ends_soon = info
        .expires_at
        .as_deref()
        .and_then(|end| end.parse::<Timestamp>().ok())
        .is_some_and(|end| end <= terms.now || is_last_tenth(issued, end, terms.now));
    let by_itself = wanted.rotate_every.as_ref().is_some_and(due) || ends_soon;
    if contents.rotation_requested || by_itself {
        let (previous, revoke) = replaced(id, contents, tokens, terms);
        if by_itself || previous.len() <= MOST {
            return Step::Issue { previous, revoke };
        }
    }
    if !same_record(wanted, info, issued) {
        return Step::Record;
    }
    if !contents.is_for(wanted, token) {
        return Step::Rewrite;
    }
    let (_, over) = predecessors(contents, tokens, terms);
    if over.is_empty() {
        Step::Keep
    } else {
        Step::Retire(over)
    }
}

/// When the credential has to be looked at again, from now.
pub fn next_look(
    wanted: &Credential,
    contents: &Contents,
    tokens: &[TokenInfo],
    terms: Terms,
) -> Option<Duration> {
    let issued = contents.issued?;
    let age = elapsed(issued, terms.now);
    let rotation = wanted.rotate_every.as_ref().map(Span::duration);
    let expiry = wanted
        .expires_after
        .as_ref()
        .map(|span| span.duration().mul_f64(0.9));
    let (valid, over) = predecessors(contents, tokens, terms);
    let retirements = valid.iter().map(|predecessor| {
        let replaced = elapsed(predecessor.replaced, terms.now);
        // From the shortest overlap on, use of a successor is looked for.
        if replaced < SHORTEST_OVERLAP {
            SHORTEST_OVERLAP - replaced
        } else {
            SHORTEST_OVERLAP / 10
        }
    });
    [rotation, expiry]
        .into_iter()
        .flatten()
        .map(|at| at.saturating_sub(age))
        .chain(retirements)
        .chain((!over.is_empty()).then_some(Duration::ZERO))
        .map(|wait| wait.max(Duration::from_secs(1)))
        .min()
}

/// Ids of tokens that this object made and no Secret names, older than `age`.
pub fn orphans<'a>(
    tokens: &'a [TokenInfo],
    creator: &str,
    named: &BTreeSet<String>,
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

fn fresh(revoke: Vec<String>) -> Step {
    Step::Issue {
        previous: Vec::new(),
        revoke,
    }
}

fn known<'a>(tokens: &'a [TokenInfo], id: &str) -> Option<&'a TokenInfo> {
    tokens.iter().find(|token| token.id == id)
}

/// The predecessors that the registry knows: those that stay, the newest first, and the ids of those whose time is
/// over.
fn predecessors(contents: &Contents, tokens: &[TokenInfo], terms: Terms) -> (Vec<Predecessor>, Vec<String>) {
    let was_used = |info: &TokenInfo| info.last_used_at.is_some();
    let present = contents.id.as_deref().and_then(|id| known(tokens, id));
    let mut successor_used = present.is_some_and(was_used);
    let (mut valid, mut over) = (Vec::new(), Vec::new());
    for predecessor in &contents.previous {
        let Some(info) = known(tokens, &predecessor.id) else {
            continue;
        };
        if is_over(predecessor, info, successor_used, terms) {
            over.push(predecessor.id.clone());
        } else {
            valid.push(predecessor.clone());
        }
        // Whoever uses it has read the Secret later than those before it.
        successor_used |= was_used(info);
    }
    (valid, over)
}

/// The predecessors of the successor of the present token, and the ids of those that end with its replacement.
fn replaced(
    present: &str,
    contents: &Contents,
    tokens: &[TokenInfo],
    terms: Terms,
) -> (Vec<Predecessor>, Vec<String>) {
    let (mut previous, mut revoke) = predecessors(contents, tokens, terms);
    previous.insert(
        0,
        Predecessor {
            id: present.to_owned(),
            replaced: terms.now,
        },
    );
    while previous.len() > KEPT
        && let Some(oldest) = previous.pop_if(|oldest| overlapped(oldest, terms.now))
    {
        revoke.push(oldest.id);
    }
    (previous, revoke)
}

/// Whether no pull under way can still have it.
fn overlapped(predecessor: &Predecessor, now: Timestamp) -> bool {
    elapsed(predecessor.replaced, now) >= SHORTEST_OVERLAP
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

fn is_last_tenth(issued: Timestamp, end: Timestamp, now: Timestamp) -> bool {
    elapsed(issued, now) >= elapsed(issued, end).mul_f64(0.9)
}

fn is_over(predecessor: &Predecessor, info: &TokenInfo, successor_used: bool, terms: Terms) -> bool {
    let revoked = terms.revoke_before.is_some_and(|before| {
        let made = info.created_at.parse::<Timestamp>();
        made.is_ok_and(|made| made < before)
    });
    revoked
        || elapsed(predecessor.replaced, terms.now) >= terms.grace
        || (successor_used && overlapped(predecessor, terms.now))
}

/// When a token of this credential that was issued then ends.
pub fn expiry(wanted: &Credential, issued: Timestamp) -> Option<Timestamp> {
    let life = wanted.expires_after.as_ref()?.duration();
    issued.checked_add(life).ok()
}

/// By when such a token should have been replaced by itself.
pub fn renewal(wanted: &Credential, issued: Timestamp) -> Option<Timestamp> {
    let rotation = wanted.rotate_every.as_ref().map(Span::duration);
    let last_tenth = wanted
        .expires_after
        .as_ref()
        .map(|span| span.duration().mul_f64(0.9));
    let after = [rotation, last_tenth].into_iter().flatten().min()?;
    issued.checked_add(after).ok()
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
