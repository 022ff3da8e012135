//! What becomes of a tag, and how people are told.

use std::fmt;
use std::sync::Arc;

use berth_crds::Since;

use crate::metadata::Time;
use crate::rfc3339;

/// What becomes of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Kept(Kept),
    /// It is deleted.
    Goes(Goes),
}

/// What keeps a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Its name is immutable in this repository.
    Immutable,
    /// No policy that covers the repository has a rule.
    NoRules,
    /// A rule. Of several, the one that keeps it the longest; of those, the first.
    Rule {
        /// The policy's name.
        policy: Arc<str>,
        /// Index in the policy's `rules`, from 0.
        rule: usize,
        /// The rule's reason. Of several, the one that keeps it the longest.
        why: Why,
    },
}

/// A rule's reason to keep a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The rule keeps whatever it covers.
    Matches,
    /// Its age is within `keepWithin`.
    Within {
        /// From this time on it no longer is.
        until: Time,
        /// From when the age counts.
        since: Since,
    },
    /// It is among the newest by push.
    Last {
        /// Its position among the tags that the rule covers; the newest has 1.
        position: u64,
        /// How many are kept.
        of: u32,
    },
    /// It is among the newest versions.
    Semver {
        /// Its major version.
        major: u64,
        /// Its minor version.
        minor: u64,
    },
}

/// Why a tag is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goes {
    /// There are rules, and none keeps it.
    NoRuleKeeps,
    /// The repository is ephemeral and the tag's lifetime is over, whatever the rules say.
    Expired {
        /// When it ended.
        at: Time,
    },
}

impl Why {
    /// From when on it no longer holds though nothing is pushed or pulled; never if none.
    pub(super) fn until(self) -> Option<Time> {
        match self {
            Self::Within { until, .. } => Some(until),
            Self::Matches | Self::Last { .. } | Self::Semver { .. } => None,
        }
    }

    /// Whether it holds longer than another.
    pub(super) fn outlasts(self, other: Self) -> bool {
        match (self.until(), other.until()) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(one), Some(other)) => one > other,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept(kept) => write!(f, "kept: {kept}"),
            Self::Goes(goes) => write!(f, "goes: {goes}"),
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Immutable => f.write_str("the tag is immutable"),
            Self::NoRules => f.write_str("no policy has a rule for the repository"),
            Self::Rule { policy, rule, why } => write!(f, "policy {policy}, rules[{rule}]: {why}"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matches => f.write_str("it matches"),
            Self::Within { until, since } => {
                let done = match since {
                    Since::Push => "pushed",
                    Since::Pull => "pushed or pulled",
                };
                write!(
                    f,
                    "{done} recently enough to stay until {}",
                    rfc3339::write(*until)
                )
            }
            Self::Last { position, of } => write!(f, "number {position} of the newest {of} by push"),
            Self::Semver { major, minor } => write!(f, "{major}.{minor} is among the newest versions"),
        }
    }
}

impl fmt::Display for Goes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRuleKeeps => f.write_str("no rule keeps it"),
            Self::Expired { at } => {
                write!(
                    f,
                    "its lifetime in this ephemeral repository ended at {}",
                    rfc3339::write(*at)
                )
            }
        }
    }
}
