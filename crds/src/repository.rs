//! `Repository`: a declared repository, or what holds for many of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Invalid, Problems, repository_glob, repository_name, tag_glob};
use super::{DeletionPolicy, LocalRef, Quantity, Span, TenantRef, Visibility, schema};

/// A repository by name, or what holds for all that match a glob. Pushing needs none of this.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "Repository",
    plural = "repositories",
    shortname = "brepo",
    category = "berth",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenantRef.name"),
    printcolumn(name = "Name", type_ = "string", json_path = ".spec.name"),
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
    printcolumn(name = "Match", type_ = "string", json_path = ".spec.match", priority = 1),
    selectable = ".spec.tenantRef.name",
    selectable = ".spec.name",
    namespaced,
    status = "RepositoryStatus",
    derive = "PartialEq",
    doc = "A repository by name, or what holds for all that match a glob. Pushing needs none of this."
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open, extend("x-kubernetes-validations" = schema::rules(&[("has(self.name) != has(self.match)", "give either name or match, not both"), ("has(self.name) == has(oldSelf.name)", "name cannot be taken away or added; delete the object and make another"), ("!has(self.ephemeralAfter) || self.lifecycle == 'Ephemeral'", "ephemeralAfter goes with lifecycle: Ephemeral only"), ("!has(self.ephemeralAfter) || duration(self.ephemeralAfter) > duration('0s')", "ephemeralAfter must be longer than 0"), ("!has(self.aliases) || size(self.aliases) == 0 || has(self.name)", "aliases go with name only: a glob has no second name"), ("!has(self.aliases) || !has(self.name) || !(self.name in self.aliases)", "aliases holds the repository's own name")])))]
pub struct RepositorySpec {
    /// The tenant; it must admit this object's namespace. It cannot be changed.
    pub tenant_ref: TenantRef,
    /// Name of one repository, at most 255 bytes. Either this or `match`. It cannot be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = schema::REPOSITORY), extend("x-kubernetes-validations" = schema::immutable()))]
    pub name: Option<String>,
    /// A glob over repository names, like `team-a/**`, at most 255 bytes. Either this or `name`.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = schema::REPOSITORY_GLOB))]
    pub match_: Option<String>,
    /// What it is for. At most 4096 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Who may pull; as the tenant says if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
    /// Persistent, or Ephemeral: every tag expires `ephemeralAfter` its push.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// Lifetime of a tag of an ephemeral repository; 168h if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_after: Option<Span>,
    /// Globs over tags that cannot be moved or deleted once they are pushed. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128), regex(pattern = schema::TAG_GLOB)))]
    pub immutable_tags: Vec<String>,
    /// Further names of this repository on the tenant's host, for pull and push; with `name` only. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 255), regex(pattern = schema::REPOSITORY)), extend("x-kubernetes-list-type" = "set"))]
    pub aliases: Vec<String>,
    /// A RetentionPolicy of this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_policy_ref: Option<LocalRef>,
    /// What each such repository may store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<RepositoryQuota>,
    /// What becomes of the content when this object is deleted, be it with its namespace. With `match` it always
    /// stays: such an object shapes repositories and owns none. Delete takes effect only if the registry served
    /// this object until then: the content stays if the tenant does not admit the namespace, if the object is
    /// paused, or if another Repository declares the same name.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Whether what is pushed is to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Lifecycle {
    /// It stays.
    #[default]
    Persistent,
    /// It goes after a while, as in a store of builds.
    Ephemeral,
}

/// What a repository may store. Absent or 0: no limit of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open)]
pub struct RepositoryQuota {
    /// Bytes of distinct blobs and of manifests, like `50Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Quantity>,
    /// Tags.
    #[serde(default)]
    #[schemars(range(max = 1_000_000_000_000_i64))]
    pub tags: u64,
}

/// What is known about a Repository.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStatus {
    /// The generation that was last looked at.
    #[serde(default)]
    pub observed_generation: i64,
    /// Ready, Reconciling, Stalled, Programmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<i64>,
    /// Bytes of distinct blobs and of manifests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<i64>,
    /// When something was last pushed (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_push: Option<String>,
    /// When something was last pulled, to the hour (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_pull: Option<String>,
}

impl RepositorySpec {
    /// Checks everything that the spec alone shows.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut problems = Problems::new("spec");
        problems.check("tenantRef.name", super::check::label(&self.tenant_ref.name));
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
        if let Some(policy) = &self.retention_policy_ref {
            problems.check("retentionPolicyRef.name", super::check::dns_name(&policy.name));
        }
        problems.end()
    }
}

/// What a Repository has both as a resource and as the registry gets it.
pub(crate) struct Shape<'a> {
    pub name: Option<&'a str>,
    pub match_: Option<&'a str>,
    pub description: Option<&'a str>,
    pub lifecycle: Lifecycle,
    pub ephemeral_after: Option<&'a Span>,
    pub immutable_tags: &'a [String],
    pub aliases: &'a [String],
}

impl Shape<'_> {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        match (self.name, self.match_) {
            (Some(name), None) => problems.check("name", repository_name(name)),
            (None, Some(glob)) => problems.check("match", repository_glob(glob)),
            _ => problems.add("name", "give either name or match, not both"),
        }
        problems.length("description", self.description.unwrap_or_default(), 4096);
        if self.ephemeral_after.is_some() && self.lifecycle == Lifecycle::Persistent {
            problems.add("ephemeralAfter", "goes with lifecycle: Ephemeral only");
        }
        if self
            .ephemeral_after
            .is_some_and(|after| after.duration().is_zero())
        {
            problems.add("ephemeralAfter", "must be longer than 0");
        }
        problems.each("immutableTags", self.immutable_tags, 32, |glob| tag_glob(glob));
        if !self.aliases.is_empty() && self.name.is_none() {
            problems.add("aliases", "go with name only: a glob has no second name");
        }
        problems.each("aliases", self.aliases, 16, |alias| {
            if self.name == Some(alias.as_str()) {
                return Err(format!("{alias:?} is the repository's own name"));
            }
            repository_name(alias)
        });
        problems.unique("aliases", self.aliases.iter().map(String::as_str));
    }
}
