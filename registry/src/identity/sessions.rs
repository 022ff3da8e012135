//! Sessions of people in a browser: signed by this registry, good at one tenant, for the explorer alone. And the places in
//! lists that it hands out.
//!
//! A session carries no right: each use asks for the credential that it was begun with, so that it ends with that.

use sha2::{Digest as _, Sha256};

use super::access_token::{Claims, SESSION, SESSION_LIFE, SESSION_MOST};
use super::authenticate::{Identity, Refusal, seconds};
use super::issued::claims;
use super::keys::TokenRefused;
use super::principal::{Credential, Principal};
use crate::metadata::MetadataError;
use crate::tenancy::Tenant;

/// A session that holds.
pub struct Held {
    /// Whose.
    pub principal: Principal,
    /// What its forms carry, so that nobody else's page can send them.
    pub form_token: String,
    /// When it began, in seconds since 1970.
    since: i64,
    id: String,
    ends: i64,
}

impl Held {
    /// Whether half of its life is over, so that it is worth renewing.
    pub fn is_old(&self) -> bool {
        self.ends - seconds() < SESSION_LIFE / 2
    }
}

impl Identity {
    /// Begins a session, or lets one go on; with its lifetime in seconds. None for whoever has shown nothing, for what is
    /// confined, which a session would widen, and for what has gone on for too long.
    pub fn issue_session(
        &self,
        tenant: &Tenant,
        principal: &Principal,
        host: &str,
        held: Option<&Held>,
    ) -> Result<Option<(String, i64)>, TokenRefused> {
        let now = seconds();
        let since = held.map_or(now, |held| held.since);
        let ends = match principal.credential {
            Credential::Anonymous => return Ok(None),
            Credential::Token { .. } => since + SESSION_MOST,
            Credential::Trust { until, .. } => until.min(since + SESSION_MOST),
        };
        let life = SESSION_LIFE.min(ends - now);
        if life <= 0 || principal.rights.are_scoped() {
            return Ok(None);
        }
        let mut claims = claims(tenant, principal, Vec::new(), host, life);
        claims.since = Some(since);
        if let Some(held) = held {
            // The forms that are open go on too.
            claims.jti.clone_from(&held.id);
        }
        let token = self.keys.sign(self.known_keys().as_ref(), SESSION, &claims)?;
        Ok(Some((token, life)))
    }

    /// A place in a tenant's list of which its holder learns nothing; none if there is no key to seal it by.
    pub fn seal_place(&self, tenant: &Tenant, place: &str) -> Option<String> {
        self.keys.seal(place, &list_of(tenant)).ok()
    }

    /// A place that was sealed.
    pub fn open_place(&self, tenant: &Tenant, sealed: &str) -> Option<String> {
        self.keys.open_sealed(sealed, &list_of(tenant)).ok()
    }

    /// What a client of a tenant is told of a place in the database's log: the place itself would tell how much all tenants
    /// write. None if there is no key to seal it by.
    pub fn seal_version(&self, tenant: &Tenant, place: &str) -> Option<String> {
        self.keys.seal(place, &version_of(tenant)).ok()
    }

    /// A place in the database's log that was sealed for the tenant.
    pub fn open_version(&self, tenant: &Tenant, sealed: &str) -> Option<String> {
        self.keys.open_sealed(sealed, &version_of(tenant)).ok()
    }

    /// The session that a cookie holds; none if it is not one of this tenant's, or has ended with its time or its
    /// credential.
    pub async fn by_session(&self, tenant: &Tenant, text: &str) -> Result<Option<Held>, MetadataError> {
        let now = seconds();
        let Ok(claims) = self.keys.verify::<Claims>(text, SESSION, &tenant.uid, now) else {
            return Ok(None);
        };
        let principal = match self.behind(tenant, &claims.credential, now).await {
            Ok(principal) if principal.is_known() => principal,
            Err(Refusal::Store(error)) => return Err(error),
            Ok(_) | Err(_) => return Ok(None),
        };
        Ok(Some(Held {
            principal,
            form_token: form_token(&claims.jti),
            since: claims.since.unwrap_or(claims.iat),
            id: claims.jti,
            ends: claims.exp,
        }))
    }
}

fn list_of(tenant: &Tenant) -> String {
    format!("list of {}", tenant.uid)
}

fn version_of(tenant: &Tenant) -> String {
    format!("version of {}", tenant.uid)
}

/// What forms carry whose page was made for the holder of a secret.
pub fn form_token(secret: &str) -> String {
    let hash = Sha256::new_with_prefix(b"berth form\0")
        .chain_update(secret)
        .finalize();
    hex::encode(&hash[..16])
}
