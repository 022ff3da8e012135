//! Clients that push small images in every way until they are told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use harness::Dice;
use harness::content::{blob, sha256};
use harness::http::{Answer, Repository, attempt, with_query};
use harness::image::{MANIFEST, descriptor};
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use super::history::{History, Session};

/// How many clients push at once.
const WRITERS: u64 = 4;
/// Tags that all of them write.
const SHARED_TAGS: u64 = 2;

/// What clients push, and what they may be told.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// The largest blob of one in eight, in bytes; all others are small.
    pub largest: usize,
    /// Whether the disk may be full: 507.
    pub may_be_full: bool,
}

impl Default for Manner {
    fn default() -> Manner {
        Manner {
            largest: SMALL,
            may_be_full: false,
        }
    }
}

/// The largest of small blobs.
const SMALL: usize = 60_000;

/// Running clients.
pub struct Writers {
    stop: Arc<AtomicBool>,
    cut: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

/// A push that was cut: the client goes on with another.
struct Cut;

impl Writers {
    /// Starts the clients.
    pub fn start(repository: &Repository, history: &Arc<History>, dice: &mut Dice) -> Writers {
        Writers::like(Manner::default(), repository, history, dice)
    }

    /// Starts clients of this manner.
    pub fn like(manner: Manner, repository: &Repository, history: &Arc<History>, dice: &mut Dice) -> Writers {
        let (stop, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for number in 0..WRITERS {
            let mut writer = Writer {
                repository: repository.clone(),
                history: history.clone(),
                dice: dice.split(),
                number,
                manner,
            };
            let (stop, cut) = (stop.clone(), cut.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if writer.push_image().await.is_err() {
                        cut.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
        Writers { stop, cut, tasks }
    }

    /// Lets every client end the push that it is at; how many pushes were cut.
    pub async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
        self.cut.load(Ordering::Relaxed)
    }
}

struct Writer {
    repository: Repository,
    history: Arc<History>,
    dice: Dice,
    number: u64,
    manner: Manner,
}

impl Writer {
    /// Two layers and a config, each in another way, then the manifest under a tag.
    async fn push_image(&mut self) -> Result<(), Cut> {
        let mut descriptors = Vec::new();
        for _ in 0..3 {
            let largest = match self.dice.below(8) {
                0 => self.manner.largest,
                _ => SMALL,
            };
            let (seed, size) = (unique(), 1 + self.dice.index(largest));
            let content = blob(size, seed);
            match self.dice.below(3) {
                0 => self.push_whole(&content).await?,
                1 => self.push_chunked(seed, &content, 1).await?,
                _ => {
                    let chunks = 2 + self.dice.below(3);
                    self.push_chunked(seed, &content, chunks).await?;
                }
            }
            self.history.blob_acknowledged(seed, size);
            descriptors.push(descriptor("application/octet-stream", &content));
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptors[0], "layers": descriptors[1..],
        });
        let manifest = serde_json::to_vec(&manifest).expect("JSON values serialise");
        let tag = match self.dice.below(3) {
            0 => format!("own-{}-{}", self.number, self.dice.below(3)),
            _ => format!("shared-{}", self.dice.below(SHARED_TAGS)),
        };
        let ticket = self.history.tag_write_begins(&tag, &manifest);
        let request = self.repository.request(Method::PUT, &format!("manifests/{tag}"));
        let request = request.header("Content-Type", MANIFEST).body(manifest.clone());
        self.answer(request, 201).await?;
        self.history.tag_write_acknowledged(&ticket, &manifest);
        Ok(())
    }

    /// One POST with the bytes.
    async fn push_whole(&self, content: &[u8]) -> Result<(), Cut> {
        let path = format!("blobs/uploads/?digest={}", sha256(content));
        let request = self.repository.request(Method::POST, &path);
        self.answer(request.body(content.to_vec()), 201).await.map(drop)
    }

    /// A session, chunks of equal size, and a closing PUT without bytes.
    async fn push_chunked(&self, seed: u64, content: &[u8], chunks: u64) -> Result<(), Cut> {
        let start = self
            .answer(self.repository.request(Method::POST, "blobs/uploads/"), 202)
            .await?;
        let mut session = Session {
            location: start.header("location").to_owned(),
            seed,
            size: content.len(),
            acknowledged: 0,
            closing: false,
        };
        let length = content
            .len()
            .div_ceil(usize::try_from(chunks).unwrap_or(1))
            .max(1);
        for chunk in content.chunks(length) {
            let first = session.acknowledged;
            let next = first + chunk.len() as u64;
            let request = self
                .repository
                .at(Method::PATCH, &session.location)
                .header("Content-Range", format!("{first}-{}", next - 1));
            if self.answer(request.body(chunk.to_vec()), 202).await.is_err() {
                self.history.cut(session);
                return Err(Cut);
            }
            session.acknowledged = next;
        }
        let url = with_query(&session.location, &format!("digest={}", sha256(content)));
        if self
            .answer(self.repository.at(Method::PUT, &url), 201)
            .await
            .is_err()
        {
            session.closing = true;
            self.history.cut(session);
            return Err(Cut);
        }
        Ok(())
    }

    /// The answer, if it is the one that a working registry gives. A dead server gives none, a dying
    /// store 503, and the proxy before a dead replica 502: everything else is a violation.
    async fn answer(&self, request: reqwest::RequestBuilder, status: u16) -> Result<Answer, Cut> {
        let Some(answer) = attempt(request).await else {
            return Err(Cut);
        };
        match answer.status.as_u16() {
            found if found == status => Ok(answer),
            502 => Err(Cut),
            503 if answer.error_code() == "UNAVAILABLE" => Err(Cut),
            507 if self.manner.may_be_full && answer.error_code() == "UNAVAILABLE" => Err(Cut),
            found => {
                self.history
                    .violation(format!("{found} in place of {status}: {}", answer.text()));
                Err(Cut)
            }
        }
    }
}

/// A seed that no other blob of this process has.
fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
