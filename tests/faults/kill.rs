//! kill -9 at random instants while clients push.

use std::sync::Arc;
use std::time::Duration;

use harness::content::sha256;
use harness::http::{Repository, attempt, with_query};
use harness::{Backend, Berth, Dice, eventually};
use reqwest::Method;
use tokio::task::JoinSet;

use super::Servers;
use super::history::{History, Session, standing};
use super::writers::Writers;

/// A writer that was killed may be waited for by the lease that it held, 15 s, before the next may write.
const RESUMED_WITHIN: Duration = Duration::from_secs(60);
/// The registry sweeps when it starts and once a minute; what a dead writer's lease held at the first sweep
/// goes with the second.
const SWEPT_WITHIN: Duration = Duration::from_secs(90);

#[tokio::test]
async fn nothing_that_was_acknowledged_is_lost_when_the_server_is_killed() {
    let servers = killed_again_and_again(Backend::Embedded, 12).await;
    let Servers::One(mut berth) = servers else { return };

    // Every cut upload was resumed: what is left belongs to sessions whose location no client learnt, and
    // ends with them.
    let storage = berth.storage().clone();
    berth.kill9();
    let berth = Berth::builder()
        .storage(storage, 0)
        .flag("--upload-expiry", "1s")
        .start()
        .await;
    let leftovers = || -> Vec<_> {
        let folder = berth.data().join("blobs/tmp");
        let files = std::fs::read_dir(folder).expect("the folder of uploads");
        files.flatten().map(|file| file.file_name()).collect()
    };
    println!("left at the start: {:?}", leftovers());
    eventually(
        "the leftovers of killed uploads are gone",
        SWEPT_WITHIN,
        async || leftovers().is_empty().then_some(()),
    )
    .await;
}

#[tokio::test]
async fn nothing_that_was_acknowledged_is_lost_when_replicas_are_killed() {
    killed_again_and_again(Backend::Distributed, 6).await;
}

async fn killed_again_and_again(backend: Backend, rounds: u64) -> Servers {
    let mut dice = Dice::new();
    let mut servers = Servers::start(backend).await;
    let repository = servers.repository("team/app");
    let history = Arc::new(History::default());

    for round in 0..rounds {
        let writers = Writers::start(&repository, &history, &mut dice);
        // Every other round begins to count once something was acknowledged, however slow the machine is.
        if round % 2 == 0 {
            let (_, before) = history.acknowledged();
            eventually("some pushes", RESUMED_WITHIN, async || {
                (history.acknowledged().1 >= before + 4).then_some(())
            })
            .await;
        }
        // The instant is the test's subject, not a wait for something.
        tokio::time::sleep(Duration::from_millis(dice.below(400))).await;
        // One, the other, or all.
        let choice = dice.below(3);
        for number in 0..servers.count() as u64 {
            if choice == number || choice == 2 || servers.count() == 1 {
                servers.server(usize::from(number == 1)).kill9();
            }
        }
        tokio::time::sleep(Duration::from_millis(dice.below(30))).await;
        writers.stop().await;
        for number in 0..servers.count() {
            if !servers.server(number).is_running() {
                servers.server(number).restart().await;
            }
        }
        history.check(&repository).await;
        for session in history.sessions() {
            standing(&repository, &session).await;
        }
    }

    let sessions = history.sessions();
    let (blobs, manifests) = history.acknowledged();
    println!(
        "{blobs} blobs and {manifests} manifests acknowledged, {} uploads cut",
        sessions.len()
    );
    let mut resuming = JoinSet::new();
    for session in sessions {
        resuming.spawn(resume(repository.clone(), session));
    }
    resuming.join_all().await;
    history.check_all(&repository).await;
    servers
}

/// Goes on where the registry says that the upload stands, as a client does.
async fn resume(repository: Repository, session: Session) {
    let content = session.content();
    let digest = sha256(&content);
    eventually("a cut upload goes on", RESUMED_WITHIN, async || {
        let Some(offset) = standing(&repository, &session).await else {
            return Some(());
        };
        let rest = content[usize::try_from(offset).expect("small blobs")..].to_vec();
        if !rest.is_empty() {
            let range = format!("{offset}-{}", content.len() - 1);
            let answer = repository.patch(&session.location, Some(&range), rest).await;
            if answer.status.as_u16() == 416 {
                // The killed writer's lease ended while this waited: ask again where it stands.
                return None;
            }
            answer.expect(202);
        }
        let url = with_query(&session.location, &format!("digest={digest}"));
        let closed = attempt(repository.at(Method::PUT, &url))
            .await
            .expect("an answer");
        closed.expect(201);
        Some(())
    })
    .await;
    repository.assert_blob(&digest, &content).await;
}
