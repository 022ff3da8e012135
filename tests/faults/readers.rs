//! Clients that pull.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::content::sha256;
use harness::http::{Repository, attempt};
use harness::{Image, eventually};
use reqwest::Method;
use tokio::task::JoinSet;

/// Within it the registry has found its stores again, by itself.
const RECOVERED_WITHIN: Duration = Duration::from_secs(60);
/// Between two reads of a client: two cores are few, and writers need some of them.
const PACE: Duration = Duration::from_millis(2);

/// Clients that read one image for ever and hold every answer against the only two that are right.
pub struct Readers {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    cut: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Readers {
    pub fn start(repository: &Repository, image: &Image) -> Readers {
        let stop = Arc::new(AtomicBool::new(false));
        let (served, refused, cut) = <(Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let mut tasks = JoinSet::new();
        let blob = format!("blobs/{}", sha256(&image.layers[0]));
        let by_digest = format!("manifests/{}", image.digest());
        for (path, body) in [
            ("manifests/v1".to_owned(), image.manifest.clone()),
            (by_digest, image.manifest.clone()),
            (blob, image.layers[0].clone()),
            (
                "tags/list?n=1".to_owned(),
                br#"{"name":"app","tags":["v1"]}"#.to_vec(),
            ),
        ] {
            let (repository, stop) = (repository.clone(), stop.clone());
            let (served, refused, cut) = (served.clone(), refused.clone(), cut.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let Some(answer) = attempt(repository.request(Method::GET, &path)).await else {
                        // Less than was announced: nobody takes it for the whole.
                        cut.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    if answer.status.as_u16() == 200 {
                        assert!(answer.body == body, "{path} has other bytes");
                        served.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(PACE).await;
                    } else {
                        let refusal = answer.expect(503);
                        assert_eq!(refusal.error_code(), "UNAVAILABLE", "{path}: {}", refusal.text());
                        assert!(!refusal.header("retry-after").is_empty());
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        Readers {
            stop,
            served,
            refused,
            cut,
            tasks,
        }
    }

    /// Waits until reads have been served again.
    pub async fn are_served(&self) {
        let before = self.served.load(Ordering::Relaxed);
        eventually("reads are served", RECOVERED_WITHIN, async || {
            (self.served.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
    }

    /// Waits until one is refused.
    pub async fn are_refused(&self, limit: Duration) {
        let before = self.refused.load(Ordering::Relaxed);
        eventually("reads are refused", limit, async || {
            (self.refused.load(Ordering::Relaxed) > before).then_some(())
        })
        .await;
    }

    /// How many reads were served, refused and cut so far.
    pub fn met(&self) -> (u64, u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.served), of(&self.refused), of(&self.cut))
    }

    /// Lets every client end its read.
    pub async fn stop(self) -> (u64, u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let met = self.met();
        self.tasks.join_all().await;
        met
    }
}
