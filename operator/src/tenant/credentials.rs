//! All credentials of a tenant: which there are to be, what each one's next step is, and taking it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use berth_crds::admin::{TokenConfig, TokenKind};
use berth_crds::token::Token;
use berth_crds::{Action, Grant, PullSecretsStatus, Tenant, TokenStatus};
use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, ResourceExt as _};
use sha2::{Digest as _, Sha256};

use super::accounts;
use super::credential::{self, Credential, Observed, Purpose, Step, Terms};
use super::exposure::owner;
use super::predecessor::Predecessor;
use super::secret::{self, Contents, Written};
use crate::admission::admits;
use crate::condition::{Fact, State};
use crate::context::{Context, selects};
use crate::metrics::TokenTimes;
use crate::registry::{RegistryError, TokenInfo};
use crate::trouble::Trouble;
use crate::{MANAGED_BY, MANAGER, REVOKE_BEFORE, TENANT};

/// Tokens that nobody names are given this long: their Secret may be about to be written.
const ORPHAN_AGE: Duration = Duration::from_secs(30);
/// Tokens that are ended at a time.
const ENDED_AT_ONCE: usize = 8;
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

/// The Secrets that the tenant wants, by namespace and name; and those that it cannot have.
fn wanted(tenant: &Tenant, ctx: &Context) -> (Vec<Credential>, Vec<String>) {
    let (name, spec) = (tenant.name_any(), &tenant.spec);
    let hosts: Vec<String> = std::iter::once(ctx.settings.host(&name))
        .chain(spec.hosts.iter().cloned())
        .map(|host| ctx.settings.with_port(&host))
        .collect();
    let may_lie_in = |namespace: &str| {
        !ctx.settings.is_reserved(namespace)
            && ctx.settings.covers(namespace)
            && ctx
                .labels_of(namespace)
                .is_some_and(|labels| admits(&spec.allowed_namespaces, &labels))
    };
    let (mut credentials, mut refused) = (Vec::new(), Vec::new());
    for token in &spec.tokens {
        let target = &token.secret_ref;
        if !may_lie_in(&target.namespace) {
            refused.push(format!(
                "token {}: the tenant does not admit namespace {} (spec.allowedNamespaces), or no Secret of a tenant may be there",
                token.name, target.namespace
            ));
            continue;
        }
        credentials.push(Credential {
            purpose: Purpose::Organization,
            name: token.name.clone(),
            namespace: target.namespace.clone(),
            secret: target.name.clone(),
            grants: token.grants.clone(),
            expires_after: token.expires_after.clone(),
            rotate_every: token.rotate_every.clone(),
            hosts: hosts.clone(),
        });
    }
    if let Some(pull) = &spec.pull_secrets {
        let chosen = ctx.namespaces(|namespace, labels| {
            selects(&pull.namespace_selector, labels) && may_lie_in(namespace)
        });
        credentials.extend(chosen.into_iter().map(|namespace| Credential {
            purpose: Purpose::Pull,
            name: pull_name(&namespace),
            secret: format!("berth-{name}"),
            grants: vec![Grant {
                repositories: vec!["**".to_owned()],
                actions: vec![Action::Pull],
            }],
            expires_after: None,
            rotate_every: pull.rotate_every.clone(),
            hosts: hosts.clone(),
            namespace,
        }));
    }
    let mut seen = BTreeSet::new();
    credentials.retain(|credential| {
        let is_new = seen.insert((credential.namespace.clone(), credential.secret.clone()));
        if !is_new {
            refused.push(format!(
                "Secret {}/{} is wanted twice by this tenant",
                credential.namespace, credential.secret
            ));
        }
        is_new
    });
    (credentials, refused)
}

/// Name of a namespace's tokens at the registry: a DNS label, unique however long the namespace's name is.
fn pull_name(namespace: &str) -> String {
    let name = format!("pull-{namespace}");
    if name.len() <= 63 {
        return name;
    }
    let digest = hex::encode(&Sha256::digest(namespace.as_bytes())[..4]);
    format!("{}-{digest}", &name[..54])
}

/// Takes the next step of every credential.
pub async fn ensure(tenant: &Tenant, ctx: &Context) -> Result<Distributed, Trouble> {
    let name = tenant.name_any();
    let (wanted, refused) = wanted(tenant, ctx);
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

struct One<'a> {
    tenant: &'a Tenant,
    ctx: &'a Context,
    wanted: &'a Credential,
    tokens: &'a [TokenInfo],
}

/// What a Secret is to say of its token.
struct Said<'a> {
    token: &'a Token,
    previous: &'a [Predecessor],
    issued: Timestamp,
    rotation_requested: bool,
}

struct Done {
    id: String,
    expires_at: Option<String>,
    times: TokenTimes,
    again: Option<Duration>,
}

impl One<'_> {
    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.ctx.client.clone(), &self.wanted.namespace)
    }

    /// Takes steps until there is nothing to do: few are ever due at once.
    async fn ensure(&self) -> Result<Done, Trouble> {
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

/// Secrets that were made for the tenant, by namespace and name.
fn ours(ctx: &Context, tenant: &str) -> BTreeMap<(String, String), Arc<Secret>> {
    let secrets = ctx
        .watched
        .secrets
        .all()
        .into_iter()
        .filter(|secret| secret::is_ours(secret, tenant));
    secrets
        .map(|secret| {
            (
                (secret.namespace().unwrap_or_default(), secret.name_any()),
                secret,
            )
        })
        .collect()
}

/// Ends a Secret that is wanted no longer: nothing names it, its tokens are void, then it goes.
async fn withdraw(ctx: &Context, tenant: &str, secret: &Secret) -> Result<(), Trouble> {
    let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    let contents = secret::read(secret);
    accounts::release(ctx, &namespace, &name, &contents.accounts).await?;
    end(ctx, tenant, contents.ids()).await?;
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: secret.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match Api::<Secret>::namespaced(ctx.client.clone(), &namespace)
        .delete(&name, &params)
        .await
    {
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        outcome => Ok(outcome.map(drop)?),
    }
}

/// Service accounts no longer name the tenant's Secrets.
pub async fn release_accounts(tenant: &Tenant, ctx: &Context) -> Result<(), Trouble> {
    for ((namespace, name), secret) in ours(ctx, &tenant.name_any()) {
        accounts::release(ctx, &namespace, &name, &secret::read(&secret).accounts).await?;
    }
    Ok(())
}

/// Ends tokens that were made here and that no Secret names: their Secret was never written, or went with its
/// namespace. Whether there are some that are too young to be told from those whose Secret is on its way.
async fn remove_orphans(tenant: &Tenant, ctx: &Context, tokens: &[TokenInfo]) -> Result<bool, Trouble> {
    let (name, uid) = (tenant.name_any(), tenant.uid().unwrap_or_default());
    let now = Timestamp::now();
    let cached = named(ours(ctx, &name).values().map(AsRef::as_ref));
    let all = credential::orphans(tokens, &uid, &cached, now, Duration::ZERO).len();
    let old = credential::orphans(tokens, &uid, &cached, now, ORPHAN_AGE).len();
    if old == 0 {
        return Ok(all > 0);
    }
    // What is watched may lag behind; ending a token that is in use would be an outage.
    let mut there = Vec::new();
    for api in ctx.secrets_everywhere() {
        let labelled = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER},{TENANT}={name}"));
        there.extend(api.list(&labelled).await?.items);
    }
    let known = named(there.iter());
    for id in credential::orphans(tokens, &uid, &known, now, ORPHAN_AGE) {
        tracing::info!(tenant = name, id, "a token that no Secret names is ended");
        ctx.registry.delete_token(&name, id).await?;
    }
    Ok(all > old)
}

/// Ids of the tokens that Secrets name.
fn named<'a>(secrets: impl Iterator<Item = &'a Secret>) -> BTreeSet<String> {
    secrets.flat_map(|secret| secret::read(secret).ids()).collect()
}

/// Ends tokens: those of a list, however long, within the second that is promised.
async fn end(ctx: &Context, tenant: &str, ids: Vec<String>) -> Result<(), RegistryError> {
    iter(ids)
        .map(async |id| ctx.registry.delete_token(tenant, &id).await)
        .buffer_unordered(ENDED_AT_ONCE)
        .try_for_each(async |_| Ok(()))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pull_tokens_are_labels_and_differ_for_long_namespaces() {
        assert_eq!(pull_name("apps"), "pull-apps");
        let (a, b) = (
            pull_name(&format!("{}a", "x".repeat(62))),
            pull_name(&format!("{}b", "x".repeat(62))),
        );
        assert!(a != b && a.len() <= 63 && b.len() <= 63);
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
