//! PostgreSQL's primary is lost, and its standby takes over.
//!
//! Clients reach the database by one address, as with a Service or a proxy that follows the primary. Commits are
//! acknowledged once the standby has them, so whatever a client was told must be there afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::content::sha256;
use harness::http::Repository;
use harness::image::MANIFEST;
use harness::{Cluster, Dice, Image, OwnServer, Relay, eventually};

use super::aftermath::stores_fit;
use super::history::History;
use super::readers::Readers;
use super::writers::Writers;

/// Within it replicas push and pull again by themselves after a machine has fallen silent: the longest waits are
/// those of transactions that were under way.
const SERVED_WITHIN: Duration = Duration::from_secs(90);

/// A primary with its standby, the way to them, and two replicas at its end.
struct Place {
    primary: OwnServer,
    standby: OwnServer,
    relay: Relay,
    cluster: Cluster,
    repository: Repository,
}

impl Place {
    async fn start() -> Place {
        let primary = OwnServer::postgres();
        let standby = primary.standby();
        let relay = Relay::before(&primary.address()).await;
        let builder = harness::Berth::builder()
            .variable("BERTH_METADATA", &primary.url_through(&relay.address()))
            .flag("--redirect", "Never");
        let cluster = Cluster::start_with(2, builder).await;
        let repository = Repository::new(&format!("http://{}", cluster.address()), "app");
        Place {
            primary,
            standby,
            relay,
            cluster,
            repository,
        }
    }
}

/// How the primary goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// Its process: the kernel ends its connections.
    Killed,
    /// Its machine: nobody ends them.
    Silent,
}

async fn taken_over(loss: Loss) {
    let mut place = Place::start().await;
    let image = Image::new(1, 1000);
    image.push(&place.repository, "v1").await;
    let pushed = place.repository.sibling("pushed");
    let history = Arc::new(History::default());
    let mut dice = Dice::new();
    let readers = Readers::start(&place.repository, &image);
    let writers = Writers::start(&pushed, &history, &mut dice);
    pushes_go_on(&history).await;
    readers.are_served().await;

    let lost = Instant::now();
    if loss == Loss::Silent {
        place.relay.silence();
    }
    place.primary.kill9();
    place.standby.promote();
    place.relay.route_to(&place.standby.address());
    let promoted = lost.elapsed();
    let (pulled, pushed_again) = tokio::join!(
        async {
            readers.are_served().await;
            lost.elapsed()
        },
        async {
            pushes_go_on(&history).await;
            lost.elapsed()
        }
    );

    writers.stop().await;
    let (served, refused, _) = readers.stop().await;
    let (blobs, manifests) = history.acknowledged();
    println!(
        "{loss:?}: promoted after {:.1} s, pulls served after {:.1} s, pushes after {:.1} s; {served} reads served, \
         {refused} refused; {blobs} blobs and {manifests} manifests acknowledged",
        promoted.as_secs_f64(),
        pulled.as_secs_f64(),
        pushed_again.as_secs_f64(),
    );
    history.check(&pushed).await;
    history.check_all(&pushed).await;
    image.assert_pullable(&place.repository, "v1").await;
    let standby = &place.standby;
    stores_fit(place.cluster.replica(0), |statement| standby.sql(statement)).await;
}

async fn pushes_go_on(history: &History) {
    let (_, before) = history.acknowledged();
    eventually("pushes go on", SERVED_WITHIN, async || {
        (history.acknowledged().1 >= before + 8).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_from_a_killed_primary_with_everything_that_was_acknowledged() {
    taken_over(Loss::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_was_led_to_a_standby_pulls_there_and_pushes_once_it_is_led_back() {
    let place = Place::start().await;
    let image = Image::new(1, 1000);
    image.push(&place.repository, "v1").await;

    place.relay.route_to(&place.standby.address());
    place.relay.cut();

    eventually("pulls are served by the standby", SERVED_WITHIN, async || {
        let answer = place.repository.get_manifest("v1").await;
        (answer.status.as_u16() == 200).then_some(())
    })
    .await;
    eventually("pushes are refused by the standby", SERVED_WITHIN, async || {
        let put = place
            .repository
            .put_manifest("v2", MANIFEST, &image.manifest)
            .await;
        let refused = put.expect(503);
        assert_eq!(refused.header("retry-after"), "2");
        refused.text().contains("takes no writes").then_some(())
    })
    .await;

    // Connections that are open lead to the standby, which from now on stands still: what is pulled must come from where
    // pushes go.
    place.standby.sql("SELECT pg_wal_replay_pause()");
    place.relay.route_to(&place.primary.address());

    eventually("pushes are taken", SERVED_WITHIN, async || {
        let put = place
            .repository
            .put_manifest("v2", MANIFEST, &image.manifest)
            .await;
        (put.status.as_u16() == 201).then_some(())
    })
    .await;
    let at_the_standby = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'berth-registry'";
    eventually("nobody asks the standby any more", SERVED_WITHIN, async || {
        // The replicas take turns.
        for _ in 0..4 {
            place.repository.get_manifest("v1").await.expect(200);
        }
        (place.standby.sql(at_the_standby) == [["0"]]).then_some(())
    })
    .await;
    let mut paths = vec!["manifests/v2".to_owned()];
    paths.extend(image.blobs().map(|blob| format!("blobs/{}", sha256(blob))));
    // A connection that was cut may have been used within the last second, and is then used once more.
    eventually("everything is pulled", SERVED_WITHIN, async || {
        for path in &paths {
            if place.repository.get(path).await.status.as_u16() != 200 {
                return None;
            }
        }
        Some(())
    })
    .await;
}

mod long {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_standby_takes_over_from_a_machine_that_fell_silent() {
        super::taken_over(super::Loss::Silent).await;
    }
}
