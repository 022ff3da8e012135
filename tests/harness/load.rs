//! Clients that push and pull without a pause, and count what failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, Response};
use serde_json::json;
use tokio::task::JoinSet;

use crate::content::{blob, sha256};
use crate::image::{MANIFEST, descriptor};
use crate::node::{TenantOf, http};

/// Longest wait for an answer: a request that hangs has failed.
const PATIENCE: Duration = Duration::from_secs(60);
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Clients at work. Each pushes an image and pulls it again, over and over, on connections of its own, and never tries a
/// request twice.
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    answered: AtomicU64,
    failures: std::sync::Mutex<Vec<Failure>>,
}

/// A request that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When.
    pub at: Instant,
    /// Which, and how.
    pub what: String,
}

impl Load {
    /// Starts so many clients of a tenant.
    pub fn start(tenant: &TenantOf<'_>, count: u64) -> Load {
        let shared = Arc::new(Shared::default());
        let mut clients = JoinSet::new();
        for number in 0..count {
            let worker = Worker {
                http: http(),
                base: format!("https://{}/v2/load/client-{number}", tenant.host),
                token: tenant.token(),
                shared: shared.clone(),
            };
            clients.spawn(async move { worker.run(number).await });
        }
        Load { shared, clients }
    }

    /// How many requests have got their answer so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Ends the load; how many requests were answered, and what failed.
    pub async fn end(mut self) -> (u64, Vec<Failure>) {
        self.shared.over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client ends by itself");
        }
        let failures = self.shared.failures.lock().expect("no panic").clone();
        (self.answered(), failures)
    }
}

struct Worker {
    http: Client,
    base: String,
    token: String,
    shared: Arc<Shared>,
}

impl Worker {
    async fn run(&self, number: u64) {
        let mut round = 0;
        while !self.shared.over.load(Ordering::Relaxed) {
            round += 1;
            if let Err(what) = self.round(number << 32 | round).await {
                let failure = Failure {
                    at: Instant::now(),
                    what,
                };
                self.shared.failures.lock().expect("no panic").push(failure);
                // While nobody answers, a refused connection comes back at once.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn round(&self, seed: u64) -> Result<(), String> {
        let layer = blob(32 << 10, seed);
        let config = json!({ "architecture": "amd64", "os": "linux", "seed": seed })
            .to_string()
            .into_bytes();
        for content in [&layer, &config] {
            let opened = self.send(Method::POST, "blobs/uploads/", None, 202).await?;
            let location = opened.headers()["location"]
                .to_str()
                .map_err(|e| e.to_string())?
                .to_owned();
            let separator = if location.contains('?') { '&' } else { '?' };
            let close = format!("{location}{separator}digest={}", sha256(content));
            self.send(
                Method::PUT,
                &close,
                Some(("application/octet-stream", content)),
                201,
            )
            .await?;
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config), "layers": [descriptor(LAYER, &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        self.send(Method::PUT, "manifests/latest", Some((MANIFEST, &manifest)), 201)
            .await?;
        self.same("manifests/latest", &manifest).await?;
        self.same(&format!("blobs/{}", sha256(&layer)), &layer).await
    }

    /// Pulls something whole.
    async fn same(&self, path: &str, expected: &[u8]) -> Result<(), String> {
        let answer = self.send(Method::GET, path, None, 200).await?;
        let body = tokio::time::timeout(PATIENCE, answer.bytes()).await;
        let body = body.map_err(|_| format!("the body of {path} hangs"))?;
        let body = body.map_err(|error| format!("the body of {path} broke off: {error:?}"))?;
        if body != expected {
            return Err(format!("{path} has other bytes"));
        }
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &[u8])>,
        status: u16,
    ) -> Result<Response, String> {
        let url = match path.strip_prefix('/') {
            Some(_) => {
                let scheme = self.base.find("/v2/").unwrap_or_default();
                format!("{}{path}", &self.base[..scheme])
            }
            None if path.starts_with("https://") => path.to_owned(),
            None => format!("{}/{path}", self.base),
        };
        let mut request = self
            .http
            .request(method.clone(), &url)
            .basic_auth("x-token", Some(&self.token));
        if let Some((media_type, content)) = body {
            request = request.header("content-type", media_type).body(content.to_vec());
        }
        let answer = tokio::time::timeout(PATIENCE, request.send()).await;
        let answer = answer.map_err(|_| format!("{method} {path} hangs"))?;
        let answer = answer.map_err(|error| format!("{method} {path}: {error:?}"))?;
        if answer.status() != status {
            let got = answer.status();
            let text = answer.text().await.unwrap_or_default();
            return Err(format!("{method} {path}: {got} {text}"));
        }
        self.shared.answered.fetch_add(1, Ordering::Relaxed);
        Ok(answer)
    }
}
