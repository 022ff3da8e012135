//! The registry's admin API, as its only writer besides people uses it.
//!
//! Every write carries the term that this process got when it became the leader; the registry refuses older ones,
//! so that a leader that was frozen and thawed cannot undo what its successor did.

mod answers;
mod error;
mod target;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use berth_crds::WebhookStatus;
use berth_crds::admin::{Put, TokenConfig, TokenGrants, current_key};
use berth_crds::token::TokenId;
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Mutex, OnceCell};

use answers::Everything;
pub use answers::{
    Changed, Object, PullThrough, Replicas, Retention, RetentionPreview, RetentionRun, Stored, TokenInfo,
    Usage,
};
pub use error::RegistryError;
use error::{broken, refused, unreachable};
use target::Target;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How old what replicas said may be.
const FRESH: Duration = Duration::from_millis(200);

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
    url: Url,
    access: RwLock<Arc<Access>>,
    term: OnceCell<i64>,
    served: Mutex<Option<(Instant, Replicas)>>,
}

/// Name of a retention policy's object at the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyName(String);

impl PolicyName {
    /// Of an object.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}"))
    }
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
            url: Url::parse(url).map_err(|why| broken(&url, &why))?,
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
            let Term { term } = self.ask(Method::POST, Target::at(["terms"]), None::<&()>).await?;
            tracing::info!(term, "this operator's writes are taken, earlier leaders' no more");
            Ok(term)
        };
        self.term.get_or_try_init(take).await.copied()
    }

    /// Makes an object what it should be. `path` is below `/admin/v1/`; its parts are names.
    pub async fn put<T: Serialize>(
        &self,
        path: &str,
        uid: &str,
        generation: i64,
        spec: &T,
    ) -> Result<Changed, RegistryError> {
        let body = self.body(uid, generation, spec).await?;
        self.ask(Method::PUT, Target::at([]).below(path), Some(&body))
            .await
    }

    /// Removes an object; whether it was there. `erase` gives up what it stores too.
    pub async fn delete(&self, path: &str, erase: bool) -> Result<bool, RegistryError> {
        let target = Target::at([]).below(path);
        self.remove(if erase { target.with("erase", true) } else { target })
            .await
    }

    async fn remove(&self, target: Target) -> Result<bool, RegistryError> {
        let target = target.with("term", self.term().await?);
        match self.ask::<Value>(Method::DELETE, target, None::<&()>).await {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes an object if it still comes from the source with this uid; whether it was there.
    pub async fn delete_of(&self, path: &str, uid: &str) -> Result<bool, RegistryError> {
        self.remove(Target::at([]).below(path).with("uid", uid)).await
    }

    /// An object, if the registry has it.
    pub async fn object(&self, path: &str) -> Result<Option<Object>, RegistryError> {
        match self
            .ask(Method::GET, Target::at([]).below(path), None::<&()>)
            .await
        {
            Ok(object) => Ok(Some(object)),
            Err(RegistryError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every object.
    pub async fn state(&self) -> Result<Vec<Stored>, RegistryError> {
        let everything: Everything = self.ask(Method::GET, Target::at(["state"]), None::<&()>).await?;
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
        let replicas: Replicas = self
            .ask(Method::GET, Target::at(["replicas"]), None::<&()>)
            .await?;
        *served = Some((Instant::now(), replicas.clone()));
        Ok(replicas)
    }

    /// What a tenant stores.
    pub async fn usage(&self, tenant: &str) -> Result<Option<Usage>, RegistryError> {
        let target = Target::at(["usage"]).with("tenant", tenant);
        let usages: Vec<Usage> = self.ask(Method::GET, target, None::<&()>).await?;
        Ok(usages.into_iter().next())
    }

    /// How a tenant's webhooks fare.
    pub async fn webhooks(&self, tenant: &str) -> Result<Vec<WebhookStatus>, RegistryError> {
        let target = Target::at(["tenants", tenant, "webhooks"]);
        self.ask(Method::GET, target, None::<&()>).await
    }

    /// What a repository stores; nothing if it does not exist yet.
    pub async fn repository_usage(&self, tenant: &str, name: &str) -> Result<Option<Usage>, RegistryError> {
        let target = Target::at(["tenants", tenant, "catalog"]).below(name);
        match self.ask(Method::GET, target, None::<&()>).await {
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
        let target = Target::at(["tenants", tenant, "retention"]).with("policy", &policy.0);
        match self.ask(Method::GET, target, None::<&()>).await {
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
        let target = Target::at(["tenants", tenant, "retention", "run"])
            .with("policy", &policy.0)
            .with("term", self.term().await?);
        self.ask(Method::POST, target, None::<&()>).await
    }

    /// What a cache does, by the namespace and the name of its object; nothing if the registry has no such cache.
    pub async fn pull_through(
        &self,
        tenant: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<PullThrough>, RegistryError> {
        let cache = format!("{namespace}/{name}");
        let target = Target::at(["tenants", tenant, "pull-through"]).with("cache", cache);
        match self.ask(Method::GET, target, None::<&()>).await {
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
            let target = Target::at(["tenants", tenant, "tokens"]).with("after", after);
            let page: Page = self.ask(Method::GET, target, None::<&()>).await?;
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
        id: &TokenId,
        uid: &str,
        token: &TokenConfig,
    ) -> Result<(), RegistryError> {
        let target = Target::at(["tenants", tenant, "tokens", id.as_str()]);
        let body = self.body(uid, 0, token).await?;
        let _: Value = self.ask(Method::PUT, target, Some(&body)).await?;
        Ok(())
    }

    /// Gives a token other grants; false if there is none, or the registry is of a release that cannot do it.
    pub async fn regrant_token(
        &self,
        tenant: &str,
        id: &TokenId,
        uid: &str,
        grants: &TokenGrants,
    ) -> Result<bool, RegistryError> {
        let target = Target::at(["tenants", tenant, "tokens", id.as_str(), "grants"]);
        let body = self.body(uid, 0, grants).await?;
        match self.ask::<Value>(Method::PUT, target, Some(&body)).await {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Ends a token.
    pub async fn delete_token(&self, tenant: &str, id: &TokenId) -> Result<bool, RegistryError> {
        self.remove(Target::at(["tenants", tenant, "tokens", id.as_str()]))
            .await
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
        target: Target,
        body: Option<&impl Serialize>,
    ) -> Result<T, RegistryError> {
        let url = target.url(&self.url)?;
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
