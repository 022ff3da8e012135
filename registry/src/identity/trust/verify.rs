//! From a foreign token to the rule that accepts it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde_json::Value;

use super::Seconds;
use super::expression::Expressions;
use super::jwks::{self, KeySets};
use super::rule::{Kind, Rule, says};
use crate::egress::Client;
use crate::metadata::TenantId;

/// Longest token in bytes.
const TOKEN_LIMIT: usize = 16 * 1024;
/// Clocks may differ by this many seconds.
const LEEWAY: Seconds = 30;
/// Longest lifetime of a service account's token in seconds.
const ACCOUNT_LIFE: Seconds = 24 * 3600;
/// Longest subject kept, in bytes.
const SUBJECT_LIMIT: usize = 256;

/// A token that a rule accepts.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Position of the rule.
    pub rule: usize,
    /// Whose it is: `oidc:<issuer's host>:<subject>` or `sa:<namespace>:<name>`.
    pub subject: String,
    /// Its end, in seconds since 1970.
    pub expires_at: Seconds,
    /// What else the audit trail should know.
    pub details: BTreeMap<&'static str, String>,
}

/// Why a token is not accepted. What is displayed is fit for the client.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// No rule of the tenant accepts it; the reasons are for the log.
    #[error("no trust rule of this tenant accepts this token")]
    NoRule(String),
    /// The issuer's keys cannot be had.
    #[error("the keys of the token's issuer cannot be fetched at the moment; try again")]
    Keys(String),
}

/// Checks foreign tokens; cheap to clone.
#[derive(Clone)]
pub struct Verifier {
    client: Client,
    sets: Arc<KeySets>,
    expressions: Arc<Expressions>,
    installation: String,
}

impl Verifier {
    /// `installation` is the audience of service accounts' tokens.
    pub fn new(client: Client, installation: String) -> Self {
        Self {
            sets: Arc::new(KeySets::new(client.clone())),
            client,
            expressions: Arc::default(),
            installation,
        }
    }

    /// What issuers are asked by.
    pub(in crate::identity) fn client(&self) -> &Client {
        &self.client
    }

    /// Finds the first of a tenant's rules that accepts a token. Its claims are read before they are verified
    /// only to see which rules could.
    pub async fn verify<'r>(
        &self,
        tenant: TenantId,
        rules: impl Iterator<Item = &'r Rule>,
        token: &str,
        now: Seconds,
    ) -> Result<Accepted, Refused> {
        let no_rule = |why: &str| Refused::NoRule(why.to_owned());
        if token.len() > TOKEN_LIMIT {
            return Err(no_rule("the token is too long"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| no_rule(&error.to_string()))?;
        if matches!(header.alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
            return Err(no_rule("symmetric algorithms are not accepted"));
        }
        let claims = unverified(token).ok_or_else(|| no_rule("the token has no claims"))?;
        let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        let mut last = no_rule("no rule trusts the issuer and audience");
        for (at, rule) in rules.enumerate() {
            if !self.could_accept(rule, issuer, &claims) {
                continue;
            }
            match self.accept(tenant, rule, &header, token, now).await {
                Ok((subject, expires_at, details)) => {
                    return Ok(Accepted {
                        rule: at,
                        subject,
                        expires_at,
                        details,
                    });
                }
                Err(refused) => last = refused,
            }
        }
        Err(last)
    }

    fn could_accept(&self, rule: &Rule, token_issuer: &str, claims: &Value) -> bool {
        match &rule.kind {
            Kind::Issuer { issuer, audience, .. } => issuer == token_issuer && says(claims, "aud", audience),
            Kind::ServiceAccounts { issuer, .. } => {
                issuer.as_ref().is_none_or(|issuer| issuer == token_issuer)
                    && says(claims, "aud", &self.installation)
                    && claims.get("kubernetes.io").is_some()
            }
        }
    }

    async fn accept(
        &self,
        tenant: TenantId,
        rule: &Rule,
        header: &Header,
        token: &str,
        now: Seconds,
    ) -> Result<(String, Seconds, BTreeMap<&'static str, String>), Refused> {
        let no_rule = |why: &str| Refused::NoRule(why.to_owned());
        let keys = self.keys(rule, header).await?;
        let key = choose(&keys, header).ok_or_else(|| no_rule("the issuer has no such key"))?;
        let claims = decode(token, header.alg, key).map_err(Refused::NoRule)?;
        let end = times(&claims, now).map_err(no_rule)?;
        let issued = claims.get("iat").and_then(Value::as_i64);
        match &rule.kind {
            Kind::Issuer {
                issuer,
                claims: expected,
                when,
                max_age,
                audience,
                ..
            } => {
                if !says(&claims, "iss", issuer) || !says(&claims, "aud", audience) {
                    return Err(no_rule("issuer or audience differ"));
                }
                if let Some(max_age) = max_age
                    && issued.is_none_or(|issued| now.saturating_sub(issued) > max_age.saturating_add(LEEWAY))
                {
                    return Err(no_rule("the token is too old"));
                }
                if !expected.iter().all(|(claim, value)| says(&claims, claim, value)) {
                    return Err(no_rule("a claim differs"));
                }
                if let Some(when) = when
                    && !self.expressions.holds(tenant, when, &claims).await
                {
                    return Err(no_rule("the rule's expression is not true"));
                }
                let host = issuer.split("://").nth(1).unwrap_or(issuer).trim_end_matches('/');
                let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
                Ok((shortened(format!("oidc:{host}:{subject}")), end, details(&claims)))
            }
            Kind::ServiceAccounts {
                namespaces, names, ..
            } => {
                let text = |pointer: &str| {
                    claims
                        .pointer(pointer)
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                };
                let (namespace, name) = (
                    text("/kubernetes.io/namespace"),
                    text("/kubernetes.io/serviceaccount/name"),
                );
                if issued.is_none_or(|issued| end.saturating_sub(issued) > ACCOUNT_LIFE) {
                    return Err(no_rule("the token lives too long"));
                }
                let in_namespace = namespaces
                    .binary_search_by(|known| known.as_str().cmp(namespace))
                    .is_ok();
                let named = names.iter().any(|known| known == "*" || known == name);
                if namespace.is_empty() || name.is_empty() || !in_namespace || !named {
                    return Err(no_rule("the service account is not trusted"));
                }
                // The subject says the same, or the token is not what it seems.
                if !says(
                    &claims,
                    "sub",
                    &format!("system:serviceaccount:{namespace}:{name}"),
                ) {
                    return Err(no_rule("the subject is another service account"));
                }
                Ok((format!("sa:{namespace}:{name}"), end, details(&claims)))
            }
        }
    }

    async fn keys(&self, rule: &Rule, header: &Header) -> Result<Arc<JwkSet>, Refused> {
        let configured = |jwks: &str| jwks::parse(jwks.as_bytes()).map(Arc::new).map_err(Refused::Keys);
        match &rule.kind {
            Kind::ServiceAccounts { jwks, .. } | Kind::Issuer { jwks: Some(jwks), .. } => configured(jwks),
            Kind::Issuer {
                issuer, ca_bundle, ..
            } => self
                .sets
                .of(issuer, ca_bundle.as_deref(), header.kid.as_deref())
                .await
                .map_err(Refused::Keys),
        }
    }
}

/// The claims of a token that nobody has verified here.
pub(crate) fn unverified(token: &str) -> Option<Value> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok().filter(Value::is_object)
}

/// The issuer's key of the header's id; without an id, its only key for the algorithm.
fn choose<'k>(keys: &'k JwkSet, header: &Header) -> Option<&'k Jwk> {
    let mut fitting = keys.keys.iter().filter(|key| fits(key, header.alg));
    match &header.kid {
        Some(kid) => fitting.find(|key| key.common.key_id.as_ref() == Some(kid)),
        None => fitting.next().filter(|_| fitting.next().is_none()),
    }
}

/// Whether a key is one for an algorithm.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let declared = key
        .common
        .key_algorithm
        .is_none_or(|own| own.to_string() == format!("{algorithm:?}"));
    let kind = match &key.algorithm {
        AlgorithmParameters::RSA(_) => matches!(
            algorithm,
            Algorithm::RS256
                | Algorithm::RS384
                | Algorithm::RS512
                | Algorithm::PS256
                | Algorithm::PS384
                | Algorithm::PS512
        ),
        AlgorithmParameters::EllipticCurve(ec) => matches!(
            (&ec.curve, algorithm),
            (EllipticCurve::P256, Algorithm::ES256) | (EllipticCurve::P384, Algorithm::ES384)
        ),
        AlgorithmParameters::OctetKeyPair(pair) => {
            pair.curve == EllipticCurve::Ed25519 && algorithm == Algorithm::EdDSA
        }
        _ => false,
    };
    let for_signatures = !matches!(
        key.common.public_key_use,
        Some(jsonwebtoken::jwk::PublicKeyUse::Encryption)
    );
    declared && kind && for_signatures
}

fn decode(token: &str, algorithm: Algorithm, key: &Jwk) -> Result<Value, String> {
    let key = DecodingKey::from_jwk(key).map_err(|error| error.to_string())?;
    let mut validation = Validation::new(algorithm);
    // Claims are checked here, by our clock.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    let token = jsonwebtoken::decode::<Value>(token, &key, &validation).map_err(|error| error.to_string())?;
    Ok(token.claims)
}

/// The end of a token that is valid now.
fn times(claims: &Value, now: Seconds) -> Result<Seconds, &'static str> {
    let time = |claim: &str| match claims.get(claim) {
        None => Ok(None),
        // Seconds may have a fraction (RFC 7519, section 2).
        Some(value) => value
            .as_i64()
            .or_else(|| {
                value
                    .as_f64()
                    .filter(|seconds| seconds.abs() < 1e12)
                    .map(|seconds| seconds as i64)
            })
            .map(Some)
            .ok_or("a time is no number"),
    };
    let end = time("exp")?.ok_or("the token has no end")?;
    if now >= end.saturating_add(LEEWAY) {
        return Err("the token has expired");
    }
    for claim in ["nbf", "iat"] {
        if time(claim)?.is_some_and(|from| now < from.saturating_sub(LEEWAY)) {
            return Err("the token is from the future");
        }
    }
    Ok(end)
}

/// What the audit trail should know of a job or pod.
fn details(claims: &Value) -> BTreeMap<&'static str, String> {
    let known = [
        ("job", "/job_id"),
        ("pipeline", "/pipeline_id"),
        ("pod", "/kubernetes.io/pod/name"),
        ("pod-uid", "/kubernetes.io/pod/uid"),
        ("ref", "/ref"),
        ("repository", "/repository"),
        ("run", "/run_id"),
    ];
    let said = known.into_iter().filter_map(|(name, pointer)| {
        let value = match claims.pointer(pointer)? {
            Value::String(text) => Cow::Borrowed(text.as_str()),
            Value::Number(number) => Cow::Owned(number.to_string()),
            _ => return None,
        };
        Some((name, shortened(value.into_owned())))
    });
    said.collect()
}

/// A text that fits a log line, without control characters.
fn shortened(text: String) -> String {
    let mut text: String = text.chars().filter(|c| !c.is_control()).collect();
    text.truncate(text.floor_char_boundary(SUBJECT_LIMIT));
    text
}

#[cfg(test)]
mod tests;
