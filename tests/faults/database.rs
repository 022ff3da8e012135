//! PostgreSQL is restarted, or crashes, while clients push and pull.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::content::sha256;
use harness::http::{Repository, attempt};
use harness::{Backend, Berth, Dice, Image, OwnServer, eventually};
use reqwest::Method;
use tokio::task::JoinSet;

use super::history::History;
use super::writers::Writers;

/// Within it the registry has found the database again, by itself.
const RECOVERED_WITHIN: Duration = Duration::from_secs(30);
/// Within it a request that needs the database is refused while there is none.
const REFUSED_WITHIN: Duration = Duration::from_secs(45);

/// How the database goes away.
enum Away {
    /// It is restarted in order; requests may wait for its return.
    Restart,
    /// It crashes and recovers at once.
    Crash,
    /// It crashes and stays away until a request has been refused.
    Long,
}

/// Clients that read one image for ever and hold every answer against the only two that are right.
struct Readers {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Readers {
    fn start(repository: &Repository, image: &Image) -> Readers {
        let (stop, served, refused) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let mut tasks = JoinSet::new();
        let blob = format!("blobs/{}", sha256(&image.config));
        let by_digest = format!("manifests/{}", image.digest());
        for (path, body) in [
            ("manifests/v1".to_owned(), image.manifest.clone()),
            (by_digest, image.manifest.clone()),
            (blob, image.config.clone()),
            (
                "tags/list?n=1".to_owned(),
                br#"{"name":"app","tags":["v1"]}"#.to_vec(),
            ),
        ] {
            let (repository, stop) = (repository.clone(), stop.clone());
            let (served, refused) = (served.clone(), refused.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = attempt(repository.request(Method::GET, &path))
                        .await
                        .expect("an answer");
                    if answer.status.as_u16() == 200 {
                        assert_eq!(answer.text(), String::from_utf8_lossy(&body), "{path}");
                        served.fetch_add(1, Ordering::Relaxed);
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
            tasks,
        }
    }

    /// Waits until every kind of read has been served again.
    async fn are_served(&self) {
        let before = self.served.load(Ordering::Relaxed);
        eventually("reads are served", RECOVERED_WITHIN, async || {
            (self.served.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
    }

    async fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
        (
            self.served.load(Ordering::Relaxed),
            self.refused.load(Ordering::Relaxed),
        )
    }
}

#[tokio::test]
async fn a_database_that_restarts_costs_unavailable_answers_and_nothing_else() {
    let mut database = OwnServer::postgres();
    let berth = Berth::builder()
        .backend(Backend::Distributed)
        .variable("BERTH_METADATA", &database.url())
        .flag("--redirect", "Never")
        .start()
        .await;
    let repository = Repository::new(&berth.url(""), "app");
    let image = Image::new(1, 1000);
    image.push(&repository, "v1").await;
    let pushed = repository.sibling("pushed");
    let history = Arc::new(History::default());
    let mut dice = Dice::new();
    let readers = Readers::start(&repository, &image);

    for away in [Away::Restart, Away::Crash, Away::Long] {
        let writers = Writers::start(&pushed, &history, &mut dice);
        readers.are_served().await;
        match away {
            Away::Restart => database.stop(),
            Away::Crash => database.kill(),
            Away::Long => {
                database.kill();
                let before = readers.refused.load(Ordering::Relaxed);
                eventually("requests are refused", REFUSED_WITHIN, async || {
                    (readers.refused.load(Ordering::Relaxed) > before).then_some(())
                })
                .await;
            }
        }
        database.start();
        readers.are_served().await;
        writers.stop().await;
        history.check(&pushed).await;
    }

    let (served, refused) = readers.stop().await;
    let (blobs, manifests) = history.acknowledged();
    println!(
        "{served} reads served, {refused} refused; {blobs} blobs and {manifests} manifests acknowledged"
    );
    assert!(manifests > 0);
    image.assert_pullable(&repository, "v1").await;
    history.check_all(&pushed).await;
}
