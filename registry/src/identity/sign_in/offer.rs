//! By whom one can sign in.
//!
//! Rules with the same issuer and audience are one offer: groups of people who may do different things are rules that
//! differ in their claims alone.

use berth_crds::SignIn;
use sha2::{Digest as _, Sha256};

use crate::identity::trust::{Kind, Rule, Seconds};
use crate::tenancy::Tenant;
use crate::tenancy::snapshot::TrustRule;

/// How long a session lasts if its rule does not say.
const SESSION: Seconds = 3600;

/// A way to sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Made of issuer and client, which anybody may know; nothing else of a rule is told by it.
    pub id: String,
    /// Words of the button.
    pub title: String,
}

/// An offer, and what stands behind it.
pub(super) struct Found<'t> {
    pub id: String,
    pub issuer: &'t str,
    /// The client's id, which is the audience of its ID tokens.
    pub client: &'t str,
    pub ca_bundle: Option<&'t str>,
    /// As the first rule says.
    pub sign_in: &'t SignIn,
    /// Rules that may accept the person, in the tenant's order.
    pub rules: Vec<&'t TrustRule>,
}

impl Found<'_> {
    /// The issuer, for people.
    pub fn host(&self) -> String {
        let host = self.issuer.split("://").nth(1).unwrap_or(self.issuer);
        host.trim_end_matches('/').to_owned()
    }

    /// The scopes, as they are asked for.
    pub fn scope(&self) -> String {
        let usual = ["openid", "profile", "email"];
        let asked: Vec<&str> = match self.sign_in.scopes.as_slice() {
            [] => usual.to_vec(),
            scopes => std::iter::once("openid")
                .chain(
                    scopes
                        .iter()
                        .map(String::as_str)
                        .filter(|scope| *scope != "openid"),
                )
                .collect(),
        };
        asked.join(" ")
    }
}

/// All offers of a tenant.
pub(super) fn all(tenant: &Tenant) -> Vec<Offer> {
    let mut offers: Vec<Offer> = Vec::new();
    for found in each(tenant) {
        if offers.iter().all(|offer| offer.id != found.id) {
            let title = found.sign_in.title.clone();
            offers.push(Offer {
                title: title.unwrap_or_else(|| format!("Sign in with {}", found.host())),
                id: found.id,
            });
        }
    }
    offers
}

/// The offer of this id.
pub(super) fn find<'t>(tenant: &'t Tenant, id: &str) -> Option<Found<'t>> {
    let mut same = each(tenant).filter(|found| found.id == id);
    let mut first = same.next()?;
    first.rules.extend(same.flat_map(|found| found.rules));
    Some(first)
}

fn each(tenant: &Tenant) -> impl Iterator<Item = Found<'_>> {
    tenant
        .trust
        .iter()
        .filter_map(|trusted| match &trusted.rule.kind {
            Kind::Issuer {
                issuer,
                audience,
                ca_bundle,
                sign_in: Some(sign_in),
                ..
            } => Some(Found {
                id: id_of(issuer, audience),
                issuer,
                client: audience,
                ca_bundle: ca_bundle.as_deref(),
                sign_in,
                rules: vec![trusted],
            }),
            Kind::Issuer { sign_in: None, .. } | Kind::ServiceAccounts { .. } => None,
        })
}

fn id_of(issuer: &str, client: &str) -> String {
    let hash = Sha256::new_with_prefix(b"berth offer\0")
        .chain_update(issuer)
        .chain_update([0])
        .chain_update(client)
        .finalize();
    hex::encode(&hash[..8])
}

/// How long a session lasts that a rule has admitted to.
pub(super) fn session_of(rule: &Rule) -> Seconds {
    let said = match &rule.kind {
        Kind::Issuer { sign_in, .. } => sign_in.as_ref().and_then(|sign_in| sign_in.session.as_ref()),
        Kind::ServiceAccounts { .. } => None,
    };
    said.map_or(SESSION, |span| {
        i64::try_from(span.duration().as_secs()).unwrap_or(SESSION)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openid_is_asked_for_whatever_else_is() {
        for (scopes, expected) in [
            (&[][..], "openid profile email"),
            (&["groups"], "openid groups"),
            (&["email", "openid"], "openid email"),
        ] {
            let sign_in = SignIn {
                scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
                ..SignIn::default()
            };
            let found = Found {
                id: id_of("https://id.test/", "berth"),
                issuer: "https://id.test/",
                client: "berth",
                ca_bundle: None,
                sign_in: &sign_in,
                rules: Vec::new(),
            };
            assert_eq!(
                (found.scope().as_str(), found.host().as_str()),
                (expected, "id.test")
            );
        }
    }

    #[test]
    fn each_client_of_an_issuer_is_an_offer_of_its_own() {
        assert_ne!(id_of("https://id.test", "a"), id_of("https://id.test", "b"));
        assert_eq!(id_of("https://id.test", "a"), id_of("https://id.test", "a"));
    }
}
