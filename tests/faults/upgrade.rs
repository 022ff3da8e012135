//! From the previous release to this one and back, under pushes and pulls.
//!
//! `BERTH_PREVIOUS_BIN` is the previous release's registry, with its operator beside it, which `./tests/run` builds from the commit that
//! `tests/tools/previous` names. What must hold: a schema that this release has brought up to date serves the previous
//! one as well, and with two replicas that follow one another no request fails.

mod operator;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::http::{Repository, attempt};
use harness::{Backend, Berth, Cluster, Dice, Image, eventually, setting};
use tokio::task::JoinHandle;

use super::history::History;
use super::writers::Writers;

/// How long a replica may take to drain.
const DRAIN: Duration = Duration::from_secs(60);
/// How long pushes may take to get on.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pushes of manifests between two steps.
const PUSHES: usize = 20;

fn previous() -> PathBuf {
    setting("BERTH_PREVIOUS_BIN").into()
}

fn this() -> PathBuf {
    setting("BERTH_BIN").into()
}

/// Pulls one image again and again.
struct Reader {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    task: JoinHandle<Vec<String>>,
}

impl Reader {
    fn start(repository: &Repository, image: &Image) -> Reader {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (repository, digest) = (repository.clone(), image.digest());
        let (ended, count) = (stop.clone(), answered.clone());
        let task = tokio::spawn(async move {
            let mut failures = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                for reference in ["kept", &digest] {
                    let request = repository.request(http::Method::GET, &format!("manifests/{reference}"));
                    match attempt(request).await {
                        Some(answer) if answer.status.as_u16() == 200 => {
                            count.fetch_add(1, Ordering::Relaxed)
                        }
                        Some(answer) => {
                            failures.push(format!("{reference}: {}", answer.status));
                            0
                        }
                        None => {
                            failures.push(format!("{reference}: no answer"));
                            0
                        }
                    };
                }
            }
            failures
        });
        Reader { stop, answered, task }
    }

    /// How many pulls succeeded, and what became of the others.
    async fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.task.await.expect("no panic");
        (self.answered.load(Ordering::Relaxed), failures)
    }
}

/// Waits until further manifests have been pushed.
async fn go_on(history: &History) {
    let (_, before) = history.acknowledged();
    eventually("pushes go on", PATIENCE, async || {
        (history.acknowledged().1 >= before + PUSHES).then_some(())
    })
    .await;
}

/// Each replica in turn leaves, and comes back as another release.
async fn roll(cluster: &mut Cluster, program: PathBuf, history: &History) {
    for number in 0..2 {
        cluster.proxy().route_to(&[1 - number]);
        // What was on its way to the replica has arrived; in a cluster a pod that is to end waits for its edge as well.
        go_on(history).await;
        let replica = cluster.replica(number);
        replica.terminate(DRAIN).await;
        replica.becomes(&program);
        replica.restart().await;
        cluster.proxy().route_to(&[0, 1]);
        go_on(history).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_upgraded_and_rolled_back_one_after_the_other_and_no_request_fails() {
    let mut cluster = Cluster::start_with(2, Berth::builder().program(&previous())).await;
    let repository = Repository::new(&format!("http://{}", cluster.address()), "app");
    let image = Image::new(7, 50_000);
    image.push(&repository, "kept").await;
    let history = Arc::new(History::default());
    let mut dice = Dice::new();
    let writers = Writers::start(&repository, &history, &mut dice);
    let reader = Reader::start(&repository, &image);
    go_on(&history).await;

    roll(&mut cluster, this(), &history).await;
    roll(&mut cluster, previous(), &history).await;
    roll(&mut cluster, this(), &history).await;

    let cut = writers.stop().await;
    let (answered, failures) = reader.end().await;
    let (blobs, manifests) = history.acknowledged();
    println!("upgrade, rollback, upgrade: {blobs} blobs and {manifests} manifests pushed, {answered} pulls");
    assert_eq!((cut, failures), (0, Vec::new()), "requests failed");
    history.check_all(&repository).await;
    history.check(&repository).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_folder_serves_the_release_before_again() {
    let builder = Berth::builder().backend(Backend::Embedded).program(&previous());
    let mut berth = builder.start().await;
    let repository = Repository::new(&berth.url(""), "app");
    let programs = [this(), previous(), this()];
    let mut pushed = Vec::new();
    for (number, next) in programs.iter().enumerate() {
        let (image, tag) = (Image::new(number as u64, 20_000), format!("v{number}"));
        image.push(&repository, &tag).await;
        pushed.push((image.digest(), tag));
        berth.terminate(DRAIN).await;
        berth.becomes(next);
        berth.restart().await;
        for (digest, tag) in &pushed {
            let answer = repository.get_manifest(tag).await.expect(200);
            assert_eq!(answer.header("docker-content-digest"), digest);
        }
    }
    let mut fsck = berth.command("fsck");
    let admin = berth.admin_url("");
    fsck.arg(format!("--admin-listen={}", admin.trim_start_matches("http://")));
    let checked = tokio::task::spawn_blocking(move || fsck.output().expect("the binary runs")).await;
    let checked = checked.expect("no panic");
    assert!(checked.status.success(), "{checked:?}");
}
