//! From a resource's spec to what the registry gets: references followed, selectors resolved.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::admin::{
    CacheConfig, RepositoryConfig, ResolvedTrust, ResolvedUpstream, ResolvedWebhook, RetentionPolicyConfig,
    Secret, TenantConfig,
};
use super::check::{Invalid, Problems};
use super::docker;
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
            sign_in: rule.sign_in.clone(),
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
            let entries = follow.secret(None, &secret.name);
            let found = entries.and_then(|entries| {
                login(&entries, &self.upstream.url).map_err(|why| format!("Secret {} {why}", secret.name))
            });
            match found {
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

/// User name and password for an upstream: the entries of those names, or what a docker configuration has for its host.
fn login(entries: &BTreeMap<String, String>, url: &str) -> Result<(String, String), String> {
    match (
        entries.get("username"),
        entries.get("password"),
        entries.get(docker::KEY),
    ) {
        (Some(user), Some(password), _) => Ok((user.clone(), password.clone())),
        (None, None, Some(configuration)) => {
            docker::login(configuration, url).map_err(|why| format!("{why} ({})", docker::KEY))
        }
        (None, None, None) => Err(format!("has neither username and password nor {}", docker::KEY)),
        (Some(_), None, _) => Err("has no key password".to_owned()),
        (None, Some(_), _) => Err("has no key username".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CacheTags, LocalRef, Upstream, Visibility};
    use super::*;

    /// A place with one Secret, named hub.
    struct Hub(BTreeMap<String, String>);

    impl Follow for Hub {
        fn namespaces(&self, _: &LabelSelector) -> Result<Vec<String>, String> {
            Ok(Vec::new())
        }
        fn secret(&self, namespace: Option<&str>, name: &str) -> Result<BTreeMap<String, String>, String> {
            assert_eq!(namespace, None, "of the object's own namespace");
            let found = (name == "hub").then(|| self.0.clone());
            found.ok_or_else(|| format!("there is no Secret {name}"))
        }
        fn cluster_keys(&self) -> Result<(Option<String>, String), String> {
            Err("none".to_owned())
        }
        fn object(&self, name: &str) -> String {
            name.to_owned()
        }
    }

    fn cache(secret: &str) -> PullThroughCacheSpec {
        PullThroughCacheSpec {
            upstream: Upstream {
                url: "https://registry-1.docker.io".to_owned(),
                credentials_secret_ref: Some(LocalRef {
                    name: secret.to_owned(),
                }),
                ..Upstream::default()
            },
            prefix: "docker.io".to_owned(),
            ..PullThroughCacheSpec::default()
        }
    }

    fn resolved(entries: &[(&str, &str)]) -> Result<(String, String), String> {
        let entries = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let config = cache("hub")
            .resolve(&Hub(entries.collect()))
            .map_err(|mut problems| {
                assert_eq!(problems.len(), 1);
                assert_eq!(problems[0].path, "spec.upstream.credentialsSecretRef");
                problems.remove(0).why
            })?;
        assert_eq!(config.validate(), Ok(()));
        Ok((
            config.upstream.username.unwrap(),
            config.upstream.password.unwrap().0,
        ))
    }

    #[test]
    fn an_upstreams_login_is_two_entries_or_a_docker_configuration() {
        let docker = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "YW5uOmRvY2tlcg=="}}}"#;
        let pair = |user: &str, password: &str| Ok((user.to_owned(), password.to_owned()));
        let own = [("username", "ann"), ("password", "own")];
        assert_eq!(resolved(&own), pair("ann", "own"));
        assert_eq!(resolved(&[(docker::KEY, docker)]), pair("ann", "docker"));
        assert_eq!(
            resolved(&[own[0], own[1], (docker::KEY, docker)]),
            pair("ann", "own")
        );
    }

    #[test]
    fn a_secret_without_a_login_is_told_by_what_it_lacks() {
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[], "neither username and password nor .dockerconfigjson"),
            (&[("username", "ann")], "no key password"),
            (&[("password", "p"), (docker::KEY, "{}")], "no key username"),
            (
                &[(docker::KEY, r#"{"auths": {"ghcr.io": {}}}"#)],
                "no login for docker.io",
            ),
            (&[(docker::KEY, "hunter2")], "no docker configuration"),
        ];
        for (entries, part) in cases {
            let why = resolved(entries).expect_err(part);
            assert!(why.starts_with("Secret hub ") && why.contains(part), "{why}");
            assert!(!why.contains("hunter2"), "{why}");
        }
        let absent = cache("other").resolve(&Hub(BTreeMap::new())).expect_err("absent");
        assert!(absent[0].why.contains("there is no Secret other"));
    }

    #[test]
    fn a_cache_reaches_the_registry_whole() {
        let mut spec = cache("hub");
        spec.upstream.credentials_secret_ref = None;
        spec.tags = CacheTags {
            revalidate_after: Some("1m".parse().unwrap()),
            allow: vec!["v*".to_owned()],
            pinned: vec!["v1.*".to_owned()],
            keep_deleted: true,
            ..CacheTags::default()
        };
        spec.visibility = Some(Visibility::Public);
        spec.prefetch = vec!["library/alpine:3.20".to_owned()];
        let config = spec.resolve(&Hub(BTreeMap::new())).unwrap();
        assert_eq!(
            (config.tags, config.visibility, config.prefetch),
            (spec.tags, spec.visibility, spec.prefetch)
        );
        assert_eq!((config.upstream.username, config.upstream.password), (None, None));
    }
}
