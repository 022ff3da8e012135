//! What a tenant trusts, ready to be compared.

use std::collections::BTreeMap;

use berth_crds::SignIn;
use berth_crds::admin::ResolvedTrust;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::Seconds;

/// One rule of a tenant.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Hash of everything that the rule says but its grants: the same rule keeps its id when others change.
    pub id: String,
    /// What a token must be.
    pub kind: Kind,
}

/// What a token must be.
#[derive(Debug, Clone)]
pub enum Kind {
    /// One of an OIDC issuer.
    Issuer {
        /// As its tokens name it.
        issuer: String,
        /// For whom it must be made.
        audience: String,
        /// The issuer's keys, if it is not asked.
        jwks: Option<String>,
        /// PEM certificates that sign the issuer's own.
        ca_bundle: Option<String>,
        /// Claims that must have these values.
        claims: BTreeMap<String, String>,
        /// A CEL expression that must be true.
        when: Option<String>,
        /// Oldest age in seconds.
        max_age: Option<Seconds>,
        /// How people sign in by it, if they may.
        sign_in: Option<SignIn>,
    },
    /// One of a service account.
    ServiceAccounts {
        /// The cluster's issuer, if it is checked.
        issuer: Option<String>,
        /// The cluster's keys.
        jwks: String,
        /// Sorted.
        namespaces: Vec<String>,
        /// `*` stands for all.
        names: Vec<String>,
    },
}

impl Rule {
    /// Prepares a configured rule.
    pub fn new(trust: &ResolvedTrust) -> Self {
        let mut said = serde_json::to_value(trust).unwrap_or(Value::Null);
        if let Some(said) = said.as_object_mut() {
            said.remove("grants");
        }
        let id = hex::encode(&Sha256::digest(said.to_string().as_bytes())[..12]);
        let kind = match trust.clone() {
            ResolvedTrust::Issuer {
                issuer,
                audience,
                jwks,
                ca_bundle,
                claims,
                when,
                max_age,
                sign_in,
                ..
            } => Kind::Issuer {
                issuer,
                audience,
                jwks,
                ca_bundle,
                claims,
                when,
                max_age: max_age.map(|age| i64::try_from(age.duration().as_secs()).unwrap_or(i64::MAX)),
                sign_in,
            },
            ResolvedTrust::ServiceAccounts {
                issuer,
                jwks,
                mut namespaces,
                names,
                ..
            } => {
                namespaces.sort_unstable();
                Kind::ServiceAccounts {
                    issuer,
                    jwks,
                    namespaces,
                    names,
                }
            }
        };
        Self { id, kind }
    }
}

/// Whether the claim at a path (dots lead into objects) says `expected`: its text, its JSON if it is no text, or
/// one of its entries.
pub(super) fn says(claims: &Value, path: &str, expected: &str) -> bool {
    // Claims such as `https://example.com/team` have dots of their own.
    let nested = || path.split('.').try_fold(claims, |value, part| value.get(part));
    let matches = |value: &Value| match value {
        Value::String(text) => text == expected,
        Value::Bool(truth) => truth.to_string() == expected,
        Value::Number(number) => number.to_string() == expected,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    };
    match claims.get(path).or_else(nested) {
        Some(Value::Array(entries)) => entries.iter().any(matches),
        Some(value) => matches(value),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_compared_exactly() {
        let claims = json!({
            "repository": "acme/app", "protected": true, "run": 7, "groups": ["a", "b"],
            "kubernetes.io": { "namespace": "build" }, "a": { "b": { "c": "d" } },
        });
        for (path, value) in [
            ("repository", "acme/app"),
            ("protected", "true"),
            ("run", "7"),
            ("groups", "b"),
            ("a.b.c", "d"),
        ] {
            assert!(says(&claims, path, value), "{path}");
        }
        for (path, value) in [
            ("repository", "acme/app2"),
            ("repository", "acme/*"),
            ("groups", "c"),
            ("a.b", "d"),
            ("absent", ""),
            ("a", "null"),
        ] {
            assert!(!says(&claims, path, value), "{path}");
        }
    }
}
