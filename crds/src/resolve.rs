//! From a resource's spec to what the registry gets: references followed, selectors resolved.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::admin::{
    CacheConfig, RepositoryConfig, ResolvedTrust, ResolvedUpstream, ResolvedWebhook, RetentionPolicyConfig,
    Secret, TenantConfig,
};
use super::check::{Invalid, Problems};
use super::{PullThroughCacheSpec, RepositorySpec, RetentionPolicySpec, ServiceAccounts, TenantSpec, Trust};

/// Where references lead: a cluster's objects, or files in a folder. Errors say what to change.
pub trait Follow {
    /// Names of the namespaces that a selector matches.
    fn namespaces(&self, selector: &LabelSelector) -> Result<Vec<String>, String>;

    /// The entries of a Secret; without a namespace, of the object's own.
    fn secret(&self, namespace: Option<&str>, name: &str) -> Result<BTreeMap<String, String>, String>;

    /// The cluster's issuer and its keys as a JSON Web Key Set.
    fn cluster_keys(&self) -> Result<(Option<String>, String), String>;

    /// The object name of what a reference inside of a namespace means.
    fn object(&self, name: &str) -> String;
}

impl TenantSpec {
    /// What the registry gets.
    pub fn resolve(&self, follow: &dyn Follow) -> Result<TenantConfig, Vec<Invalid>> {
        let mut problems = Problems::new("spec");
        let mut trust = Vec::new();
        for (at, rule) in self.trust.iter().enumerate() {
            match resolve_trust(rule, follow) {
                Ok(resolved) => trust.push(resolved),
                Err(why) => problems.add(format_args!("trust[{at}]"), why),
            }
        }
        let mut webhooks = Vec::new();
        for (at, webhook) in self.webhooks.iter().enumerate() {
            let secret = webhook.secret_ref.as_ref().map(|secret| {
                let entries = follow.secret(Some(&secret.namespace), &secret.name)?;
                let token = entries.get("token").cloned();
                token
                    .map(Secret)
                    .ok_or_else(|| format!("Secret {} has no key token", secret.name))
            });
            match secret.transpose() {
                Ok(secret) => webhooks.push(ResolvedWebhook {
                    url: webhook.url.clone(),
                    events: webhook.events.clone(),
                    repositories: webhook.repositories.clone(),
                    secret,
                }),
                Err(why) => problems.add(format_args!("webhooks[{at}].secretRef"), why),
            }
        }
        problems.end()?;
        Ok(TenantConfig {
            display_name: self.display_name.clone(),
            hosts: self.hosts.clone(),
            repositories: self.repositories,
            quota: self.quota.clone(),
            billing: self.billing.clone(),
            trust,
            redirect: self.redirect,
            apex_aliases: self.apex_aliases.clone(),
            policy: self.policy,
            webhooks,
            suspend: self.suspend,
            suspend_reason: None,
            deletion_policy: self.deletion_policy,
        })
    }
}

fn resolve_trust(rule: &Trust, follow: &dyn Follow) -> Result<ResolvedTrust, String> {
    let grants = rule.grants.clone();
    match (&rule.issuer, &rule.service_accounts) {
        (Some(issuer), None) => Ok(ResolvedTrust::Issuer {
            issuer: issuer.clone(),
            audience: rule.audience.clone().unwrap_or_default(),
            jwks: rule.jwks.clone(),
            ca_bundle: rule.ca_bundle.clone(),
            claims: rule.claims.clone(),
            when: rule.when.clone(),
            max_age: rule.max_age.clone(),
            grants,
        }),
        (None, Some(accounts)) => {
            let (issuer, jwks) = match &rule.jwks {
                Some(jwks) => (None, jwks.clone()),
                None => follow.cluster_keys()?,
            };
            Ok(ResolvedTrust::ServiceAccounts {
                issuer,
                jwks,
                namespaces: namespaces(accounts, follow)?,
                names: accounts.names.clone(),
                grants,
            })
        }
        _ => Err("name either an issuer or serviceAccounts, not both".to_owned()),
    }
}

fn namespaces(accounts: &ServiceAccounts, follow: &dyn Follow) -> Result<Vec<String>, String> {
    let mut names = accounts.namespaces.clone();
    if let Some(selector) = &accounts.namespace_selector {
        names.extend(follow.namespaces(selector)?);
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

impl RepositorySpec {
    /// What the registry gets.
    pub fn resolve(&self, follow: &dyn Follow) -> RepositoryConfig {
        RepositoryConfig {
            name: self.name.clone(),
            match_: self.match_.clone(),
            description: self.description.clone(),
            visibility: self.visibility,
            lifecycle: self.lifecycle,
            ephemeral_after: self.ephemeral_after.clone(),
            immutable_tags: self.immutable_tags.clone(),
            aliases: self.aliases.clone(),
            retention_policy: self
                .retention_policy_ref
                .as_ref()
                .map(|policy| follow.object(&policy.name)),
            quota: self.quota.clone(),
        }
    }
}

impl RetentionPolicySpec {
    /// What the registry gets.
    pub fn resolve(&self) -> RetentionPolicyConfig {
        RetentionPolicyConfig {
            repositories: self.repositories.clone(),
            rules: self.rules.clone(),
            untagged: self.untagged.clone(),
            restore_window: self.restore_window.clone(),
            schedule: self.schedule.clone(),
            dry_run: self.dry_run,
        }
    }
}

impl PullThroughCacheSpec {
    /// What the registry gets.
    pub fn resolve(&self, follow: &dyn Follow) -> Result<CacheConfig, Vec<Invalid>> {
        let mut problems = Problems::new("spec");
        let (mut username, mut password) = (None, None);
        if let Some(secret) = &self.upstream.credentials_secret_ref {
            let entries = follow.secret(None, &secret.name).and_then(|entries| {
                let missing = |key: &str| format!("Secret {} has no key {key}", secret.name);
                let get = |key: &str| entries.get(key).cloned().ok_or_else(|| missing(key));
                Ok((get("username")?, get("password")?))
            });
            match entries {
                Ok((user, secret)) => (username, password) = (Some(user), Some(Secret(secret))),
                Err(why) => problems.add("upstream.credentialsSecretRef", why),
            }
        }
        problems.end()?;
        Ok(CacheConfig {
            upstream: ResolvedUpstream {
                url: self.upstream.url.clone(),
                username,
                password,
                ca_bundle: self.upstream.ca_bundle.clone(),
                timeout: self.upstream.timeout.clone(),
            },
            prefix: self.prefix.clone(),
            mirror_for: self.mirror_for.clone(),
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            tags: self.tags.clone(),
            keep_unpulled: self.keep_unpulled.clone(),
            visibility: self.visibility,
            prefetch: self.prefetch.clone(),
        })
    }
}
