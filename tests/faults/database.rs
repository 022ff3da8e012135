//! PostgreSQL is restarted, or crashes, while clients push and pull.

use std::sync::Arc;
use std::time::Duration;

use harness::http::Repository;
use harness::{Backend, Berth, Dice, Image, OwnServer};

use super::history::History;
use super::readers::Readers;
use super::writers::Writers;

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
                readers.are_refused(REFUSED_WITHIN).await;
            }
        }
        database.start();
        readers.are_served().await;
        writers.stop().await;
        history.check(&pushed).await;
    }

    let (served, refused, cut) = readers.stop().await;
    assert_eq!(cut, 0, "answers broke off");
    let (blobs, manifests) = history.acknowledged();
    println!(
        "{served} reads served, {refused} refused; {blobs} blobs and {manifests} manifests acknowledged"
    );
    assert!(manifests > 0);
    image.assert_pullable(&repository, "v1").await;
    history.check_all(&pushed).await;
}
