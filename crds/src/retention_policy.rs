//! `RetentionPolicy`: which tags stay.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Invalid, Problems, cron, repository_glob, tag_glob};
use super::{Span, TenantRef, schema};

/// Which tags stay. A tag is kept if any rule keeps it; a repository that no policy covers keeps all.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "RetentionPolicy",
    plural = "retentionpolicies",
    shortname = "bret",
    category = "berth",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenantRef.name"),
    printcolumn(name = "Dry run", type_ = "boolean", json_path = ".spec.dryRun"),
    printcolumn(name = "Last run", type_ = "date", json_path = ".status.lastRun.at"),
    printcolumn(
        name = "Would delete",
        type_ = "integer",
        json_path = ".status.preview.wouldDelete"
    ),
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
    selectable = ".spec.tenantRef.name",
    namespaced,
    status = "RetentionPolicyStatus",
    derive = "PartialEq",
    doc = "Which tags stay. A tag is kept if any rule keeps it; a repository that no policy covers keeps all."
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open)]
pub struct RetentionPolicySpec {
    /// The tenant; it must admit this object's namespace. It cannot be changed.
    pub tenant_ref: TenantRef,
    /// Globs over the repositories that it covers, besides those that refer to it. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255), regex(pattern = schema::REPOSITORY_GLOB)))]
    pub repositories: Vec<String>,
    /// What keeps a tag. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub rules: Vec<Rule>,
    /// What becomes of manifests that no tag reaches; they stay if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untagged: Option<Untagged>,
    /// For how long deleted tags can be brought back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_window: Option<Span>,
    /// When it runs: five fields of cron, in UTC. Every hour if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100), regex(pattern = schema::CRON))]
    pub schedule: Option<String>,
    /// Only report what would be deleted.
    #[serde(default)]
    pub dry_run: bool,
}

/// What keeps a tag: it matches, and any of the reasons holds. Without a reason, matching suffices.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open, extend("x-kubernetes-validations" = schema::rules(&[("self.since != 'Pull' || has(self.keepWithin)", "since: Pull goes with keepWithin")])))]
pub struct Rule {
    /// Globs over tags; all if empty. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128), regex(pattern = schema::TAG_GLOB)))]
    pub tags: Vec<String>,
    /// Globs over tags that the rule does not cover. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128), regex(pattern = schema::TAG_GLOB)))]
    pub not: Vec<String>,
    /// Keep what is younger than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_within: Option<Span>,
    /// From when age counts: Push or Pull. Images already on nodes are not pulled.
    #[serde(default)]
    pub since: Since,
    /// Keep the newest N by push. At least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub keep_last: Option<u32>,
    /// Keep the newest versions by semantic versioning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_semver: Option<KeepSemver>,
}

/// From when a tag's age counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Since {
    /// Since it was last pushed.
    #[default]
    Push,
    /// Since it was last pulled, or pushed if never pulled.
    Pull,
}

/// The newest versions, by semantic versioning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open)]
pub struct KeepSemver {
    /// Newest major versions kept. At least 1.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub major: u32,
    /// Newest minor versions kept of each of them; all if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub minor: Option<u32>,
}

/// What becomes of manifests that no tag reaches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open)]
pub struct Untagged {
    /// They are deleted this long after they lost their last tag.
    pub delete_after: Span,
}

/// What is known about a RetentionPolicy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetentionPolicyStatus {
    /// The generation that was last looked at.
    #[serde(default)]
    pub observed_generation: i64,
    /// Ready, Reconciling, Stalled, Programmed, LastRunSucceeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// The last run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,
    /// When it runs next by its schedule (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub next_run: Option<String>,
    /// What a run would delete now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
    /// The last text of the annotation `berth.dev/run-requested-at` for which a run was asked for; any other asks
    /// for another one. Its first 256 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_request: Option<String>,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRun {
    /// When (RFC 3339).
    #[schemars(length(max = 64))]
    pub at: String,
    /// Tags that were looked at.
    #[serde(default)]
    pub evaluated: i64,
    /// Tags that were deleted.
    #[serde(default)]
    pub deleted_tags: i64,
    /// Bytes that become free.
    #[serde(default)]
    pub reclaimable: i64,
    /// Whether it only reported: nothing was deleted.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a run would delete.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// When that was found out (RFC 3339).
    #[schemars(length(max = 64))]
    pub at: String,
    /// Number of tags.
    #[serde(default)]
    pub would_delete: i64,
    /// Bytes that would become free.
    #[serde(default)]
    pub reclaimable: i64,
    /// Some of the tags, as `repository:tag`. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 512)))]
    pub sample: Vec<String>,
}

impl RetentionPolicySpec {
    /// Checks everything that the spec alone shows.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut problems = Problems::new("spec");
        problems.check("tenantRef.name", super::check::label(&self.tenant_ref.name));
        validate(
            &self.repositories,
            &self.rules,
            self.schedule.as_deref(),
            &mut problems,
        );
        problems.end()
    }
}

/// What a RetentionPolicy has both as a resource and as the registry gets it.
pub(crate) fn validate(
    repositories: &[String],
    rules: &[Rule],
    schedule: Option<&str>,
    problems: &mut Problems,
) {
    problems.each("repositories", repositories, 64, |glob| repository_glob(glob));
    if rules.len() > 32 {
        problems.add("rules", format!("has {} entries; the limit is 32", rules.len()));
    }
    for (at, rule) in rules.iter().enumerate().take(32) {
        problems.within(format_args!("rules[{at}]"), |problems| {
            problems.each("tags", &rule.tags, 32, |glob| tag_glob(glob));
            problems.each("not", &rule.not, 32, |glob| tag_glob(glob));
            if rule.keep_last == Some(0) {
                problems.add("keepLast", "keeps nothing: at least 1");
            }
            if rule.since == Since::Pull && rule.keep_within.is_none() {
                problems.add("since", "goes with keepWithin");
            }
            if rule
                .keep_semver
                .is_some_and(|keep| keep.major == 0 || keep.minor == Some(0))
            {
                problems.add("keepSemver", "keeps nothing: major and minor are at least 1");
            }
        });
    }
    if let Some(schedule) = schedule {
        problems.check("schedule", cron(schedule));
    }
}
