//! Against a real issuer: a server on loopback that publishes its discovery document and its keys.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::Router;
use axum::routing::get;
use futures_util::future::join_all;
use jsonwebtoken::EncodingKey;
use serde_json::json;

use super::*;
use crate::egress::{Allow, Dialer};

const NOW: Seconds = 1_800_000_000;
const INSTALLATION: &str = "registry.example.com";

struct Pair {
    kid: String,
    pair: Ed25519KeyPair,
}

impl Pair {
    fn new(kid: &str) -> Self {
        Self {
            kid: kid.to_owned(),
            pair: Ed25519KeyPair::generate().unwrap(),
        }
    }

    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key().as_ref());
        json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.kid, "x": x })
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        let key = EncodingKey::from_ed_der(self.pair.to_pkcs8v1().unwrap().as_ref());
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }
}

/// What an issuer publishes, and how often it was asked.
#[derive(Clone)]
struct Issuer {
    url: String,
    keys: Arc<Mutex<Value>>,
    asked: Arc<AtomicUsize>,
    server: Arc<tokio::task::AbortHandle>,
}

async fn issuer(pairs: &[&Pair]) -> Issuer {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let keys = Arc::new(Mutex::new(set(pairs)));
    let asked = Arc::new(AtomicUsize::new(0));
    let discovery = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") }).to_string();
    let (published, count) = (keys.clone(), asked.clone());
    let router = Router::new()
        .route(
            "/.well-known/openid-configuration",
            get(move || async move { discovery }),
        )
        .route(
            "/keys",
            get(move || async move {
                count.fetch_add(1, Ordering::SeqCst);
                published.lock().unwrap().to_string()
            }),
        );
    let server = tokio::spawn(async move { axum::serve(listener, router).await }).abort_handle();
    Issuer {
        url,
        keys,
        asked,
        server: Arc::new(server),
    }
}

fn set(pairs: &[&Pair]) -> Value {
    json!({ "keys": pairs.iter().map(|pair| pair.jwk()).collect::<Vec<_>>() })
}

fn verifier(allow: &str) -> Verifier {
    let allow = Allow(vec![allow.parse().unwrap()]);
    Verifier::new(Client::new(Dialer::new(allow)), INSTALLATION.to_owned())
}

fn rule(issuer: &str) -> Rule {
    rule_with(issuer, &[("repository", "acme/app")], None)
}

fn rule_with(issuer: &str, claims: &[(&str, &str)], when: Option<&str>) -> Rule {
    Rule {
        id: "rule".into(),
        kind: Kind::Issuer {
            issuer: issuer.to_owned(),
            audience: "acme.registry.example.com".into(),
            jwks: None,
            ca_bundle: None,
            claims: claims
                .iter()
                .map(|(claim, value)| ((*claim).into(), (*value).into()))
                .collect(),
            when: when.map(str::to_owned),
            max_age: Some(600),
            sign_in: None,
        },
    }
}

fn claims(issuer: &str) -> Value {
    json!({
        "iss": issuer, "sub": "repo:acme/app:ref:refs/heads/main", "aud": ["acme.registry.example.com"],
        "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 300, "repository": "acme/app", "run_id": 7,
    })
}

fn with(issuer: &str, claim: &str, value: Value) -> Value {
    let mut claims = claims(issuer);
    claims[claim] = value;
    claims
}

async fn verify(verifier: &Verifier, rule: &Rule, token: &str) -> Result<Accepted, Refused> {
    verifier
        .verify(TenantId(1), std::iter::once(rule), token, NOW)
        .await
}

#[tokio::test]
async fn a_token_of_a_trusted_issuer_is_accepted_as_what_it_says() {
    let pair = Pair::new("one");
    let issuer = issuer(&[&pair]).await;
    let accepted = verify(
        &verifier("127.0.0.1"),
        &rule(&issuer.url),
        &pair.sign(&claims(&issuer.url)),
    )
    .await
    .unwrap();
    let host = issuer.url.trim_start_matches("http://");
    assert_eq!(
        accepted.subject,
        format!("oidc:{host}:repo:acme/app:ref:refs/heads/main")
    );
    assert_eq!(accepted.expires_at, NOW + 300);
    assert_eq!(accepted.details["run"], "7");
}

#[tokio::test]
async fn a_token_that_says_anything_else_is_refused() {
    let pair = Pair::new("one");
    let issuer = issuer(&[&pair]).await;
    let (verifier, rule) = (verifier("127.0.0.1"), rule(&issuer.url));
    for (claim, value) in [
        ("iss", json!("http://127.0.0.1:1")),
        ("iss", json!(null)),
        ("aud", json!("other.registry.example.com")),
        ("aud", json!([])),
        ("repository", json!("acme/other")),
        ("repository", json!(null)),
        ("exp", json!(NOW - 31)),
        ("exp", json!(null)),
        ("exp", json!("tomorrow")),
        ("nbf", json!(NOW + 60)),
        ("iat", json!(NOW + 60)),
        ("iat", json!(NOW - 700)),
        ("iat", json!(null)),
    ] {
        let token = pair.sign(&with(&issuer.url, claim, value.clone()));
        let refused = verify(&verifier, &rule, &token).await;
        assert!(
            matches!(refused, Err(Refused::NoRule(_))),
            "{claim} {value}: {refused:?}"
        );
    }
    let other = Pair::new("one");
    assert!(
        verify(&verifier, &rule, &other.sign(&claims(&issuer.url)))
            .await
            .is_err(),
        "another's key"
    );
}

#[tokio::test]
async fn a_token_of_another_algorithm_is_refused_whatever_it_is_signed_with() {
    let pair = Pair::new("one");
    let issuer = issuer(&[&pair]).await;
    let (verifier, rule) = (verifier("127.0.0.1"), rule(&issuer.url));
    let body = URL_SAFE_NO_PAD.encode(claims(&issuer.url).to_string());
    let valid = pair.sign(&claims(&issuer.url));
    let signature = valid.rsplit('.').next().unwrap();
    for alg in ["none", "None", "HS256", "RS256", "ES256", "PS512"] {
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg, "kid": "one" }).to_string());
        for signature in ["", signature] {
            let token = format!("{header}.{body}.{signature}");
            assert!(verify(&verifier, &rule, &token).await.is_err(), "{alg}");
        }
    }
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("one".into());
    let secret = EncodingKey::from_secret(pair.pair.public_key().as_ref());
    let token = jsonwebtoken::encode(&header, &claims(&issuer.url), &secret).unwrap();
    assert!(verify(&verifier, &rule, &token).await.is_err());
    for text in ["", "..", "a.b.c", &"a".repeat(20_000), &format!("{valid}.x")] {
        assert!(verify(&verifier, &rule, text).await.is_err());
    }
}

#[tokio::test]
async fn a_key_in_the_token_s_own_header_is_not_used() {
    let (pair, evil) = (Pair::new("one"), Pair::new("evil"));
    let issuer = issuer(&[&pair]).await;
    let header =
        json!({ "alg": "EdDSA", "kid": "evil", "jwk": evil.jwk(), "jku": format!("{}/keys", issuer.url) });
    let body = claims(&issuer.url).to_string();
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(body)
    );
    let signature = URL_SAFE_NO_PAD.encode(evil.pair.sign(signed.as_bytes()).as_ref());
    let token = format!("{signed}.{signature}");
    assert!(
        verify(&verifier("127.0.0.1"), &rule(&issuer.url), &token)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_hundred_at_once_fetch_the_keys_once() {
    let pair = Pair::new("one");
    let issuer = issuer(&[&pair]).await;
    let (verifier, rule, token) = (
        verifier("127.0.0.1"),
        rule(&issuer.url),
        pair.sign(&claims(&issuer.url)),
    );
    let answers = join_all((0..100).map(|_| verify(&verifier, &rule, &token))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_key_that_the_issuer_has_just_taken_up_is_found_and_a_dropped_issuer_is_used_on() {
    let (old, new) = (Pair::new("old"), Pair::new("new"));
    let issuer = issuer(&[&old]).await;
    let (verifier, rule) = (verifier("127.0.0.1"), rule(&issuer.url));
    // The new key is there before the first look, so that the look at it is not one too soon.
    *issuer.keys.lock().unwrap() = set(&[&old, &new]);
    assert!(
        verify(&verifier, &rule, &new.sign(&claims(&issuer.url)))
            .await
            .is_ok()
    );
    issuer.server.abort();
    assert!(
        verify(&verifier, &rule, &old.sign(&claims(&issuer.url)))
            .await
            .is_ok(),
        "from what is kept"
    );
    let unknown = Pair::new("unknown");
    assert!(
        verify(&verifier, &rule, &unknown.sign(&claims(&issuer.url)))
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn unknown_keys_have_the_set_fetched_again_but_not_all_the_time() {
    let (old, new) = (Pair::new("old"), Pair::new("new"));
    let issuer = issuer(&[&old]).await;
    let (verifier, rule) = (verifier("127.0.0.1"), rule(&issuer.url));
    assert!(
        verify(&verifier, &rule, &old.sign(&claims(&issuer.url)))
            .await
            .is_ok()
    );
    *issuer.keys.lock().unwrap() = set(&[&new]);
    let token = new.sign(&claims(&issuer.url));
    for _ in 0..5 {
        assert!(
            verify(&verifier, &rule, &token).await.is_err(),
            "asked a moment ago"
        );
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);
    tokio::time::advance(std::time::Duration::from_secs(31)).await;
    assert!(verify(&verifier, &rule, &token).await.is_ok());
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_issuer_at_a_private_address_is_not_asked_unless_it_is_allowed() {
    let pair = Pair::new("one");
    let issuer = issuer(&[&pair]).await;
    let refused = verify(
        &verifier("192.0.2.1"),
        &rule(&issuer.url),
        &pair.sign(&claims(&issuer.url)),
    )
    .await;
    assert!(matches!(refused, Err(Refused::Keys(_))), "{refused:?}");
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_expression_must_be_true_besides() {
    let pair = Pair::new("one");
    let issuer = issuer(&[&pair]).await;
    let verifier = verifier("127.0.0.1");
    let token = pair.sign(&claims(&issuer.url));
    for (when, accepted) in [
        ("claims.run_id == 7", true),
        ("claims.sub.endsWith('refs/heads/main')", true),
        ("claims.run_id == 8", false),
        ("claims.absent", false),
        ("'yes'", false),
    ] {
        let rule = rule_with(&issuer.url, &[], Some(when));
        assert_eq!(verify(&verifier, &rule, &token).await.is_ok(), accepted, "{when}");
    }
}

fn accounts(pair: &Pair) -> Rule {
    Rule {
        id: "accounts".into(),
        kind: Kind::ServiceAccounts {
            issuer: Some("https://kubernetes.default.svc".into()),
            jwks: set(&[pair]).to_string(),
            namespaces: vec!["build".into(), "deploy".into()],
            names: vec!["default".into()],
        },
    }
}

fn account_claims() -> Value {
    json!({
        "iss": "https://kubernetes.default.svc", "aud": [INSTALLATION], "iat": NOW - 10, "exp": NOW + 3600,
        "sub": "system:serviceaccount:build:default",
        "kubernetes.io": { "namespace": "build", "serviceaccount": { "name": "default", "uid": "u" }, "pod": { "name": "p" } },
    })
}

#[tokio::test]
async fn a_service_account_is_accepted_by_namespace_and_name_without_asking_anyone() {
    let pair = Pair::new("cluster");
    let accepted = verify(
        &verifier("192.0.2.1"),
        &accounts(&pair),
        &pair.sign(&account_claims()),
    )
    .await
    .unwrap();
    assert_eq!(accepted.subject, "sa:build:default");
    assert_eq!(accepted.details["pod"], "p");
}

#[tokio::test]
async fn any_other_service_account_is_refused() {
    let pair = Pair::new("cluster");
    let changed = |pointer: &str, value: Value| {
        let mut claims = account_claims();
        *claims.pointer_mut(pointer).unwrap() = value;
        claims
    };
    for claims in [
        changed("/kubernetes.io/namespace", json!("other")),
        changed("/kubernetes.io/serviceaccount/name", json!("builder")),
        changed("/sub", json!("system:serviceaccount:other:default")),
        changed("/aud", json!(["https://kubernetes.default.svc"])),
        changed("/iss", json!("https://other")),
        changed("/exp", json!(NOW + 25 * 3600)),
        changed("/exp", json!(NOW - 60)),
        changed("/kubernetes.io", json!(null)),
    ] {
        let refused = verify(&verifier("192.0.2.1"), &accounts(&pair), &pair.sign(&claims)).await;
        assert!(refused.is_err(), "{claims}");
    }
}
