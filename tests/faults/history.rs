//! What clients did and were told, and whether what the registry serves afterwards fits.
//!
//! Every operation has a beginning and, if it was answered, an end, both from one counter. A tag may show a
//! value only if some write of it was not certainly overwritten: no acknowledged write began after it had
//! ended. A write that nobody answered may take effect until the servers were seen running again.

use std::collections::BTreeMap;
use std::sync::Mutex;

use harness::content::{blob, sha256};
use harness::http::{Repository, attempt};
use reqwest::Method;

/// Everything since the beginning of a test.
#[derive(Default)]
pub struct History {
    inner: Mutex<Inner>,
}

#[derive(Default, Clone)]
struct Inner {
    clock: u64,
    /// The seeds and sizes of acknowledged blobs.
    blobs: Vec<(u64, usize)>,
    /// Acknowledged manifests.
    manifests: Vec<Vec<u8>>,
    tags: BTreeMap<String, Vec<TagWrite>>,
    sessions: Vec<Session>,
    /// Answers that no fault excuses.
    violations: Vec<String>,
    /// How much of `blobs` and `manifests` an earlier check has seen.
    checked: (usize, usize),
}

#[derive(Clone)]
struct TagWrite {
    digest: String,
    began: u64,
    ended: Option<u64>,
    acknowledged: bool,
}

/// An upload that was cut.
#[derive(Clone, Debug)]
pub struct Session {
    pub location: String,
    pub seed: u64,
    pub size: usize,
    /// Bytes that the registry said it holds.
    pub acknowledged: u64,
    /// Whether the closing PUT was sent.
    pub closing: bool,
}

impl Session {
    pub fn content(&self) -> Vec<u8> {
        blob(self.size, self.seed)
    }
}

/// A write of a tag that is under way.
pub struct TagTicket {
    tag: String,
    index: usize,
}

impl History {
    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().expect("no client panics with the lock"))
    }

    pub fn blob_acknowledged(&self, seed: u64, size: usize) {
        self.with(|inner| inner.blobs.push((seed, size)));
    }

    pub fn tag_write_begins(&self, tag: &str, manifest: &[u8]) -> TagTicket {
        self.with(|inner| {
            inner.clock += 1;
            let write = TagWrite {
                digest: sha256(manifest),
                began: inner.clock,
                ended: None,
                acknowledged: false,
            };
            let writes = inner.tags.entry(tag.to_owned()).or_default();
            writes.push(write);
            TagTicket {
                tag: tag.to_owned(),
                index: writes.len() - 1,
            }
        })
    }

    pub fn tag_write_acknowledged(&self, ticket: &TagTicket, manifest: &[u8]) {
        self.with(|inner| {
            inner.clock += 1;
            let clock = inner.clock;
            inner.manifests.push(manifest.to_vec());
            if let Some(write) = inner
                .tags
                .get_mut(&ticket.tag)
                .and_then(|tag| tag.get_mut(ticket.index))
            {
                write.ended = Some(clock);
                write.acknowledged = true;
            }
        });
    }

    /// What there is so far. Blobs that no acknowledged manifest names are left out: they may be collected.
    pub fn so_far(&self) -> History {
        let mut inner = self.with(|inner| inner.clone());
        let manifests = inner.manifests.iter();
        let text: String = manifests
            .map(|manifest| String::from_utf8_lossy(manifest))
            .collect();
        inner
            .blobs
            .retain(|(seed, size)| text.contains(&sha256(&blob(*size, *seed))));
        History {
            inner: Mutex::new(inner),
        }
    }

    /// For servers that are put back to a moment after this look and before `later`: what was written between the two
    /// may have come before the moment or not.
    pub fn or_anything_until(self, later: &History) -> History {
        let later = later.with(|inner| inner.clone());
        self.with(|inner| {
            inner.clock = later.clock;
            for (tag, writes) in later.tags {
                let known = inner.tags.entry(tag).or_default();
                let since = writes.into_iter().skip(known.len());
                known.extend(since.map(|write| TagWrite {
                    ended: None,
                    acknowledged: false,
                    ..write
                }));
            }
        });
        self
    }

    pub fn cut(&self, session: Session) {
        self.with(|inner| inner.sessions.push(session));
    }

    pub fn violation(&self, what: String) {
        self.with(|inner| inner.violations.push(what));
    }

    pub fn sessions(&self) -> Vec<Session> {
        self.with(|inner| inner.sessions.clone())
    }

    /// Blobs and manifests that were acknowledged so far.
    pub fn acknowledged(&self) -> (usize, usize) {
        self.with(|inner| (inner.blobs.len(), inner.manifests.len()))
    }

    /// Checks what was acknowledged since the last check, and every tag. No client may be writing, and
    /// every server must have been seen running after what was killed.
    pub async fn check(&self, repository: &Repository) {
        let checked = self.with(|inner| {
            let before = inner.checked;
            inner.checked = (inner.blobs.len(), inner.manifests.len());
            before
        });
        self.check_content(repository, checked).await;
        self.check_tags(repository).await;
        let violations = self.with(|inner| inner.violations.clone());
        assert!(violations.is_empty(), "{violations:#?}");
    }

    /// Checks everything that was ever acknowledged.
    pub async fn check_all(&self, repository: &Repository) {
        self.check_content(repository, (0, 0)).await;
        self.check_tags(repository).await;
    }

    async fn check_content(&self, repository: &Repository, from: (usize, usize)) {
        let (blobs, manifests) =
            self.with(|inner| (inner.blobs[from.0..].to_vec(), inner.manifests[from.1..].to_vec()));
        for (seed, size) in blobs {
            let content = blob(size, seed);
            repository.assert_blob(&sha256(&content), &content).await;
        }
        for manifest in manifests {
            let pulled = repository.get_manifest(&sha256(&manifest)).await.expect(200);
            assert!(pulled.body == manifest, "a manifest has other bytes");
        }
    }

    async fn check_tags(&self, repository: &Repository) {
        let tags: Vec<String> = self.with(|inner| {
            inner.clock += 1;
            // Whatever was not answered has happened by now, or never will.
            let now = inner.clock;
            for write in inner.tags.values_mut().flatten() {
                write.ended.get_or_insert(now);
            }
            inner.tags.keys().cloned().collect()
        });
        for tag in tags {
            let answer = repository.get_manifest(&tag).await;
            let shown = match answer.status.as_u16() {
                404 => None,
                _ => Some(answer.expect(200).header("docker-content-digest").to_owned()),
            };
            self.with(|inner| inner.judge(&tag, shown));
        }
    }
}

impl Inner {
    fn judge(&mut self, tag: &str, shown: Option<String>) {
        let writes = self.tags.entry(tag.to_owned()).or_default();
        let Some(shown) = shown else {
            let acknowledged = writes.iter().filter(|write| write.acknowledged).count();
            assert_eq!(
                acknowledged, 0,
                "{tag} is gone after {acknowledged} acknowledged writes"
            );
            return;
        };
        // The write after which no acknowledged one began.
        let last_certain = writes
            .iter()
            .filter(|write| write.acknowledged)
            .map(|write| write.began)
            .max();
        let fits = |write: &&TagWrite| {
            write.digest == shown
                && write
                    .ended
                    .is_none_or(|end| last_certain.is_none_or(|began| began <= end))
        };
        assert!(
            writes.iter().any(|write| fits(&write)),
            "{tag} shows {shown}, which was overwritten or never written"
        );
        // What was read once stays: a later read may not fall back to another of the candidates.
        self.clock += 1;
        writes.push(TagWrite {
            digest: shown,
            began: self.clock,
            ended: Some(self.clock),
            acknowledged: true,
        });
    }
}

/// Asks where a cut upload stands and holds it against what the client was told; `None` if it was published.
pub async fn standing(repository: &Repository, session: &Session) -> Option<u64> {
    let answer = attempt(repository.at(Method::GET, &session.location))
        .await
        .expect("an answer");
    if answer.status.as_u16() == 404 && session.closing {
        let content = session.content();
        repository.assert_blob(&sha256(&content), &content).await;
        return None;
    }
    let answer = answer.expect(204);
    let range = answer.header("range").to_owned();
    let last: i64 = range
        .strip_prefix("0-")
        .and_then(|last| last.parse().ok())
        .expect("a Range");
    let offset = u64::try_from(last + 1).expect("an offset");
    assert!(
        session.acknowledged <= offset && offset <= session.size as u64,
        "{range} of {session:?}"
    );
    Some(offset)
}
