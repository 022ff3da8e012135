//! Pulls that a registry that only reads has served, told to its primary, where they count as its own.
//!
//! Retention deletes at the primary. What is pulled at readers alone would look idle there, so that a batch of pulls goes to
//! [`PATH`] at `--primary` every half minute, with a token that the keys of both vouch for and that names the batch by its
//! hash. What cannot be told waits in memory and is told later; when an answer is lost, its batch is told again, and so counted
//! twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use url::Url;

use crate::egress::{Allow, Channel, Client, Dialer};
use crate::identity::keys::KeyRing;
use crate::lifecycle::pulls::Pulls;
use crate::metadata::lifecycle::Pull;
use crate::metadata::{Repository, TenantId, Time};

/// Where a primary hears of them. No repository's path begins so.
pub const PATH: &str = "/peer/pulls";
/// Longest batch that a primary reads, in bytes.
pub const LIMIT: usize = 256 * 1024;

/// `typ` of the tokens.
const TYP: &str = "berth-pulls+jwt";
/// Their audience.
const AUDIENCE: &str = "berth-pulls";
/// Their life in seconds: a token is used at once.
const LIFE: i64 = 60;
/// Between two batches.
const EVERY: Duration = Duration::from_secs(30);
/// Tags and manifests of one batch: of the longest names, about half of [`LIMIT`].
const BATCH: usize = 200;
/// How long the primary may take for a batch.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a primary does not take a batch.
#[derive(Debug, thiserror::Error)]
pub enum Unheard {
    /// It comes from nobody who has the keys.
    #[error("this is for registries that only read, with the keys of this one")]
    Stranger,
    /// It cannot be read.
    #[error("the pulls cannot be read: {0}")]
    Unreadable(String),
}

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    aud: String,
    exp: i64,
    nbf: i64,
    /// SHA-256 of the batch in hexadecimal digits.
    batch: String,
}

/// Pulls of one tag, or of one manifest by its digest. The tenant's number is that of the database that both read.
#[derive(Debug, Serialize, Deserialize)]
struct Counted {
    tenant: i64,
    repository: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    digest: String,
    count: u32,
}

/// Who may send the batch that it names.
pub struct Sender(Claims);

impl Sender {
    /// By the headers of a request.
    pub fn of(keys: &KeyRing, headers: &HeaderMap) -> Result<Self, Unheard> {
        let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|text| text.strip_prefix("Bearer "));
        let claims = keys.verify(token.ok_or(Unheard::Stranger)?, TYP, AUDIENCE, seconds());
        claims.map(Self).map_err(|_| Unheard::Stranger)
    }

    /// Counts what the sender has served.
    pub fn tell(&self, batch: &[u8], pulls: &Pulls) -> Result<(), Unheard> {
        if hash(batch) != self.0.batch {
            return Err(Unheard::Stranger);
        }
        let unreadable = |error: serde_json::Error| Unheard::Unreadable(error.to_string());
        let batch: Vec<Counted> = serde_json::from_slice(batch).map_err(unreadable)?;
        for counted in batch {
            let Some(pull) = counted.pull() else {
                // Of a later release, or nobody's: it would be told again and again otherwise.
                tracing::warn!(repository = %counted.repository, "a pull that was told cannot be read");
                continue;
            };
            pulls.note_several(pull, counted.count.into());
        }
        Ok(())
    }
}

impl Counted {
    fn pull(&self) -> Option<Pull> {
        Some(Pull {
            repository: Repository {
                tenant: TenantId(self.tenant),
                name: self.repository.parse().ok()?,
            },
            tag: match &self.tag {
                Some(tag) => Some(tag.parse().ok()?),
                None => None,
            },
            digest: self.digest.parse().ok()?,
        })
    }
}

/// Tells a primary.
pub struct Teller {
    pulls: Arc<Pulls>,
    keys: Arc<KeyRing>,
    channel: Channel,
    uri: String,
    /// One at a time: whoever ends waits for what is being told.
    telling: Mutex<()>,
    told: AtomicU64,
    failures: AtomicU64,
}

impl Teller {
    /// At this URL. Whoever runs the registry named it: its address may be a private one.
    pub fn new(primary: &str, pulls: Arc<Pulls>, keys: Arc<KeyRing>) -> Result<Arc<Self>, String> {
        let url = Url::parse(primary).map_err(|error| error.to_string())?;
        let host = url.host_str().ok_or("it names no host")?;
        let host = host.trim_matches(['[', ']']).parse()?;
        let dialer = Dialer::new(Allow(vec![host])).with_proxies_of_environment();
        let channel = Client::new(dialer)
            .channel(None)
            .map_err(|error| error.to_string())?;
        pulls.count_elsewhere();
        Ok(Arc::new(Self {
            pulls,
            keys,
            channel,
            uri: format!("{}{PATH}", primary.trim_end_matches('/')),
            telling: Mutex::default(),
            told: AtomicU64::default(),
            failures: AtomicU64::default(),
        }))
    }

    /// Tells what has been pulled, every half minute, for ever.
    pub async fn follow(self: Arc<Self>) {
        let mut takes = true;
        loop {
            tokio::time::sleep(EVERY).await;
            match self.tell().await {
                Ok(()) if !takes => {
                    tracing::info!("the primary takes pulls again");
                    takes = true;
                }
                Ok(()) => {}
                // Said once: it may be away for days.
                Err(why) if takes => {
                    tracing::warn!(
                        why,
                        "the primary does not take pulls that were served here; they wait for it"
                    );
                    takes = false;
                }
                Err(_) => {}
            }
        }
    }

    /// Tells what has been pulled, for a process that ends: for a few seconds at most.
    pub async fn tell_last(&self) -> Result<(), String> {
        let told = tokio::time::timeout(PATIENCE, self.tell()).await;
        told.unwrap_or_else(|_| Err(format!("not all of it within {} s", PATIENCE.as_secs())))
    }

    /// Tells what has been pulled, as far as the primary takes it.
    async fn tell(&self) -> Result<(), String> {
        let _turn = self.telling.lock().await;
        let mut waiting = self.pulls.take();
        while !waiting.is_empty() {
            let batch = waiting.split_off(waiting.len().saturating_sub(BATCH));
            if let Err(why) = self.send(&batch).await {
                self.failures.fetch_add(1, Relaxed);
                waiting.extend(batch);
                self.pulls.put_back(waiting);
                return Err(why);
            }
            self.told
                .fetch_add(batch.iter().map(|(_, count)| count).sum(), Relaxed);
        }
        Ok(())
    }

    async fn send(&self, batch: &[(Pull, u64)]) -> Result<(), String> {
        let counted: Vec<Counted> = batch.iter().map(counted).collect();
        let body = serde_json::to_vec(&counted).map_err(|error| error.to_string())?;
        let token = sign(&self.keys, &body).ok_or("there is no key to sign with")?;
        let request = Request::post(&self.uri)
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let answer = tokio::time::timeout(PATIENCE, self.channel.send(request)).await;
        let answer = answer
            .map_err(|_| format!("it did not answer within {} s", PATIENCE.as_secs()))?
            .map_err(|error| error.to_string())?;
        match answer.status() {
            StatusCode::NO_CONTENT => Ok(()),
            StatusCode::UNAUTHORIZED => Err("it has other keys than this registry".to_owned()),
            StatusCode::NOT_FOUND => Err("it is of a release that does not count them".to_owned()),
            status => Err(format!("it answers {status}")),
        }
    }

    /// How many pulls the primary has taken, how often it took none, and how many tags and manifests wait.
    pub(super) fn figures(&self) -> (u64, u64, usize) {
        let (told, failures) = (self.told.load(Relaxed), self.failures.load(Relaxed));
        (told, failures, self.pulls.waiting())
    }
}

fn counted((pull, count): &(Pull, u64)) -> Counted {
    Counted {
        tenant: pull.repository.tenant.0,
        repository: pull.repository.name.to_string(),
        tag: pull.tag.as_ref().map(ToString::to_string),
        digest: pull.digest.to_string(),
        count: u32::try_from(*count).unwrap_or(u32::MAX),
    }
}

fn sign(keys: &KeyRing, batch: &[u8]) -> Option<String> {
    let now = seconds();
    let claims = Claims {
        aud: AUDIENCE.to_owned(),
        exp: now + LIFE,
        nbf: now - LIFE,
        batch: hash(batch),
    };
    // The oldest key, which both have.
    keys.sign(Some(&std::collections::HashSet::new()), TYP, &claims)
        .ok()
}

fn hash(batch: &[u8]) -> String {
    hex::encode(Sha256::digest(batch))
}

fn seconds() -> i64 {
    Time::now().0 / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(folder: &tempfile::TempDir) -> KeyRing {
        KeyRing::open(folder.path(), true).expect("keys")
    }

    fn with(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
    }

    fn pull(name: &str, tag: Option<&str>) -> Pull {
        Pull {
            repository: Repository {
                tenant: TenantId(7),
                name: name.parse().unwrap(),
            },
            tag: tag.map(|tag| tag.parse().unwrap()),
            digest: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
        }
    }

    #[test]
    fn a_batch_counts_at_the_primary_as_it_was_counted_here() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, primary) = (ring(&folder), Pulls::default());
        let served = [(pull("app", Some("v1")), 3), (pull("team/app", None), u64::MAX)];
        let body = serde_json::to_vec(&served.iter().map(counted).collect::<Vec<_>>()).unwrap();
        let sender = Sender::of(&keys, &with(&sign(&keys, &body).unwrap())).unwrap();

        sender.tell(&body, &primary).unwrap();
        sender.tell(&body, &primary).unwrap();

        let mut counted = primary.take();
        counted.sort_by_key(|(_, count)| *count);
        let most = u64::from(u32::MAX) * 2;
        assert_eq!(
            counted,
            [(pull("app", Some("v1")), 6), (pull("team/app", None), most)]
        );
    }

    #[test]
    fn a_batch_of_others_or_another_batch_is_not_taken() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (keys, primary) = (ring(&folder), Pulls::default());
        let body = serde_json::to_vec(&[counted(&(pull("app", None), 1))]).unwrap();
        let foreign = sign(&ring(&elsewhere), &body).unwrap();
        for headers in [HeaderMap::new(), with("x"), with(&foreign)] {
            assert!(matches!(Sender::of(&keys, &headers), Err(Unheard::Stranger)));
        }
        let sender = Sender::of(&keys, &with(&sign(&keys, &body).unwrap())).unwrap();
        let changed = String::from_utf8(body).unwrap().replace("app", "apps");
        assert!(matches!(
            sender.tell(changed.as_bytes(), &primary),
            Err(Unheard::Stranger)
        ));
        for unreadable in ["", "{}"] {
            let sender = Sender::of(&keys, &with(&sign(&keys, unreadable.as_bytes()).unwrap())).unwrap();
            let refused = sender.tell(unreadable.as_bytes(), &primary);
            assert!(matches!(refused, Err(Unheard::Unreadable(_))), "{unreadable}");
        }
        let strange = r#"[{"tenant":1,"repository":"A","digest":"x","count":1}]"#;
        let sender = Sender::of(&keys, &with(&sign(&keys, strange.as_bytes()).unwrap())).unwrap();
        sender.tell(strange.as_bytes(), &primary).unwrap();
        assert_eq!(primary.take(), []);
    }

    #[test]
    fn a_full_batch_of_the_longest_names_is_within_the_limit() {
        let longest = Counted {
            tenant: i64::MIN,
            repository: "r".repeat(255),
            tag: Some("t".repeat(128)),
            digest: format!("sha512:{}", "a".repeat(128)),
            count: u32::MAX,
        };
        let batch = serde_json::to_vec(&vec![&longest; BATCH]).unwrap();
        assert!(batch.len() < LIMIT, "{}", batch.len());
    }
}
