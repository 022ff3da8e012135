//! Where a tenant's events go, and which.

use std::collections::BTreeSet;

use berth_crds::admin::{ResolvedWebhook, Secret};
use sha2::{Digest as _, Sha256};

use super::Tenant;
use crate::domain::RepositoryName;
use crate::domain::glob::RepositoryGlob;
use crate::metadata::events::{Announce, Kind};

/// A webhook. Those of one URL are one webhook with one queue, which wants what any of them wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// Made of its URL: what happens to wait for it keeps its place when anything else of it changes.
    pub id: String,
    /// Where.
    pub url: String,
    /// What signs its events; sealed.
    pub secret: Option<Secret>,
    wants: Vec<Wish>,
}

/// Some kinds of events of some repositories.
#[derive(Debug, Clone, PartialEq)]
struct Wish {
    events: Vec<berth_crds::Event>,
    repositories: Vec<RepositoryGlob>,
}

impl Webhook {
    /// Those of a tenant.
    pub fn all(configured: &[ResolvedWebhook]) -> Result<Vec<Self>, String> {
        let mut all: Vec<Self> = Vec::new();
        for webhook in configured {
            let globs = webhook.repositories.iter().map(|glob| glob.parse());
            let wish = Wish {
                events: webhook.events.clone(),
                repositories: globs
                    .collect::<Result<_, _>>()
                    .map_err(|error| format!("spec.webhooks: {error}"))?,
            };
            match all.iter_mut().find(|known| known.url == webhook.url) {
                Some(known) => {
                    known.wants.push(wish);
                    if known.secret.is_none() {
                        known.secret.clone_from(&webhook.secret);
                    }
                }
                None => all.push(Self {
                    id: id(&webhook.url),
                    url: webhook.url.clone(),
                    secret: webhook.secret.clone(),
                    wants: vec![wish],
                }),
            }
        }
        Ok(all)
    }

    /// Kinds of events that it wants of any repository.
    pub fn events(&self) -> BTreeSet<berth_crds::Event> {
        self.wants
            .iter()
            .flat_map(|wish| wish.events.iter().copied())
            .collect()
    }

    /// Whether it wants this. What is about no repository is for all that want the kind.
    fn wants(&self, event: berth_crds::Event, repository: Option<&RepositoryName>) -> bool {
        self.wants.iter().any(|wish| {
            let covers = |name: &RepositoryName| {
                wish.repositories.is_empty()
                    || wish.repositories.iter().any(|glob| glob.matches(name.as_str()))
            };
            wish.events.contains(&event) && repository.is_none_or(covers)
        })
    }
}

/// What a webhook is called.
fn id(url: &str) -> String {
    hex::encode(&Sha256::digest(url.as_bytes())[..8])
}

impl Tenant {
    /// Who wants to hear of something, in a repository or in the tenant as a whole; nothing if nobody does.
    pub fn announce(&self, kind: Kind, repository: Option<&RepositoryName>) -> Option<Announce> {
        if self.webhooks.is_empty() {
            return None;
        }
        let event = wish(kind)?;
        let wants = |webhook: &&Webhook| webhook.wants(event, repository);
        let webhooks: Vec<String> = self.webhooks.iter().filter(wants).map(|w| w.id.clone()).collect();
        (!webhooks.is_empty()).then(|| Announce {
            kind,
            webhooks: webhooks.into(),
        })
    }

    /// The webhook of this id.
    pub fn webhook(&self, id: &str) -> Option<&Webhook> {
        self.webhooks.iter().find(|webhook| webhook.id == id)
    }
}

/// By which word of `events` something is wished for.
fn wish(kind: Kind) -> Option<berth_crds::Event> {
    Some(match kind {
        Kind::Push | Kind::Restore => berth_crds::Event::Push,
        Kind::Delete => berth_crds::Event::Delete,
        Kind::Retention | Kind::Expiry => berth_crds::Event::Retention,
        Kind::QuotaExceeded | Kind::QuotaThreshold => berth_crds::Event::Quota,
        Kind::CacheFetch | Kind::CacheDelete | Kind::CacheUnreachable | Kind::CacheRecovered => {
            berth_crds::Event::Cache
        }
        Kind::Test => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(url: &str, events: &[berth_crds::Event], globs: &[&str]) -> ResolvedWebhook {
        ResolvedWebhook {
            url: url.into(),
            events: events.to_vec(),
            repositories: globs.iter().map(|glob| (*glob).to_owned()).collect(),
            secret: None,
        }
    }

    #[test]
    fn a_webhook_wants_its_kinds_of_events_of_the_repositories_that_its_globs_cover() {
        use berth_crds::Event::{Push, Quota};
        let all = Webhook::all(&[configured("https://a.example", &[Push, Quota], &["team-a/**"])]).unwrap();
        let (inside, outside): (RepositoryName, RepositoryName) =
            ("team-a/api".parse().unwrap(), "team-b/api".parse().unwrap());
        assert!(all[0].wants(Push, Some(&inside)));
        assert!(!all[0].wants(Push, Some(&outside)));
        assert!(!all[0].wants(berth_crds::Event::Delete, Some(&inside)));
        assert!(
            all[0].wants(Quota, None),
            "the tenant's own quota is no repository's"
        );
    }

    #[test]
    fn entries_of_one_url_are_one_webhook_that_wants_what_any_of_them_wants() {
        use berth_crds::Event::{Delete, Push};
        let (app, base): (RepositoryName, RepositoryName) = ("app".parse().unwrap(), "base".parse().unwrap());
        let all = Webhook::all(&[
            configured("https://a.example/x", &[Push], &["app"]),
            configured("https://a.example/x", &[Delete], &["base"]),
            configured("https://a.example/y", &[Push], &[]),
        ])
        .unwrap();
        assert_eq!(all.len(), 2);
        assert!(all[0].wants(Push, Some(&app)) && all[0].wants(Delete, Some(&base)));
        assert!(!all[0].wants(Push, Some(&base)));
        assert_ne!(all[0].id, all[1].id);
    }
}
