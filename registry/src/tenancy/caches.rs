//! The caches of a tenant: which of its repositories are another registry's, and what may be read of that one.
//!
//! A repository whose name begins with a cache's prefix and a slash is the upstream's repository of the rest of the
//! name. Of two caches the longer prefix counts. A cache without a prefix has all that no other has: its tenant is a
//! mirror as a whole, for clients that can name nothing but a host.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use berth_crds::admin::{CacheConfig, RetentionPolicyConfig};
use berth_crds::{Rule, Since, Span, Untagged, Visibility};
use url::Url;

use super::mirror::{self, Mirrors};
use super::origin::host_name;
use super::policies::Policy;
use crate::domain::glob::{RepositoryGlob, TagGlob};
use crate::domain::{RepositoryName, TagName};

/// A tag is looked at again after this time, if nothing else is said.
const REVALIDATE_AFTER: Duration = Duration::from_secs(300);
/// For how long a tag is served while its upstream fails, if nothing else is said.
const STALE_FOR: Duration = Duration::from_secs(24 * 3600);
/// Where Docker Hub keeps what has a name of one component.
const OFFICIAL: &str = "library";

/// A cache, ready to be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    /// Name of its object.
    pub name: Arc<str>,
    /// As configured; its password is sealed.
    pub config: Arc<CacheConfig>,
    /// Where its repositories appear; everywhere if absent.
    pub prefix: Option<RepositoryName>,
    allow: Vec<RepositoryGlob>,
    deny: Vec<RepositoryGlob>,
    allow_tags: Vec<TagGlob>,
    pinned: Vec<TagGlob>,
    is_hub: bool,
}

impl Cache {
    fn new(name: &str, config: CacheConfig) -> Result<Self, String> {
        let globs = |field: &str, texts: &[String]| -> Result<Vec<RepositoryGlob>, String> {
            let parse = |text: &String| text.parse().map_err(|error| format!("spec.{field}: {error}"));
            texts.iter().map(parse).collect()
        };
        let tag_globs = |field: &str, texts: &[String]| -> Result<Vec<TagGlob>, String> {
            let parse = |text: &String| {
                text.parse()
                    .map_err(|error| format!("spec.tags.{field}: {error}"))
            };
            texts.iter().map(parse).collect()
        };
        let url = Url::parse(&config.upstream.url).map_err(|error| format!("spec.upstream.url: {error}"))?;
        let upstream = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let named = config.mirror_for.iter().map(|entry| (host_name(entry), entry));
        Ok(Self {
            name: name.into(),
            prefix: match config.prefix.as_str() {
                "" => None,
                prefix => Some(prefix.parse().map_err(|error| format!("spec.prefix: {error}"))?),
            },
            allow: globs("allow", &config.allow)?,
            deny: globs("deny", &config.deny)?,
            allow_tags: tag_globs("allow", &config.tags.allow)?,
            pinned: tag_globs("pinned", &config.tags.pinned)?,
            is_hub: mirror::is_hub(&upstream, "")
                || named
                    .into_iter()
                    .any(|(host, entry)| host.is_some_and(|host| mirror::is_hub(&host, entry))),
            config: Arc::new(config),
        })
    }

    /// What the names of its repositories begin with; empty if it has all.
    pub fn prefix(&self) -> &str {
        self.prefix.as_ref().map_or("", RepositoryName::as_str)
    }

    /// The name here of a repository of the upstream.
    pub fn name_of(&self, upstream: &str) -> String {
        match &self.prefix {
            Some(prefix) => format!("{prefix}/{upstream}"),
            None => upstream.to_owned(),
        }
    }

    /// Whether a repository of the upstream may be pulled.
    pub fn allows(&self, upstream: &str) -> bool {
        let any = |globs: &[RepositoryGlob]| globs.iter().any(|glob| glob.matches(upstream));
        (self.allow.is_empty() || any(&self.allow)) && !any(&self.deny)
    }

    /// Whether a tag may be pulled.
    pub fn allows_tag(&self, tag: &str) -> bool {
        self.allow_tags.is_empty() || self.allow_tags.iter().any(|glob| glob.matches(tag))
    }

    /// Whether a tag stays as it was first pulled.
    pub fn pins(&self, tag: &TagName) -> bool {
        self.pinned.iter().any(|glob| glob.matches(tag.as_str()))
    }

    /// How long a tag that was looked at counts as the upstream has it.
    pub fn revalidate_after(&self) -> Duration {
        let after = self.config.tags.revalidate_after.as_ref();
        after.map_or(REVALIDATE_AFTER, Span::duration)
    }

    /// For how long a tag is served on while the upstream fails.
    pub fn stale_for(&self) -> Duration {
        let stale = self.config.tags.serve_stale_on_error.as_ref();
        stale.map_or(STALE_FOR, Span::duration)
    }

    /// Who may pull, where nothing nearer says it: what is read with a password is not for everybody.
    pub fn visibility(&self) -> Option<Visibility> {
        let secret = self.config.upstream.password.is_some();
        self.config
            .visibility
            .or_else(|| secret.then_some(Visibility::Private))
    }

    /// The policy that drops what nobody pulled, if there is to be one.
    fn policy(&self) -> Result<Option<Policy>, String> {
        let Some(keep) = &self.config.keep_unpulled else {
            return Ok(None);
        };
        let config = RetentionPolicyConfig {
            repositories: vec![self.name_of("**")],
            rules: vec![Rule {
                keep_within: Some(keep.clone()),
                since: Since::Pull,
                ..Rule::default()
            }],
            untagged: Some(Untagged {
                delete_after: keep.clone(),
            }),
            // It can be fetched again.
            restore_window: "0s".parse().ok(),
            ..RetentionPolicyConfig::default()
        };
        Policy::new(&format!("{}{}", POLICY_PREFIX, self.name), config).map(Some)
    }
}

/// All caches of a tenant.
#[derive(Debug, Clone, Default)]
pub struct Caches {
    objects: BTreeMap<String, Arc<Cache>>,
    by_prefix: HashMap<String, Arc<Cache>>,
    /// The registries for which they are mirrors.
    pub mirrors: Mirrors,
}

impl Caches {
    /// Sets or removes the object of this name.
    pub fn set(&mut self, object: &str, config: Option<CacheConfig>) -> Result<(), String> {
        let mut objects = self.objects.clone();
        match config {
            Some(config) => drop(objects.insert(object.to_owned(), Arc::new(Cache::new(object, config)?))),
            None => drop(objects.remove(object)),
        }
        self.mirrors = Mirrors::of(objects.values().map(Arc::as_ref))?;
        self.by_prefix.clear();
        // Of two with one prefix the first counts.
        for cache in objects.values().rev() {
            self.by_prefix.insert(cache.prefix().to_owned(), cache.clone());
        }
        self.objects = objects;
        Ok(())
    }

    /// All, by name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Cache>> {
        self.objects.values()
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Cache>> {
        self.objects.get(name)
    }

    /// The cache that a repository belongs to, and how its upstream calls it.
    pub fn of<'n>(&self, name: &'n RepositoryName) -> Option<(&Arc<Cache>, &'n str)> {
        if self.by_prefix.is_empty() {
            return None;
        }
        let name = name.as_str();
        name.rmatch_indices('/')
            .find_map(|(at, _)| Some((self.by_prefix.get(&name[..at])?, &name[at + 1..])))
            .or_else(|| Some((self.by_prefix.get("")?, name)))
    }

    /// The name under which a repository is kept: Docker Hub's official images may be named without `library/`.
    pub fn canonical(&self, name: RepositoryName) -> RepositoryName {
        match self.of(&name) {
            Some((cache, rest)) if cache.is_hub && !rest.contains('/') => {
                let full = cache.name_of(&format!("{OFFICIAL}/{rest}"));
                full.parse().unwrap_or(name)
            }
            _ => name,
        }
    }

    /// Whether any is for everybody by its own word.
    pub fn has_public(&self) -> bool {
        self.objects
            .values()
            .any(|cache| cache.visibility() == Some(Visibility::Public))
    }

    /// The policies that drop what nobody pulled.
    pub fn policies(&self) -> Result<Vec<Policy>, String> {
        self.objects
            .values()
            .filter_map(|cache| cache.policy().transpose())
            .collect()
    }
}

/// What the names of these policies begin with: no object can be called so.
pub const POLICY_PREFIX: &str = "cache:";

#[cfg(test)]
mod tests;
