//! An OIDC issuer: a server on loopback with a discovery document and one key, tokens signed by it, and a desk where people
//! sign in ([`Desk`]).

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::desk::Desk;

/// An issuer; it stops when dropped.
#[derive(Debug)]
pub struct Issuer {
    url: String,
    pair: Arc<Ed25519KeyPair>,
    desk: Arc<Desk>,
    asked: Arc<AtomicUsize>,
    server: AbortHandle,
}

impl Issuer {
    /// A new issuer with a key of its own.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start() -> Issuer {
        let pair = Arc::new(Ed25519KeyPair::generate().expect("a key"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(AtomicUsize::new(0));
        let desk = Arc::new(Desk::new(&url));
        let mut discovery = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
        desk.announce(&mut discovery);
        let (discovery, keys) = (discovery.to_string(), set(&pair).to_string());
        let (count, signer, shared) = (asked.clone(), pair.clone(), desk.clone());
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (discovery, keys, count) = (discovery.clone(), keys.clone(), count.clone());
                let (signer, desk) = (signer.clone(), shared.clone());
                let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
                    count.fetch_add(1, Ordering::SeqCst);
                    let (discovery, keys) = (discovery.clone(), keys.clone());
                    let (signer, desk) = (signer.clone(), desk.clone());
                    async move {
                        let (head, body) = request.into_parts();
                        let answer = match head.uri.path() {
                            "/keys" => Response::new(keys.into()),
                            "/authorize" => desk.authorize(head.uri.query().unwrap_or_default()),
                            "/token" => {
                                let form = body.collect().await.map(|body| body.to_bytes());
                                desk.exchange(&form.unwrap_or_default(), |claims| sign(&signer, claims))
                            }
                            _ => Response::new(discovery.into()),
                        };
                        Ok::<_, Infallible>(answer.map(|body: Bytes| Full::new(body)))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
                );
            }
        });
        Issuer {
            url,
            pair,
            desk,
            asked,
            server: server.abort_handle(),
        }
    }

    /// Its name, which is its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its keys as a JSON Web Key Set.
    pub fn jwks(&self) -> Value {
        set(&self.pair)
    }

    /// How many requests have reached it.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Where people sign in.
    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        sign(&self.pair, claims)
    }
}

fn sign(pair: &Ed25519KeyPair, claims: &Value) -> String {
    let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": "test" });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn set(pair: &Ed25519KeyPair) -> Value {
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "test", "x": x }] })
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}
