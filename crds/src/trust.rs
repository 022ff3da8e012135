//! Credentials that are not stored: tokens of issuers that a tenant trusts.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Problems, label, url};
use super::sign_in::SignIn;
use super::{Grant, Span, grant, schema};

/// Whose tokens are trusted, and for what: either an OIDC issuer (`issuer` and `audience`) or service accounts
/// of the cluster (`serviceAccounts`).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open, extend("x-kubernetes-validations" = schema::rules(&[("has(self.issuer) != has(self.serviceAccounts)", "name either an issuer or serviceAccounts, not both"), ("!has(self.issuer) || (has(self.audience) && self.audience != '')", "name the audience of the issuer's tokens, usually the tenant's host"), ("!has(self.serviceAccounts) || !(has(self.audience) || has(self.when) || (has(self.claims) && size(self.claims) > 0))", "serviceAccounts goes without audience, claims and when: the audience is the installation's"), ("!has(self.signIn) || has(self.issuer)", "signIn goes with issuer: service accounts have no browser")])))]
pub struct Trust {
    /// URL of an OIDC issuer, exactly as its tokens name it, like `https://token.actions.githubusercontent.com`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = schema::URL))]
    pub issuer: Option<String>,
    /// The audience that tokens must be made for; usually the tenant's host. Needed with `issuer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub audience: Option<String>,
    /// The issuer's keys as a JSON Web Key Set, for issuers that cannot be reached; otherwise they are fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub jwks: Option<String>,
    /// PEM certificates that sign the issuer's own, besides the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
    /// Claims that tokens must have, with their exact values; nested claims by path (`a.b`). At most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 32))]
    pub claims: BTreeMap<String, ClaimValue>,
    /// A CEL expression over `claims` that must be true besides, at most 4096 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub when: Option<String>,
    /// Oldest age of a token since it was issued; without it, until it expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// Offers people to sign in to the explorer by this issuer, by OpenID Connect; `audience` is the client's id there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign_in: Option<SignIn>,
    /// Service accounts of the cluster instead of an issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<ServiceAccounts>,
    /// What the tokens may do. 1 to 64.
    #[schemars(length(min = 1, max = 64))]
    pub grants: Vec<Grant>,
}

/// The value of a claim.
pub type ClaimValue = String;

/// Service accounts of the cluster, by namespace and name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open, extend("x-kubernetes-validations" = schema::rules(&[("has(self.namespaceSelector) || (has(self.namespaces) && size(self.namespaces) > 0)", "name namespaces, or select them by namespaceSelector")])))]
pub struct ServiceAccounts {
    /// Namespaces by their labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Namespaces by name, besides those selected. At most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 63), regex(pattern = schema::LABEL)))]
    pub namespaces: Vec<String>,
    /// Names of the service accounts; `*` stands for all. 1 to 64.
    #[schemars(length(min = 1, max = 64), inner(length(max = 253)))]
    pub names: Vec<String>,
}

impl Trust {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        match (&self.issuer, &self.service_accounts) {
            (Some(_), Some(_)) | (None, None) => {
                problems.add("issuer", "name either an issuer or serviceAccounts, not both");
            }
            (Some(issuer), None) => {
                validate_issuer(
                    issuer,
                    self.audience.as_deref(),
                    &self.claims,
                    self.when.as_deref(),
                    problems,
                );
            }
            (None, Some(accounts)) => {
                if self.audience.is_some() || !self.claims.is_empty() || self.when.is_some() {
                    problems.add(
                        "serviceAccounts",
                        "goes without audience, claims and when: the audience is the installation's",
                    );
                }
                if self.sign_in.is_some() {
                    problems.add("signIn", "goes with issuer: service accounts have no browser");
                }
                problems.within("serviceAccounts", |problems| {
                    if accounts.namespace_selector.is_none() && accounts.namespaces.is_empty() {
                        problems.add(
                            "namespaces",
                            "name namespaces, or select them by namespaceSelector",
                        );
                    }
                    validate_accounts(&accounts.namespaces, &accounts.names, problems);
                });
            }
        }
        if let Some(sign_in) = &self.sign_in {
            problems.within("signIn", |problems| sign_in.validate(problems));
        }
        grant::validate(&self.grants, problems);
    }
}

/// Checks an issuer and what its tokens must say.
pub(crate) fn validate_issuer(
    issuer: &str,
    audience: Option<&str>,
    claims: &BTreeMap<String, ClaimValue>,
    when: Option<&str>,
    problems: &mut Problems,
) {
    problems.check("issuer", url(issuer));
    match audience {
        None | Some("") => problems.add(
            "audience",
            "name the audience of the issuer's tokens, usually the tenant's host",
        ),
        Some(audience) => problems.length("audience", audience, 255),
    }
    if claims.len() > 32 {
        problems.add("claims", format!("has {} entries; the limit is 32", claims.len()));
    }
    for (claim, value) in claims.iter().take(32) {
        if claim.is_empty() || claim.len() > 255 || value.len() > 1024 {
            problems.add(
                format_args!("claims.{claim}"),
                "a claim has a name of 1 to 255 bytes and a value of at most 1024",
            );
        }
    }
    if let Some(when) = when {
        problems.length("when", when, 4096);
    }
}

/// Checks names of service accounts and namespaces.
pub(crate) fn validate_accounts(namespaces: &[String], names: &[String], problems: &mut Problems) {
    problems.each("namespaces", namespaces, 256, |namespace| label(namespace));
    if names.is_empty() {
        problems.add("names", "names no service account; \"*\" names all");
    }
    problems.each("names", names, 64, |name| {
        if name == "*" {
            Ok(())
        } else {
            super::check::dns_name(name)
        }
    });
}
