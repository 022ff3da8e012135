//! Wall clocks that jump, and replicas whose clocks disagree.
//!
//! Leases and delays are times of the wall clock of whoever writes them, hours long where acknowledged content depends
//! on them. An hour's error must cost nothing that a client was told.

use std::sync::Arc;
use std::time::Duration;

use harness::content::{blob, sha256};
use harness::http::{Repository, attempt};
use harness::{Admin, Backend, Berth, Clock, Dice, Image, RoundRobin, Storage, eventually};
use reqwest::Method;

use super::history::History;
use super::readers::Readers;
use super::writers::Writers;

const HOUR: i64 = 3600;
const LIMIT: Duration = Duration::from_secs(60);

/// The seconds by which the registry's clock differs from this process's, as the end of its log says.
async fn off_by(berth: &Berth) -> i64 {
    harness::http::send(harness::http::client().get(berth.url("/v2/"))).await;
    let log = berth.log();
    let times = log.lines().rev().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(line["timestamp"].as_str()?.to_owned())
    });
    let read = std::process::Command::new("date")
        .args(["-u", "+%s", "-d", &times.expect("a line with its time")])
        .output()
        .expect("date runs");
    let theirs: i64 = String::from_utf8_lossy(&read.stdout)
        .trim()
        .parse()
        .expect("seconds");
    let ours = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a time after 1970");
    theirs - i64::try_from(ours.as_secs()).expect("a time")
}

async fn is_off_by(berth: &Berth, seconds: i64) {
    eventually("the registry's clock has jumped", LIMIT, async || {
        ((off_by(berth).await - seconds).abs() < 60).then_some(())
    })
    .await;
}

async fn pushes_go_on(history: &History) {
    let (_, before) = history.acknowledged();
    eventually("pushes go on", LIMIT, async || {
        (history.acknowledged().1 >= before + 8).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_jumps_by_an_hour_to_and_fro_costs_nothing_that_was_acknowledged() {
    let clock = Clock::right();
    let berth = clock.of(Berth::builder()).start().await;
    let admin = Admin::of(&berth);
    let repository = Repository::new(&berth.url(""), "app");
    let image = Image::new(1, 1000);
    image.push(&repository, "v1").await;
    Image::new(2, 1000).push(&repository, "deleted").await;
    repository.delete("manifests/deleted").await.expect(202);
    let (pushed, history, mut dice) = (
        repository.sibling("pushed"),
        Arc::new(History::default()),
        Dice::new(),
    );
    let readers = Readers::start(&repository, &image);
    let writers = Writers::start(&pushed, &history, &mut dice);

    for seconds in [HOUR, 0, -HOUR, 0] {
        // An upload that is open when the clock jumps, with a chunk under way.
        let content = blob(200_000, seconds.unsigned_abs());
        let location = repository.start_upload().await;
        let (first, rest) = content.split_at(70_000);
        repository
            .patch(&location, None, first.to_vec())
            .await
            .expect(202);
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
        let pieces = futures_util::stream::poll_fn(move |context| {
            receiver
                .poll_recv(context)
                .map(|piece| piece.map(Ok::<_, std::io::Error>))
        });
        let request = repository.at(Method::PATCH, &location);
        let chunk = tokio::spawn(attempt(request.body(reqwest::Body::wrap_stream(pieces))));
        sender
            .send(rest[..1000].to_vec())
            .await
            .expect("a chunk under way");

        clock.set_off_by(seconds);
        is_off_by(&berth, seconds).await;

        sender
            .send(rest[1000..].to_vec())
            .await
            .expect("a chunk under way");
        drop(sender);
        let taken = chunk.await.expect("no panic").expect("an answer");
        taken.expect(202);
        let digest = sha256(&content);
        repository.close(&location, &digest, "").await.expect(201);
        repository.assert_blob(&digest, &content).await;
        pushes_go_on(&history).await;
        // Whatever seems to be due.
        admin.ask(Method::POST, "gc/run", None).await.expect(200);
        repository.get_manifest("deleted").await.expect(404);
    }

    let cut = writers.stop().await;
    let (_, refused, broken) = readers.stop().await;
    assert_eq!((cut, refused, broken), (0, 0, 0));
    history.check(&pushed).await;
    history.check_all(&pushed).await;
}

#[tokio::test]
async fn a_replica_an_hour_ahead_or_behind_takes_nothing_from_what_others_acknowledged() {
    let storage = Arc::new(Storage::create(Backend::Distributed));
    let right = Berth::builder()
        .storage(storage.clone(), 0)
        .flag("--redirect", "Never")
        .start()
        .await;
    for (number, seconds) in [(1, HOUR), (2, -HOUR)] {
        let clock = Clock::right();
        clock.set_off_by(seconds);
        let keys = storage.data(0).join("keys");
        let wrong = clock
            .of(Berth::builder())
            .storage(storage.clone(), number)
            .flag("--keys", keys.to_str().expect("a plain path"))
            .flag("--redirect", "Never")
            .start()
            .await;
        is_off_by(&wrong, seconds).await;
        let proxy = RoundRobin::start(vec![right.address(), wrong.address()]).await;
        let repository = Repository::new(&format!("http://{}", proxy.address()), "app");
        let (history, mut dice) = (Arc::new(History::default()), Dice::new());
        let writers = Writers::start(&repository, &history, &mut dice);
        pushes_go_on(&history).await;
        let admin = Admin::of(&right);
        admin.ask(Method::POST, "gc/run", None).await.expect(200);
        let key = std::fs::read_to_string(wrong.data().join("keys/admin"))
            .or_else(|_| std::fs::read_to_string(right.data().join("keys/admin")))
            .expect("an admin key");
        let run = harness::http::client()
            .post(wrong.admin_url("/admin/v1/gc/run"))
            .bearer_auth(key.trim());
        harness::http::send(run).await.expect(200);
        pushes_go_on(&history).await;
        let cut = writers.stop().await;
        println!(
            "{seconds:+} s: {:?} acknowledged, {cut} pushes cut",
            history.acknowledged()
        );
        let by_right = Repository::new(&right.url(""), "app");
        history.check(&by_right).await;
        history.check_all(&by_right).await;
        drop(wrong);
    }
}
