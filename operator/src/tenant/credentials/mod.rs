//! All credentials of a tenant: [`wanted`] says which there are to be, [`one`] takes the next step of each, [`retries`]
//! says when what failed is tried again, and [`ended`] ends those that are wanted no longer.

mod ended;
mod one;
mod retries;
mod wanted;

use std::time::{Duration, Instant};

use berth_crds::{PullSecretsStatus, Tenant, TokenStatus};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use self::ended::{ORPHAN_AGE, ours, remove_orphans, withdraw};
use self::one::{Done, One};
use self::retries::Basis;
use super::credential::{Credential, Own, Purpose};
use crate::REVOKE_BEFORE;
use crate::condition::{Fact, State};
use crate::context::Context;
use crate::metrics::TokenTimes;
use crate::registry::TokenInfo;
use crate::trouble::Trouble;

pub use self::ended::release_accounts;
pub use self::retries::Retries;

/// Most failures that a status names.
const FAILED_LIMIT: usize = 32;
/// What a status says about use is not renewed more often.
const USE_RESOLUTION: Duration = Duration::from_secs(600);

/// What a person must change before a Secret can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// As a word for programs.
    pub reason: &'static str,
    /// What to change.
    pub message: String,
}

/// Why a Secret could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    /// A person must change something.
    Refused(Refusal),
    /// It may come right by itself.
    Passing(String),
}

/// How the credentials fare.
#[derive(Debug, Default)]
pub struct Distributed {
    /// For the status.
    pub tokens: Vec<TokenStatus>,
    /// For the status; nothing if the tenant wants none.
    pub pull_secrets: Option<PullSecretsStatus>,
    /// When to look again.
    pub again: Option<Duration>,
    /// When the first of its tokens is to be replaced, and ends.
    times: TokenTimes,
    /// What a person must change.
    refused: Vec<Refusal>,
    /// What is tried again.
    failed: Vec<String>,
    written: usize,
}

impl Distributed {
    /// The condition.
    pub fn fact(&self) -> Fact {
        let fact =
            |state, reason, message: String| Fact::new("CredentialsDistributed", state, reason, message);
        match (self.refused.first(), self.failed.first()) {
            (Some(refusal), _) => fact(State::False, refusal.reason, refusal.message.clone()),
            (None, Some(why)) => fact(State::False, "Retrying", why.clone()),
            (None, None) => fact(State::True, "Distributed", format!("{} Secrets", self.written)),
        }
    }

    /// The times of its tokens, if all of them are known.
    pub fn times(&self) -> Option<TokenTimes> {
        self.failed.is_empty().then_some(self.times)
    }

    /// What a person must change.
    pub fn refused(&self) -> Option<Refusal> {
        self.refused.first().cloned()
    }

    /// What is tried again.
    pub fn failed(&self) -> Option<String> {
        self.failed.first().cloned()
    }
}

/// Takes the next step of every credential.
pub async fn ensure(tenant: &Tenant, ctx: &Context) -> Result<Distributed, Trouble> {
    let (name, uid) = (tenant.name_any(), tenant.uid().unwrap_or_default());
    let (wanted, refused) = wanted::wanted(tenant, ctx);
    ctx.memory.retries(&uid, |retries| retries.only(&wanted));
    let existing = ours(ctx, &name);
    let mut distributed = Distributed {
        refused,
        pull_secrets: tenant
            .spec
            .pull_secrets
            .as_ref()
            .map(|_| PullSecretsStatus::default()),
        ..Distributed::default()
    };
    let status = tenant.status.as_ref();
    let had_some = status.is_some_and(|status| !status.tokens.is_empty() || status.pull_secrets.is_some());
    if distributed.pull_secrets.is_none() && tenant.spec.tokens.is_empty() && existing.is_empty() && !had_some
    {
        return Ok(distributed);
    }
    let tokens = ctx.registry.tokens(&name).await?;
    let own = Own::of(&tokens, &uid);
    for credential in &wanted {
        let tokens = own.of_secret(&credential.namespace, &credential.secret);
        match attempt(tenant, ctx, credential, tokens).await? {
            Attempt::Done(done) => distributed.count(tenant, credential, tokens, done),
            Attempt::Failed(why, wait) => distributed.fail(credential, why, wait),
        }
    }
    for secret in existing.values() {
        let is_wanted = |wanted: &Credential| {
            secret.namespace().as_deref() == Some(&wanted.namespace) && secret.name_any() == wanted.secret
        };
        if !wanted.iter().any(is_wanted) {
            let tokens = own.of_secret(&secret.namespace().unwrap_or_default(), &secret.name_any());
            withdraw(ctx, tenant, tokens, secret).await?;
        }
    }
    if remove_orphans(tenant, ctx, &tokens).await? {
        let soon = ORPHAN_AGE + Duration::from_secs(1);
        distributed.again = Some(distributed.again.map_or(soon, |again| again.min(soon)));
    }
    Ok(distributed)
}

/// What came of a credential.
enum Attempt {
    Done(Done),
    /// How long until it is tried again.
    Failed(Failure, Duration),
}

/// Takes the next steps of a credential whose own tokens these are, unless it failed just now.
async fn attempt(
    tenant: &Tenant,
    ctx: &Context,
    wanted: &Credential,
    tokens: &[TokenInfo],
) -> Result<Attempt, Trouble> {
    let uid = tenant.uid().unwrap_or_default();
    let existing = one::cached(ctx, wanted);
    let basis = Basis {
        generation: tenant.metadata.generation.unwrap_or_default(),
        revoke_before: tenant.annotations().get(REVOKE_BEFORE).cloned(),
        secret: existing.as_ref().and_then(|secret| secret.resource_version()),
    };
    let now = Instant::now();
    let (held, has_failed) = ctx.memory.retries(&uid, |retries| {
        (retries.held(wanted, &basis, now), retries.has_failed(wanted))
    });
    if let Some((why, wait)) = held {
        return Ok(Attempt::Failed(why, wait));
    }
    let one = One {
        tenant,
        ctx,
        wanted,
        tokens,
        has_failed,
    };
    let why = match one.ensure(existing).await {
        Ok(done) => {
            ctx.memory.retries(&uid, |retries| retries.done(wanted));
            return Ok(Attempt::Done(done));
        }
        // Nothing works without it.
        Err(trouble @ Trouble::Registry(_)) => return Err(trouble),
        Err(Trouble::Stalled { reason, message }) => Failure::Refused(Refusal { reason, message }),
        Err(trouble @ Trouble::Kube(_)) => {
            let told = format!("Secret {}/{}: {trouble}", wanted.namespace, wanted.secret);
            Failure::Passing(told)
        }
    };
    let wait = ctx.memory.retries(&uid, |retries| {
        retries.failed(wanted, basis, why.clone(), Instant::now())
    });
    Ok(Attempt::Failed(why, wait))
}

impl Distributed {
    fn count(&mut self, tenant: &Tenant, credential: &Credential, tokens: &[TokenInfo], done: Done) {
        self.written += 1;
        self.again = [self.again, done.again].into_iter().flatten().min();
        self.times = self.times.earliest(done.times);
        match credential.purpose {
            Purpose::Pull => {
                if let Some(status) = &mut self.pull_secrets {
                    status.namespaces += 1;
                }
            }
            Purpose::Organization => {
                let info = tokens.iter().find(|token| Some(&token.id) == done.id.as_ref());
                let id = done.id.map(String::from);
                let before = tenant.status.as_ref().and_then(|status| {
                    status
                        .tokens
                        .iter()
                        .find(|token| token.name == credential.name && token.id == id)
                });
                let used = info.and_then(|info| info.last_used_at.clone());
                self.tokens.push(TokenStatus {
                    name: credential.name.clone(),
                    id,
                    expires_at: done.expires_at,
                    last_used_at: coarse(before.and_then(|before| before.last_used_at.clone()), used),
                });
            }
        }
    }

    fn fail(&mut self, credential: &Credential, why: Failure, wait: Duration) {
        self.again = Some(self.again.map_or(wait, |again| again.min(wait)));
        let told = match &why {
            Failure::Refused(refusal) => &refusal.message,
            Failure::Passing(told) => told,
        };
        if credential.purpose == Purpose::Pull
            && let Some(status) = &mut self.pull_secrets
            && status.failed.len() < FAILED_LIMIT
        {
            status.failed.push(told.chars().take(500).collect());
        }
        match why {
            Failure::Refused(refusal) => self.refused.push(refusal),
            Failure::Passing(told) => self.failed.push(told),
        }
    }
}

/// The old time of use, unless the new one is much later.
fn coarse(old: Option<String>, new: Option<String>) -> Option<String> {
    let time = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<Timestamp>().ok());
    match (time(&old), time(&new)) {
        (Some(before), Some(now)) => {
            let later = Duration::try_from(now.duration_since(before)).unwrap_or_default();
            if later < USE_RESOLUTION { old } else { new }
        }
        _ => new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_a_person_must_change_is_told_before_what_is_tried_again() {
        let mut distributed = Distributed::default();
        assert_eq!(distributed.fact().state, State::True);
        distributed.failed.push("forbidden".to_owned());
        assert_eq!(distributed.fact().reason, "Retrying");
        assert_eq!(distributed.failed().as_deref(), Some("forbidden"));
        let refusal = Refusal {
            reason: "NotAdmitted",
            message: "apps".to_owned(),
        };
        distributed.refused.push(refusal.clone());
        assert_eq!(distributed.fact().reason, "NotAdmitted");
        assert_eq!(distributed.refused(), Some(refusal));
    }

    #[test]
    fn the_time_of_use_moves_in_coarse_steps() {
        let at = |second| Some(Timestamp::from_second(second).unwrap().to_string());
        assert_eq!(coarse(None, at(5)), at(5));
        assert_eq!(coarse(at(5), at(60)), at(5));
        assert_eq!(coarse(at(5), at(700)), at(700));
        assert_eq!(coarse(at(5), None), None);
    }
}
