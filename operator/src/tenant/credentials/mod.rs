//! All credentials of a tenant: [`wanted`] says which there are to be, [`one`] takes the next step of each, and [`ended`] ends
//! those that are wanted no longer.

mod ended;
mod one;
mod wanted;

use std::time::Duration;

use berth_crds::{PullSecretsStatus, Tenant, TokenStatus};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use self::ended::{ORPHAN_AGE, ours, remove_orphans, withdraw};
use self::one::{Done, One};
use super::credential::{Credential, Purpose};
use crate::condition::{Fact, State};
use crate::context::Context;
use crate::metrics::TokenTimes;
use crate::registry::TokenInfo;
use crate::trouble::Trouble;

pub use self::ended::release_accounts;

/// Most failures that a status names.
const FAILED_LIMIT: usize = 32;
/// What a status says about use is not renewed more often.
const USE_RESOLUTION: Duration = Duration::from_secs(600);

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
    refused: Vec<String>,
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
            (Some(why), _) => fact(State::False, "SecretConflict", why.clone()),
            (None, Some(why)) => fact(State::False, "Retrying", why.clone()),
            (None, None) => fact(State::True, "Distributed", format!("{} Secrets", self.written)),
        }
    }

    /// The times of its tokens, if all of them are known.
    pub fn times(&self) -> Option<TokenTimes> {
        self.failed.is_empty().then_some(self.times)
    }

    /// What a person must change.
    pub fn refused(&self) -> Option<&str> {
        self.refused.first().map(String::as_str)
    }
}

/// Takes the next step of every credential.
pub async fn ensure(tenant: &Tenant, ctx: &Context) -> Result<Distributed, Trouble> {
    let name = tenant.name_any();
    let (wanted, refused) = wanted::wanted(tenant, ctx);
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
    if wanted.is_empty() && existing.is_empty() {
        return Ok(distributed);
    }
    let tokens = ctx.registry.tokens(&name).await?;
    for credential in &wanted {
        let one = One {
            tenant,
            ctx,
            wanted: credential,
            tokens: &tokens,
        };
        match one.ensure().await {
            Ok(done) => distributed.count(tenant, credential, &tokens, done),
            Err(trouble) => distributed.fail(credential, trouble)?,
        }
    }
    for secret in existing.values() {
        let is_wanted = |wanted: &Credential| {
            secret.namespace().as_deref() == Some(&wanted.namespace) && secret.name_any() == wanted.secret
        };
        if !wanted.iter().any(is_wanted) {
            withdraw(ctx, &name, secret).await?;
        }
    }
    if remove_orphans(tenant, ctx, &tokens).await? {
        let soon = ORPHAN_AGE + Duration::from_secs(1);
        distributed.again = Some(distributed.again.map_or(soon, |again| again.min(soon)));
    }
    Ok(distributed)
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
                let info = tokens.iter().find(|token| token.id == done.id);
                let before = tenant.status.as_ref().and_then(|status| {
                    status
                        .tokens
                        .iter()
                        .find(|token| token.name == credential.name && token.id.as_deref() == Some(&done.id))
                });
                let used = info.and_then(|info| info.last_used_at.clone());
                self.tokens.push(TokenStatus {
                    name: credential.name.clone(),
                    id: Some(done.id),
                    expires_at: done.expires_at,
                    last_used_at: coarse(before.and_then(|before| before.last_used_at.clone()), used),
                });
            }
        }
    }

    fn fail(&mut self, credential: &Credential, trouble: Trouble) -> Result<(), Trouble> {
        let told = format!("Secret {}/{}: {trouble}", credential.namespace, credential.secret);
        match trouble {
            // Nothing works without it.
            Trouble::Registry(_) => return Err(trouble),
            Trouble::Stalled { message, .. } => self.refused.push(message),
            Trouble::Kube(_) => {
                self.failed.push(told.clone());
                self.again = Some(
                    self.again
                        .unwrap_or(Duration::from_secs(5))
                        .min(Duration::from_secs(5)),
                );
            }
        }
        if credential.purpose == Purpose::Pull
            && let Some(status) = &mut self.pull_secrets
            && status.failed.len() < FAILED_LIMIT
        {
            status.failed.push(told.chars().take(500).collect());
        }
        Ok(())
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
    fn the_time_of_use_moves_in_coarse_steps() {
        let at = |second| Some(Timestamp::from_second(second).unwrap().to_string());
        assert_eq!(coarse(None, at(5)), at(5));
        assert_eq!(coarse(at(5), at(60)), at(5));
        assert_eq!(coarse(at(5), at(700)), at(700));
        assert_eq!(coarse(at(5), None), None);
    }
}
