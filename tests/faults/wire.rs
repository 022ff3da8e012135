//! What an object store says goes wrong on the wire: errors, answers that are lost after their effect, bytes that end
//! too early, tags that are not those of the parts.

use std::sync::Arc;
use std::time::Duration;

use harness::content::{blob, sha256};
use harness::http::{Repository, attempt, with_query};
use harness::{Backend, Berth, Dice, Fault, Faulty, Image, OwnServer, eventually};
use reqwest::Method;

use super::aftermath::{files, stores_fit};
use super::history::History;
use super::readers::Readers;
use super::writers::{Manner, Writers};

const MIB: usize = 1 << 20;
/// The smallest part that S3 takes.
const PART: usize = 5 * MIB;
/// The way back to normal, and the slowest push under faults.
const LIMIT: Duration = Duration::from_secs(120);

/// A registry with an object store behind a way on which faults happen.
struct Place {
    s3: OwnServer,
    wire: Faulty,
    berth: Berth,
    repository: Repository,
}

impl Place {
    async fn start() -> Place {
        let s3 = OwnServer::s3();
        let wire = Faulty::before(&s3.address()).await;
        let url = format!("{}&part-size={PART}", s3.url_through(&wire.address()));
        let berth = Berth::builder()
            .backend(Backend::Distributed)
            .variable("BERTH_BLOBS", &url)
            .flag("--redirect", "Never")
            .start()
            .await;
        let repository = Repository::new(&berth.url(""), "app");
        Place {
            s3,
            wire,
            berth,
            repository,
        }
    }

    async fn stores_fit(&self) {
        let database = self.berth.storage().database().expect("a database");
        stores_fit(&self.berth, |statement| database.query(statement)).await;
    }
}

/// Everything that may happen to one of a few requests.
fn storm(wire: &Faulty, dice: &mut Dice) {
    wire.one_in(20, dice, "*", "/", Fault::Refused(500, "InternalError"));
    wire.one_in(20, dice, "*", "/", Fault::Refused(503, "SlowDown"));
    wire.one_in(20, dice, "*", "/", Fault::Late(Duration::from_millis(300)));
    for method in ["PUT", "POST", "DELETE"] {
        wire.one_in(8, dice, method, "/", Fault::Lost);
    }
    wire.one_in(3, dice, "GET", "/blobs/", Fault::Cut(700));
    wire.one_in(3, dice, "GET", "/uploads/", Fault::Cut(20_000));
    wire.one_in(5, dice, "GET", "/", Fault::With("etag", "\"wrong\""));
}

async fn weathered(pushes: usize) -> Place {
    let place = Place::start().await;
    let image = Image::new(1, 3_000);
    image.push(&place.repository, "v1").await;
    let pushed = place.repository.sibling("pushed");
    let history = Arc::new(History::default());
    let mut dice = Dice::new();
    storm(&place.wire, &mut dice);
    let manner = Manner {
        largest: 3 * PART,
        ..Manner::default()
    };
    let readers = Readers::start(&place.repository, &image);
    let writers = Writers::like(manner, &pushed, &history, &mut dice);
    let acknowledged = async |count: usize| {
        let (_, before) = history.acknowledged();
        eventually("pushes get through", LIMIT, async || {
            (history.acknowledged().1 >= before + count).then_some(())
        })
        .await;
    };
    acknowledged(pushes / 2).await;
    // All of it at once for a while: more than any number of repetitions gets through.
    place.wire.times(40, "PUT", "/", Fault::Refused(503, "SlowDown"));
    acknowledged(pushes / 2).await;
    let cut = writers.stop().await;
    let (served, refused, broken) = readers.stop().await;
    let happened = place.wire.asked().len();
    place.wire.heal();

    let (blobs, manifests) = history.acknowledged();
    println!(
        "{happened} requests of the object store; {blobs} blobs and {manifests} manifests acknowledged, {cut} pushes \
         cut; {served} reads served, {refused} refused, {broken} broken off"
    );
    history.check(&pushed).await;
    history.check_all(&pushed).await;
    image.assert_pullable(&place.repository, "v1").await;
    place.stores_fit().await;
    place
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_acknowledged_is_lost_in_a_storm_of_faults_of_the_object_store() {
    weathered(8).await;
}

#[tokio::test]
async fn a_blob_whose_last_request_took_effect_unanswered_is_pushed_and_there_once() {
    let place = Place::start().await;
    for (number, size) in [1000, 2 * PART + 1000].into_iter().enumerate() {
        let content = blob(size, number as u64);
        let digest = sha256(&content);
        let location = place.repository.start_upload().await;
        place
            .repository
            .patch(&location, None, content.clone())
            .await
            .expect(202);
        // PutObject for the small one, CompleteMultipartUpload for the large one, and whatever repeats them.
        place.wire.times(3, "PUT", "/blobs/", Fault::Lost);
        place.wire.times(3, "POST", "uploadId=", Fault::Lost);

        place.repository.close(&location, &digest, "").await.expect(201);

        place.wire.heal();
        place.repository.assert_blob(&digest, &content).await;
    }
    place.stores_fit().await;
}

#[tokio::test]
async fn a_deletion_that_took_effect_unanswered_is_done() {
    let place = Place::start().await;
    // A chunk that is kept as an object of its own until the next one is there.
    let content = blob(200_000, 1);
    let location = place.repository.start_upload().await;
    let (first, rest) = content.split_at(100_000);
    place
        .repository
        .patch(&location, None, first.to_vec())
        .await
        .expect(202);
    place.wire.times(2, "DELETE", "/uploads/", Fault::Lost);

    let digest = sha256(&content);
    place
        .repository
        .close(&location, &digest, rest.to_vec())
        .await
        .expect(201);

    eventually("the chunk's object is asked away", LIMIT, async || {
        (place.wire.count("DELETE", "/uploads/") >= 3).then_some(())
    })
    .await;
    place.repository.assert_blob(&digest, &content).await;
    place.stores_fit().await;
}

#[tokio::test]
async fn an_upload_that_is_cancelled_while_its_object_is_made_leaves_no_object() {
    let place = Place::start().await;
    let content = blob(100_000, 1);
    let location = place.repository.start_upload().await;
    place
        .wire
        .always("PUT", "/blobs/", Fault::Late(Duration::from_secs(1)));
    let closing = tokio::spawn({
        let (repository, location, content) = (place.repository.clone(), location.clone(), content.clone());
        async move { repository.close(&location, &sha256(&content), content).await }
    });
    eventually("the object is being made", LIMIT, async || {
        (place.wire.count("PUT", "/blobs/") > 0).then_some(())
    })
    .await;

    let cancelled = attempt(place.repository.at(Method::DELETE, &location)).await;

    cancelled.expect("an answer").expect(204);
    let closed = closing.await.expect("an answer").expect(404);
    assert_eq!(closed.error_code(), "BLOB_UPLOAD_UNKNOWN", "{}", closed.text());
    let bucket = place.s3.data().join("bucket/registry");
    assert_eq!(files(&bucket.join("blobs")), Vec::<std::path::PathBuf>::new());
    assert_eq!(place.repository.push_blob(&content).await, sha256(&content));
    place.stores_fit().await;
}

#[tokio::test]
async fn a_blob_whose_bytes_end_too_early_is_read_on_where_they_ended() {
    let place = Place::start().await;
    let content = blob(6 * MIB, 1);
    let digest = place.repository.push_blob(&content).await;
    for at in [0, 1, 700_000, 6 * MIB as u64 - 1] {
        place.wire.once("GET", "/blobs/", Fault::Cut(at));
        place.repository.assert_blob(&digest, &content).await;
    }

    // An answer that never gets on ends in a break, which no client takes for the whole.
    place.wire.always("GET", "/blobs/", Fault::Cut(0));
    let path = format!("blobs/{digest}");
    let broken = attempt(place.repository.request(Method::GET, &path)).await;
    assert!(
        broken.is_none_or(|answer| answer.status.as_u16() == 503),
        "bytes that nobody sent"
    );
}

#[tokio::test]
async fn a_part_under_a_wrong_tag_costs_the_upload_and_never_becomes_a_blob() {
    let place = Place::start().await;
    let content = blob(2 * PART + 1000, 1);
    let digest = sha256(&content);
    let location = place.repository.start_upload().await;
    place.wire.once(
        "PUT",
        "partNumber=2",
        Fault::With("etag", "\"00000000000000000000000000000000\""),
    );
    place
        .repository
        .patch(&location, None, content.clone())
        .await
        .expect(202);

    let url = with_query(&location, &format!("digest={digest}"));
    let closed = attempt(place.repository.at(Method::PUT, &url)).await;

    let refused = closed.expect("an answer").expect(404);
    assert_eq!(refused.error_code(), "BLOB_UPLOAD_UNKNOWN", "{}", refused.text());
    place
        .repository
        .head(&format!("blobs/{digest}"))
        .await
        .expect(404);
    // The client does as it is told, and starts again.
    assert_eq!(place.repository.push_blob(&content).await, digest);
    place.repository.assert_blob(&digest, &content).await;
    place.stores_fit().await;
}

#[tokio::test]
async fn a_write_that_meets_another_one_is_tried_again() {
    let place = Place::start().await;
    for code in ["OperationAborted", "ExistingObjectIsDirectory"] {
        for part in ["/uploads/", "/blobs/"] {
            let content = blob(100_000, code.len() as u64 + part.len() as u64);
            place.wire.times(2, "PUT", part, Fault::Refused(409, code));
            let location = place.repository.start_upload().await;
            place
                .repository
                .patch(&location, None, content.clone())
                .await
                .expect(202);
            let digest = sha256(&content);
            place.repository.close(&location, &digest, "").await.expect(201);
            place.repository.assert_blob(&digest, &content).await;
        }
    }
}

mod long {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_that_was_acknowledged_is_lost_in_a_long_storm_of_faults_of_the_object_store() {
        let mut place = super::weathered(120).await;

        // Of uploads that nobody closed, parts and segments go with their sessions, also those whose beginning was
        // lost on its way to the registry.
        let left = || {
            let bucket = place.s3.data().join("bucket");
            let mut left = super::files(&bucket.join("registry/uploads"));
            left.extend(super::files(&bucket.join(".sgwtmp/multipart")));
            left
        };
        println!("{} files of uploads are left", left().len());
        let storage = place.berth.storage().clone();
        place.berth.kill9();
        let _sweeping = super::Berth::builder()
            .storage(storage, 0)
            .variable("BERTH_BLOBS", &place.s3.url())
            .flag("--upload-expiry", "1s")
            .start()
            .await;
        super::eventually("nothing is left of uploads", 2 * super::LIMIT, async || {
            left().is_empty().then_some(())
        })
        .await;
    }
}
