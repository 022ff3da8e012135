//! What is meant, and what it is called at the destination.

use crate::domain::RepositoryName;
use crate::domain::glob::{RepositoryGlob, TagGlob};
use crate::metadata::Time;

use super::error::ImportError;

/// What is imported.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Repositories by their names at the source; all if empty.
    pub repositories: Vec<RepositoryGlob>,
    /// Tags; all if empty.
    pub tags: Vec<TagGlob>,
    /// Only what was made at this time or later.
    pub since: Option<Time>,
    /// Leave out what refers to images: by the referrers API, or by a tag that belongs to a manifest and that `tags` does not
    /// match.
    pub without_referrers: bool,
    /// Names at the destination.
    pub renaming: Renaming,
}

impl Selection {
    /// The repositories by name, if no glob has a wildcard: then no list of them is needed.
    pub(super) fn named(&self) -> Option<Vec<RepositoryName>> {
        if self.repositories.is_empty() {
            return None;
        }
        self.repositories
            .iter()
            .map(|glob| (glob.literal_prefix() == glob.as_str()).then(|| glob.as_str().parse().ok())?)
            .collect()
    }

    /// Whether a repository is meant.
    pub(super) fn means(&self, name: &RepositoryName) -> bool {
        self.repositories.is_empty() || self.repositories.iter().any(|glob| glob.matches(name.as_str()))
    }

    /// Whether a tag is meant by its name.
    pub(super) fn takes(&self, tag: &str) -> bool {
        self.tags.is_empty() || self.tags.iter().any(|glob| glob.matches(tag))
    }

    /// Whether a tag is named by a glob, not just not excluded.
    pub(super) fn names(&self, tag: &str) -> bool {
        !self.tags.is_empty() && self.takes(tag)
    }

    /// Whether some tags of a repository may not be meant.
    pub(super) fn is_partial(&self) -> bool {
        !self.tags.is_empty() || self.since.is_some() || self.without_referrers
    }
}

/// From a name at the source to the one at the destination.
#[derive(Debug, Clone, Default)]
pub struct Renaming {
    /// Taken away from names that begin with these components.
    pub strip: Option<RepositoryName>,
    /// Put before every name.
    pub prefix: Option<RepositoryName>,
}

impl Renaming {
    /// The name at the destination.
    pub(super) fn of(&self, name: &RepositoryName) -> Result<RepositoryName, ImportError> {
        let below = self.strip.as_ref().and_then(|strip| {
            let rest = name.as_str().strip_prefix(strip.as_str())?;
            rest.strip_prefix('/')
        });
        let bare = below.unwrap_or(name.as_str());
        let text = match &self.prefix {
            Some(prefix) => format!("{prefix}/{bare}"),
            None => bare.to_owned(),
        };
        text.parse()
            .map_err(|error: crate::domain::name::NameError| ImportError::Name {
                from: name.to_string(),
                to: text.clone(),
                why: error.to_string(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_one_beginning_and_gain_another() {
        let name = |text: &str| text.parse::<RepositoryName>().unwrap();
        let renaming = |strip: &str, prefix: &str| Renaming {
            strip: strip.parse().ok(),
            prefix: prefix.parse().ok(),
        };
        for (strip, prefix, from, to) in [
            ("", "", "team/app", "team/app"),
            ("team", "", "team/app", "app"),
            ("team", "", "team", "team"),
            ("team", "", "teams/app", "teams/app"),
            ("a/b", "c/d", "a/b/x/y", "c/d/x/y"),
            ("", "mirror", "app", "mirror/app"),
        ] {
            let renamed = renaming(strip, prefix).of(&name(from)).unwrap();
            assert_eq!(renamed, name(to), "{strip} {prefix} {from}");
        }
        let long = name(&"a".repeat(250));
        assert!(renaming("", "prefix").of(&long).is_err(), "a name has a limit");
    }

    #[test]
    fn a_list_is_needed_only_for_wildcards() {
        let selection = |globs: &[&str]| Selection {
            repositories: globs.iter().map(|glob| glob.parse().unwrap()).collect(),
            ..Selection::default()
        };
        assert_eq!(selection(&[]).named(), None);
        assert_eq!(selection(&["a/b", "c*"]).named(), None);
        let named = selection(&["a/b", "c"]).named().unwrap();
        assert_eq!(named, ["a/b".parse().unwrap(), "c".parse().unwrap()]);
    }
}
