//! Where a spec's references lead in a cluster, fetched before the spec is resolved.
//!
//! Secrets are read by name only, and only where their rules allow: a Secret for a Tenant lies in a namespace that
//! the tenant admits and carries the tenant's label; everything else is refused before it is read.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use berth_crds::resolve::Follow;
use berth_crds::{SecretRef, Tenant};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::Mutex;

use crate::TENANT;
use crate::admission::admits;
use crate::context::{Context, selects};
use crate::trouble::Trouble;

/// How old the cluster's keys may be.
const KEYS_FRESH: Duration = Duration::from_secs(10);

type Entries = BTreeMap<String, String>;
/// The issuer of the cluster's service-account tokens and its keys.
type Keys = (Option<String>, String);

/// The cluster's keys, as they were last read.
#[derive(Debug, Default)]
pub struct ClusterKeys {
    known: Mutex<Option<(Instant, Keys)>>,
    changes: AtomicU64,
}

impl ClusterKeys {
    /// What the API server publishes about its service-account tokens.
    pub async fn read(&self, client: &Client) -> Result<Keys, kube::Error> {
        let mut known = self.known.lock().await;
        if let Some((at, keys)) = known.as_ref()
            && at.elapsed() < KEYS_FRESH
        {
            return Ok(keys.clone());
        }
        let get = |path: &str| http_get(client.clone(), path.to_owned());
        let jwks = get("/openid/v1/jwks").await?;
        let about: serde_json::Value = serde_json::from_str(&get("/.well-known/openid-configuration").await?)
            .map_err(kube::Error::SerdeError)?;
        let issuer = about
            .get("issuer")
            .and_then(serde_json::Value::as_str)
            .map(str::to_owned);
        let keys = (issuer, jwks);
        if known.as_ref().is_some_and(|(_, known)| *known != keys) {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        *known = Some((Instant::now(), keys.clone()));
        Ok(keys)
    }

    /// How often they were found to have changed.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }
}

async fn http_get(client: Client, path: String) -> Result<String, kube::Error> {
    let request = axum::http::Request::get(path)
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    client.request_text(request).await
}

/// References, fetched.
#[derive(Debug, Default)]
pub struct Followed {
    namespaces: Vec<(String, BTreeMap<String, String>)>,
    secrets: HashMap<(String, String), Result<Entries, String>>,
    keys: Option<Keys>,
    own: String,
}

impl Followed {
    /// What a Tenant refers to.
    pub async fn tenant(ctx: &Context, tenant: &Tenant) -> Result<Self, Trouble> {
        let mut followed = Self::default();
        let accounts = tenant
            .spec
            .trust
            .iter()
            .filter(|rule| rule.service_accounts.is_some());
        let (mut any, mut unknown_keys) = (false, false);
        for rule in accounts {
            any = true;
            unknown_keys |= rule.jwks.is_none();
        }
        if any {
            let named = |name: &str| ctx.labels_of(name).map(|labels| (name.to_owned(), labels));
            followed.namespaces = ctx
                .namespaces(|_, _| true)
                .iter()
                .filter_map(|name| named(name))
                .collect();
        }
        if unknown_keys {
            followed.keys = Some(ctx.cluster_keys.read(&ctx.client).await?);
        }
        for webhook in &tenant.spec.webhooks {
            if let Some(reference) = &webhook.secret_ref {
                let read = for_tenant(ctx, tenant, reference).await?;
                let key = (reference.namespace.clone(), reference.name.clone());
                followed.secrets.insert(key, read);
            }
        }
        Ok(followed)
    }

    /// Secrets of an object's own namespace.
    pub async fn own(ctx: &Context, namespace: &str, secrets: &[&str]) -> Result<Self, Trouble> {
        let mut followed = Self {
            own: namespace.to_owned(),
            ..Self::default()
        };
        for name in secrets {
            let read = get(ctx, namespace, name).await?;
            let entries = read
                .map(|secret| entries(&secret))
                .ok_or_else(|| absent(namespace, name));
            followed
                .secrets
                .insert((namespace.to_owned(), (*name).to_owned()), entries);
        }
        Ok(followed)
    }
}

async fn for_tenant(
    ctx: &Context,
    tenant: &Tenant,
    reference: &SecretRef,
) -> Result<Result<Entries, String>, Trouble> {
    let (namespace, name) = (&reference.namespace, &reference.name);
    let labels = ctx
        .labels_of(namespace)
        .filter(|_| ctx.settings.covers(namespace));
    let admitted = labels.is_some_and(|labels| admits(&tenant.spec.allowed_namespaces, &labels));
    if ctx.settings.is_reserved(namespace) || !admitted {
        return Ok(Err(format!("the tenant does not admit namespace {namespace}")));
    }
    let secret = get(ctx, namespace, name).await?;
    // What is not meant for the tenant is not told apart from what is not there.
    let meant = secret.filter(|secret| secret.labels().get(TENANT) == Some(&tenant.name_any()));
    Ok(meant.map(|secret| entries(&secret)).ok_or_else(|| {
        format!(
            "there is no Secret {namespace}/{name} with the label {TENANT}: {}",
            tenant.name_any()
        )
    }))
}

async fn get(ctx: &Context, namespace: &str, name: &str) -> Result<Option<Secret>, kube::Error> {
    Api::<Secret>::namespaced(ctx.client.clone(), namespace)
        .get_opt(name)
        .await
}

fn absent(namespace: &str, name: &str) -> String {
    format!("there is no Secret {namespace}/{name}")
}

/// Entries that are text; credentials are.
fn entries(secret: &Secret) -> Entries {
    let data = secret.data.iter().flatten();
    data.filter_map(|(key, value)| Some((key.clone(), String::from_utf8(value.0.clone()).ok()?)))
        .collect()
}

impl Follow for Followed {
    fn namespaces(&self, selector: &LabelSelector) -> Result<Vec<String>, String> {
        let matching = self
            .namespaces
            .iter()
            .filter(|(_, labels)| selects(selector, labels));
        Ok(matching.map(|(name, _)| name.clone()).collect())
    }

    fn secret(&self, namespace: Option<&str>, name: &str) -> Result<Entries, String> {
        let namespace = namespace.unwrap_or(&self.own);
        self.secrets
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
            .unwrap_or_else(|| Err(absent(namespace, name)))
    }

    fn cluster_keys(&self) -> Result<(Option<String>, String), String> {
        self.keys
            .clone()
            .ok_or_else(|| "the cluster's keys are not known".to_owned())
    }

    fn object(&self, name: &str) -> String {
        format!("{}/{name}", self.own)
    }
}
