//! Clients that push builds, move tags, delete and pull under a policy that keeps the last few, and know at any moment
//! what must be there.
//!
//! Each has a repository of its own and does one thing after the other. What is not answered is asked again until it is,
//! so that the order of pushes is certain. When the policy runs is not: a tag may go from the moment on at which so many
//! newer ones were being pushed, and must be there before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::Dice;
use harness::content::{blob, sha256};
use harness::http::{Answer, Repository, attempt};
use harness::image::{MANIFEST, descriptor};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::{AbortHandle, JoinSet};

/// How many builds' tags the policy keeps, the newest.
pub const KEPT: usize = 4;
/// The tag that it keeps wherever it points.
const STABLE: &str = "stable";
/// How long what a client was told to be there stays: `--lease`.
pub const LEASE: Duration = Duration::from_secs(2);
/// How long an upload lives without activity: `--upload-expiry`. Writers tell that they are at work every five seconds.
pub const EXPIRY: Duration = Duration::from_secs(8);
/// Longest time until a request is answered by other than 503.
const ANSWERED_WITHIN: Duration = Duration::from_secs(120);
/// Between two tries, and between two things that a client does: two cores are few.
const PACE: Duration = Duration::from_millis(10);

/// The policy of all the clients' repositories. It runs when it is asked to.
pub fn policy() -> Value {
    json!({
        "repositories": ["builds/**"],
        "rules": [{ "tags": ["main-*"], "keepLast": KEPT }, { "tags": [STABLE] }],
        "untagged": { "deleteAfter": "1s" },
        "restoreWindow": "0s",
        "schedule": "0 0 1 1 *",
    })
}

/// The layer of all builds.
fn base() -> Vec<u8> {
    blob(3000, u64::MAX)
}

/// What one client has pushed.
#[derive(Debug)]
struct Build {
    own: Vec<u8>,
    manifest: Vec<u8>,
}

/// A tag that was pushed and that the client has not deleted.
#[derive(Debug)]
struct Tagged {
    name: String,
    build: usize,
    may_go: bool,
}

/// One client.
pub struct Client {
    repository: Repository,
    number: u64,
    dice: Dice,
    builds: Vec<Build>,
    /// In the order of their pushes.
    tags: Vec<Tagged>,
    stable: Option<usize>,
    next: usize,
}

/// Running clients.
pub struct Clients {
    stop: Arc<AtomicBool>,
    pushed: Arc<AtomicU64>,
    tasks: JoinSet<Client>,
    ends: Vec<AbortHandle>,
}

impl Clients {
    /// Starts so many; `any` is a repository of the registry.
    pub fn start(count: u64, any: &Repository, dice: &mut Dice) -> Clients {
        let (stop, pushed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (mut tasks, mut ends) = (JoinSet::new(), Vec::new());
        for number in 0..count {
            let mut client = Client {
                repository: any.sibling(&format!("builds/app-{number}")),
                number,
                dice: dice.split(),
                builds: Vec::new(),
                tags: Vec::new(),
                stable: None,
                next: 0,
            };
            let (stop, pushed) = (stop.clone(), pushed.clone());
            ends.push(tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    client.act(&pushed).await;
                    tokio::time::sleep(PACE).await;
                }
                client
            }));
        }
        Clients {
            stop,
            pushed,
            tasks,
            ends,
        }
    }

    /// How many builds were pushed so far.
    pub fn pushed(&self) -> u64 {
        self.pushed.load(Ordering::Relaxed)
    }

    /// Whether one of them has ended, which none does before it is told to.
    pub fn is_broken(&self) -> bool {
        self.ends.iter().any(AbortHandle::is_finished)
    }

    /// Lets every client end what it is at.
    ///
    /// # Panics
    /// If one of them has met what no fault excuses.
    pub async fn stop(self) -> Vec<Client> {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await
    }
}

impl Client {
    async fn act(&mut self, pushed: &AtomicU64) {
        match self.dice.below(10) {
            0 => self.push_again().await,
            1 | 2 => self.move_stable().await,
            3 => self.delete_build().await,
            4 => self.delete_stable().await,
            5 | 6 => self.pull().await,
            _ => {
                self.push().await;
                pushed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A new build under a new tag.
    async fn push(&mut self) {
        let own = blob(
            500 + self.dice.index(4000),
            (self.number << 32) + self.builds.len() as u64,
        );
        let layer = |content: &[u8]| descriptor("application/octet-stream", content);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": layer(&own), "layers": [layer(&base())],
        });
        let manifest = serde_json::to_vec(&manifest).expect("JSON values serialise");
        let tag = self.newest_tag();
        loop {
            let begun = Instant::now();
            self.upload(&own).await;
            let known = self
                .ask(|| self.request(Method::HEAD, &format!("blobs/{}", sha256(&base()))))
                .await;
            if known.status.as_u16() == 404 {
                self.upload(&base()).await;
            }
            let answer = self.put(&tag, &manifest).await;
            if answer.status.as_u16() == 201 {
                break;
            }
            // Slower than the lease: what was uploaded may be gone, and the client starts again.
            assert_eq!(answer.error_code(), "MANIFEST_BLOB_UNKNOWN", "{}", answer.text());
            assert!(begun.elapsed() > LEASE / 2, "within the lease: {}", answer.text());
        }
        self.builds.push(Build { own, manifest });
        let build = self.builds.len() - 1;
        self.tags.push(Tagged {
            name: tag,
            build,
            may_go: false,
        });
    }

    /// A build that is there under a further tag.
    async fn push_again(&mut self) {
        let tag = self.newest_tag();
        let Some(build) = self.certain() else { return };
        self.put(&tag, &self.builds[build].manifest).await.expect(201);
        self.tags.push(Tagged {
            name: tag,
            build,
            may_go: false,
        });
    }

    async fn move_stable(&mut self) {
        let Some(build) = self.certain() else { return };
        self.put(STABLE, &self.builds[build].manifest).await.expect(201);
        self.stable = Some(build);
    }

    async fn delete_build(&mut self) {
        let Some(build) = self.certain() else { return };
        self.delete(&sha256(&self.builds[build].manifest)).await;
        self.tags.retain(|tag| tag.build != build);
        self.stable = self.stable.filter(|stable| *stable != build);
    }

    async fn delete_stable(&mut self) {
        if self.stable.take().is_some() {
            self.delete(STABLE).await;
        }
    }

    async fn pull(&mut self) {
        let certain: Vec<&Tagged> = self.tags.iter().filter(|tag| !tag.may_go).collect();
        if certain.is_empty() {
            return;
        }
        let tag = certain[self.dice.index(certain.len())];
        let build = &self.builds[tag.build];
        self.is_there(&format!("manifests/{}", tag.name), &build.manifest)
            .await;
        for content in [&build.own, &base()] {
            self.is_there(&format!("blobs/{}", sha256(content)), content)
                .await;
        }
    }

    /// The name of the next tag, whose push begins.
    fn newest_tag(&mut self) -> String {
        self.next += 1;
        let count = self.tags.len();
        for (at, tag) in self.tags.iter_mut().enumerate() {
            tag.may_go |= count - at >= KEPT;
        }
        format!("main-{}", self.next)
    }

    /// One of the builds that must be there.
    fn certain(&mut self) -> Option<usize> {
        let tagged = self.tags.iter().filter(|tag| !tag.may_go).map(|tag| tag.build);
        let certain: Vec<usize> = tagged.chain(self.stable).collect();
        if certain.is_empty() {
            return None;
        }
        Some(certain[self.dice.index(certain.len())])
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.repository.request(method, path)
    }

    async fn upload(&self, content: &[u8]) {
        let path = format!("blobs/uploads/?digest={}", sha256(content));
        loop {
            let begun = Instant::now();
            let pushed = self.ask(|| self.request(Method::POST, &path).body(content.to_vec()));
            let pushed = pushed.await;
            if pushed.status.as_u16() == 201 {
                return;
            }
            // Slower than an upload may be idle: it is started again.
            assert_eq!(pushed.error_code(), "BLOB_UPLOAD_UNKNOWN", "{}", pushed.text());
            assert!(
                begun.elapsed() >= EXPIRY,
                "a session that was in use: {}",
                pushed.text()
            );
        }
    }

    async fn put(&self, tag: &str, manifest: &[u8]) -> Answer {
        let path = format!("manifests/{tag}");
        self.ask(|| {
            let request = self.request(Method::PUT, &path).header("Content-Type", MANIFEST);
            request.body(manifest.to_vec())
        })
        .await
    }

    /// Gone is gone, though it may have taken effect by a try that was not answered.
    async fn delete(&self, reference: &str) {
        let path = format!("manifests/{reference}");
        let mut tries = 0;
        let answer = self
            .ask(|| {
                tries += 1;
                self.request(Method::DELETE, &path)
            })
            .await;
        let status = answer.status.as_u16();
        assert!(status == 202 || (status == 404 && tries > 1), "{}", answer.text());
    }

    async fn is_there(&self, path: &str, content: &[u8]) {
        let request = || self.request(Method::GET, path).header("Accept", "*/*");
        let answer = self.ask(request).await.expect(200);
        assert!(answer.body == content, "{path} has other bytes");
    }

    /// The answer of a registry that has its stores: what breaks off or is 503 is asked again.
    async fn ask(&self, mut request: impl FnMut() -> RequestBuilder) -> Answer {
        let deadline = Instant::now() + ANSWERED_WITHIN;
        loop {
            match attempt(request()).await {
                Some(answer) if answer.status.as_u16() != 503 => return answer,
                Some(answer) if answer.error_code() != "UNAVAILABLE" && !answer.body.is_empty() => {
                    panic!("503 without its code: {}", answer.text())
                }
                _ => assert!(Instant::now() < deadline, "refused for {ANSWERED_WITHIN:?}"),
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// Tags that are there, as the registry lists them.
    pub async fn listed(&self) -> Vec<String> {
        let listed = self.repository.get("tags/list").await;
        if listed.status.as_u16() == 404 {
            return Vec::new();
        }
        let listed = listed.expect(200).json();
        serde_json::from_value(listed["tags"].clone()).expect("names")
    }

    /// Holds what is there against what the client knows. The policy has run, and nothing waits for collection.
    ///
    /// # Panics
    /// If something is missing, or there once more.
    pub async fn check(&self) {
        let listed = self.listed().await;
        let is_listed = |name: &str| listed.iter().any(|listed| listed == name);
        let told = || {
            format!(
                "listed {listed:?}; pushed {:?}; stable {:?}",
                self.tags, self.stable
            )
        };
        assert_eq!(is_listed(STABLE), self.stable.is_some(), "{}", told());
        let kept: Vec<&Tagged> = self.tags.iter().filter(|tag| is_listed(&tag.name)).collect();
        // Nothing that was deleted, the newest without a gap, no more than are to be kept, all that had to stay.
        assert_eq!(
            kept.len() + usize::from(self.stable.is_some()),
            listed.len(),
            "{}",
            told()
        );
        assert!(kept.len() <= KEPT, "{}", told());
        let newest = self.tags.iter().rev().take(kept.len()).rev();
        assert!(
            newest.zip(&kept).all(|(tag, kept)| tag.name == kept.name),
            "{}",
            told()
        );
        assert!(
            self.tags.iter().all(|tag| tag.may_go || is_listed(&tag.name)),
            "{}",
            told()
        );

        for tag in &kept {
            let manifest = &self.builds[tag.build].manifest;
            self.is_there(&format!("manifests/{}", tag.name), manifest).await;
        }
        for (at, build) in self.builds.iter().enumerate() {
            let manifest = format!("manifests/{}", sha256(&build.manifest));
            let own = format!("blobs/{}", sha256(&build.own));
            if self.stable == Some(at) || kept.iter().any(|tag| tag.build == at) {
                self.is_there(&manifest, &build.manifest).await;
                self.is_there(&own, &build.own).await;
                self.is_there(&format!("blobs/{}", sha256(&base())), &base())
                    .await;
            } else {
                for path in [manifest, own] {
                    let answer = self.ask(|| self.request(Method::GET, &path)).await;
                    answer.expect(404);
                }
            }
        }
    }
}
