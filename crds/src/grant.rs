//! What a credential may do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Problems, repository_glob};
use super::schema;

/// Something that may be done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Read everything.
    Pull,
    /// Upload, tag, and see what is there.
    Push,
    /// Delete tags, manifests and blobs.
    Delete,
    /// See what is there: lists, and HEAD of manifests and blobs.
    Metadata,
}

/// Actions on the repositories that match a glob.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open)]
pub struct Grant {
    /// Globs over repository names: `*` and `?` match inside a component, `**` stands for whole components
    /// (`team-a/**`, `**`). 1 to 64.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 255), regex(pattern = schema::REPOSITORY_GLOB)))]
    pub repositories: Vec<String>,
    /// What may be done with them. 1 to 4.
    #[schemars(length(min = 1, max = 4))]
    pub actions: Vec<Action>,
}

/// Most grants of one credential.
const GRANTS: usize = 64;
/// Most globs of one grant.
const GLOBS: usize = 64;

/// Checks a credential's grants.
pub(crate) fn validate(grants: &[Grant], problems: &mut Problems) {
    if grants.is_empty() {
        problems.add("grants", "grants nothing: name repositories and actions");
    }
    if grants.len() > GRANTS {
        problems.add(
            "grants",
            format!("has {} entries; the limit is {GRANTS}", grants.len()),
        );
    }
    for (at, grant) in grants.iter().enumerate().take(GRANTS) {
        problems.within(format_args!("grants[{at}]"), |problems| {
            if grant.repositories.is_empty() {
                problems.add("repositories", "names no repository; \"**\" names all");
            }
            if grant.actions.is_empty() {
                problems.add("actions", "names no action: pull, push, delete, metadata");
            }
            problems.each("repositories", &grant.repositories, GLOBS, |glob| {
                repository_glob(glob)
            });
        });
    }
}
