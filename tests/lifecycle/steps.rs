//! Collection that is killed at each of its steps: before each thing that it asks of the metadata store, in turn.

use std::sync::Arc;

use harness::http::{Repository, attempt, client};
use harness::{Admin, Backend, Berth, Dice, Fuse, Storage, eventually};
use reqwest::Method;
use serde_json::json;

use super::collection::check;
use super::place::*;

/// Of how many steps one is taken in a normal run, beginning with a random one.
const STRIDE: u64 = 9;

struct Place {
    berth: Berth,
    fuse: Fuse,
    repository: Repository,
}

impl Place {
    async fn start() -> Place {
        let storage = Arc::new(Storage::create(Backend::Distributed));
        let url = storage.database().expect("a database").url();
        let rest = url.split_once('@').map_or(url.as_str(), |(_, rest)| rest);
        let server = rest
            .trim_start_matches("postgres://")
            .split('/')
            .next()
            .unwrap_or_default();
        let fuse = Fuse::before(server).await;
        let through = url.replace(server, &fuse.address().to_string());
        let builder = Berth::builder()
            .storage(storage, 0)
            .flag("--metadata", &through)
            .flag("--redirect", "Never")
            .flag("--lease", "1s")
            .flag("--gc-delay", "1ms")
            .flag("--restore-window", "1ms");
        let berth = builder.start().await;
        let repository = Repository::new(&berth.url(""), "team/app");
        // Only what is asked for collects, so that the steps are its own.
        let pause = Some(json!({ "paused": true }));
        Admin::of(&berth)
            .ask(Method::PUT, "gc/paused", pause)
            .await
            .expect(200);
        Place {
            berth,
            fuse,
            repository,
        }
    }

    /// Pushes an image and deletes it, and waits until all of it is due.
    async fn let_go(&self, number: u64) -> Pushed {
        let image = push(&self.repository, number, &format!("v{number}")).await;
        let path = format!("manifests/{}", image.digest());
        self.repository.delete(&path).await.expect(202);
        let leases = "SELECT count(*) FROM (SELECT leased_until FROM blob UNION ALL SELECT leased_until FROM manifest) \
             AS lease WHERE leased_until > extract(epoch FROM clock_timestamp()) * 1000000";
        let database = self.berth.storage().database().expect("a database");
        eventually("all leases have ended", WAIT, async || {
            (database.query(leases) == [["0"]]).then_some(())
        })
        .await;
        image
    }

    /// Collects, and kills at a step; whether collection got so far.
    async fn collect_until(&mut self, step: u64) -> bool {
        let key = std::fs::read_to_string(self.berth.data().join("keys/admin")).expect("the admin key");
        let request = client()
            .post(self.berth.admin_url("/admin/v1/gc/run"))
            .bearer_auth(key.trim());
        self.fuse.arm(self.berth.pid(), step);
        let answer = attempt(request).await;
        if let Some(answer) = answer
            && !self.fuse.disarm()
        {
            answer.expect(200);
            return false;
        }
        assert!(self.fuse.disarm(), "the registry answers unless it is killed");
        self.berth.restart().await;
        true
    }
}

async fn kill_at(first: u64, stride: u64) {
    let mut place = Place::start().await;
    let kept = vec![push(&place.repository, 0, "kept").await];
    let (mut gone, mut killed) = (Vec::new(), 0);
    for number in 1.. {
        gone.push(place.let_go(number).await);
        if !place.collect_until(first + killed * stride).await {
            break;
        }
        killed += 1;
        assert_there(&place.repository, &kept[0]).await;
    }
    // A look asks for several things: fewer, and nothing was shown.
    assert!(first + killed * stride > 20, "killed {killed} times");
    let admin = Admin::of(&place.berth);
    eventually("what was cut is taken up again", WAIT, async || {
        let ran = admin.ask(Method::POST, "gc/run", None).await.json();
        (ran["done"] == true && all_gone(&admin).await).then_some(())
    })
    .await;
    check(&admin, &place.repository, &kept, &gone).await;
}

async fn all_gone(admin: &Admin) -> bool {
    let gc = admin.ask(Method::GET, "gc", None).await.expect(200).json();
    ["manifests", "blobs", "objects"]
        .iter()
        .all(|kind| gc["queues"][kind] == 0)
}

#[tokio::test]
async fn collection_killed_at_a_step_of_its_work_loses_and_leaks_nothing() {
    kill_at(Dice::new().below(STRIDE), STRIDE).await;
}

mod long {
    #[tokio::test]
    async fn collection_killed_at_every_step_of_its_work_loses_and_leaks_nothing() {
        super::kill_at(0, 1).await;
    }
}
