//! A cache's upstream: asked when it may be, remembered when it has nothing, counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::Response;
use hyper::body::Incoming;
use moka::sync::Cache as Memory;

use super::health::{Health, Kind, Pause};
use super::{Allowance, Question, Upstream, UpstreamError};
use crate::metadata::Time;
use crate::metadata::pull_through::CacheNews;
use crate::tenancy::Cache;

/// How long it is remembered that the upstream does not have something.
const ABSENT_FOR: Duration = Duration::from_secs(10);
/// Most bytes of what is remembered as absent: a client's query is in each.
const ABSENT_LIMIT: u64 = 4 << 20;
/// Longest reason that is kept.
const REASON_LIMIT: usize = 500;

/// Counts of all caches since the process began.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests answered without the upstream's bytes.
    pub hits: AtomicU64,
    /// Requests for which bytes were fetched.
    pub misses: AtomicU64,
    /// Bytes sent that were not fetched for it.
    pub saved: AtomicU64,
    /// Bytes fetched.
    pub fetched: AtomicU64,
    /// Questions that upstreams did not answer as they should.
    pub failures: AtomicU64,
}

/// What has happened to a cache on this replica.
#[derive(Debug, Default)]
pub struct News {
    tally: Arc<Tally>,
    /// What is not stored yet.
    waiting: Mutex<CacheNews>,
    /// What was last heard of the upstream.
    heard: Mutex<Heard>,
    /// What was last told of whether it answers.
    told: Mutex<Option<bool>>,
}

/// What was last heard of an upstream.
#[derive(Debug, Default, Clone, Copy)]
pub struct Heard {
    /// Whether it answered; nothing if it was not asked yet.
    pub is_up: Option<bool>,
    /// What it says of its limit.
    pub allowance: Option<Allowance>,
}

impl News {
    pub(super) fn new(tally: Arc<Tally>) -> Self {
        Self {
            tally,
            ..Self::default()
        }
    }

    fn note(&self, note: impl FnOnce(&mut CacheNews)) {
        note(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn hear(&self, hear: impl FnOnce(&mut Heard)) {
        hear(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What was last heard of the upstream.
    pub fn heard(&self) -> Heard {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the upstream answers, if that is news since the last call. That it does is none at first.
    pub(super) fn turned(&self) -> Option<bool> {
        let is_up = self.heard().is_up?;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = told.replace(is_up);
        (before.unwrap_or(true) != is_up).then_some(is_up)
    }

    /// Takes out what is not stored yet; nothing if nothing has happened.
    pub fn take(&self) -> Option<CacheNews> {
        let news = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        (news != CacheNews::default()).then_some(news)
    }

    /// Puts back what could not be stored.
    pub fn give_back(&self, old: CacheNews) {
        self.note(|news| {
            news.hits += old.hits;
            news.misses += old.misses;
            news.bytes_saved += old.bytes_saved;
            news.bytes_fetched += old.bytes_fetched;
            news.rate_limit = news.rate_limit.or(old.rate_limit);
            news.reached_at = news.reached_at.max(old.reached_at);
            if news.failed.is_none() {
                news.failed = old.failed;
            }
        });
    }

    /// An answer of `bytes` without the upstream's bytes.
    pub fn hit(&self, bytes: u64) {
        count(&self.tally.hits, 1);
        count(&self.tally.saved, bytes);
        self.note(|news| {
            news.hits += 1;
            news.bytes_saved += bytes;
        });
    }

    /// An answer for which the upstream's bytes were fetched.
    pub fn miss(&self) {
        count(&self.tally.misses, 1);
        self.note(|news| news.misses += 1);
    }

    /// Bytes that have come from the upstream.
    pub fn fetched(&self, bytes: u64) {
        count(&self.tally.fetched, bytes);
        self.note(|news| news.bytes_fetched += bytes);
    }
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// One cache's upstream.
pub struct Remote {
    /// The cache as it was configured when this was made.
    pub cache: Arc<Cache>,
    /// What is told of it.
    pub news: Arc<News>,
    upstream: Upstream,
    health: Health,
    /// Not asked whether it is there yet.
    is_new: AtomicBool,
    /// What the upstream was found not to have, or not to give.
    absent: Memory<String, UpstreamError>,
}

impl Remote {
    pub(super) fn new(cache: Arc<Cache>, upstream: Upstream, news: Arc<News>) -> Self {
        Self {
            cache,
            news,
            upstream,
            health: Health::default(),
            is_new: AtomicBool::new(true),
            absent: Memory::builder()
                .max_capacity(ABSENT_LIMIT)
                // The key is in the error once more.
                .weigher(|key: &String, _| u32::try_from(2 * key.len() + 256).unwrap_or(u32::MAX))
                .time_to_live(ABSENT_FOR)
                .build(),
        }
    }

    /// How long the upstream may be silent.
    pub fn timeout(&self) -> Duration {
        self.upstream.timeout()
    }

    /// The upstream's host.
    pub fn host(&self) -> &str {
        self.upstream.host()
    }

    /// Asks, unless it is known that this is of no use now. Whoever gets an answer reads its body to the end, or lets
    /// go of it.
    pub async fn ask(
        &self,
        question: &Question<'_>,
        kind: Kind,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let key = format!("{}/{}", question.repository, question.path);
        // Whoever signs for one method alone refuses the others.
        let denied = format!("{} {key}", question.method);
        if let Some(known) = self.absent.get(&key).or_else(|| self.absent.get(&denied)) {
            return Err(known);
        }
        self.may_ask(kind)?;
        let answer = self.upstream.ask(question).await;
        self.met(kind, answer.as_ref().err());
        match &answer {
            Ok(answer) => self.limits(answer.headers()),
            Err(error @ UpstreamError::Absent { .. }) => self.absent.insert(key, error.clone()),
            Err(error @ UpstreamError::Denied { .. }) => self.absent.insert(denied, error.clone()),
            Err(_) => {}
        }
        answer
    }

    /// Whether this is the first time that it is asked for.
    pub(super) fn is_new(&self) -> bool {
        self.is_new.swap(false, Ordering::Relaxed)
    }

    /// Asks whether it is there.
    pub async fn ping(&self) {
        if self.may_ask(Kind::Manifest).is_ok() {
            let answer = self.upstream.ping().await;
            self.met(Kind::Manifest, answer.as_ref().err());
        }
    }

    /// What came of reading an answer's body.
    pub fn met(&self, kind: Kind, error: Option<&UpstreamError>) {
        self.health.met(kind, error, Instant::now());
        let is_down = match error {
            None | Some(UpstreamError::Paused { .. }) => false,
            Some(UpstreamError::Strange { .. }) => true,
            Some(error) => !error.is_about_the_question(),
        };
        match error {
            Some(error) if is_down => {
                let mut why = error.to_string();
                let end = (0..=REASON_LIMIT.min(why.len()))
                    .rev()
                    .find(|at| why.is_char_boundary(*at));
                why.truncate(end.unwrap_or_default());
                tracing::warn!(cache = &*self.cache.name, %error, "an upstream does not answer as it should");
                count(&self.news.tally.failures, 1);
                self.news.note(|news| news.failed = Some((Time::now(), why)));
                self.news.hear(|heard| heard.is_up = Some(false));
            }
            Some(UpstreamError::Paused { .. }) => {}
            _ => {
                self.news.note(|news| news.reached_at = Some(Time::now()));
                self.news.hear(|heard| heard.is_up = Some(true));
            }
        }
    }

    fn may_ask(&self, kind: Kind) -> Result<(), UpstreamError> {
        match self.health.pause(kind, Instant::now(), self.timeout()) {
            None => Ok(()),
            Some(Pause { after, why, limits }) => Err(UpstreamError::Paused {
                host: self.upstream.host().to_owned(),
                after,
                why,
                limits,
            }),
        }
    }

    fn limits(&self, headers: &http::HeaderMap) {
        if let Some(allowance) = Allowance::of(headers) {
            let Allowance { limit, remaining } = allowance;
            self.news
                .note(|news| news.rate_limit = Some((limit, remaining, Time::now())));
            self.news.hear(|heard| heard.allowance = Some(allowance));
        }
    }
}
