//! From a credential to a principal.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::access_token::{ACCESS, ACCESS_LIFE, CONFINED, CONFINED_LIFE, Claims, REFRESH, REFRESH_LIFE};
use super::keys::{self, KeyRing, TokenRefused};
use super::presented::{Presented, shown_user};
use super::principal::{Access, Credential, Principal, Rights};
use super::sign_in::Providers;
use super::throttle::{Login, Telling, Throttle};
use super::tokens::{self, Known, Tokens};
use super::trust::{Refused, Verifier};
use crate::audit::{Audit, Event, Outcome};
use crate::domain::token::{self, Token};
use crate::metadata::configuration::Configuration;
use crate::metadata::{MetadataError, TenantId, Time};
use crate::tenancy::snapshot::Tenant;
use crate::tenancy::{Directory, Origin};

/// Verified tokens kept, each as the hash of its text.
const VERIFIED: u64 = 50_000;
/// A foreign token that was verified is not verified again for this long.
const FOREIGN_VERIFIED: Duration = Duration::from_secs(60);

/// Why a credential is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is nobody's here. The words do not depend on why.
    #[error("{0}")]
    Unknown(&'static str),
    /// A foreign token that no rule accepts, or whose keys cannot be had.
    #[error(transparent)]
    Foreign(#[from] Refused),
    /// Too many failures before.
    #[error("too many failed logins; wait {} seconds", .0.as_secs() + 1)]
    Throttled(Duration),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] MetadataError),
}

/// Everything that is needed to recognise somebody.
pub struct Identity {
    pub(super) tokens: Tokens,
    pub(super) keys: Arc<KeyRing>,
    pub(super) directory: Arc<Directory>,
    pub(super) verifier: Verifier,
    pub(super) providers: Providers,
    pub(super) throttle: Throttle,
    audit: Audit,
    access_tokens: Cache<[u8; 32], Arc<Claims>>,
    /// With the id of the rule that accepted the token.
    foreign: Cache<[u8; 32], Arc<(String, super::trust::Accepted)>>,
}

/// What is wrong with a password that is none.
const NO_LOGIN: &str = "the password is no valid token of this tenant; the user name does not matter";
/// The user name in the audit trail of failures that are too many to tell apart.
const MANY: &str = "(many)";
/// What is wrong with a bearer token that is none.
const NO_BEARER: &str = "the bearer token is not valid here; ask for a new one";

impl Identity {
    /// Puts the parts together, and notes the use of tokens in the background, if the store takes that.
    pub fn start(
        store: Arc<dyn Configuration>,
        keys: Arc<KeyRing>,
        directory: Arc<Directory>,
        verifier: Verifier,
        audit: Audit,
        notes_use: bool,
    ) -> Arc<Self> {
        let identity = Arc::new(Self {
            tokens: Tokens::new(store, notes_use),
            keys,
            directory,
            providers: Providers::new(verifier.client().clone()),
            verifier,
            throttle: Throttle::default(),
            audit,
            access_tokens: Cache::builder()
                .max_capacity(VERIFIED)
                .time_to_live(Duration::from_secs(ACCESS_LIFE.unsigned_abs()))
                .build(),
            foreign: Cache::builder()
                .max_capacity(VERIFIED)
                .time_to_live(FOREIGN_VERIFIED)
                .build(),
        });
        if notes_use {
            let noting = identity.clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(tokens::NOTE_EVERY).await;
                    if let Err(error) = noting.tokens.note_used().await {
                        tracing::warn!(%error, "the use of tokens could not be noted");
                    }
                }
            });
        }
        identity
    }

    /// Forgets what is remembered of a token that has just changed.
    pub fn token_changed(&self, id: &str) {
        self.tokens.forget(id);
    }

    /// Stores what has not been stored yet; for the end of the process.
    pub async fn settle(&self) {
        if let Err(error) = self.tokens.note_used().await {
            tracing::warn!(%error, "the use of tokens could not be noted");
        }
        self.audit.flush().await;
    }

    /// The audit trail.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Who presents this at a tenant. Where there is no tenant the answers are those of one at which nobody is
    /// known. `scope` says which failures count together: a host's tenant, or none on the apex, whose paths
    /// must not show which tenants there are.
    pub async fn authenticate(
        &self,
        tenant: Option<&Tenant>,
        scope: Option<TenantId>,
        presented: &Presented,
        origin: &Origin,
    ) -> Result<Principal, Refusal> {
        match presented {
            Presented::Nothing => Ok(Principal::anonymous(Rights::None)),
            Presented::Unreadable => Err(Refusal::Unknown(
                "the Authorization header is neither Basic nor Bearer; send one of them",
            )),
            Presented::Bearer(text) => match tenant {
                Some(tenant) => self.by_access_token(tenant, text).await,
                None => Err(Refusal::Unknown(NO_BEARER)),
            },
            Presented::Password { user, secret } => {
                let login = self.throttle.login(scope, user, origin.address);
                self.by_password(tenant, login, user, secret, origin).await
            }
        }
    }

    /// The tenant that a credential belongs to, where the host does not say; not yet verified. Nothing is looked up for whoever
    /// has to wait.
    pub async fn tenant_of(
        &self,
        presented: &Presented,
        origin: &Origin,
    ) -> Result<Option<Arc<Tenant>>, Refusal> {
        let snapshot = self.directory.now();
        match presented {
            Presented::Nothing | Presented::Unreadable => Ok(None),
            Presented::Bearer(text) => Ok(audience(text).and_then(|uid| snapshot.by_uid(&uid).cloned())),
            Presented::Password { user, secret } => match Token::parse(secret) {
                Ok(token) => {
                    let login = self.throttle.login(None, user, origin.address);
                    if let Some(wait) = self.throttle.wait(&login, secret, Instant::now()) {
                        return Err(Refusal::Throttled(wait));
                    }
                    let known = self.tokens.check(&token, Time::now()).await?;
                    Ok(known.and_then(|known| snapshot.tenant(known.tenant).cloned()))
                }
                Err(_) => Ok(audience(secret).and_then(|uid| snapshot.by_uid(&uid).cloned())),
            },
        }
    }

    /// A password: a token of the tenant, a foreign token that it trusts, or a confined token issued for either.
    async fn by_password(
        &self,
        tenant: Option<&Tenant>,
        login: Login,
        user: &str,
        secret: &str,
        origin: &Origin,
    ) -> Result<Principal, Refusal> {
        if let Some(wait) = self.throttle.wait(&login, secret, Instant::now()) {
            return Err(Refusal::Throttled(wait));
        }
        let found = if token::looks_like(secret) {
            self.by_token(tenant, secret).await
        } else if keys::typ(secret).as_deref() == Some(CONFINED) {
            self.by_confined_token(tenant, secret).await
        } else if secret.split('.').count() == 3 {
            self.by_foreign_token(tenant, secret).await
        } else {
            Err(Refusal::Unknown(NO_LOGIN))
        };
        match found {
            Ok(principal) => {
                self.throttle.succeeded(&login, secret);
                Ok(Principal {
                    user: shown_user(user),
                    ..principal
                })
            }
            Err(refusal) => {
                if matches!(
                    refusal,
                    Refusal::Unknown(_) | Refusal::Foreign(Refused::NoRule(_))
                ) {
                    let user = match self.throttle.failed(&login, secret, Instant::now()) {
                        Telling::Single => shown_user(user),
                        Telling::OneOfMany => MANY.to_owned(),
                    };
                    self.audit_failure(tenant, &user, &refusal, origin);
                }
                Err(refusal)
            }
        }
    }

    fn audit_failure(&self, tenant: Option<&Tenant>, user: &str, refusal: &Refusal, origin: &Origin) {
        let detail = match refusal {
            Refusal::Foreign(Refused::NoRule(why)) if user != MANY => why.clone(),
            Refusal::Foreign(Refused::NoRule(_)) => "no trust rule accepts this token".to_owned(),
            refusal => refusal.to_string(),
        };
        self.audit.add(Event {
            tenant: tenant.map_or_else(Default::default, |tenant| (tenant.id.0, tenant.name.to_string())),
            actor: format!("user:{user}"),
            action: "login",
            object: String::new(),
            outcome: Outcome::Denied,
            detail,
            address: Some(origin.address),
        });
    }

    async fn by_token(&self, tenant: Option<&Tenant>, secret: &str) -> Result<Principal, Refusal> {
        let token = Token::parse(secret).map_err(|_| Refusal::Unknown(NO_LOGIN))?;
        let known = self.tokens.check(&token, Time::now()).await?;
        let known = known.filter(|known| tenant.is_some_and(|tenant| known.tenant == tenant.id));
        known
            .map(|known| of_token(&known))
            .ok_or(Refusal::Unknown(NO_LOGIN))
    }

    async fn by_foreign_token(&self, tenant: Option<&Tenant>, text: &str) -> Result<Principal, Refusal> {
        let now = seconds();
        let Some(tenant) = tenant else {
            return Err(Refused::NoRule("there is no such tenant".to_owned()).into());
        };
        let key = cache_key(&tenant.uid, text);
        let rules = || tenant.trust.iter().map(|trusted| &trusted.rule);
        let known = self.foreign.get(&key).filter(|known| now < known.1.expires_at);
        let known = match known.filter(|known| rules().any(|rule| rule.id == known.0)) {
            Some(known) => known,
            None => {
                let accepted = self.verifier.verify(tenant.id, rules(), text, now).await?;
                let rule = rules()
                    .nth(accepted.rule)
                    .map(|rule| rule.id.clone())
                    .unwrap_or_default();
                let known = Arc::new((rule, accepted));
                self.foreign.insert(key, known.clone());
                known
            }
        };
        let (rule, accepted) = &*known;
        let rule = tenant.trust.iter().find(|trusted| trusted.rule.id == *rule);
        let rule = rule.ok_or(Refusal::Unknown(NO_LOGIN))?;
        Ok(Principal {
            label: accepted.subject.clone(),
            user: String::new(),
            rights: Rights::Granted(rule.grants.clone()),
            credential: Credential::Trust {
                rule: rule.rule.id.clone(),
                subject: accepted.subject.clone(),
                until: accepted.expires_at,
            },
        })
    }

    async fn by_access_token(&self, tenant: &Tenant, text: &str) -> Result<Principal, Refusal> {
        let key = cache_key(&tenant.uid, text);
        let now = seconds();
        let claims = match self.access_tokens.get(&key).filter(|claims| now < claims.exp) {
            Some(claims) => claims,
            None => {
                let claims: Claims = self
                    .keys
                    .verify(text, ACCESS, &tenant.uid, now)
                    .map_err(|_| Refusal::Unknown(NO_BEARER))?;
                let claims = Arc::new(claims);
                self.access_tokens.insert(key, claims.clone());
                claims
            }
        };
        let principal = self.behind(tenant, &claims.credential, now).await?;
        let within = claims.within.clone().map(Arc::from);
        Ok(scoped(principal, claims.access.clone().into(), within))
    }

    /// What is wrong with a confined token is told in the words for any password.
    async fn by_confined_token(&self, tenant: Option<&Tenant>, text: &str) -> Result<Principal, Refusal> {
        let tenant = tenant.ok_or(Refusal::Unknown(NO_LOGIN))?;
        let now = seconds();
        let claims = self
            .keys
            .verify::<Claims>(text, CONFINED, &tenant.uid, now)
            .map_err(|_| Refusal::Unknown(NO_LOGIN))?;
        match self.behind(tenant, &claims.credential, now).await {
            Ok(principal) => {
                let access: Arc<[Access]> = claims.access.into();
                Ok(scoped(principal, access.clone(), Some(access)))
            }
            Err(Refusal::Unknown(_)) => Err(Refusal::Unknown(NO_LOGIN)),
            Err(refusal) => Err(refusal),
        }
    }

    /// Whoever stands behind an issued token, if they still do.
    pub(super) async fn behind(
        &self,
        tenant: &Tenant,
        credential: &Credential,
        now: i64,
    ) -> Result<Principal, Refusal> {
        match credential {
            Credential::Anonymous => Ok(Principal::anonymous(Rights::None)),
            Credential::Token { id } => {
                let known = self.tokens.find(id, Time::now()).await?;
                let known = known.filter(|known| known.tenant == tenant.id);
                known
                    .map(|known| of_token(&known))
                    .ok_or(Refusal::Unknown(NO_BEARER))
            }
            Credential::Trust { rule, subject, until } => {
                let rule = tenant.trust.iter().find(|trusted| trusted.rule.id == *rule);
                let rule = rule.filter(|_| now < *until).ok_or(Refusal::Unknown(NO_BEARER))?;
                Ok(Principal {
                    label: subject.clone(),
                    user: String::new(),
                    rights: Rights::Granted(rule.grants.clone()),
                    credential: credential.clone(),
                })
            }
        }
    }

    /// Issues an access token.
    pub fn issue_access(
        &self,
        tenant: &Tenant,
        principal: &Principal,
        access: Vec<Access>,
        host: &str,
    ) -> Result<(String, i64), TokenRefused> {
        let life = match principal.credential {
            Credential::Trust { until, .. } => (until - seconds()).clamp(60, ACCESS_LIFE),
            Credential::Anonymous | Credential::Token { .. } => ACCESS_LIFE,
        };
        let claims = claims(tenant, principal, access, host, life);
        Ok((self.keys.sign(self.known_keys().as_ref(), ACCESS, &claims)?, life))
    }

    /// Issues a refresh token.
    pub fn issue_refresh(
        &self,
        tenant: &Tenant,
        principal: &Principal,
        host: &str,
    ) -> Result<String, TokenRefused> {
        let life = match principal.credential {
            Credential::Trust { until, .. } => (until - seconds()).max(0),
            Credential::Anonymous | Credential::Token { .. } => REFRESH_LIFE,
        };
        let claims = claims(tenant, principal, Vec::new(), host, life);
        self.keys.sign(self.known_keys().as_ref(), REFRESH, &claims)
    }

    /// Issues a token that stands in for the credential as the password, for `access` alone, and its lifetime in
    /// seconds. None where that is nothing, and none for what is confined itself, or it could be made to last.
    pub fn issue_confined(
        &self,
        tenant: &Tenant,
        principal: &Principal,
        access: Vec<Access>,
        host: &str,
    ) -> Result<Option<(String, i64)>, TokenRefused> {
        let life = match principal.credential {
            Credential::Trust { until, .. } => (until - seconds()).min(CONFINED_LIFE),
            Credential::Token { .. } => CONFINED_LIFE,
            Credential::Anonymous => 0,
        };
        if life <= 0 || access.is_empty() || principal.rights.are_scoped() {
            return Ok(None);
        }
        let claims = claims(tenant, principal, access, host, life);
        let token = self.keys.sign(self.known_keys().as_ref(), CONFINED, &claims)?;
        Ok(Some((token, life)))
    }

    /// Whoever a refresh token was issued to.
    pub async fn by_refresh_token(
        &self,
        tenant: Option<&Tenant>,
        scope: Option<TenantId>,
        text: &str,
        origin: &Origin,
    ) -> Result<Principal, Refusal> {
        let login = self.throttle.login(scope, "(refresh)", origin.address);
        if let Some(wait) = self.throttle.wait(&login, text, Instant::now()) {
            return Err(Refusal::Throttled(wait));
        }
        let now = seconds();
        let refused = || Refusal::Unknown("the refresh token is not valid here; log in again");
        let verified = tenant.map(|tenant| {
            (
                tenant,
                self.keys.verify::<Claims>(text, REFRESH, &tenant.uid, now),
            )
        });
        let principal = match verified {
            Some((tenant, Ok(claims))) => self.behind(tenant, &claims.credential, now).await,
            Some((_, Err(_))) | None => Err(refused()),
        };
        if principal.is_ok() {
            self.throttle.is_right(&login, text);
        }
        principal.map_err(|refusal| match refusal {
            Refusal::Unknown(_) => {
                let user = match self.throttle.failed(&login, text, Instant::now()) {
                    Telling::Single => "(refresh token)",
                    Telling::OneOfMany => MANY,
                };
                self.audit_failure(tenant, user, &refused(), origin);
                refused()
            }
            refusal => refusal,
        })
    }

    /// Signing keys that every live replica knows; `None` while there is none but this one.
    pub(super) fn known_keys(&self) -> Option<HashSet<String>> {
        let replicas = self.directory.replicas();
        let mut sets = replicas
            .iter()
            .map(|replica| replica.keys.iter().cloned().collect::<HashSet<_>>());
        let first = sets.next()?;
        Some(sets.fold(first, |common, other| {
            common.intersection(&other).cloned().collect()
        }))
    }
}

/// Somebody, as far as a token names what they may do.
fn scoped(principal: Principal, access: Arc<[Access]>, within: Option<Arc<[Access]>>) -> Principal {
    let rights = match principal.rights {
        Rights::Granted(granted) => Rights::Scoped {
            granted,
            access,
            within,
        },
        rights @ (Rights::All | Rights::None | Rights::Scoped { .. }) => rights,
    };
    Principal { rights, ..principal }
}

fn of_token(known: &Known) -> Principal {
    Principal {
        label: format!("token:{}", known.name),
        user: String::new(),
        rights: Rights::Granted(known.grants.clone()),
        credential: Credential::Token { id: known.id.clone() },
    }
}

pub(super) fn claims(
    tenant: &Tenant,
    principal: &Principal,
    access: Vec<Access>,
    host: &str,
    life: i64,
) -> Claims {
    let now = seconds();
    Claims {
        iss: host.to_owned(),
        sub: principal.label.clone(),
        aud: tenant.uid.clone(),
        exp: now + life,
        nbf: now,
        iat: now,
        jti: uuid::Uuid::new_v4().simple().to_string(),
        access,
        within: principal.rights.within().map(|within| within.to_vec()),
        credential: principal.credential.clone(),
        since: None,
    }
}

/// The audience that a JWT claims.
fn audience(text: &str) -> Option<String> {
    use base64::Engine as _;
    if text.len() > super::presented::CREDENTIAL_LIMIT {
        return None;
    }
    let claims = text.split('.').nth(1)?;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(claims)
        .ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    claims
        .get("aud")
        .and_then(serde_json::Value::as_str)
        .map(str::to_owned)
}

fn cache_key(uid: &str, text: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(uid.as_bytes());
    hash.update([0]);
    hash.update(text.as_bytes());
    hash.finalize().into()
}

/// Now, in seconds since 1970.
pub(super) fn seconds() -> i64 {
    Time::now().0 / 1_000_000
}
