//! `Tenant`: an organisation, its hosts, its limits and its credentials.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Invalid, Problems, dns_name, host, label, repository_glob, repository_name, url};
use super::{Billing, Grant, Quantity, Span, Trust, grant, schema};

/// An organisation with a registry of its own at `{name}.<domain>`.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "Tenant",
    shortname = "bten",
    category = "berth",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Host", type_ = "string", json_path = ".status.host"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(
        name = "Suspended",
        type_ = "boolean",
        json_path = ".spec.suspend",
        priority = 1
    ),
    selectable = ".spec.suspend",
    status = "TenantStatus",
    derive = "PartialEq",
    doc = "An organisation with a registry of its own at {name}.<domain>."
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open)]
pub struct TenantSpec {
    /// Name for people. At most 255 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub display_name: Option<String>,
    /// Hosts of the tenant's own, besides `{name}.<domain>`; not below `<domain>`, and held by no other tenant.
    /// At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 253), regex(pattern = schema::HOST)), extend("x-kubernetes-list-type" = "set"))]
    pub hosts: Vec<String>,
    /// Namespaces whose Repositories, RetentionPolicies and PullThroughCaches may name this tenant, and in which
    /// its Secrets may lie.
    #[serde(default)]
    pub allowed_namespaces: AllowedNamespaces,
    /// What holds for repositories unless a Repository says otherwise.
    #[serde(default)]
    pub repositories: RepositoryDefaults,
    /// What the tenant may store.
    #[serde(default)]
    pub quota: Quota,
    /// What it pays for what it stores; as the installation says if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billing: Option<Billing>,
    /// Secrets by which the pods of chosen namespaces pull.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_secrets: Option<PullSecrets>,
    /// Tokens of the organisation, each handed over in a Secret. At most 128.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub tokens: Vec<TenantToken>,
    /// Issuers and service accounts whose tokens are accepted, so that no secret need be stored. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub trust: Vec<Trust>,
    /// Whether blob downloads are redirected to the object store.
    #[serde(default)]
    pub redirect: Redirect,
    /// Names of an older registry that the tenant holds on the apex host (`<domain>/{name}:tag`); unique in the
    /// installation, and no tenant's name. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 255), regex(pattern = schema::COMPONENT)), extend("x-kubernetes-list-type" = "set"))]
    pub apex_aliases: Vec<String>,
    /// What may be pushed.
    #[serde(default)]
    pub policy: TenantPolicy,
    /// Where events are sent. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub webhooks: Vec<Webhook>,
    /// Refuses pushes and pulls until it is false again; nothing is deleted.
    #[serde(default)]
    pub suspend: bool,
    /// What becomes of the tenant's content when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Which namespaces are admitted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open, extend("x-kubernetes-validations" = schema::rules(&[("(self.from == 'Selector') == has(self.selector)", "selector goes with from: Selector, and from: Selector needs it")])))]
pub struct AllowedNamespaces {
    /// None, All, or those that match `selector`.
    #[serde(default)]
    pub from: NamespacesFrom,
    /// Labels of the admitted namespaces; with `from: Selector` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Which namespaces are admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum NamespacesFrom {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those that the selector matches.
    Selector,
}

/// What holds for repositories unless a Repository says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open)]
pub struct RepositoryDefaults {
    /// OnPush: the first push creates a repository. Declared: only those that a Repository names can be pushed to.
    #[serde(default)]
    pub creation: Creation,
    /// Private: pulling needs a credential. Public: it does not.
    #[serde(default)]
    pub visibility: Visibility,
    /// Manifests that are accepted although what they name is absent: Never, Indexes, Always.
    #[serde(default)]
    pub sparse: Sparse,
}

/// How repositories come into being.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Creation {
    /// By the first push.
    #[default]
    OnPush,
    /// By a Repository.
    Declared,
}

/// Who may pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Visibility {
    /// Whoever has a credential that says so.
    #[default]
    Private,
    /// Everyone.
    Public,
}

/// Which manifests are accepted although what they name is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Sparse {
    /// None.
    #[default]
    Never,
    /// Indexes.
    Indexes,
    /// Indexes and images.
    Always,
}

/// What a tenant may store. Absent or 0: no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open)]
pub struct Quota {
    /// Bytes of distinct blobs and of manifests, like `500Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Quantity>,
    /// Repositories.
    #[serde(default)]
    #[schemars(range(max = 1_000_000_000_000_i64))]
    pub repositories: u64,
    /// Tags of each repository.
    #[serde(default)]
    #[schemars(range(max = 1_000_000_000_000_i64))]
    pub tags_per_repository: u64,
}

/// Secrets by which the pods of chosen namespaces pull.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open, extend("x-kubernetes-validations" = schema::rotation(false)))]
pub struct PullSecrets {
    /// Labels of the namespaces that get a Secret; among the admitted ones.
    pub namespace_selector: LabelSelector,
    /// Service accounts whose imagePullSecrets name the Secret. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 253), regex(pattern = schema::DNS_NAME)), extend("x-kubernetes-list-type" = "set"))]
    pub service_accounts: Vec<String>,
    /// How often each namespace's token is replaced; the old one stays valid for a while. At least 1m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate_every: Option<Span>,
}

/// A Secret, by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open)]
pub struct SecretRef {
    /// Namespace of the Secret; admitted by the tenant.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    pub namespace: String,
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_NAME))]
    pub name: String,
}

/// A token of the organisation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open, extend("x-kubernetes-validations" = schema::rotation(true)))]
pub struct TenantToken {
    /// Name, unique among the tenant's tokens: a DNS label.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    pub name: String,
    /// The Secret that gets the token, as a docker configuration and as keys username, token and registry.
    pub secret_ref: SecretRef,
    /// What the token may do. 1 to 64.
    #[schemars(length(min = 1, max = 64))]
    pub grants: Vec<Grant>,
    /// Lifetime of each token; without it, until it is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_after: Option<Span>,
    /// How often the token is replaced, sooner than it expires. At least 1m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate_every: Option<Span>,
}

/// Whether blob downloads are redirected to the object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Redirect {
    /// As the installation says.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What may be pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open)]
pub struct TenantPolicy {
    /// Whether manifests of other media types than OCI's and Docker's are stored: any `application/...+json`. What such a
    /// document names by keys `digest` is kept for it; it may be missing.
    #[serde(default)]
    pub opaque_media_types: bool,
    /// Most manifests that refer to one subject, except in caches; 0 for no limit.
    #[serde(default)]
    #[schemars(range(max = 1_000_000_000))]
    pub referrers_per_subject: u64,
}

/// Where events are sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open)]
pub struct Webhook {
    /// Where, by POST.
    #[schemars(length(min = 1, max = 2048), regex(pattern = schema::URL))]
    pub url: String,
    /// Which events. 1 to 5.
    #[schemars(length(min = 1, max = 5))]
    pub events: Vec<Event>,
    /// Globs over the repositories concerned; all if empty. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 255), regex(pattern = schema::REPOSITORY_GLOB)))]
    pub repositories: Vec<String>,
    /// The Secret whose key `token` signs each event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// A kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// A tag or manifest was pushed.
    Push,
    /// A tag or manifest was deleted by a client.
    Delete,
    /// Retention deleted tags, or their time was over.
    Retention,
    /// A quota is nearly used up, or a push was refused since it is.
    Quota,
    /// A cache has fetched a tag that is new or has moved, or its upstream failed or came back.
    Cache,
}

/// What becomes of content when its object is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It stays, and is there again when an object of that name is made again.
    #[default]
    Retain,
    /// It is deleted.
    Delete,
}

/// What is known about a Tenant.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// The generation that was last looked at.
    #[serde(default)]
    pub observed_generation: i64,
    /// Where the tenant is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub host: Option<String>,
    /// Ready, Reconciling, Stalled, Programmed, Exposed, CredentialsDistributed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// What the tenant stores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<TenantUsage>,
    /// The tokens that were handed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub tokens: Vec<TokenStatus>,
    /// The pull secrets that were handed over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_secrets: Option<PullSecretsStatus>,
    /// How its webhooks fare, as of the last look, a few minutes ago at most. Entries of one URL are one webhook.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub webhooks: Vec<WebhookStatus>,
}

/// How a webhook fares.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookStatus {
    /// Where its events go.
    #[schemars(length(max = 2048))]
    pub url: String,
    /// Events that wait for their delivery, counted up to 100000.
    #[serde(default)]
    pub pending: i64,
    /// Events that were given up and are kept to be sent again, counted up to 100000.
    #[serde(default)]
    pub dead: i64,
    /// The last delivery (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_delivery: Option<String>,
    /// Why the last try failed; absent if a delivery has come after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub last_error: Option<String>,
}

/// What a tenant stores.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantUsage {
    /// Bytes of distinct blobs and of manifests.
    #[serde(default)]
    pub storage: i64,
    /// Repositories.
    #[serde(default)]
    pub repositories: i64,
    /// Tags.
    #[serde(default)]
    pub tags: i64,
    /// GiB-hours (2^30 bytes for an hour) of this calendar month in UTC, like `12.345`.
    #[serde(rename = "monthToDateGiBHours", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub month_to_date_gib_hours: Option<String>,
    /// What they cost at the tenant's price, and in which currency, like `0.0123 USD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub estimated_cost: Option<String>,
}

/// A token that was handed over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenStatus {
    /// Name of the token.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Public part of the valid token.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub id: Option<String>,
    /// When it expires (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub expires_at: Option<String>,
    /// When it was last used, to the minute (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_used_at: Option<String>,
}

/// The pull secrets that were handed over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PullSecretsStatus {
    /// Namespaces that have one.
    #[serde(default)]
    pub namespaces: i64,
    /// Namespaces that could not get one, and why. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 512)))]
    pub failed: Vec<String>,
}

/// Shortest time between two tokens.
const SHORTEST_ROTATION: std::time::Duration = std::time::Duration::from_secs(60);

impl TenantSpec {
    /// Checks everything that the spec alone shows.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut problems = Problems::new("spec");
        common(
            &mut problems,
            self.display_name.as_deref(),
            &self.hosts,
            &self.apex_aliases,
        );
        if (self.allowed_namespaces.from == NamespacesFrom::Selector)
            != self.allowed_namespaces.selector.is_some()
        {
            problems.add(
                "allowedNamespaces.selector",
                "goes with from: Selector, and from: Selector needs it",
            );
        }
        if let Some(billing) = &self.billing {
            problems.within("billing", |problems| billing.validate(problems));
        }
        if let Some(secrets) = &self.pull_secrets {
            problems.within("pullSecrets", |problems| {
                problems.each("serviceAccounts", &secrets.service_accounts, 32, |name| {
                    dns_name(name)
                });
                rotation(secrets.rotate_every.as_ref(), None, problems);
            });
        }
        if self.tokens.len() > 128 {
            problems.add(
                "tokens",
                format!("has {} entries; the limit is 128", self.tokens.len()),
            );
        }
        problems.unique("tokens", self.tokens.iter().map(|token| token.name.as_str()));
        for (at, token) in self.tokens.iter().enumerate().take(128) {
            problems.within(format_args!("tokens[{at}]"), |problems| {
                problems.check("name", label(&token.name));
                token.secret_ref.validate("secretRef", problems);
                grant::validate(&token.grants, problems);
                rotation(
                    token.rotate_every.as_ref(),
                    token.expires_after.as_ref(),
                    problems,
                );
            });
        }
        if self.trust.len() > 64 {
            problems.add(
                "trust",
                format!("has {} entries; the limit is 64", self.trust.len()),
            );
        }
        for (at, trust) in self.trust.iter().enumerate().take(64) {
            problems.within(format_args!("trust[{at}]"), |problems| trust.validate(problems));
        }
        if self.webhooks.len() > 32 {
            problems.add(
                "webhooks",
                format!("has {} entries; the limit is 32", self.webhooks.len()),
            );
        }
        for (at, webhook) in self.webhooks.iter().enumerate().take(32) {
            problems.within(format_args!("webhooks[{at}]"), |problems| {
                validate_webhook(&webhook.url, &webhook.events, &webhook.repositories, problems);
                if let Some(secret) = &webhook.secret_ref {
                    secret.validate("secretRef", problems);
                }
            });
        }
        problems.end()
    }
}

/// Refuses hosts that are the installation's own or below it.
pub(crate) fn hosts_below(hosts: &[String], domain: &str) -> Result<(), Vec<Invalid>> {
    let mut problems = Problems::new("spec");
    problems.each("hosts", hosts, 16, |host| {
        let below = host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        if below {
            return Err(format!("{host:?} belongs to the installation ({domain}); tenants have {{name}}.{domain} there already"));
        }
        Ok(())
    });
    problems.end()
}

/// What a Tenant has both as a resource and as the registry gets it.
pub(crate) fn common(problems: &mut Problems, display_name: Option<&str>, hosts: &[String], apex: &[String]) {
    problems.length("displayName", display_name.unwrap_or_default(), 255);
    problems.each("hosts", hosts, 16, |name| host(name));
    problems.unique("hosts", hosts.iter().map(String::as_str));
    problems.each("apexAliases", apex, 64, |name| {
        repository_name(name)?;
        let single = !name.contains('/');
        single
            .then_some(())
            .ok_or_else(|| format!("{name:?} has several components; a name on the apex has one"))
    });
    problems.unique("apexAliases", apex.iter().map(String::as_str));
}

/// Checks a webhook.
pub(crate) fn validate_webhook(
    target: &str,
    events: &[Event],
    repositories: &[String],
    problems: &mut Problems,
) {
    problems.check("url", url(target));
    if events.is_empty() {
        problems.add("events", "names no event: push, delete, retention, quota, cache");
    }
    problems.each("repositories", repositories, 64, |glob| repository_glob(glob));
}

impl SecretRef {
    fn validate(&self, field: &str, problems: &mut Problems) {
        problems.within(field, |problems| {
            problems.check("namespace", label(&self.namespace));
            problems.check("name", dns_name(&self.name));
        });
    }
}

fn rotation(every: Option<&Span>, expires: Option<&Span>, problems: &mut Problems) {
    let Some(every) = every else { return };
    if every.duration() < SHORTEST_ROTATION {
        problems.add("rotateEvery", "is too often: at least 1m");
    }
    if expires.is_some_and(|expires| expires.duration() <= every.duration()) {
        problems.add(
            "rotateEvery",
            "must be shorter than expiresAfter, or tokens expire before they are replaced",
        );
    }
}
