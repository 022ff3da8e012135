//! What the registry's admin API takes: specs with references followed and selectors resolved.
//!
//! Everything here is plain data for both ends; the secrets in it are shown by no `Debug`.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Invalid, Problems, label};
use super::repository::Shape;
use super::{
    Billing, CacheTags, DeletionPolicy, Event, Grant, Lifecycle, Quota, Redirect, RepositoryDefaults,
    RepositoryQuota, Rule, SignIn, Span, TenantPolicy, Untagged, Visibility, grant, pull_through_cache,
    retention_policy, tenant, trust,
};

/// Of a text with admin keys, one a line, the one that clients use: the first. All of them are taken.
pub fn current_key(text: &str) -> &str {
    text.lines()
        .map(str::trim)
        .find(|key| !key.is_empty())
        .unwrap_or_default()
}

/// Body of a PUT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Put<T> {
    /// Uid of the source object, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub uid: Option<String>,
    /// Generation of the source object.
    #[serde(default)]
    pub generation: i64,
    /// The writer's term, as `POST /admin/v1/terms` gave it; an older one than the newest is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<i64>,
    /// The new content.
    pub spec: T,
}

/// A text that is shown to nobody.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(#[schemars(length(max = 65536))] pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A tenant as the registry serves it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantConfig {
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub display_name: Option<String>,
    /// Hosts of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 253)))]
    pub hosts: Vec<String>,
    /// What holds for repositories unless one says otherwise.
    #[serde(default)]
    pub repositories: RepositoryDefaults,
    /// What it may store.
    #[serde(default)]
    pub quota: Quota,
    /// What it pays for what it stores; as the installation says if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing: Option<Billing>,
    /// Whose tokens are trusted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub trust: Vec<ResolvedTrust>,
    /// Whether blob downloads are redirected.
    #[serde(default)]
    pub redirect: Redirect,
    /// Names that it holds on the apex.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 255)))]
    pub apex_aliases: Vec<String>,
    /// What may be pushed.
    #[serde(default)]
    pub policy: TenantPolicy,
    /// Where events are sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub webhooks: Vec<ResolvedWebhook>,
    /// Whether pushes and pulls are refused.
    #[serde(default)]
    pub suspend: bool,
    /// Why, for those who are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub suspend_reason: Option<String>,
    /// What becomes of its content when it is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Whose tokens are trusted, and for what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum ResolvedTrust {
    /// An OIDC issuer.
    Issuer {
        /// As its tokens name it.
        #[schemars(length(max = 2048))]
        issuer: String,
        /// For whom tokens must be made.
        #[schemars(length(max = 255))]
        audience: String,
        /// Its keys, for an issuer that is not asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(max = 65536))]
        jwks: Option<String>,
        /// PEM certificates that sign its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(max = 65536))]
        ca_bundle: Option<String>,
        /// Claims that must have these values.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        claims: BTreeMap<String, String>,
        /// A CEL expression that must be true.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(max = 4096))]
        when: Option<String>,
        /// Oldest age of a token.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_age: Option<Span>,
        /// How people sign in to the explorer by it; not at all if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sign_in: Option<SignIn>,
        /// What they may do.
        grants: Vec<Grant>,
    },
    /// Service accounts of the cluster.
    ServiceAccounts {
        /// Their issuer; not checked if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(max = 2048))]
        issuer: Option<String>,
        /// The cluster's keys as a JSON Web Key Set.
        #[schemars(length(max = 65536))]
        jwks: String,
        /// Their namespaces.
        namespaces: Vec<String>,
        /// Their names; `*` stands for all.
        names: Vec<String>,
        /// What they may do.
        grants: Vec<Grant>,
    },
}

impl ResolvedTrust {
    /// What the tokens may do.
    pub fn grants(&self) -> &[Grant] {
        match self {
            Self::Issuer { grants, .. } | Self::ServiceAccounts { grants, .. } => grants,
        }
    }

    fn validate(&self, problems: &mut Problems) {
        match self {
            Self::Issuer {
                issuer,
                audience,
                claims,
                when,
                sign_in,
                ..
            } => {
                trust::validate_issuer(issuer, Some(audience), claims, when.as_deref(), problems);
                if let Some(sign_in) = sign_in {
                    problems.within("signIn", |problems| sign_in.validate(problems));
                }
            }
            Self::ServiceAccounts {
                jwks,
                namespaces,
                names,
                ..
            } => {
                if !jwks.trim_start().starts_with('{') {
                    problems.add("jwks", "is no JSON Web Key Set");
                }
                // However many namespaces a selector has matched.
                trust::validate_accounts(&[], names, problems);
                problems.each("namespaces", namespaces, 10_000, |namespace| label(namespace));
            }
        }
        grant::validate(self.grants(), problems);
    }
}

/// Where events are sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResolvedWebhook {
    /// Where.
    #[schemars(length(max = 2048))]
    pub url: String,
    /// Which.
    pub events: Vec<Event>,
    /// Globs over the repositories concerned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<String>,
    /// What signs them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
}

/// A repository, or what holds for many, as the registry serves it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepositoryConfig {
    /// One repository; or else `match`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub name: Option<String>,
    /// A glob over repositories; or else `name`.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub match_: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Who may pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
    /// Whether what is pushed is to stay.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// Lifetime of a tag of an ephemeral repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral_after: Option<Span>,
    /// Globs over tags that cannot be moved or deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 128)))]
    pub immutable_tags: Vec<String>,
    /// Further names on the tenant's host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 255)))]
    pub aliases: Vec<String>,
    /// Object name of a retention policy of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub retention_policy: Option<String>,
    /// What each may store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<RepositoryQuota>,
}

/// Which tags stay, as the registry serves it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetentionPolicyConfig {
    /// Globs over the repositories that it covers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 255)))]
    pub repositories: Vec<String>,
    /// What keeps a tag.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub rules: Vec<Rule>,
    /// What becomes of manifests that no tag reaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untagged: Option<Untagged>,
    /// For how long deleted tags can be brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_window: Option<Span>,
    /// When it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub schedule: Option<String>,
    /// Only report.
    #[serde(default)]
    pub dry_run: bool,
}

/// A cache, as the registry serves it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CacheConfig {
    /// The other registry.
    pub upstream: ResolvedUpstream,
    /// Where its repositories appear.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub prefix: String,
    /// Registries that nodes ask for by `?ns=`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 253)))]
    pub mirror_for: Vec<String>,
    /// Globs over what may be pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 255)))]
    pub allow: Vec<String>,
    /// Globs over what may not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 255)))]
    pub deny: Vec<String>,
    /// How tags follow the upstream.
    #[serde(default)]
    pub tags: CacheTags,
    /// What nobody pulled for this long is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_unpulled: Option<Span>,
    /// Who may pull what no repository's configuration speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
    /// Images to fetch before anybody asks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 512)))]
    pub prefetch: Vec<String>,
}

/// The other registry, with its credentials.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResolvedUpstream {
    /// Its URL.
    #[schemars(length(max = 2048))]
    pub url: String,
    /// Who asks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub username: Option<String>,
    /// By which password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// PEM certificates that sign its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
    /// Longest wait for an answer to begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

/// A token, by the hash of its text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenConfig {
    /// Name for people: a DNS label.
    #[schemars(length(max = 63))]
    pub name: String,
    /// What it stands for.
    #[serde(default)]
    pub kind: TokenKind,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// SHA-256 of the token's text in hexadecimal digits.
    #[schemars(length(min = 64, max = 64))]
    pub hash: String,
    /// What it may do.
    #[schemars(length(min = 1, max = 64))]
    pub grants: Vec<Grant>,
    /// When it ends (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub expires_at: Option<String>,
}

/// What a token may do from now on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenGrants {
    /// 1 to 64.
    #[schemars(length(min = 1, max = 64))]
    pub grants: Vec<Grant>,
}

/// What a token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// A person.
    User,
    /// The whole organisation.
    #[default]
    Organization,
    /// Some of its repositories.
    Project,
}

impl TenantConfig {
    /// Checks everything but what other objects decide.
    pub fn validate(&self, domain: &str) -> Result<(), Vec<Invalid>> {
        tenant::hosts_below(&self.hosts, domain)?;
        let mut problems = Problems::new("spec");
        tenant::common(
            &mut problems,
            self.display_name.as_deref(),
            &self.hosts,
            &self.apex_aliases,
        );
        if let Some(billing) = &self.billing {
            problems.within("billing", |problems| billing.validate(problems));
        }
        problems.length(
            "suspendReason",
            self.suspend_reason.as_deref().unwrap_or_default(),
            1024,
        );
        if self.trust.len() > 64 {
            problems.add(
                "trust",
                format!("has {} entries; the limit is 64", self.trust.len()),
            );
        }
        for (at, rule) in self.trust.iter().enumerate().take(64) {
            problems.within(format_args!("trust[{at}]"), |problems| rule.validate(problems));
        }
        if self.webhooks.len() > 32 {
            problems.add(
                "webhooks",
                format!("has {} entries; the limit is 32", self.webhooks.len()),
            );
        }
        for (at, webhook) in self.webhooks.iter().enumerate().take(32) {
            problems.within(format_args!("webhooks[{at}]"), |problems| {
                tenant::validate_webhook(&webhook.url, &webhook.events, &webhook.repositories, problems);
            });
        }
        problems.end()
    }
}

impl RepositoryConfig {
    /// Checks everything but what other objects decide.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut problems = Problems::new("spec");
        Shape {
            name: self.name.as_deref(),
            match_: self.match_.as_deref(),
            description: self.description.as_deref(),
            lifecycle: self.lifecycle,
            ephemeral_after: self.ephemeral_after.as_ref(),
            immutable_tags: &self.immutable_tags,
            aliases: &self.aliases,
        }
        .validate(&mut problems);
        problems.length(
            "retentionPolicy",
            self.retention_policy.as_deref().unwrap_or_default(),
            320,
        );
        problems.end()
    }
}

impl RetentionPolicyConfig {
    /// Checks everything but what other objects decide.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut problems = Problems::new("spec");
        retention_policy::validate(
            &self.repositories,
            &self.rules,
            self.schedule.as_deref(),
            &mut problems,
        );
        problems.end()
    }
}

impl CacheConfig {
    /// Checks everything but what other objects decide.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut problems = Problems::new("spec");
        let lists = [&self.mirror_for[..], &self.allow, &self.deny, &self.prefetch];
        pull_through_cache::validate(&self.upstream.url, &self.prefix, lists, &self.tags, &mut problems);
        if self.upstream.username.is_some() != self.upstream.password.is_some() {
            problems.add("upstream.password", "goes with username, and username needs it");
        }
        problems.end()
    }
}

impl TokenConfig {
    /// Checks everything but what other objects decide.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut problems = Problems::new("spec");
        problems.check("name", label(&self.name));
        problems.length(
            "description",
            self.description.as_deref().unwrap_or_default(),
            1024,
        );
        if self.hash.len() != 64 || !self.hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            problems.add("hash", "is no SHA-256 in 64 hexadecimal digits");
        }
        grant::validate(&self.grants, &mut problems);
        problems.end()
    }
}

impl TokenGrants {
    /// Checks them.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut problems = Problems::new("spec");
        grant::validate(&self.grants, &mut problems);
        problems.end()
    }
}
