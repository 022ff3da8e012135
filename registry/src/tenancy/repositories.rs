//! What is declared about a tenant's repositories: by name, by glob, and under further names.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use berth_crds::admin::RepositoryConfig;
use berth_crds::{Lifecycle, Span, Visibility};

use crate::domain::RepositoryName;
use crate::domain::glob::{RepositoryGlob, TagGlob};

/// Lifetime of tags in an ephemeral repository that names none.
const EPHEMERAL_AFTER: Duration = Duration::from_secs(168 * 3600);

/// A declaration, ready to be asked.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What it covers.
    pub covers: Covers,
    /// As configured.
    pub config: RepositoryConfig,
    /// Tags that may not be moved or deleted.
    pub immutable: Vec<TagGlob>,
}

/// What a declaration covers.
#[derive(Debug, Clone)]
pub enum Covers {
    /// One repository, which it declares.
    One(RepositoryName),
    /// Whatever matches.
    Matching(RepositoryGlob),
}

/// All declarations of a tenant.
#[derive(Debug, Clone, Default)]
pub struct Repositories {
    objects: BTreeMap<String, Arc<Rule>>,
    exact: HashMap<RepositoryName, Arc<Rule>>,
    aliases: HashMap<String, RepositoryName>,
    globs: Vec<Arc<Rule>>,
}

impl Repositories {
    /// Sets or removes the object of this name.
    pub fn set(&mut self, object: String, config: Option<RepositoryConfig>) -> Result<(), String> {
        match config {
            Some(config) => drop(self.objects.insert(object, Arc::new(Rule::new(config)?))),
            None => drop(self.objects.remove(&object)),
        }
        self.exact.clear();
        self.aliases.clear();
        self.globs.clear();
        for rule in self.objects.values() {
            match &rule.covers {
                Covers::Matching(_) => self.globs.push(rule.clone()),
                Covers::One(name) => {
                    self.exact.insert(name.clone(), rule.clone());
                    for alias in &rule.config.aliases {
                        self.aliases.insert(alias.clone(), name.clone());
                    }
                }
            }
        }
        Ok(())
    }

    /// The repository that a name of the tenant's host means.
    pub fn canonical(&self, name: RepositoryName) -> RepositoryName {
        if self.aliases.is_empty() {
            return name;
        }
        self.aliases.get(name.as_str()).cloned().unwrap_or(name)
    }

    /// Whether a repository is declared by its name.
    pub fn declares(&self, name: &RepositoryName) -> bool {
        self.exact.contains_key(name)
    }

    /// What is said about a repository: by its name first, then by globs in the order of their objects.
    pub fn about<'a>(&'a self, name: &'a RepositoryName) -> impl Iterator<Item = &'a Rule> {
        let matching = self.globs.iter().filter(|rule| match &rule.covers {
            Covers::Matching(glob) => glob.matches(name.as_str()),
            Covers::One(_) => false,
        });
        self.exact.get(name).into_iter().chain(matching).map(Arc::as_ref)
    }

    /// The object that declares a repository by its name.
    pub fn declared_by(&self, name: &RepositoryName) -> Option<&str> {
        let rule = self.exact.get(name)?;
        let mut objects = self.objects.iter();
        let (object, _) = objects.find(|(_, other)| Arc::ptr_eq(rule, other))?;
        Some(object)
    }

    /// Who may see a repository, if anything says so.
    pub fn visibility(&self, name: &RepositoryName) -> Option<Visibility> {
        self.about(name).find_map(|rule| rule.config.visibility)
    }

    /// Whether anything makes a repository public.
    pub fn has_public(&self) -> bool {
        let public = |rule: &Arc<Rule>| rule.config.visibility == Some(Visibility::Public);
        self.objects.values().any(public)
    }

    /// What a repository is for, if anything says so.
    pub fn description(&self, name: &RepositoryName) -> Option<&str> {
        self.exact
            .get(name)
            .and_then(|rule| rule.config.description.as_deref())
    }

    /// How long tags live, if the repository is ephemeral.
    pub fn ephemeral(&self, name: &RepositoryName) -> Option<Duration> {
        self.about(name).next().and_then(Rule::ephemeral)
    }

    /// The repositories that are ephemeral, by name or glob, as far as no other declaration is nearer.
    pub fn ephemeral_rules(&self) -> impl Iterator<Item = (&Covers, Duration)> {
        self.objects
            .values()
            .filter_map(|rule| Some((&rule.covers, rule.ephemeral()?)))
    }

    /// The nearest quota.
    pub fn quota<T>(
        &self,
        name: &RepositoryName,
        of: impl Fn(&berth_crds::RepositoryQuota) -> Option<T>,
    ) -> Option<T> {
        self.about(name)
            .find_map(|rule| rule.config.quota.as_ref().and_then(&of))
    }

    /// Globs of tags that may not be moved or deleted, of all that is said about a repository.
    pub fn immutable<'a>(&'a self, name: &'a RepositoryName) -> impl Iterator<Item = &'a TagGlob> {
        self.about(name).flat_map(|rule| &rule.immutable)
    }
}

impl Rule {
    fn ephemeral(&self) -> Option<Duration> {
        let after = || {
            self.config
                .ephemeral_after
                .as_ref()
                .map_or(EPHEMERAL_AFTER, Span::duration)
        };
        (self.config.lifecycle == Lifecycle::Ephemeral).then(after)
    }

    fn new(config: RepositoryConfig) -> Result<Self, String> {
        let covers = match (&config.name, &config.match_) {
            (Some(name), None) => Covers::One(name.parse().map_err(|error| format!("spec.name: {error}"))?),
            (None, Some(glob)) => {
                Covers::Matching(glob.parse().map_err(|error| format!("spec.match: {error}"))?)
            }
            _ => return Err("exactly one of spec.name and spec.match must be given".to_owned()),
        };
        let parse = |glob: &String| {
            glob.parse()
                .map_err(|error| format!("spec.immutableTags: {error}"))
        };
        let immutable = config
            .immutable_tags
            .iter()
            .map(parse)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            covers,
            config,
            immutable,
        })
    }
}
