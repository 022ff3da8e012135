//! The configuration at one version, immutable once it is made.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use berth_crds::Visibility;
use berth_crds::admin::{CacheConfig, RepositoryConfig, ResolvedTrust, RetentionPolicyConfig, TenantConfig};

use super::caches::{Caches, POLICY_PREFIX};
use super::policies::Policy;
use super::repositories::Repositories;
use super::webhooks::Webhook;
use crate::domain::{RepositoryName, TenantName};
use crate::identity::trust::Rule;
use crate::metadata::TenantId;
use crate::metadata::configuration::{Object, ObjectKind};

/// Most names of unreadable objects that are told.
const FAILED_LIMIT: usize = 100;

/// All tenants.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Version of the configuration.
    pub version: i64,
    tenants: HashMap<TenantId, Arc<Tenant>>,
    by_name: HashMap<String, TenantId>,
    by_uid: HashMap<String, TenantId>,
    by_host: HashMap<String, TenantId>,
    by_apex_name: HashMap<String, TenantId>,
    failed: BTreeMap<String, String>,
}

/// A tenant and everything that is configured for it.
#[derive(Clone)]
pub struct Tenant {
    /// Row id.
    pub id: TenantId,
    /// Its name.
    pub name: TenantName,
    /// Its uid: the audience of its access tokens.
    pub uid: String,
    /// Its own spec.
    pub config: TenantConfig,
    /// Made by a first run and not configured since.
    pub built_in: bool,
    /// Whether its own spec has been seen; without it, the tenant is not served.
    live: bool,
    /// Whose tokens it trusts, and for what.
    pub trust: Arc<[TrustRule]>,
    /// What is declared about its repositories.
    pub repositories: Repositories,
    /// Retention policies by object name.
    pub policies: BTreeMap<String, Arc<Policy>>,
    /// Other registries, read through it.
    pub caches: Caches,
    /// Where its events go.
    pub webhooks: Arc<[Webhook]>,
}

/// A foreign issuer's tokens, and what they may do.
#[derive(Debug, Clone)]
pub struct TrustRule {
    /// What a token must be.
    pub rule: Rule,
    /// What it may do then.
    pub grants: Arc<crate::domain::grant::Grants>,
}

impl TrustRule {
    fn new(trust: &ResolvedTrust) -> Result<Self, String> {
        let grants = serde_json::to_value(trust.grants()).and_then(serde_json::from_value);
        Ok(Self {
            rule: Rule::new(trust),
            grants: Arc::new(grants.map_err(|error| format!("spec.trust: {error}"))?),
        })
    }
}

impl Snapshot {
    /// The tenant of this row.
    pub fn tenant(&self, id: TenantId) -> Option<&Arc<Tenant>> {
        self.tenants.get(&id).filter(|tenant| tenant.live)
    }

    /// The tenant of this name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.by_name.get(name).and_then(|id| self.tenant(*id))
    }

    /// The tenant of this uid.
    pub fn by_uid(&self, uid: &str) -> Option<&Arc<Tenant>> {
        self.by_uid.get(uid).and_then(|id| self.tenant(*id))
    }

    /// The tenant that has this host of its own.
    pub fn by_host(&self, host: &str) -> Option<&Arc<Tenant>> {
        self.by_host.get(host).and_then(|id| self.tenant(*id))
    }

    /// The tenant that holds this name of an older registry on the apex.
    pub fn by_apex_name(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.by_apex_name.get(name).and_then(|id| self.tenant(*id))
    }

    /// All tenants, in no order.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenants.values().filter(|tenant| tenant.live)
    }

    /// Whether a tenant has been configured, beyond the one that a first run makes.
    pub fn is_configured(&self) -> bool {
        self.tenants().any(|tenant| !tenant.built_in)
    }

    /// Objects whose newest spec cannot be read, as `<kind>/<tenant>/<name>`, and why.
    pub fn failed(&self) -> impl Iterator<Item = (&str, &str)> {
        let told = self.failed.iter().take(FAILED_LIMIT);
        told.map(|(object, why)| (object.as_str(), why.as_str()))
    }

    /// Whether what a tenant is to be now could be read. Of one that is not known it could not be if any tenant's could not.
    pub fn is_read(&self, tenant: Option<&Tenant>) -> bool {
        let kind = ObjectKind::Tenant.text();
        match tenant {
            Some(tenant) => !self.failed.contains_key(&format!("{kind}/{}/", tenant.name)),
            None => !self.failed.keys().any(|key| key.starts_with(kind)),
        }
    }

    /// This snapshot with newer objects in it. An object that cannot be read leaves its predecessor in force.
    pub fn with(&self, objects: Vec<Object>) -> Self {
        let mut next = self.clone();
        for object in objects {
            next.version = next.version.max(object.version);
            let key = object_key(&object);
            match next.take(object) {
                Ok(()) => drop(next.failed.remove(&key)),
                Err(why) => {
                    tracing::error!(
                        object = key,
                        why,
                        "a configuration object cannot be read; its last good value stays"
                    );
                    next.failed.insert(key, why);
                }
            }
        }
        next.index();
        next
    }

    fn take(&mut self, object: Object) -> Result<(), String> {
        let gone = object.spec.is_none();
        if object.kind == ObjectKind::Tenant && gone {
            self.tenants.remove(&object.tenant);
            return Ok(());
        }
        let tenant = match self.tenants.get(&object.tenant) {
            Some(tenant) => tenant.clone(),
            None if gone => return Ok(()),
            None => Arc::new(Tenant::unseen(&object)?),
        };
        let mut tenant = Arc::unwrap_or_clone(tenant);
        tenant.uid.clone_from(&object.tenant_uid);
        let read = tenant.take(object);
        self.tenants.insert(tenant.id, Arc::new(tenant));
        read
    }

    /// Makes the maps by name anew.
    fn index(&mut self) {
        self.by_name.clear();
        self.by_uid.clear();
        self.by_host.clear();
        self.by_apex_name.clear();
        for tenant in self.tenants.values().filter(|tenant| tenant.live) {
            self.by_name.insert(tenant.name.to_string(), tenant.id);
            self.by_uid.insert(tenant.uid.clone(), tenant.id);
            for host in &tenant.config.hosts {
                self.by_host.insert(host.to_ascii_lowercase(), tenant.id);
            }
            for name in &tenant.config.apex_aliases {
                self.by_apex_name.insert(name.clone(), tenant.id);
            }
        }
    }
}

/// How an object is called in heartbeats and answers.
pub fn object_key(object: &Object) -> String {
    format!("{}/{}/{}", object.kind.text(), object.tenant_name, object.name)
}

impl Tenant {
    /// Who may see a repository: what is declared of it, then what its cache says, then what the tenant does.
    pub fn visibility(&self, name: &RepositoryName) -> Visibility {
        self.repositories
            .visibility(name)
            .or_else(|| self.caches.of(name)?.0.visibility())
            .unwrap_or(self.config.repositories.visibility)
    }

    /// The repository that a name of the tenant's host means.
    pub fn canonical(&self, name: RepositoryName) -> RepositoryName {
        self.caches.canonical(self.repositories.canonical(name))
    }

    /// Whether any repository may be public.
    pub fn has_public(&self) -> bool {
        self.config.repositories.visibility == Visibility::Public
            || self.repositories.has_public()
            || self.caches.has_public()
    }

    /// A tenant of which only a part has been seen.
    fn unseen(object: &Object) -> Result<Self, String> {
        Ok(Self {
            id: object.tenant,
            name: object.tenant_name.parse().map_err(|error| format!("{error}"))?,
            uid: object.tenant_uid.clone(),
            config: TenantConfig::default(),
            built_in: false,
            live: false,
            trust: Arc::new([]),
            repositories: Repositories::default(),
            policies: BTreeMap::new(),
            caches: Caches::default(),
            webhooks: Arc::new([]),
        })
    }

    fn take(&mut self, object: Object) -> Result<(), String> {
        let Object {
            kind,
            name,
            spec,
            built_in,
            ..
        } = object;
        match kind {
            ObjectKind::Tenant => {
                // Even if its first spec is unreadable the tenant is there: private, and trusting nobody.
                self.live = true;
                self.built_in = built_in;
                let config: TenantConfig = parse(&spec.unwrap_or_default())?;
                self.trust = config
                    .trust
                    .iter()
                    .map(TrustRule::new)
                    .collect::<Result<_, _>>()?;
                self.webhooks = Webhook::all(&config.webhooks)?.into();
                self.config = config;
            }
            ObjectKind::Repository => {
                let config = spec.map(|spec| parse::<RepositoryConfig>(&spec)).transpose()?;
                self.repositories.set(name, config)?;
            }
            ObjectKind::RetentionPolicy => match spec {
                Some(spec) => {
                    let policy = Policy::new(&name, parse::<RetentionPolicyConfig>(&spec)?)?;
                    self.policies.insert(name, Arc::new(policy));
                }
                None => drop(self.policies.remove(&name)),
            },
            ObjectKind::Cache => {
                let config = spec.map(|spec| parse::<CacheConfig>(&spec)).transpose()?;
                let mut caches = self.caches.clone();
                caches.set(&name, config)?;
                let implied = caches.policies()?;
                self.policies.retain(|name, _| !name.starts_with(POLICY_PREFIX));
                for policy in implied {
                    self.policies.insert(policy.name.to_string(), Arc::new(policy));
                }
                self.caches = caches;
            }
        }
        Ok(())
    }
}

fn parse<T: serde::de::DeserializeOwned>(spec: &str) -> Result<T, String> {
    serde_json::from_str(spec).map_err(|error| error.to_string())
}
