//! Tokens that are issued for a credential, and who stands behind them: access tokens, refresh tokens, and confined ones that
//! stand in for a password.
//!
//! A token names the credential that it was issued for, and is worth what that is worth at the moment: what is revoked ends all
//! that came of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::access_token::{ACCESS, ACCESS_LIFE, CONFINED, CONFINED_LIFE, Claims, REFRESH, REFRESH_LIFE};
use super::authenticate::{Identity, MANY, NO_BEARER, NO_LOGIN, Refusal, cache_key, of_token, seconds};
use super::keys::TokenRefused;
use super::principal::{Access, Credential, Principal, Rights};
use super::throttle::Telling;
use crate::metadata::{TenantId, Time};
use crate::tenancy::Origin;
use crate::tenancy::snapshot::Tenant;

impl Identity {
    pub(super) async fn by_access_token(&self, tenant: &Tenant, text: &str) -> Result<Principal, Refusal> {
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
    pub(super) async fn by_confined_token(
        &self,
        tenant: Option<&Tenant>,
        text: &str,
    ) -> Result<Principal, Refusal> {
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
