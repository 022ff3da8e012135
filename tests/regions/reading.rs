//! A registry that only reads, on a PostgreSQL standby, beside the one that takes pushes on its primary.

use std::time::{Duration, Instant};

use harness::http::{Answer, Repository, client, send};
use harness::{
    Admin, Backend, Berth, Builder, Client, Faulty, Image, Layout, OwnServer, Upstream, eventually, query,
};
use reqwest::Method;
use serde_json::json;

use super::WAIT;

const DOMAIN: &str = "registry.test";
/// Where pushes go, as readers tell. Nothing listens there.
const PRIMARY: &str = "https://127.0.0.1:9";

/// Both registries with both databases.
struct Pair {
    primary: Berth,
    reader: Berth,
    standby: OwnServer,
    _database: OwnServer,
}

impl Pair {
    async fn start(settings: impl Fn(Builder) -> Builder) -> Pair {
        let database = OwnServer::postgres();
        let builder = Berth::builder()
            .backend(Backend::Distributed)
            .variable("BERTH_METADATA", &database.url());
        let primary = settings(builder).start().await;
        let standby = database.follower();
        let reader = settings(reading(&primary, &standby)).start().await;
        Pair {
            primary,
            reader,
            standby,
            _database: database,
        }
    }

    /// Fails if anything was tried on the standby that it does not do.
    fn nothing_was_written(&self) {
        let log = self.standby.log();
        for refused in ["read-only transaction", "during recovery", "ERROR"] {
            assert!(!log.contains(refused), "{log}");
        }
        // Nor did anything get as far as the store that refuses it.
        for line in self.reader.log().lines() {
            assert!(
                !line.contains("only reads\"") && !line.contains("could not be"),
                "{line}"
            );
        }
    }
}

/// A reader on the stores of a primary, with another database and with the same keys.
pub(super) fn reading(primary: &Berth, database: &OwnServer) -> Builder {
    reading_of(primary, database, PRIMARY)
}

/// The same, with the primary at a URL.
fn reading_of(primary: &Berth, database: &OwnServer, url: &str) -> Builder {
    let keys = primary.data().join("keys");
    Berth::builder()
        .storage(primary.storage().clone(), 1)
        .variable("BERTH_METADATA", &database.url())
        .flag("--keys", keys.to_str().expect("a plain name"))
        .flag("--read-only", "true")
        .flag("--primary", url)
        .flag("--max-lag", "1s")
}

/// The place of everything that was pushed so far.
async fn version(primary: &Repository) -> String {
    let asked = primary
        .request(Method::HEAD, "manifests/v1")
        .header("Berth-Tell-Version", "1");
    let answer = send(asked).await.expect(200);
    answer.header("berth-version").to_owned()
}

async fn waiting(reader: &Repository, path: &str, version: &str) -> Answer {
    send(
        reader
            .request(Method::GET, path)
            .header("Berth-Wait-For", version),
    )
    .await
}

#[tokio::test]
async fn what_is_pushed_at_the_primary_is_pulled_at_the_reader_by_whoever_waits_for_it() {
    let mut pair = Pair::start(|builder| builder).await;
    let repository = Repository::new(&pair.primary.url(""), "app");
    let reader = Repository::new(&pair.reader.url(""), "app");
    let crane = Client::new("crane");
    let image = Image::new(1, 1000);
    let layout = Layout::of_image(&crane.path("image"), &image, "v1");

    // 1. Pushed there, pulled here.
    let there = format!("{}/app:v1", pair.primary.address());
    crane.run(&["push", layout.path(), &there]).await;
    let pushed = version(&repository).await;
    let answer = waiting(&reader, "manifests/v1", &pushed).await.expect(200);
    assert_eq!(answer.header("docker-content-digest"), image.digest());
    let here = format!("{}/app:v1", pair.reader.address());
    crane
        .run(&["pull", "--format=oci", &here, &crane.path_text("pulled")])
        .await;
    Layout::at(&crane.path("pulled")).assert_holds(&image);
    image.assert_pullable(&reader, "v1").await;
    for path in ["tags/list", &format!("referrers/{}", image.digest())] {
        let answer = reader.get(path).await.expect(200);
        assert_eq!(answer.header("berth-lag-seconds"), "0.0", "{path}");
    }
    let missing = reader.get("manifests/v9").await.expect(404);
    assert_eq!(missing.header("berth-lag-seconds"), "0.0");
    let garbled = waiting(&reader, "manifests/v1", "yesterday").await.expect(400);
    assert_eq!(garbled.error_code(), "UNSUPPORTED");

    // 2. What writes is refused, and told where it belongs.
    let blob = harness::content::sha256(&image.config);
    for (method, path) in [
        (Method::POST, "blobs/uploads/".to_owned()),
        (Method::POST, format!("blobs/uploads/?mount={blob}")),
        (Method::PATCH, format!("blobs/uploads/{}", "0".repeat(8))),
        (Method::PUT, "manifests/v1".to_owned()),
        (Method::DELETE, "manifests/v1".to_owned()),
        (Method::DELETE, format!("blobs/{blob}")),
    ] {
        let answer = send(reader.request(method.clone(), &path).body("{}"))
            .await
            .expect(405);
        assert_eq!(answer.error_code(), "UNSUPPORTED", "{method} {path}");
        assert_eq!(answer.header("allow"), "GET, HEAD");
        assert!(answer.text().contains(PRIMARY), "{}", answer.text());
    }
    let admin = Admin::of(&pair.reader);
    let put = admin
        .ask(Method::PUT, "tenants/acme", Some(json!({ "spec": {} })))
        .await
        .expect(405);
    assert_eq!(put.json()["reason"], "ReadOnly");
    admin.ask(Method::GET, "state", None).await.expect(200);

    // 3. A standby that stands still is told from one that has nothing to do.
    query(&pair.standby.url(), "SELECT pg_wal_replay_pause()");
    let second = Image::new(2, 1000);
    second.push(&repository, "v2").await;
    let pushed = version(&repository).await;
    let begun = Instant::now();
    let late = waiting(&reader, "manifests/v2", &pushed).await.expect(503);
    let waited = begun.elapsed();
    assert!(
        waited >= Duration::from_secs(5) && waited < Duration::from_secs(10),
        "{waited:?}"
    );
    assert_eq!(late.error_code(), "UNAVAILABLE");
    assert!(!late.header("retry-after").is_empty());
    let lag = |answer: &Answer| {
        answer
            .header("berth-lag-seconds")
            .parse::<f64>()
            .expect("seconds")
    };
    assert!(lag(&late) >= 1.0, "{}", lag(&late));
    reader.get("manifests/v2").await.expect(404);
    let ready = pair.reader.ops_url("/readyz");
    eventually("a warning", WAIT, async || {
        let answer = send(client().get(&ready)).await.expect(200).json();
        answer["warnings"][0]
            .as_str()
            .filter(|text| text.contains("--max-lag"))
            .map(drop)
    })
    .await;
    let metrics = send(client().get(pair.reader.ops_url("/metrics"))).await.text();
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("berth_standby_lag_seconds "));
    assert!(
        line.is_some_and(|lag| lag.parse::<f64>().is_ok_and(|lag| lag > 1.0)),
        "{line:?}"
    );

    // 4. And goes on.
    query(&pair.standby.url(), "SELECT pg_wal_replay_resume()");
    waiting(&reader, "manifests/v2", &pushed).await.expect(200);
    second.assert_pullable(&reader, "v2").await;
    eventually("no warning", WAIT, async || {
        let answer = send(client().get(&ready)).await.expect(200).json();
        answer["warnings"].is_null().then_some(())
    })
    .await;
    pair.nothing_was_written();
    let status = pair.reader.terminate(WAIT).await;
    assert!(status.success());
    pair.nothing_was_written();
}

#[tokio::test]
async fn pulls_at_the_reader_count_at_the_primary() {
    let database = OwnServer::postgres();
    let builder = Berth::builder()
        .backend(Backend::Distributed)
        .variable("BERTH_METADATA", &database.url());
    let mut primary = builder.start().await;
    let standby = database.follower();
    let url = primary.url("");
    let mut berth = reading_of(&primary, &standby, &url).start().await;
    let (repository, reader) = (
        Repository::new(&url, "app"),
        Repository::new(&berth.url(""), "app"),
    );
    let images = [Image::new(1, 1000), Image::new(2, 1000)];
    images[0].push(&repository, "v1").await;
    images[1].push(&repository, "v2").await;
    let pushed = version(&repository).await;
    // By the tag, once by GET and once by HEAD, and once by the digest; a HEAD of the other by its digest is none.
    waiting(&reader, "manifests/v2", &pushed).await.expect(200);
    reader.head("manifests/v2").await.expect(200);
    reader.get_manifest(&images[1].digest()).await.expect(200);
    reader
        .head(&format!("manifests/{}", images[0].digest()))
        .await
        .expect(200);

    // Only a registry with the keys is listened to.
    let batch =
        json!([{ "tenant": 1, "repository": "app", "tag": "v1", "digest": images[0].digest(), "count": 9 }]);
    let strange = client().post(primary.url("/peer/pulls")).json(&batch);
    let refused = send(strange.bearer_auth("made up")).await.expect(401);
    assert_eq!(refused.error_code(), "UNAUTHORIZED");
    send(client().get(primary.url("/peer/pulls"))).await.expect(405);
    send(client().post(berth.url("/peer/pulls")).json(&batch))
        .await
        .expect(405);

    // Who looks at what has been pulled writes nothing here, and loses nothing.
    Admin::of(&berth)
        .ask(Method::GET, "tenants/default/catalog/app", None)
        .await
        .expect(200);
    // What has not been told yet, a registry tells at its end.
    assert!(berth.terminate(WAIT).await.success());
    assert!(primary.terminate(WAIT).await.success());
    // The other tag's was the question at the primary.
    let tags = "SELECT name, pulls, pulled_at IS NOT NULL FROM tag ORDER BY name";
    assert_eq!(query(&database.url(), tags), [["v1", "1", "t"], ["v2", "2", "t"]]);
    let manifests = "SELECT pulls, pulled_at IS NOT NULL FROM manifest ORDER BY pulls";
    assert_eq!(query(&database.url(), manifests), [["0", "f"], ["1", "t"]]);
    assert!(!berth.log().contains("does not take"), "{}", berth.log());
}

#[tokio::test]
async fn tenants_tokens_pages_and_what_caches_hold_follow_the_primary() {
    let upstream = Upstream::start().await;
    let way = Faulty::before(&upstream.address()).await;
    let pair = Pair::start(|builder| {
        builder
            .flag("--domain", DOMAIN)
            .flag("--external-scheme", "http")
            .flag("--egress-allow", "127.0.0.1")
            .flag("--redirect", "Never")
    })
    .await;
    let admin = Admin::of(&pair.primary);
    admin.put_tenant("acme", json!({})).await;
    let cache = json!({ "upstream": { "url": way.url() }, "prefix": "up" });
    admin.put("tenants/acme/caches/up", cache).await;
    let token = admin.token("acme", &["**"], &["pull", "push", "delete"]).await;
    let host = format!("acme.{DOMAIN}");
    let ask = async |berth: &Berth, method: Method, path: &str, body: Vec<u8>| {
        let request = client().request(method, berth.url(path)).header("Host", &host);
        send(request.basic_auth("x-token", Some(&token)).body(body)).await
    };
    let read = async |path: &str| ask(&pair.reader, Method::GET, path, Vec::new()).await;

    // 1. Who lives there is known here without a restart.
    let content = b"a blob".to_vec();
    let digest = harness::content::sha256(&content);
    let push = format!("/v2/app/blobs/uploads/?digest={digest}");
    ask(&pair.primary, Method::POST, &push, content.clone())
        .await
        .expect(201);
    let path = format!("/v2/app/blobs/{digest}");
    eventually("the tenant and its token", WAIT, async || {
        let answer = read(&path).await;
        (answer.status.as_u16() == 200 && answer.body == content).then_some(())
    })
    .await;
    let issued = read("/v2/token?service=x&scope=repository:app:pull,push")
        .await
        .expect(200)
        .json();
    let bearer = issued["token"].as_str().expect("a token").to_owned();
    let by_bearer = client()
        .get(pair.reader.url(&path))
        .header("Host", &host)
        .bearer_auth(&bearer);
    send(by_bearer).await.expect(200);
    assert!(read("/v2/_catalog").await.expect(200).text().contains("app"));
    send(client().get(pair.reader.url(&path)).header("Host", &host))
        .await
        .expect(401);

    // 2. People look, and are offered nothing to change.
    let page = read("/explorer/").await.expect(200);
    assert!(page.text().contains("app"));

    // 3. What a cache has fetched there is served here, and nothing is fetched here.
    let image = Image::new(3, 1000);
    image.push(&upstream.repository("library/tool"), "v1").await;
    ask(
        &pair.primary,
        Method::GET,
        "/v2/up/library/tool/manifests/v1",
        Vec::new(),
    )
    .await
    .expect(200);
    let layer = format!(
        "/v2/up/library/tool/blobs/{}",
        harness::content::sha256(&image.layers[0])
    );
    ask(&pair.primary, Method::GET, &layer, Vec::new())
        .await
        .expect(200);
    let tagged = eventually("the cached manifest", WAIT, async || {
        let answer = read("/v2/up/library/tool/manifests/v1").await;
        (answer.status.as_u16() == 200).then_some(answer)
    })
    .await;
    assert!(tagged.body == image.manifest);
    assert!(tagged.header("warning").contains("served from the cache"));
    eventually("the cached layer", WAIT, async || {
        let answer = read(&layer).await;
        (answer.status.as_u16() == 200 && answer.body == image.layers[0]).then_some(())
    })
    .await;
    way.forget();
    for absent in [
        "manifests/v9",
        &format!("blobs/{}", harness::content::sha256(b"?")),
    ] {
        let answer = read(&format!("/v2/up/library/tool/{absent}")).await.expect(502);
        assert_eq!(answer.error_code(), "UNAVAILABLE");
    }
    assert_eq!(way.count("*", "library/tool"), 0);

    // 4. A token that is revoked there ends here.
    let id = Admin::id_of(&token).to_owned();
    admin
        .ask(Method::DELETE, &format!("tenants/acme/tokens/{id}"), None)
        .await
        .expect(200);
    eventually("the token has ended", WAIT, async || {
        (read(&path).await.status.as_u16() == 401).then_some(())
    })
    .await;
    pair.nothing_was_written();
}

#[tokio::test]
async fn a_reader_waits_for_its_database_and_says_when_it_is_away() {
    let mut database = OwnServer::postgres();
    let builder = || {
        Berth::builder()
            .backend(Backend::Distributed)
            .variable("BERTH_METADATA", &database.url())
    };
    // Nothing has made the schema; the keys are those of a registry that is to come.
    let storage = std::sync::Arc::new(harness::Storage::create(Backend::Distributed));
    let reader = builder()
        .storage(storage.clone(), 1)
        .flag("--read-only", "true")
        .start();
    let reader = tokio::spawn(reader);
    let log = storage.data(1).with_extension("log");
    eventually("the reader waits", WAIT, async || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        log.contains("older than this release needs").then_some(())
    })
    .await;
    let _primary = builder().storage(storage.clone(), 0).start().await;
    let reader = reader.await.expect("a reader");

    database.kill();
    let ready = reader.ops_url("/readyz");
    eventually("the reader is not ready", WAIT, async || {
        let answer = send(client().get(&ready)).await;
        (answer.status.as_u16() == 503 && answer.text().contains("metadata")).then_some(())
    })
    .await;
    database.start();
    eventually("the reader is ready again", WAIT, async || {
        (send(client().get(&ready)).await.status.as_u16() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reader_with_a_bucket_of_its_own_sends_nobody_to_what_has_not_arrived() {
    let database = OwnServer::postgres();
    let primary = Berth::builder()
        .backend(Backend::Distributed)
        .variable("BERTH_METADATA", &database.url())
        .start()
        .await;
    let near = harness::Bucket::create();
    let reader = reading(&primary, &database)
        .variable("BERTH_BLOBS", &near.url())
        .flag("--redirect", "Always")
        .start()
        .await;
    let content = harness::content::blob(10_000, 9);
    let digest = Repository::new(&primary.url(""), "app").push_blob(&content).await;
    let here = Repository::new(&reader.url(""), "app");
    let path = format!("blobs/{digest}");

    let early = here.get(&path).await.expect(503);
    assert_eq!(early.error_code(), "UNAVAILABLE");
    assert!(!early.header("retry-after").is_empty());
    here.head(&path).await.expect(200);
    super::copy(
        &primary.storage().bucket().expect("a bucket").folder(),
        &near.folder(),
    );
    let sent = eventually("the blob has arrived", WAIT, async || {
        let answer = here.get(&path).await;
        (answer.status.as_u16() == 307).then_some(answer)
    })
    .await;
    let read = send(here.at(Method::GET, sent.header("location")))
        .await
        .expect(200);
    assert!(read.body == content);
}
