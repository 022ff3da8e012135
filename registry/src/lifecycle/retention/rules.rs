//! Which tags of a repository stay: the rules of all policies that cover it, compiled, and the walk over its tags.
//!
//! Pure: the time is given, tags come one by one in the order of their push, and what is remembered of them is
//! bounded by the rules. A preview and a run walk alike, so that the one says what the other does.

mod verdict;

use std::sync::Arc;
use std::time::Duration;

use berth_crds::admin::RetentionPolicyConfig;
use berth_crds::{KeepSemver, Since};

pub use self::verdict::{Goes, Kept, Verdict, Why};
use super::version::{Newest, Version};
use crate::domain::glob::TagGlob;
use crate::metadata::Time;

/// A tag as retention sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag<'a> {
    /// Its name.
    pub name: &'a str,
    /// When it was last pushed.
    pub pushed_at: Time,
    /// When its deadline in an ephemeral repository was last put off without a push.
    pub renewed_at: Option<Time>,
    /// When it was last pulled, under whatever name counts for it.
    pub pulled_at: Option<Time>,
}

/// All that decides about the tags of one repository.
#[derive(Debug, Clone)]
pub struct Plan {
    rules: Arc<[Rule]>,
    immutable: Vec<TagGlob>,
    ephemeral: Option<Duration>,
    restore_window: Option<Duration>,
    untagged_after: Option<Duration>,
}

#[derive(Debug)]
struct Rule {
    policy: Arc<str>,
    index: usize,
    tags: Vec<TagGlob>,
    not: Vec<TagGlob>,
    keeps: Keeps,
}

/// What a rule keeps of the tags that it covers.
#[derive(Debug)]
enum Keeps {
    All,
    Any {
        within: Option<(Duration, Since)>,
        last: Option<u32>,
        semver: Option<KeepSemver>,
    },
}

impl Rule {
    fn new(policy: &Arc<str>, index: usize, rule: &berth_crds::Rule) -> Result<Self, String> {
        let globs = |field: &str, globs: &[String]| {
            let parsed = globs.iter().map(|glob| glob.parse::<TagGlob>());
            parsed
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| format!("policy {policy}, rules[{index}].{field}: {error}"))
        };
        let within = rule
            .keep_within
            .as_ref()
            .map(|span| (span.duration(), rule.since));
        let keeps = match (within, rule.keep_last, rule.keep_semver) {
            (None, None, None) => Keeps::All,
            (within, last, semver) => Keeps::Any { within, last, semver },
        };
        Ok(Self {
            policy: Arc::clone(policy),
            index,
            tags: globs("tags", &rule.tags)?,
            not: globs("not", &rule.not)?,
            keeps,
        })
    }

    fn covers(&self, tag: &str) -> bool {
        let matches = |glob: &TagGlob| glob.matches(tag);
        (self.tags.is_empty() || self.tags.iter().any(matches)) && !self.not.iter().any(matches)
    }

    fn semver(&self) -> Option<KeepSemver> {
        match self.keeps {
            Keeps::All => None,
            Keeps::Any { semver, .. } => semver,
        }
    }
}

impl Plan {
    /// Compiles the policies that cover a repository, by their names, its immutable tags, and how long tags live in
    /// it if it is ephemeral. Fails on a glob that is none, naming policy and rule.
    pub fn new(
        policies: &[(Arc<str>, Arc<RetentionPolicyConfig>)],
        immutable: Vec<TagGlob>,
        ephemeral: Option<Duration>,
    ) -> Result<Self, String> {
        let rules = policies.iter().flat_map(|(name, policy)| {
            let rules = policy.rules.iter().enumerate();
            rules.map(move |(index, rule)| Rule::new(name, index, rule))
        });
        let configs = || policies.iter().map(|(_, policy)| policy);
        let restore_windows = configs().filter_map(|policy| policy.restore_window.as_ref());
        let untagged = configs().filter_map(|policy| policy.untagged.as_ref());
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
            immutable,
            ephemeral,
            restore_window: restore_windows.map(|span| span.duration()).max(),
            untagged_after: untagged.map(|untagged| untagged.delete_after.duration()).max(),
        })
    }

    /// Whether no tag can ever go: no rule, and not ephemeral.
    pub fn keeps_everything(&self) -> bool {
        self.rules.is_empty() && self.ephemeral.is_none()
    }

    /// Whether all names of tags must be seen before the walk, for a `keepSemver`.
    pub fn needs_versions(&self) -> bool {
        self.rules.iter().any(|rule| rule.semver().is_some())
    }

    /// Whether it matters when tags were pulled.
    pub fn needs_pulls(&self) -> bool {
        let counts = |rule: &Rule| {
            matches!(
                rule.keeps,
                Keeps::Any {
                    within: Some((_, Since::Pull)),
                    ..
                }
            )
        };
        self.rules.iter().any(counts)
    }

    /// To be shown every name first if the plan [needs versions](Self::needs_versions).
    pub fn versions(&self) -> Versions {
        let newest = self.rules.iter().map(|rule| rule.semver().map(Newest::new));
        Versions {
            newest: newest.collect(),
            rules: Arc::clone(&self.rules),
        }
    }

    /// Begins a walk over all tags, as of `now`; `versions` is this plan's.
    pub fn walk(&self, now: Time, versions: Versions) -> Walk<'_> {
        Walk {
            plan: self,
            now,
            versions,
            covered: vec![0; self.rules.len()],
            deadline: None,
        }
    }

    /// For how long deleted tags can be brought back: the longest of the policies that say so.
    pub fn restore_window(&self) -> Option<Duration> {
        self.restore_window
    }

    /// How long a manifest stays that no tag reaches: the longest of the policies that say so; for ever if none.
    pub fn untagged_after(&self) -> Option<Duration> {
        self.untagged_after
    }

    /// When a tag's lifetime ends in an ephemeral repository.
    fn expiry(&self, tag: &Tag<'_>) -> Option<Time> {
        let from = tag.pushed_at.max(tag.renewed_at.unwrap_or(tag.pushed_at));
        self.ephemeral.map(|lifetime| from.plus(lifetime))
    }
}

/// The newest versions among the tags that each rule covers.
///
/// Memory is bounded by what the rules can keep, not by the number of tags.
#[derive(Debug, Clone)]
pub struct Versions {
    rules: Arc<[Rule]>,
    /// For each rule, if it keeps versions.
    newest: Vec<Option<Newest>>,
}

impl Versions {
    /// Takes a tag into account. The order does not matter; what is no version is passed over.
    pub fn see(&mut self, tag: &str) {
        let Some(version) = Version::of_tag(tag) else {
            return;
        };
        for (rule, newest) in self.rules.iter().zip(&mut self.newest) {
            if let Some(newest) = newest
                && rule.covers(tag)
            {
                newest.see(version);
            }
        }
    }

    /// Whether a version is among the newest of a rule.
    fn keeps(&self, rule: usize, version: Version) -> bool {
        let newest = self.newest.get(rule).and_then(Option::as_ref);
        newest.is_some_and(|newest| newest.keeps(version))
    }
}

/// A walk over all tags of a repository, newest push first. Memory does not grow with the tags.
#[derive(Debug)]
pub struct Walk<'a> {
    plan: &'a Plan,
    now: Time,
    versions: Versions,
    /// For each rule, how many tags so far it covers.
    covered: Vec<u64>,
    deadline: Option<Time>,
}

impl<'a> Walk<'a> {
    /// Decides about the next tag. Tags must come newest push first, those pushed at the same time by name ascending.
    pub fn judge(&mut self, tag: &Tag<'_>) -> Verdict {
        // Before all else, for `keepLast` also counts tags that are kept or go for other reasons.
        let by_rule = self.longest(tag);
        if self.plan.immutable.iter().any(|glob| glob.matches(tag.name)) {
            return Verdict::Kept(Kept::Immutable);
        }
        let expiry = self.plan.expiry(tag);
        if let Some(at) = expiry.filter(|at| *at <= self.now) {
            return Verdict::Goes(Goes::Expired { at });
        }
        let (kept, until) = match by_rule {
            None if self.plan.rules.is_empty() => (Kept::NoRules, None),
            None => return Verdict::Goes(Goes::NoRuleKeeps),
            Some((rule, why)) => {
                let (policy, rule) = (Arc::clone(&rule.policy), rule.index);
                (Kept::Rule { policy, rule, why }, why.until())
            }
        };
        self.deadline = [self.deadline, expiry, until].into_iter().flatten().min();
        Verdict::Kept(kept)
    }

    /// The earliest time after now at which a tag that was kept so far goes unless it is pushed, pulled or renewed:
    /// its age runs out, or its lifetime. None if that never happens.
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// The rule that keeps a tag the longest, and why. Counts the tag where it is covered.
    fn longest(&mut self, tag: &Tag<'_>) -> Option<(&'a Rule, Why)> {
        let version = self
            .plan
            .needs_versions()
            .then(|| Version::of_tag(tag.name))
            .flatten();
        let plan = self.plan;
        let mut longest: Option<(&Rule, Why)> = None;
        for (at, rule) in plan.rules.iter().enumerate() {
            if !rule.covers(tag.name) {
                continue;
            }
            self.covered[at] += 1;
            let newest = version.filter(|version| self.versions.keeps(at, *version));
            if let Some(why) = rule.keeps.why(tag, self.covered[at], newest, self.now)
                && longest.is_none_or(|(_, other)| why.outlasts(other))
            {
                longest = Some((rule, why));
            }
        }
        longest
    }
}

impl Keeps {
    /// Why a tag is kept that the rule covers: at this position by push and, if its version is among the newest, with
    /// that version.
    fn why(&self, tag: &Tag<'_>, position: u64, newest: Option<Version>, now: Time) -> Option<Why> {
        let Self::Any { within, last, .. } = self else {
            return Some(Why::Matches);
        };
        if let Some(of) = last.filter(|of| position <= u64::from(*of)) {
            return Some(Why::Last { position, of });
        }
        if let Some(Version { major, minor }) = newest {
            return Some(Why::Semver { major, minor });
        }
        let (span, since) = (*within)?;
        let from = match since {
            Since::Push => tag.pushed_at,
            Since::Pull => tag.pushed_at.max(tag.pulled_at.unwrap_or(tag.pushed_at)),
        };
        let until = from.plus(span);
        (until > now).then_some(Why::Within { until, since })
    }
}

#[cfg(test)]
mod tests;
