//! Retention and collection while clients are at work and stores fail: what a rule keeps stays, what it lets go goes,
//! bytes included.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::http::{Repository, attempt, client};
use harness::{Admin, Backend, Berth, Dice, Fault, Faulty, OwnServer, eventually};
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use super::aftermath::{files, stores_fit};
use super::builds::{Client, Clients, EXPIRY, KEPT, LEASE, policy};

/// Until work gets through, and until all is settled: what has failed often is looked at two minutes later.
const LIMIT: Duration = Duration::from_secs(240);
/// How many clients there are.
const CLIENTS: u64 = 3;
const POLICY: &str = "tenants/default/retention-policies/ci/builds";
const RUN: &str = "tenants/default/retention/run?policy=ci%2Fbuilds";

/// A registry with stores of its own, that of objects behind a way on which faults happen.
struct Place {
    s3: OwnServer,
    wire: Faulty,
    database: OwnServer,
    berth: Berth,
    dice: Dice,
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The object store answers wrongly, late or not.
    Storm,
    /// Postgres ends and comes back.
    Restarts,
    Both,
}

impl Place {
    async fn start() -> Place {
        let (s3, database) = (OwnServer::s3(), OwnServer::postgres());
        let wire = Faulty::before(&s3.address()).await;
        let seconds = |time: Duration| format!("{}s", time.as_secs());
        let berth = Berth::builder()
            .backend(Backend::Distributed)
            .variable("BERTH_METADATA", &database.url())
            .variable("BERTH_BLOBS", &s3.url_through(&wire.address()))
            .flag("--redirect", "Never")
            .flag("--lease", &seconds(LEASE))
            .flag("--gc-delay", "1s")
            .flag("--restore-window", "1ms")
            .flag("--upload-expiry", &seconds(EXPIRY))
            .start()
            .await;
        Admin::of(&berth).put(POLICY, policy()).await;
        Place {
            s3,
            wire,
            database,
            berth,
            dice: Dice::new(),
        }
    }

    /// Everything that may happen to one of a few requests.
    fn storm(&mut self) {
        let (wire, dice) = (&self.wire, &mut self.dice);
        wire.one_in(15, dice, "*", "/", Fault::Refused(500, "InternalError"));
        wire.one_in(15, dice, "*", "/", Fault::Refused(503, "SlowDown"));
        wire.one_in(15, dice, "*", "/", Fault::Late(Duration::from_millis(300)));
        for method in ["PUT", "POST", "DELETE"] {
            wire.one_in(6, dice, method, "/", Fault::Lost);
        }
        wire.one_in(4, dice, "GET", "/blobs/", Fault::Cut(300));
        wire.one_in(4, dice, "GET", "list-type", Fault::Cut(300));
    }

    async fn collected(&self) -> u64 {
        let metrics = attempt(client().get(self.berth.ops_url("/metrics"))).await;
        let metrics = metrics.expect("metrics").expect(200).text();
        let mut lines = metrics.lines();
        let name = r#"berth_gc_collected_total{kind="object"} "#;
        let count = lines.find_map(|line| line.strip_prefix(name));
        count.map_or(0, |count| count.parse().expect("a number"))
    }

    /// Waits until so many more builds were pushed and objects collected.
    async fn goes_on(&self, clients: &Clients, pushes: u64, objects: u64) {
        let (pushed, collected) = (clients.pushed(), self.collected().await);
        eventually("pushes get through, and objects go", LIMIT, async || {
            assert!(!clients.is_broken(), "a client met what no fault excuses");
            let is_on = clients.pushed() >= pushed + pushes && self.collected().await >= collected + objects;
            is_on.then_some(())
        })
        .await;
    }

    /// The policy has run, and nothing waits for collection.
    async fn settled(&self, clients: &[Client]) {
        let admin = Admin::of(&self.berth);
        eventually("the policy has run", LIMIT, async || {
            let ran = admin.ask(Method::POST, RUN, None).await;
            let is_done = ran.status.as_u16() == 200 && ran.json()["lastRun"]["error"].is_null();
            for client in clients {
                // The tag that stays wherever it points comes besides.
                if client.listed().await.len() > KEPT + 1 {
                    return None;
                }
            }
            is_done.then_some(())
        })
        .await;
        eventually("nothing waits for collection", LIMIT, async || {
            let gc = admin.ask(Method::GET, "gc", None).await.expect(200).json();
            let kinds = ["manifests", "blobs", "objects"];
            kinds.iter().all(|kind| gc["queues"][kind] == 0).then_some(())
        })
        .await;
    }

    /// Each object has its row: also what a push left that was cut between the two is gone, with its session.
    async fn nothing_is_left_over(&self) {
        let folder = self.s3.data().join("bucket/registry/blobs");
        eventually("objects are those of blobs", LIMIT, async || {
            let blobs = &self.database.sql("SELECT count(*) FROM blob")[0][0];
            (files(&folder).len().to_string() == *blobs).then_some(())
        })
        .await;
    }
}

/// Asks for retention, and for checks of the stores, again and again, whatever comes of it.
fn keep_house(berth: &Berth, stop: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let (admin, stop) = (Admin::of(berth), stop.clone());
    tokio::spawn(async move {
        let mut runs = 0;
        while !stop.load(Ordering::Relaxed) {
            runs += u64::from(admin.ask(Method::POST, RUN, None).await.status.is_success());
            admin
                .ask(Method::POST, "fsck", Some(json!({ "rehash": true })))
                .await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        runs
    })
}

async fn housekeeping_holds(trouble: Trouble, rounds: u32, pushes: u64) -> Place {
    let mut place = Place::start().await;
    let repository = Repository::new(&place.berth.url(""), "any");
    let stop = Arc::new(AtomicBool::new(false));
    let clients = Clients::start(CLIENTS, &repository, &mut place.dice);
    let house = keep_house(&place.berth, &stop);
    if trouble != Trouble::Restarts {
        place.storm();
    }
    for round in 0..rounds {
        place.goes_on(&clients, pushes, pushes / 2).await;
        if trouble != Trouble::Restarts {
            // More than any number of repetitions gets through: collection has to come back later.
            place
                .wire
                .times(12, "DELETE", "/", Fault::Refused(503, "SlowDown"));
        }
        if trouble != Trouble::Storm {
            match round % 2 {
                0 => place.database.stop(),
                _ => place.database.kill(),
            }
            place.database.start();
        }
    }
    place.goes_on(&clients, pushes, pushes / 2).await;
    let pushed = clients.pushed();
    let clients = clients.stop().await;
    stop.store(true, Ordering::Relaxed);
    let runs = house.await.expect("the house is kept");
    let collected = place.collected().await;
    place.wire.heal();

    place.settled(&clients).await;
    println!("{pushed} builds pushed, {runs} runs of the policy, {collected} objects collected meanwhile");
    assert!(runs > 0, "the policy was never run");
    for client in &clients {
        client.check().await;
    }
    stores_fit(&place.berth, |statement| place.database.sql(statement)).await;
    place
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_and_collection_in_a_storm_of_the_object_store_take_what_goes_and_nothing_else() {
    housekeeping_holds(Trouble::Storm, 1, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_and_collection_take_what_goes_and_nothing_else_while_the_database_restarts() {
    housekeeping_holds(Trouble::Restarts, 2, 6).await;
}

mod long {
    use super::{Trouble, housekeeping_holds};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn retention_and_collection_hold_in_a_long_storm_with_restarts_of_the_database() {
        let place = housekeeping_holds(Trouble::Both, 12, 40).await;
        place.nothing_is_left_over().await;
    }
}
