//! The upstreams of all caches, made when they are first asked for and anew when their cache has changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_crds::Span;
use futures_util::{StreamExt as _, stream};
use uuid::Uuid;

use super::remote::{Heard, News, Tally};
use super::{Login, Remote, Upstream, UpstreamError};
use crate::egress::Client;
use crate::identity::keys::KeyRing;
use crate::metadata::configuration::{ObjectKind, secret_place};
use crate::metadata::pull_through::{CacheNews, ClaimKey, Claimed, PullThrough, TakeClaim};
use crate::metadata::{Repository, TenantId, Time};
use crate::tenancy::{Cache, Directory, Tenant};
use crate::webhooks::Teller;

/// How long an upstream may be silent, if nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(30);
/// And at most: whoever waits holds turns that others could have.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);
/// Between two times that news are stored.
const STORE_EVERY: Duration = Duration::from_secs(5);
/// Between two looks for new caches.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Each upstream is asked this often whether it is there, by one of the replicas.
const PING_EVERY: Duration = Duration::from_secs(60);
/// Most that are asked at the same time.
const PINGS: usize = 8;
/// Claims that ended before, and checks of tags that were made before, are forgotten.
const CLAIMS_KEPT: Duration = Duration::from_secs(3600);
const CHECKS_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);
/// Rows of one statement.
const BATCH: u32 = 1000;

/// The repository that claims on asking whether an upstream is there are noted under: it need not exist.
const PINGS_OF: &str = "upstreams";
/// Longest name of a claim.
const CLAIM_LIMIT: usize = 256;

type Key = (TenantId, Arc<str>);

/// All upstreams.
pub struct Remotes {
    client: Client,
    keys: Arc<KeyRing>,
    store: Arc<dyn PullThrough>,
    directory: Arc<Directory>,
    teller: Arc<Teller>,
    known: Mutex<HashMap<Key, Arc<Remote>>>,
    /// Why caches cannot be asked.
    broken: Mutex<HashMap<Key, String>>,
    tally: Arc<Tally>,
}

impl Remotes {
    /// Asks by `client`, with passwords that `keys` unseal.
    pub fn new(
        client: Client,
        keys: Arc<KeyRing>,
        store: Arc<dyn PullThrough>,
        directory: Arc<Directory>,
        teller: Arc<Teller>,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            keys,
            store,
            directory,
            teller,
            known: Mutex::default(),
            broken: Mutex::default(),
            tally: Arc::default(),
        })
    }

    /// The keys that replicas have in common.
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// Counts since the process began.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What was last heard of each upstream that was asked, by the names of tenant and cache.
    pub fn heard(&self) -> Vec<(String, String, Heard)> {
        let snapshot = self.directory.now();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let named = known.iter().filter_map(|((tenant, cache), remote)| {
            let tenant = snapshot.tenant(*tenant)?.name.to_string();
            Some((tenant, cache.to_string(), remote.news.heard()))
        });
        named.collect()
    }

    /// What replicas share.
    pub fn store(&self) -> &Arc<dyn PullThrough> {
        &self.store
    }

    /// The upstream of a tenant's cache. With a new configuration it begins anew: no token, no grudge.
    pub fn of(&self, tenant: &Tenant, cache: &Arc<Cache>) -> Result<Arc<Remote>, UpstreamError> {
        let key = (tenant.id, cache.name.clone());
        let is_current = |known: &Remote| Arc::ptr_eq(&known.cache, cache) || known.cache == *cache;
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        if let Some(known) = &known
            && is_current(known)
        {
            return Ok(known.clone());
        }
        let fresh = || Arc::new(News::new(self.tally.clone()));
        let news = known.map_or_else(fresh, |known| known.news.clone());
        let made = Arc::new(self.make(tenant, cache, news)?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Of several that were made at the same time all use the first: its tokens, pauses and figures are those of all.
        if let Some(first) = known.get(&key)
            && is_current(first)
        {
            return Ok(first.clone());
        }
        known.insert(key, made.clone());
        Ok(made)
    }

    fn make(&self, tenant: &Tenant, cache: &Arc<Cache>, news: Arc<News>) -> Result<Remote, UpstreamError> {
        let upstream = &cache.config.upstream;
        let strange = |why: String| UpstreamError::Strange {
            host: upstream.url.clone(),
            why,
        };
        let login = match (&upstream.username, &upstream.password) {
            (Some(username), Some(sealed)) => {
                let place = secret_place(tenant.name.as_str(), ObjectKind::Cache, &cache.name);
                let password = self.keys.open_sealed(&sealed.0, &place);
                Some(Login::Password {
                    username: username.clone(),
                    password: password.map_err(|error| strange(error.to_string()))?,
                })
            }
            _ => None,
        };
        let channel = self.client.channel(upstream.ca_bundle.as_deref())?;
        let timeout = patience(upstream.timeout.as_ref());
        let made = Upstream::new(&upstream.url, login, channel, timeout)?;
        Ok(Remote::new(cache.clone(), made, news))
    }

    /// Stores news, for ever.
    pub async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(STORE_EVERY).await;
            self.forget_removed();
            self.flush().await;
        }
    }

    /// Asks upstreams whether they are there, new ones at once, and forgets what is over; for ever.
    pub async fn watch(self: Arc<Self>) {
        let mut round = Instant::now();
        let mut due = true;
        loop {
            self.ping_all(due).await;
            if due {
                self.forget_old().await;
                round = Instant::now();
            }
            tokio::time::sleep(LOOK_EVERY).await;
            due = round.elapsed() >= PING_EVERY;
        }
    }

    /// Stores what has happened.
    pub async fn flush(&self) {
        let known: Vec<(Key, Arc<Remote>)> = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known
                .iter()
                .map(|(key, remote)| (key.clone(), remote.clone()))
                .collect()
        };
        for ((tenant, name), remote) in known {
            let Some(news) = remote.news.take() else { continue };
            self.tell_of(tenant, &remote, news.failed.as_ref().map(|(_, why)| why.as_str()))
                .await;
            if let Err(error) = self.store.add_cache_news(tenant, &name, news.clone()).await {
                tracing::warn!(%error, cache = &*name, "figures of a cache could not be stored; they will be");
                remote.news.give_back(news);
            }
        }
    }

    /// Tells webhooks if an upstream has gone away, or has come back.
    async fn tell_of(&self, tenant: TenantId, remote: &Remote, why: Option<&str>) {
        let Some(is_up) = remote.news.turned() else { return };
        let snapshot = self.directory.now();
        let Some(tenant) = snapshot.tenant(tenant) else {
            return;
        };
        let cache = &remote.cache;
        let why = (!is_up).then(|| why.unwrap_or("it does not answer as it should"));
        self.teller
            .upstream(tenant, &cache.name, &cache.config.upstream.url, why)
            .await;
    }

    /// Lets go of caches that are not configured any more.
    fn forget_removed(&self) {
        let snapshot = self.directory.now();
        let is_there = |(tenant, name): &Key| {
            let tenant = snapshot.tenant(*tenant);
            tenant.is_some_and(|tenant| tenant.caches.get(name).is_some())
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|key, _| is_there(key));
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.retain(|key, _| is_there(key));
    }

    /// Asks upstreams that have not been asked since they were configured, or all that are this replica's to ask.
    async fn ping_all(&self, all: bool) {
        let snapshot = self.directory.now();
        let mut caches: Vec<(Arc<Tenant>, Arc<Cache>)> = Vec::new();
        for tenant in snapshot.tenants() {
            caches.extend(tenant.caches.all().map(|cache| (tenant.clone(), cache.clone())));
        }
        let ping = async |(tenant, cache): (Arc<Tenant>, Arc<Cache>)| match self.of(&tenant, &cache) {
            Ok(remote) if remote.is_new() || (all && self.is_mine(tenant.id, &cache).await) => {
                remote.ping().await
            }
            Ok(_) => {}
            Err(error) => {
                let is_news = self.is_broken_anew((tenant.id, cache.name.clone()), error.to_string());
                if is_news || (all && self.is_mine(tenant.id, &cache).await) {
                    self.tell(tenant.id, &cache, &error).await;
                }
            }
        };
        stream::iter(caches).for_each_concurrent(PINGS, ping).await;
    }

    /// Whether a cache that cannot even be asked is so for the first time, or for another reason.
    fn is_broken_anew(&self, key: Key, why: String) -> bool {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        match broken.insert(key, why.clone()) {
            Some(before) => before != why,
            None => true,
        }
    }

    /// Whether this replica is the one that asks this time.
    async fn is_mine(&self, tenant: TenantId, cache: &Cache) -> bool {
        let now = Time::now();
        let Ok(name) = PINGS_OF.parse() else { return true };
        let key = ClaimKey {
            repository: Repository { tenant, name },
            what: format!("ping:{}", cache.name).chars().take(CLAIM_LIMIT).collect(),
        };
        // Given up by nobody: it ends before the next round.
        let take = TakeClaim {
            holder: Uuid::new_v4(),
            address: None,
            now,
            until: now.plus(PING_EVERY.mul_f32(0.9)),
        };
        let claimed = self.store.take_claim(&key, take).await;
        matches!(claimed, Ok(Claimed::Yours { .. }))
    }

    /// Tells of a cache that cannot even be asked.
    async fn tell(&self, tenant: TenantId, cache: &Cache, error: &UpstreamError) {
        tracing::warn!(cache = &*cache.name, %error, "a cache cannot be used");
        let news = CacheNews {
            failed: Some((Time::now(), error.to_string())),
            ..CacheNews::default()
        };
        if let Err(error) = self.store.add_cache_news(tenant, &cache.name, news).await {
            tracing::warn!(%error, "figures of a cache could not be stored");
        }
    }

    async fn forget_old(&self) {
        let now = Time::now();
        let (claims, checks) = (now.minus(CLAIMS_KEPT), now.minus(CHECKS_KEPT));
        let forgotten = self.store.forget_pull_through(claims, checks, BATCH).await;
        let mut errors = forgotten.err().into_iter().collect::<Vec<_>>();
        for tenant in self.directory.now().tenants() {
            let names: Vec<String> = tenant.caches.all().map(|cache| cache.name.to_string()).collect();
            if !names.is_empty() {
                errors.extend(self.store.keep_cache_figures(tenant.id, &names).await.err());
            }
        }
        for error in errors {
            tracing::warn!(%error, "old notes on caches could not be removed");
        }
    }
}

/// How long an upstream may be silent.
fn patience(said: Option<&Span>) -> Duration {
    said.map_or(TIMEOUT, Span::duration).min(LONGEST_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cache_waits_longer_than_a_few_minutes_whatever_it_says() {
        assert_eq!(patience(None), TIMEOUT);
        for (said, expected) in [("1s", 1), ("5m", 300), ("87600h", 300)] {
            let said: Span = said.parse().unwrap();
            assert_eq!(patience(Some(&said)), Duration::from_secs(expected), "{said:?}");
        }
    }
}
