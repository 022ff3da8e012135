//! PostgreSQL answers, but not as it should: it takes no writes, has no connection to give, is slow, or says nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::content::sha256;
use harness::http::{Answer, Repository, attempt};
use harness::image::MANIFEST;
use harness::{Backend, Berth, Builder, Dice, Image, OwnServer, Relay, eventually, within};
use reqwest::Method;

use super::aftermath::{pause_collection, stores_fit};
use super::history::History;
use super::readers::Readers;
use super::writers::Writers;

/// Within it the registry has noticed what changed, by itself.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);

fn builder(url: &str) -> Builder {
    Berth::builder()
        .backend(Backend::Distributed)
        .variable("BERTH_METADATA", url)
        .flag("--redirect", "Never")
}

fn unavailable(answer: Answer) {
    let refused = answer.expect(503);
    assert_eq!(refused.error_code(), "UNAVAILABLE", "{}", refused.text());
    assert_eq!(refused.header("retry-after"), "2");
}

/// Waits until manifests have been pushed that were not before.
async fn pushes_go_on(history: &History) {
    let (_, before) = history.acknowledged();
    eventually("pushes go on", NOTICED_WITHIN, async || {
        (history.acknowledged().1 >= before + 4).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_database_that_takes_no_writes_serves_every_pull_and_refuses_pushes_until_it_does() {
    let database = OwnServer::postgres();
    // Whatever is asked for by HEAD would be given a new lease.
    let berth = builder(&database.url()).flag("--lease", "1s").start().await;
    pause_collection(&berth).await;
    let repository = Repository::new(&berth.url(""), "app");
    let image = Image::new(1, 1000);
    image.push(&repository, "v1").await;
    let history = Arc::new(History::default());
    let (pushed, mut dice) = (repository.sibling("pushed"), Dice::new());
    let readers = Readers::start(&repository, &image);
    let writers = Writers::start(&pushed, &history, &mut dice);
    pushes_go_on(&history).await;

    database.set("default_transaction_read_only", "on");

    eventually("pushes are refused", NOTICED_WITHIN, async || {
        let put = repository.put_manifest("v2", MANIFEST, &image.manifest).await;
        (put.status.as_u16() != 201).then(|| unavailable(put))
    })
    .await;
    unavailable(repository.delete("manifests/v1").await);
    let post = repository.request(Method::POST, "blobs/uploads/");
    unavailable(attempt(post).await.expect("an answer"));
    let (_, refused_before, _) = readers.met();
    for _ in 0..20 {
        let head = repository.head("manifests/v1").await.expect(200);
        assert_eq!(head.header("docker-content-digest"), image.digest());
        let config = format!("blobs/{}", sha256(&image.config));
        repository.head(&config).await.expect(200);
        image.assert_pullable(&repository, "v1").await;
    }
    let (_, refused, _) = readers.met();
    assert_eq!(refused, refused_before, "pulls need no writes");
    writers.stop().await;
    history.check(&pushed).await;

    database.set("default_transaction_read_only", "off");

    let writers = Writers::start(&pushed, &history, &mut dice);
    pushes_go_on(&history).await;
    writers.stop().await;
    readers.stop().await;
    history.check_all(&pushed).await;
    repository
        .put_manifest("v2", MANIFEST, &image.manifest)
        .await
        .expect(201);
    stores_fit(&berth, |statement| database.sql(statement)).await;
}

#[tokio::test]
async fn a_database_without_a_free_connection_costs_refusals_until_it_has_some() {
    let database = OwnServer::postgres();
    database.sql("CREATE ROLE app LOGIN");
    database.sql("GRANT ALL ON SCHEMA public TO app");
    let url = database.url().replace("berth@", "app@");
    let berth = builder(&url).flag("--postgres-connections", "6").start().await;
    let repository = Repository::new(&berth.url(""), "app");
    let image = Image::new(1, 1000);
    image.push(&repository, "v1").await;
    let history = Arc::new(History::default());
    let (pushed, mut dice) = (repository.sibling("pushed"), Dice::new());
    let readers = Readers::start(&repository, &image);
    let writers = Writers::start(&pushed, &history, &mut dice);
    pushes_go_on(&history).await;

    // Few, then none: the database answers as it does when other clients have taken all that it has (53300).
    let sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
    for limit in [1, 0] {
        database.sql(&format!("ALTER ROLE app CONNECTION LIMIT {limit}"));
        database.sql(sessions);
        readers.are_refused(NOTICED_WITHIN).await;
    }
    unavailable(
        within(
            "an answer",
            NOTICED_WITHIN,
            repository.put_manifest("v2", MANIFEST, &image.manifest),
        )
        .await,
    );
    database.sql("ALTER ROLE app CONNECTION LIMIT -1");

    pushes_go_on(&history).await;
    readers.are_served().await;
    writers.stop().await;
    let (served, refused, cut) = readers.stop().await;
    println!("{served} reads served, {refused} refused");
    assert_eq!(cut, 0);
    history.check(&pushed).await;
    history.check_all(&pushed).await;
    stores_fit(&berth, |statement| database.sql(statement)).await;
}

async fn slow_and_nothing_fails() {
    let database = OwnServer::postgres();
    let relay = Relay::before(&database.address()).await;
    let berth = builder(&database.url_through(&relay.address())).start().await;
    let repository = Repository::new(&berth.url(""), "app");
    let image = Image::new(1, 1000);
    image.push(&repository, "v1").await;

    relay.delay(Duration::from_millis(60));

    let history = Arc::new(History::default());
    let (pushed, mut dice) = (repository.sibling("pushed"), Dice::new());
    let readers = Readers::start(&repository, &image);
    let writers = Writers::start(&pushed, &history, &mut dice);
    pushes_go_on(&history).await;
    readers.are_served().await;
    let cut = writers.stop().await;
    let (_, refused, _) = readers.stop().await;
    assert_eq!((cut, refused), (0, 0), "slow is not away");
    history.check_all(&pushed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_falls_silent_is_given_up_and_found_again_where_it_answers() {
    let database = OwnServer::postgres();
    let relay = Relay::before(&database.address()).await;
    let berth = builder(&database.url_through(&relay.address())).start().await;
    let repository = Repository::new(&berth.url(""), "app");
    let image = Image::new(1, 1000);
    image.push(&repository, "v1").await;
    // The pool grows to its full size: each of its connections is one that will be silent.
    let lists = (0..60).map(|_| repository.get("tags/list"));
    for list in futures_util::future::join_all(lists).await {
        list.expect(200);
    }
    let readers = Readers::start(&repository, &image);
    readers.are_served().await;

    let silent = Instant::now();
    relay.silence();
    readers.are_refused(NOTICED_WITHIN).await;
    let refused = silent.elapsed();
    readers.are_served().await;
    println!(
        "refused after {:.1} s, served after {:.1} s",
        refused.as_secs_f64(),
        silent.elapsed().as_secs_f64()
    );
    // Every place in the pool is of use again, or clients would wait for one.
    let pulls = (0..40).map(|_| image.assert_pullable(&repository, "v1"));
    within(
        "pulls at once",
        NOTICED_WITHIN,
        futures_util::future::join_all(pulls),
    )
    .await;
    readers.stop().await;
    Image::new(2, 1000).push(&repository, "v2").await;
}

mod long {
    #[tokio::test]
    async fn a_slow_database_makes_the_registry_slow_and_nothing_fails() {
        super::slow_and_nothing_fails().await;
    }
}
