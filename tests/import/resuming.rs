//! Runs that are killed, and what the next one still has to do.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::content::blob;
use harness::http::send;
use harness::{Backend, Berth, Fault, Faulty, eventually};
use serde_json::Value;

use super::{MIB, Place, WAIT, import, number, push_layer, run};

/// A run that is killed.
struct Victim(Child);

impl Victim {
    fn start(mut command: Command) -> Victim {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Victim(child.expect("the import starts"))
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    fn kill9(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// How far the one upload has come that is noted.
fn noted(place: &Place) -> Option<u64> {
    let folder = place.home.path().join(".local/state/berth/import");
    let notes = std::fs::read_dir(folder).ok()?;
    let mut notes = notes.filter_map(Result::ok).map(|entry| entry.path());
    let note = notes.find(|path| path.extension().is_some_and(|ending| ending == "json"))?;
    let note: Value = serde_json::from_slice(&std::fs::read(note).ok()?).ok()?;
    Some(number(&note["offset"]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_blob_goes_on_where_a_killed_run_has_left_it() {
    for backend in Backend::BOTH {
        goes_on(Place::before(Berth::start(backend).await).await).await;
    }
}

async fn goes_on(place: Place) {
    let layer = blob(64 * MIB, 1);
    let digest = push_layer(&place.there("app"), "v1", &layer).await;
    let path = format!("/blobs/{digest}");
    place.way.once("GET", &path, Fault::Held(45 * MIB as u64));

    let mut victim = Victim::start(place.command(&[]));
    // Five pieces of 8 MiB are full.
    let noted_at = eventually("40 MiB at the destination", WAIT, async || {
        noted(&place).filter(|offset| *offset >= 40 * MIB as u64)
    })
    .await;
    victim.kill9();
    place.way.release();
    place.way.forget();

    let told = place.import(&[]).await.all_equal();
    let asked = place.way.questions("GET", &path);
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].header("range"), format!("bytes={noted_at}-"));
    assert_eq!(told.figure("bytesResumed"), noted_at, "{told:?}");
    let rest = layer.len() as u64 - noted_at;
    assert!(told.figure("bytes") < rest + MIB as u64, "{told:?}");
    assert_whole(&place, &digest, &layer).await;
    assert_eq!(noted(&place), None, "what is over is forgotten");
}

/// The destination has the blob, wherever it keeps it.
async fn assert_whole(place: &Place, digest: &str, bytes: &[u8]) {
    let here = place.here("app");
    let answer = here.get(&format!("blobs/{digest}")).await;
    let answer = match answer.status.as_u16() {
        307 => send(here.at(reqwest::Method::GET, answer.header("location"))).await,
        _ => answer,
    };
    assert!(answer.expect(200).body == bytes, "{digest} has other bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_the_destination_has_forgotten_begins_anew() {
    let place = Place::new().await;
    let layer = blob(32 * MIB, 2);
    let digest = push_layer(&place.there("app"), "v1", &layer).await;
    place
        .way
        .once("GET", &format!("/blobs/{digest}"), Fault::Held(20 * MIB as u64));
    let mut victim = Victim::start(place.command(&[]));
    eventually("16 MiB at the destination", WAIT, async || {
        noted(&place).filter(|offset| *offset >= 16 * MIB as u64)
    })
    .await;
    victim.kill9();
    place.way.release();
    let folder = place.home.path().join(".local/state/berth/import");
    let note = std::fs::read_dir(&folder)
        .expect("notes")
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "json"));
    let note = std::fs::read(note.expect("a note")).expect("a note");
    let note: Value = serde_json::from_slice(&note).expect("JSON");
    let location = note["location"].as_str().expect("a location");
    let cancel = place.here("app").at(reqwest::Method::DELETE, location);
    send(cancel).await.expect(204);

    let told = place.import(&[]).await.all_equal();
    assert_eq!(told.figure("bytesResumed"), 0, "{told:?}");
    place.here("app").assert_blob(&digest, &layer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_killed_again_and_again_ends_with_the_same() {
    let place = Place::new().await;
    let mut images = Vec::new();
    for number in 0..12 {
        let name = format!("team/app-{}", number % 4);
        images.push((
            name.clone(),
            place.pushed(&name, &format!("v{number}"), number).await,
        ));
    }
    let door = Faulty::before(&place.berth.address()).await;
    let source = place.way.url();
    let begin = || import(&place.berth, &place.home, &door.url(), &[&source]);
    // Each time a little later, by what the destination was asked.
    for requests in [1, 8, 20, 35, 50, 80] {
        door.forget();
        let mut victim = Victim::start(begin());
        let deadline = Instant::now() + WAIT;
        while door.asked().len() < requests && !victim.has_ended() {
            assert!(Instant::now() < deadline, "{requests} requests");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        victim.kill9();
    }
    run(begin()).await.all_equal();
    for (number, (name, image)) in images.iter().enumerate() {
        image
            .assert_pullable(&place.here(name), &format!("v{number}"))
            .await;
    }
    let again = run(begin()).await.all_equal();
    assert_eq!(again.figure("bytes"), 0, "{again:?}");
}
