//! One credential's next steps: a token is issued, its Secret written, what is over retired.

use std::sync::Arc;
use std::time::Duration;

use berth_crds::Tenant;
use berth_crds::admin::{TokenConfig, TokenGrants, TokenKind};
use berth_crds::token::{Token, TokenId};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use super::super::accounts;
use super::super::credential::{self, Credential, Observed, Purpose, Step, Terms};
use super::super::exposure::owner;
use super::super::predecessor::Predecessor;
use super::super::secret::{self, Contents, Written};
use super::ended::end;
use crate::REVOKE_BEFORE;
use crate::context::Context;
use crate::metrics::TokenTimes;
use crate::registry::TokenInfo;
use crate::trouble::Trouble;

/// A credential, and its own tokens by the registry's records.
pub(super) struct One<'a> {
    pub tenant: &'a Tenant,
    pub ctx: &'a Context,
    pub wanted: &'a Credential,
    pub tokens: &'a [TokenInfo],
    /// The last attempt failed.
    pub has_failed: bool,
}

/// What a Secret is to say of its token.
struct Said<'a> {
    token: &'a Token,
    previous: &'a [Predecessor],
    issued: Timestamp,
    rotation_requested: bool,
}

/// When a token was issued, and when it ends.
#[derive(Clone, Copy)]
struct Life {
    issued: Timestamp,
    end: Option<Timestamp>,
}

/// How a credential is, once there is nothing to do.
pub(super) struct Done {
    /// Its token's.
    pub id: Option<TokenId>,
    pub expires_at: Option<String>,
    pub times: TokenTimes,
    /// When to look again.
    pub again: Option<Duration>,
}

impl One<'_> {
    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.ctx.client.clone(), &self.wanted.namespace)
    }

    /// Takes steps until there is nothing to do: few are ever due at once.
    pub async fn ensure(&self, mut existing: Option<Arc<Secret>>) -> Result<Done, Trouble> {
        let terms = self.terms()?;
        if self.has_failed && existing.is_none() {
            // Others' Secrets are not watched. That one has the name is found out by writing, which costs a token, or by
            // looking, which every new Secret would have to wait for.
            existing = self.secrets().get_opt(&self.wanted.secret).await?.map(Arc::new);
        }
        // As the steps leave them.
        let mut tokens = self.tokens.to_vec();
        for _ in 0..6 {
            let observed = match existing.as_deref() {
                None => Observed::Absent,
                Some(secret) if secret::is_ours(secret, &self.tenant.name_any()) => {
                    Observed::Ours(secret::read(secret))
                }
                Some(_) => Observed::Foreign,
            };
            let accounts = self.accounts();
            let mut step = credential::step(self.wanted, &observed, &tokens, terms);
            if let (Step::Keep, Observed::Ours(contents)) = (&step, &observed)
                && contents.accounts != accounts
            {
                step = Step::Rewrite;
            }
            match (step, &observed) {
                (Step::Conflict, _) => return Err(self.conflict()),
                (Step::Issue { previous, revoke }, _) => {
                    let life = self.planned(terms.now);
                    let written = self.issue(existing.as_deref(), &previous, life).await;
                    // What is revoked does not wait for a Secret that cannot be written.
                    if !matches!(&written, Err(Trouble::Kube(error)) if is_outdated(error)) {
                        end(self.ctx, &self.tenant.name_any(), revoke).await?;
                    }
                    return self.finish(&secret::read(&written?), life, &tokens, terms).await;
                }
                (Step::Record, Observed::Ours(contents)) => {
                    let Some(token) = &contents.token else { continue };
                    let life = self.planned(self.life(contents, &tokens, terms).issued);
                    self.record(token, life).await?;
                    for info in tokens.iter_mut().filter(|info| info.id == *token.id()) {
                        info.grants = credential::grants(&self.wanted.grants);
                        info.expires_at = life.end.map(|end| end.to_string());
                    }
                }
                (Step::Regrant(ids), _) => {
                    self.regrant(&ids).await?;
                    for info in tokens.iter_mut().filter(|info| ids.contains(&info.id)) {
                        info.grants = credential::grants(&self.wanted.grants);
                    }
                }
                (Step::Rewrite, Observed::Ours(contents)) => {
                    let Some(token) = &contents.token else { continue };
                    let gone: Vec<String> = contents
                        .accounts
                        .iter()
                        .filter(|name| !accounts.contains(name))
                        .cloned()
                        .collect();
                    accounts::release(self.ctx, &self.wanted.namespace, &self.wanted.secret, &gone).await?;
                    let said = Said {
                        token,
                        previous: &contents.previous,
                        issued: self.life(contents, &tokens, terms).issued,
                        rotation_requested: contents.rotation_requested,
                    };
                    let written = self.write(said, existing.as_deref()).await?;
                    existing = Some(Arc::new(written));
                }
                (Step::Retire(over), Observed::Ours(contents)) => {
                    end(self.ctx, &self.tenant.name_any(), over).await?;
                    let life = self.life(contents, &tokens, terms);
                    return self.finish(contents, life, &tokens, terms).await;
                }
                (_, Observed::Ours(contents)) => {
                    let life = self.life(contents, &tokens, terms);
                    return self.finish(contents, life, &tokens, terms).await;
                }
                // Steps other than these have a Secret of ours.
                (_, Observed::Absent | Observed::Foreign) => break,
            }
        }
        Err(self.conflict())
    }

    fn terms(&self) -> Result<Terms, Trouble> {
        let before = self.tenant.annotations().get(REVOKE_BEFORE);
        let unreadable = |_| {
            Trouble::stalled(
                "Invalid",
                format!("the annotation {REVOKE_BEFORE} is no time like 2026-01-31T12:00:00Z"),
            )
        };
        Ok(Terms {
            // Annotations have whole seconds.
            now: Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH),
            grace: self.ctx.settings.token_grace,
            revoke_before: before.map(|text| text.parse().map_err(unreadable)).transpose()?,
        })
    }

    /// A token that was issued then, as it is to be recorded.
    fn planned(&self, issued: Timestamp) -> Life {
        Life {
            issued,
            end: credential::expiry(self.wanted, issued),
        }
    }

    /// The token that a Secret names, as it is recorded.
    fn life(&self, contents: &Contents, tokens: &[TokenInfo], terms: Terms) -> Life {
        let info = tokens
            .iter()
            .find(|token| Some(&token.id) == contents.id.as_ref());
        info.map_or_else(
            || self.planned(terms.now),
            |info| Life {
                issued: info.created(),
                end: info.expires(),
            },
        )
    }

    fn conflict(&self) -> Trouble {
        Trouble::stalled(
            "SecretConflict",
            format!(
                "Secret {}/{} exists and is not this tenant's: delete it, or choose another name",
                self.wanted.namespace, self.wanted.secret
            ),
        )
    }

    /// Service accounts that are to name the Secret.
    fn accounts(&self) -> Vec<String> {
        let wanted = self
            .tenant
            .spec
            .pull_secrets
            .as_ref()
            .filter(|_| self.wanted.purpose == Purpose::Pull);
        let mut names = wanted
            .map(|pull| pull.service_accounts.clone())
            .unwrap_or_default();
        names.sort_unstable();
        names.dedup();
        names
    }

    async fn record(&self, token: &Token, life: Life) -> Result<(), Trouble> {
        let config = TokenConfig {
            name: self.wanted.name.clone(),
            kind: TokenKind::Organization,
            description: Some(secret::description(&self.wanted.namespace, &self.wanted.secret)),
            hash: hex::encode(token.hash().as_bytes()),
            grants: self.wanted.grants.clone(),
            expires_at: life.end.map(|end| end.to_string()),
        };
        let uid = self.tenant.uid().unwrap_or_default();
        let name = self.tenant.name_any();
        Ok(self
            .ctx
            .registry
            .put_token(&name, token.id(), &uid, &config)
            .await?)
    }

    /// What a person takes from a credential is taken from the tokens that it has replaced, too.
    async fn regrant(&self, ids: &[TokenId]) -> Result<(), Trouble> {
        let (name, uid) = (self.tenant.name_any(), self.tenant.uid().unwrap_or_default());
        let grants = TokenGrants {
            grants: self.wanted.grants.clone(),
        };
        for id in ids {
            self.ctx.registry.regrant_token(&name, id, &uid, &grants).await?;
        }
        Ok(())
    }

    /// The registry knows the token before the Secret names it: tokens are looked up in the store that every
    /// replica shares, so that what was acknowledged is valid at all of them.
    async fn issue(
        &self,
        existing: Option<&Secret>,
        previous: &[Predecessor],
        life: Life,
    ) -> Result<Secret, Trouble> {
        let token = Token::generate();
        self.record(&token, life).await?;
        let said = Said {
            token: &token,
            previous,
            issued: life.issued,
            rotation_requested: false,
        };
        self.write(said, existing).await
    }

    /// Never over a Secret that is not ours: a new one is created, an old one replaced in the very version seen.
    async fn write(&self, said: Said<'_>, existing: Option<&Secret>) -> Result<Secret, Trouble> {
        let accounts = self.accounts();
        let (owner, tenant) = (owner(self.tenant), self.tenant.name_any());
        let written = Written {
            tenant: &tenant,
            owner: &owner,
            previous: said.previous,
            issued: said.issued,
            rotation_requested: said.rotation_requested,
            accounts: &accounts,
            replaces: existing.and_then(|secret| secret.metadata.resource_version.clone()),
        };
        let new = secret::write(self.wanted, said.token, written);
        let (api, params) = (self.secrets(), PostParams::default());
        if existing.is_some() {
            return Ok(api.replace(&self.wanted.secret, &params, &new).await?);
        }
        match api.create(&params, &new).await {
            Err(kube::Error::Api(error)) if error.is_already_exists() => {
                let there = api.get_opt(&self.wanted.secret).await?;
                match there {
                    Some(secret) if !secret::is_ours(&secret, &tenant) => Err(self.conflict()),
                    // Written by us just now; what is watched lags behind.
                    _ => Err(kube::Error::Api(error).into()),
                }
            }
            outcome => Ok(outcome?),
        }
    }

    async fn finish(
        &self,
        contents: &Contents,
        life: Life,
        tokens: &[TokenInfo],
        terms: Terms,
    ) -> Result<Done, Trouble> {
        accounts::ensure(
            self.ctx,
            &self.wanted.namespace,
            &self.wanted.secret,
            &self.accounts(),
        )
        .await?;
        Ok(Done {
            id: contents.token.as_ref().map(|token| token.id().clone()),
            expires_at: life.end.map(|end| end.to_string()),
            times: TokenTimes {
                renewal: credential::renewal(self.wanted, life.issued),
                expiry: life.end,
            },
            again: credential::next_look(self.wanted, contents, tokens, terms),
        })
    }
}

/// The Secret of that name, if it is one of a tenant's.
pub(super) fn cached(ctx: &Context, wanted: &Credential) -> Option<Arc<Secret>> {
    let key = ObjectRef::new(&wanted.secret).within(&wanted.namespace);
    ctx.watched.secrets.get(&key)
}

/// What is watched lags behind what was to be replaced.
fn is_outdated(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(error) if error.code == 409)
}
