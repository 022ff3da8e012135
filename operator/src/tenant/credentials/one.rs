//! One credential's next steps: a token is issued, its Secret written, what is over retired.

use std::sync::Arc;
use std::time::Duration;

use berth_crds::Tenant;
use berth_crds::admin::{TokenConfig, TokenKind};
use berth_crds::token::Token;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
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

/// A credential, and the tokens that the registry has of its tenant.
pub(super) struct One<'a> {
    pub tenant: &'a Tenant,
    pub ctx: &'a Context,
    pub wanted: &'a Credential,
    pub tokens: &'a [TokenInfo],
}

/// What a Secret is to say of its token.
struct Said<'a> {
    token: &'a Token,
    previous: &'a [Predecessor],
    issued: Timestamp,
    rotation_requested: bool,
}

/// How a credential is, once there is nothing to do.
pub(super) struct Done {
    /// Its token's.
    pub id: String,
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
    pub async fn ensure(&self) -> Result<Done, Trouble> {
        let terms = self.terms()?;
        let mut existing = self.cached();
        for _ in 0..4 {
            let observed = match existing.as_deref() {
                None => Observed::Absent,
                Some(secret) if secret::is_ours(secret, &self.tenant.name_any()) => {
                    Observed::Ours(secret::read(secret))
                }
                Some(_) => Observed::Foreign,
            };
            let accounts = self.accounts();
            let mut step = credential::step(self.wanted, &observed, self.tokens, terms);
            if let (Step::Keep, Observed::Ours(contents)) = (&step, &observed)
                && contents.accounts != accounts
            {
                step = Step::Rewrite;
            }
            match (step, &observed) {
                (Step::Conflict, _) => return Err(self.conflict()),
                (Step::Issue { previous, revoke }, _) => {
                    let written = self.issue(existing.as_deref(), &previous, terms.now).await?;
                    end(self.ctx, &self.tenant.name_any(), revoke).await?;
                    return self.finish(&secret::read(&written), terms).await;
                }
                (Step::Record, Observed::Ours(contents)) => {
                    if let Some(token) = &contents.token {
                        self.record(token, contents.issued.unwrap_or(terms.now)).await?;
                    }
                    return self.finish(contents, terms).await;
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
                    let issued = contents.issued.unwrap_or(terms.now);
                    let said = Said {
                        token,
                        previous: &contents.previous,
                        issued,
                        rotation_requested: contents.rotation_requested,
                    };
                    let written = self.write(said, existing.as_deref()).await?;
                    existing = Some(Arc::new(written));
                }
                (Step::Retire(over), Observed::Ours(contents)) => {
                    end(self.ctx, &self.tenant.name_any(), over).await?;
                    return self.finish(contents, terms).await;
                }
                (_, Observed::Ours(contents)) => return self.finish(contents, terms).await,
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

    fn cached(&self) -> Option<Arc<Secret>> {
        let key =
            kube::runtime::reflector::ObjectRef::new(&self.wanted.secret).within(&self.wanted.namespace);
        self.ctx.watched.secrets.get(&key)
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

    async fn record(&self, token: &Token, issued: Timestamp) -> Result<(), Trouble> {
        let config = TokenConfig {
            name: self.wanted.name.clone(),
            kind: TokenKind::Organization,
            description: Some(format!("Secret {}/{}", self.wanted.namespace, self.wanted.secret)),
            hash: hex::encode(token.hash().as_bytes()),
            grants: self.wanted.grants.clone(),
            expires_at: credential::expiry(self.wanted, issued).map(|end| end.to_string()),
        };
        let uid = self.tenant.uid().unwrap_or_default();
        let name = self.tenant.name_any();
        Ok(self
            .ctx
            .registry
            .put_token(&name, token.id().as_str(), &uid, &config)
            .await?)
    }

    /// The registry knows the token before the Secret names it: tokens are looked up in the store that every
    /// replica shares, so that what was acknowledged is valid at all of them.
    async fn issue(
        &self,
        existing: Option<&Secret>,
        previous: &[Predecessor],
        issued: Timestamp,
    ) -> Result<Secret, Trouble> {
        let token = Token::generate();
        self.record(&token, issued).await?;
        let said = Said {
            token: &token,
            previous,
            issued,
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

    async fn finish(&self, contents: &Contents, terms: Terms) -> Result<Done, Trouble> {
        accounts::ensure(
            self.ctx,
            &self.wanted.namespace,
            &self.wanted.secret,
            &self.accounts(),
        )
        .await?;
        let issued = contents.issued.unwrap_or(terms.now);
        let expiry = credential::expiry(self.wanted, issued);
        Ok(Done {
            id: contents
                .token
                .as_ref()
                .map(|token| token.id().to_string())
                .unwrap_or_default(),
            expires_at: expiry.map(|end| end.to_string()),
            times: TokenTimes {
                renewal: credential::renewal(self.wanted, issued),
                expiry,
            },
            again: credential::next_look(self.wanted, contents, self.tokens, terms),
        })
    }
}
