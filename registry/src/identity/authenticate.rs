//! From a credential to a principal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::access_token::{ACCESS_LIFE, CONFINED, Claims};
use super::keys::{self, KeyRing};
use super::presented::{Presented, shown_user};
use super::principal::{Credential, Principal, Rights};
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
    pub(super) access_tokens: Cache<[u8; 32], Arc<Claims>>,
    /// With the id of the rule that accepted the token.
    foreign: Cache<[u8; 32], Arc<(String, super::trust::Accepted)>>,
}

/// What is wrong with a password that is none.
pub(super) const NO_LOGIN: &str =
    "the password is no valid token of this tenant; the user name does not matter";
/// The user name in the audit trail of failures that are too many to tell apart.
pub(super) const MANY: &str = "(many)";
/// What is wrong with a bearer token that is none.
pub(super) const NO_BEARER: &str = "the bearer token is not valid here; ask for a new one";

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

    pub(super) fn audit_failure(
        &self,
        tenant: Option<&Tenant>,
        user: &str,
        refusal: &Refusal,
        origin: &Origin,
    ) {
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
}

pub(super) fn of_token(known: &Known) -> Principal {
    Principal {
        label: format!("token:{}", known.name),
        user: String::new(),
        rights: Rights::Granted(known.grants.clone()),
        credential: Credential::Token { id: known.id.clone() },
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

pub(super) fn cache_key(uid: &str, text: &str) -> [u8; 32] {
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
