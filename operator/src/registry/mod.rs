//! The registry's admin API, as its only writer besides people uses it.
//!
//! Every write carries the term that this process got when it became the leader; the registry refuses older ones,
//! so that a leader that was frozen and thawed cannot undo what its successor did.

mod answers;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use berth_crds::WebhookStatus;
use berth_crds::admin::{Put, TokenConfig, current_key};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Mutex, OnceCell};

use answers::Everything;
pub use answers::{
    Changed, Object, PullThrough, Replicas, Retention, RetentionPreview, RetentionRun, Stored, TokenInfo,
    Usage,
};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How old what replicas said may be.
const FRESH: Duration = Duration::from_millis(200);

/// Why the registry did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// It does not answer, or says that it cannot now.
    #[error("the registry's admin API does not answer: {0}")]
    Unreachable(String),
    /// Another operator is the leader.
    #[error("another operator has taken over: {0}")]
    StaleTerm(String),
    /// A name is another object's.
    #[error("{0}")]
    Taken(String),
    /// The content is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The object comes from another source.
    #[error("{0}")]
    Replaced(String),
    /// There is no such object.
    #[error("{0}")]
    NotFound(String),
    /// It is at it already; later it can be done.
    #[error("{0}")]
    Busy(String),
    /// Anything else.
    #[error("the registry refused ({status}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
}

/// What opens the admin API.
#[derive(Debug, Clone)]
enum Opening {
    /// A key that is known.
    Key(String),
    /// A file with the key; read anew for each request, so that it can be replaced.
    File(PathBuf),
    /// Nothing yet.
    Nothing,
}

/// How the admin API is asked.
#[derive(Debug, Clone)]
struct Access {
    http: reqwest::Client,
    opening: Opening,
    /// What the client trusts, to tell whether it changed.
    authority: String,
}

/// The admin API.
#[derive(Debug)]
pub struct Registry {
    url: String,
    access: RwLock<Arc<Access>>,
    term: OnceCell<i64>,
    served: Mutex<Option<(Instant, Replicas)>>,
}

/// Name of a retention policy's object, as a query has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyName(String);

impl PolicyName {
    /// Of an object; both are DNS names, which a query takes as they are.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("policy={namespace}%2F{name}"))
    }
}

impl std::fmt::Display for PolicyName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    error: String,
}

impl Registry {
    /// At a URL without a path; not connected yet, and without a key or a term.
    pub fn new(url: &str) -> Result<Self, RegistryError> {
        let access = Access {
            http: client(None)?,
            opening: Opening::Nothing,
            authority: String::new(),
        };
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            access: RwLock::new(Arc::new(access)),
            term: OnceCell::new(),
            served: Mutex::new(None),
        })
    }

    /// Uses files: the admin key's, and one with the certificates that sign the admin API's, else the system's.
    pub fn open_files(&self, key: &Path, authority: Option<&Path>) -> Result<(), RegistryError> {
        let read = |file: &Path| std::fs::read_to_string(file).map_err(|why| broken(&file.display(), &why));
        let authority = authority.map(read).transpose()?;
        self.swap(Access {
            http: client(authority.as_deref())?,
            opening: Opening::File(key.to_owned()),
            authority: authority.unwrap_or_default(),
        });
        Ok(())
    }

    /// Uses the first of these keys, and trusts these certificates alone. Connections stay if neither changed.
    pub fn open_with(&self, keys: &str, authority: &str) -> Result<(), RegistryError> {
        let opening = current_key(keys).to_owned();
        let old = self.access();
        let same_key = matches!(&old.opening, Opening::Key(key) if *key == opening);
        if same_key && old.authority == authority {
            return Ok(());
        }
        let http = if old.authority == authority {
            old.http.clone()
        } else {
            client(Some(authority))?
        };
        self.swap(Access {
            http,
            opening: Opening::Key(opening),
            authority: authority.to_owned(),
        });
        Ok(())
    }

    fn access(&self) -> Arc<Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn swap(&self, access: Access) {
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
    }

    /// This process' term: taken over from all earlier leaders before the first write, once the registry answers.
    pub async fn term(&self) -> Result<i64, RegistryError> {
        #[derive(Deserialize)]
        struct Term {
            term: i64,
        }
        let take = async || {
            let Term { term } = self.ask(Method::POST, "terms", None::<&()>).await?;
            tracing::info!(term, "this operator's writes are taken, earlier leaders' no more");
            Ok(term)
        };
        self.term.get_or_try_init(take).await.copied()
    }

    /// Makes an object what it should be. `path` is below `/admin/v1/`.
    pub async fn put<T: Serialize>(
        &self,
        path: &str,
        uid: &str,
        generation: i64,
        spec: &T,
    ) -> Result<Changed, RegistryError> {
        let body = self.body(uid, generation, spec).await?;
        self.ask(Method::PUT, path, Some(&body)).await
    }

    /// Removes an object; whether it was there. `erase` gives up what it stores too.
    pub async fn delete(&self, path: &str, erase: bool) -> Result<bool, RegistryError> {
        let term = self.term().await?;
        let path = format!("{path}?term={term}{}", if erase { "&erase=true" } else { "" });
        match self.ask::<Value>(Method::DELETE, &path, None::<&()>).await {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes an object if it still comes from the source with this uid; whether it was there.
    pub async fn delete_of(&self, path: &str, uid: &str) -> Result<bool, RegistryError> {
        let term = self.term().await?;
        let path = format!("{path}?term={term}&uid={uid}");
        match self.ask::<Value>(Method::DELETE, &path, None::<&()>).await {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// An object, if the registry has it.
    pub async fn object(&self, path: &str) -> Result<Option<Object>, RegistryError> {
        match self.ask(Method::GET, path, None::<&()>).await {
            Ok(object) => Ok(Some(object)),
            Err(RegistryError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every object.
    pub async fn state(&self) -> Result<Vec<Stored>, RegistryError> {
        let everything: Everything = self.ask(Method::GET, "state", None::<&()>).await?;
        Ok(everything.objects)
    }

    /// What the replicas serve. Callers at the same time share a request.
    pub async fn replicas(&self) -> Result<Replicas, RegistryError> {
        let mut served = self.served.lock().await;
        if let Some((at, replicas)) = served.as_ref()
            && at.elapsed() < FRESH
        {
            return Ok(replicas.clone());
        }
        let replicas: Replicas = self.ask(Method::GET, "replicas", None::<&()>).await?;
        *served = Some((Instant::now(), replicas.clone()));
        Ok(replicas)
    }

    /// What a tenant stores.
    pub async fn usage(&self, tenant: &str) -> Result<Option<Usage>, RegistryError> {
        let path = format!("usage?tenant={tenant}");
        let usages: Vec<Usage> = self.ask(Method::GET, &path, None::<&()>).await?;
        Ok(usages.into_iter().next())
    }

    /// How a tenant's webhooks fare.
    pub async fn webhooks(&self, tenant: &str) -> Result<Vec<WebhookStatus>, RegistryError> {
        let path = format!("tenants/{tenant}/webhooks");
        self.ask(Method::GET, &path, None::<&()>).await
    }

    /// What a repository stores; nothing if it does not exist yet.
    pub async fn repository_usage(&self, tenant: &str, name: &str) -> Result<Option<Usage>, RegistryError> {
        let path = format!("tenants/{tenant}/catalog/{name}");
        match self.ask(Method::GET, &path, None::<&()>).await {
            Ok(usage) => Ok(Some(usage)),
            Err(RegistryError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a retention policy does, by the name of its object; nothing if the registry has no such policy.
    pub async fn retention(
        &self,
        tenant: &str,
        policy: &PolicyName,
    ) -> Result<Option<Retention>, RegistryError> {
        let path = format!("tenants/{tenant}/retention?{policy}");
        match self.ask(Method::GET, &path, None::<&()>).await {
            Err(RegistryError::NotFound(_)) => Ok(None),
            answer => answer,
        }
    }

    /// Runs a retention policy at once; what is known of it then. The run may go on.
    pub async fn run_retention(
        &self,
        tenant: &str,
        policy: &PolicyName,
    ) -> Result<Option<Retention>, RegistryError> {
        let term = self.term().await?;
        let path = format!("tenants/{tenant}/retention/run?{policy}&term={term}");
        self.ask(Method::POST, &path, None::<&()>).await
    }

    /// What a cache does, by the namespace and the name of its object, which a query takes as they are; nothing if the
    /// registry has no such cache.
    pub async fn pull_through(
        &self,
        tenant: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<PullThrough>, RegistryError> {
        let path = format!("tenants/{tenant}/pull-through?cache={namespace}%2F{name}");
        match self.ask(Method::GET, &path, None::<&()>).await {
            Err(RegistryError::NotFound(_)) => Ok(None),
            answer => answer,
        }
    }

    /// All tokens of a tenant.
    pub async fn tokens(&self, tenant: &str) -> Result<Vec<TokenInfo>, RegistryError> {
        #[derive(Deserialize)]
        struct Page {
            tokens: Vec<TokenInfo>,
            next: Option<String>,
        }
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("tenants/{tenant}/tokens?after={after}");
            let page: Page = self.ask(Method::GET, &path, None::<&()>).await?;
            all.extend(page.tokens);
            match page.next {
                Some(next) => after = next,
                None => return Ok(all),
            }
        }
    }

    /// Makes a token valid, by its hash.
    pub async fn put_token(
        &self,
        tenant: &str,
        id: &str,
        uid: &str,
        token: &TokenConfig,
    ) -> Result<(), RegistryError> {
        let path = format!("tenants/{tenant}/tokens/{id}");
        let body = self.body(uid, 0, token).await?;
        let _: Value = self.ask(Method::PUT, &path, Some(&body)).await?;
        Ok(())
    }

    /// Ends a token.
    pub async fn delete_token(&self, tenant: &str, id: &str) -> Result<bool, RegistryError> {
        self.delete(&format!("tenants/{tenant}/tokens/{id}"), false).await
    }

    async fn body<'a, T: Serialize>(
        &self,
        uid: &str,
        generation: i64,
        spec: &'a T,
    ) -> Result<Put<&'a T>, RegistryError> {
        Ok(Put {
            uid: Some(uid.to_owned()),
            generation,
            term: Some(self.term().await?),
            spec,
        })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, RegistryError> {
        let access = self.access();
        let key = match &access.opening {
            Opening::Key(key) => key.clone(),
            Opening::File(file) => {
                let text = tokio::fs::read_to_string(file).await;
                let text =
                    text.map_err(|error| RegistryError::Unreachable(format!("{}: {error}", file.display())))?;
                current_key(&text).to_owned()
            }
            Opening::Nothing => return Err(RegistryError::Unreachable("there is no key yet".to_owned())),
        };
        let url = format!("{}/admin/v1/{path}", self.url);
        let mut request = access.http.request(method, url).bearer_auth(key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            let unreadable = |error: serde_json::Error| {
                RegistryError::Unreachable(format!("an answer that cannot be read: {error}"))
            };
            // A deletion answers nothing.
            let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
            return serde_json::from_slice(text).map_err(unreadable);
        }
        Err(refused(status, &bytes))
    }
}

fn broken(what: &dyn std::fmt::Display, why: &dyn std::fmt::Display) -> RegistryError {
    RegistryError::Invalid(format!("{what}: {why}"))
}

/// A client that trusts these certificates alone, or the system's.
fn client(authority: Option<&str>) -> Result<reqwest::Client, RegistryError> {
    let mut http = reqwest::Client::builder()
        .timeout(PATIENCE)
        .connect_timeout(Duration::from_secs(5))
        .no_proxy();
    if let Some(pem) = authority {
        let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
        http =
            http.tls_certs_only(certificates.map_err(|why| broken(&"the admin API's certificates", &why))?);
    }
    http.build().map_err(|why| broken(&"the HTTP client", &why))
}

fn unreachable(error: reqwest::Error) -> RegistryError {
    // The innermost cause says why; the outer ones name the URL once more.
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    RegistryError::Unreachable(cause.to_string())
}

fn refused(status: StatusCode, body: &[u8]) -> RegistryError {
    let refusal = serde_json::from_slice(body).unwrap_or(Refusal {
        reason: String::new(),
        error: String::new(),
    });
    match refusal.reason.as_str() {
        "StaleTerm" => RegistryError::StaleTerm(refusal.error),
        "Taken" => RegistryError::Taken(refusal.error),
        "Invalid" => RegistryError::Invalid(refusal.error),
        "Replaced" => RegistryError::Replaced(refusal.error),
        "NotFound" => RegistryError::NotFound(refusal.error),
        "Running" => RegistryError::Busy(refusal.error),
        "Unavailable" => RegistryError::Unreachable(refusal.error),
        _ => RegistryError::Refused {
            status: status.as_u16(),
            message: refusal.error,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_errors_by_their_reason() {
        let of = |body: &str| refused(StatusCode::CONFLICT, body.as_bytes());
        assert_eq!(
            of(r#"{"reason":"StaleTerm","error":"over"}"#),
            RegistryError::StaleTerm("over".to_owned())
        );
        assert_eq!(
            of(r#"{"reason":"Taken","error":"held"}"#),
            RegistryError::Taken("held".to_owned())
        );
        assert!(matches!(of("<html>"), RegistryError::Refused { status: 409, .. }));
    }
}
