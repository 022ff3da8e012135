//! What has to happen to one credential of a tenant: the token that the registry knows and the Secret that names it.
//!
//! Pure. A Secret keeps its name while its content changes; it names its token and that token's predecessors by
//! their ids. The registry learns of a token before the Secret is written. A kubelet reads the Secret once for all
//! pulls of a pod, however often it is replaced meanwhile: the registry forgets each predecessor only when it was
//! replaced some time ago and a successor was seen in use, or after a grace period, so that no pull under way meets
//! a 401.
//!
//! Whoever may write Secrets may write all that a Secret says. So a Secret names tokens, but which of them are its own and
//! how old they are the registry's records say: [`Own`] tokens are all that a step ends, and their time of creation decides
//! about rotation, expiry and revocation.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use berth_crds::token::{Token, TokenId};
use berth_crds::{Grant, Span};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::predecessor::Predecessor;
use super::secret::{self, Contents};
use crate::registry::TokenInfo;

/// By how much the clocks of the operator and the registry may differ.
const SKEW: Duration = Duration::from_secs(60);
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
        revoke: Vec<TokenId>,
    },
    /// The registry's record of the token is set right.
    Record,
    /// Predecessors get the grants that the credential has now.
    Regrant(Vec<TokenId>),
    /// The Secret is written again with the same token.
    Rewrite,
    /// Predecessors end.
    Retire(Vec<TokenId>),
}

/// When something is done.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Now.
    pub now: Timestamp,
    /// How long a replaced token stays valid if its successor is not seen in use.
    pub grace: Duration,
    /// Tokens issued before are replaced, and end at once, as do their predecessors; once that time has come.
    pub revoke_before: Option<Timestamp>,
}

impl Terms {
    /// Whether a token that was issued then is to end at once. A time that is still to come would end every successor too.
    fn revokes(&self, issued: Timestamp) -> bool {
        self.revoke_before
            .is_some_and(|before| before <= self.now && issued < before)
    }
}

/// The tokens that one object made, by the Secret that the registry's records give them to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Own(HashMap<String, Vec<TokenInfo>>);

impl Own {
    /// Of the object with this uid, among all tokens of a tenant.
    pub fn of(tokens: &[TokenInfo], creator: &str) -> Self {
        let mut own: HashMap<String, Vec<TokenInfo>> = HashMap::new();
        for token in tokens.iter().filter(|token| token.created_by == creator) {
            let of_secret = own.entry(token.description.clone()).or_default();
            of_secret.push(token.clone());
        }
        Self(own)
    }

    /// Those of a Secret.
    pub fn of_secret(&self, namespace: &str, name: &str) -> &[TokenInfo] {
        self.0
            .get(&secret::description(namespace, name))
            .map_or(&[], Vec::as_slice)
    }
}

/// The next step of a credential, whose own tokens these are.
pub fn step(wanted: &Credential, observed: &Observed, tokens: &[TokenInfo], terms: Terms) -> Step {
    let contents = match observed {
        Observed::Absent => return fresh(Vec::new()),
        Observed::Foreign => return Step::Conflict,
        Observed::Ours(contents) => contents,
    };
    let Some(token) = &contents.token else {
        // Whoever emptied it may have seen it.
        return fresh(named(contents, tokens));
    };
    let id = token.id();
    let Some(info) = known(tokens, id).filter(|_| contents.id.as_ref() == Some(id)) else {
        let mut revoke = named(contents, tokens);
        if known(tokens, id).is_some() && !revoke.contains(id) {
            revoke.push(id.clone());
        }
        return fresh(revoke);
    };
    let issued = info.created();
    if contents.revoke_requested || terms.revokes(issued) {
        return fresh(named(contents, tokens));
    }
    let due = |every: &Span| elapsed(issued, terms.now) >= every.duration();
    // The end that is recorded, and the one that would be: a token that would have ended already still has pulls under way.
    let ends_soon = [info.expires(), expiry(wanted, issued)]
        .into_iter()
        .flatten()
        .any(|end| end <= terms.now || is_last_tenth(issued, end, terms.now));
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
    let (valid, over) = predecessors(contents, tokens, terms);
    let differing: Vec<TokenId> = valid
        .into_iter()
        .filter(|predecessor| known(tokens, &predecessor.id).is_some_and(|info| !same_grants(wanted, info)))
        .map(|predecessor| predecessor.id)
        .collect();
    if !differing.is_empty() {
        return Step::Regrant(differing);
    }
    if !contents.is_for(wanted, token) {
        return Step::Rewrite;
    }
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
    let age = elapsed(issued(contents, tokens).unwrap_or(terms.now), terms.now);
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
    let revocation = terms
        .revoke_before
        .filter(|before| *before > terms.now)
        .map(|before| elapsed(terms.now, before));
    [rotation, expiry]
        .into_iter()
        .flatten()
        .map(|at| at.saturating_sub(age))
        .chain(retirements)
        .chain((!over.is_empty()).then_some(Duration::ZERO))
        .chain(revocation)
        .map(|wait| wait.max(Duration::from_secs(1)))
        .min()
}

/// When the token that a Secret names was issued, if the registry knows it.
pub fn issued(contents: &Contents, tokens: &[TokenInfo]) -> Option<Timestamp> {
    known(tokens, contents.id.as_ref()?).map(TokenInfo::created)
}

/// Ids of tokens that this object made and that their own Secret does not name, older than `age`. `named` has what Secrets
/// name, with what a record says of such a Secret's tokens.
pub fn orphans<'a>(
    tokens: &'a [TokenInfo],
    creator: &str,
    named: &BTreeSet<(String, TokenId)>,
    now: Timestamp,
    age: Duration,
) -> Vec<&'a TokenId> {
    let is_old = |token: &TokenInfo| elapsed(token.created(), now) > age;
    let is_named = |token: &TokenInfo| named.contains(&(token.description.clone(), token.id.clone()));
    tokens
        .iter()
        .filter(|token| token.created_by == creator && !is_named(token) && is_old(token))
        .map(|token| &token.id)
        .collect()
}

fn fresh(revoke: Vec<TokenId>) -> Step {
    Step::Issue {
        previous: Vec::new(),
        revoke,
    }
}

fn known<'a>(tokens: &'a [TokenInfo], id: &TokenId) -> Option<&'a TokenInfo> {
    tokens.iter().find(|token| token.id == *id)
}

/// Ids of the tokens that a Secret names and that are its own.
pub fn named(contents: &Contents, own: &[TokenInfo]) -> Vec<TokenId> {
    let mut ids = contents.ids();
    ids.retain(|id| known(own, id).is_some());
    ids
}

/// The predecessors that the registry knows: those that stay, the newest first, and the ids of those whose time is
/// over.
fn predecessors(contents: &Contents, tokens: &[TokenInfo], terms: Terms) -> (Vec<Predecessor>, Vec<TokenId>) {
    let was_used = |info: &TokenInfo| info.last_used_at.is_some();
    let present = contents.id.as_ref().and_then(|id| known(tokens, id));
    // Nothing was replaced since the present token was made.
    let latest = present.and_then(|present| present.created().checked_add(SKEW).ok());
    let mut successor_used = present.is_some_and(was_used);
    let (mut valid, mut over) = (Vec::new(), Vec::new());
    for predecessor in &contents.previous {
        let Some(info) = known(tokens, &predecessor.id) else {
            continue;
        };
        let mut predecessor = predecessor.clone();
        predecessor.replaced = latest.map_or(predecessor.replaced, |latest| predecessor.replaced.min(latest));
        if is_over(&predecessor, info, successor_used, terms) {
            over.push(predecessor.id);
        } else {
            valid.push(predecessor);
        }
        // Whoever uses it has read the Secret later than those before it.
        successor_used |= was_used(info);
    }
    (valid, over)
}

/// The predecessors of the successor of the present token, and the ids of those that end with its replacement.
fn replaced(
    present: &TokenId,
    contents: &Contents,
    tokens: &[TokenInfo],
    terms: Terms,
) -> (Vec<Predecessor>, Vec<TokenId>) {
    let (mut previous, mut revoke) = predecessors(contents, tokens, terms);
    previous.insert(
        0,
        Predecessor {
            id: present.clone(),
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
    terms.revokes(info.created())
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
    let same_end = match (info.expires(), expiry(wanted, issued)) {
        (None, None) => true,
        // The first record is written before the registry has told when it made the token.
        (Some(recorded), Some(end)) => {
            let tolerance = SKEW.min(elapsed(issued, end) / 100);
            elapsed(recorded, end).max(elapsed(end, recorded)) <= tolerance
        }
        (None, Some(_)) | (Some(_), None) => false,
    };
    same_end && same_grants(wanted, info)
}

fn same_grants(wanted: &Credential, info: &TokenInfo) -> bool {
    grants(&wanted.grants) == info.grants
}

/// Grants as the registry tells them.
pub fn grants(grants: &[Grant]) -> Value {
    serde_json::to_value(grants).unwrap_or_default()
}

/// A token to hand over.
pub fn new_token() -> Token {
    Token::generate()
}

#[cfg(test)]
#[path = "credential_tests.rs"]
mod tests;
