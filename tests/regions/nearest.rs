//! Which bucket a blob comes from.

use harness::content::{blob, sha256};
use harness::http::{Repository, client, send};
use harness::{Admin, Berth, eventually, setting};
use reqwest::Method;
use serde_json::json;

use super::{NAMED, Place, WAIT, only_object, regions};

/// A proxy on this machine is believed.
fn trusting(builder: harness::Builder) -> harness::Builder {
    builder.flag("--trusted-proxies", "127.0.0.0/8")
}

#[tokio::test]
async fn whom_a_trusted_proxy_names_the_region_of_is_sent_to_its_bucket() {
    let place = Place::with("", |builder| trusting(builder).flag("--redirect", "Always")).await;
    let content = blob(100_000, 1);
    let digest = place.repository.push_blob(&content).await;
    place.replicate();
    place.is_up().await;

    for (named, region, bucket) in [
        ("eu", "eu", place.eu.folder()),
        ("", "home", place.home().folder()),
        ("nowhere", "home", place.home().folder()),
        ("home", "home", place.home().folder()),
    ] {
        let answer = place.blob(&digest, named).await.expect(307);
        assert_eq!(answer.header("berth-region"), region, "{named}");
        let prefix = bucket
            .file_name()
            .expect("a prefix")
            .to_str()
            .expect("plain")
            .to_owned();
        let location = answer.header("location").to_owned();
        assert!(location.contains(&prefix), "{named}: {location}");
        let read = send(place.repository.at(Method::GET, &location))
            .await
            .expect(200);
        assert!(read.body == content);
    }
    place
        .shows("berth_region_reads_total{region=\"eu\",how=\"redirect\"} 1")
        .await;
    assert!(place.berth.log().contains("region=\"eu\"") || place.berth.log().contains("\"region\":\"eu\""));

    // The same stores behind no proxy that is trusted.
    let file = regions(&place.folder, &place.eu.url(), "");
    let wary = Berth::builder()
        .storage(place.berth.storage().clone(), 1)
        .flag("--regions", &file)
        .flag("--redirect", "Always")
        .start()
        .await;
    let asked = Repository::new(&wary.url(""), "app").request(Method::GET, &format!("blobs/{digest}"));
    let answer = send(asked.header(NAMED, "eu")).await.expect(307);
    assert_eq!(answer.header("berth-region"), "home");
}

#[tokio::test]
async fn streamed_bytes_are_those_of_the_region_s_bucket_whole_and_in_parts() {
    let place = Place::with("networks: [127.0.0.0/8]", |builder| {
        builder.flag("--redirect", "Never")
    })
    .await;
    let content = blob(300_000, 2);
    let digest = place.repository.push_blob(&content).await;
    place.replicate();
    // Other bytes of the same length show where they come from.
    let other = blob(300_000, 3);
    std::fs::write(only_object(&place.eu), &other).expect("an object of the region");
    place.is_up().await;

    let whole = place.blob(&digest, "").await.expect(200);
    assert_eq!(whole.header("berth-region"), "eu");
    assert!(whole.body == other);
    let part = send(place.asking(&digest, "").header("Range", "bytes=1000-1999"))
        .await
        .expect(206);
    assert_eq!(part.header("berth-region"), "eu");
    assert!(part.body == other[1000..2000]);
    let parts = send(place.asking(&digest, "").header("Range", "bytes=0-9,299990-"))
        .await
        .expect(206);
    assert!(parts.body.windows(10).any(|window| *window == other[299_990..]));
    place
        .shows("berth_region_reads_total{region=\"eu\",how=\"stream\"} 4")
        .await;
}

#[tokio::test]
async fn the_replica_s_own_zone_decides_where_nothing_else_does() {
    let entry = "zones: [eu-1a, eu-1b]";
    let place = Place::with(entry, |builder| trusting(builder).variable("BERTH_ZONE", "eu-1b")).await;
    let digest = place.repository.push_blob(&blob(1000, 4)).await;
    place.replicate();
    place.is_up().await;

    let near = place.blob(&digest, "").await.expect(200);
    assert_eq!(near.header("berth-region"), "eu");
    let named = place.blob(&digest, "home").await.expect(200);
    assert_eq!(named.header("berth-region"), "home");
}

#[tokio::test]
async fn what_has_not_been_replicated_yet_comes_from_home_until_it_has_been() {
    let place = Place::with("networks: [127.0.0.0/8]", |builder| {
        builder.flag("--redirect", "Always")
    })
    .await;
    place.is_up().await;
    let content = blob(50_000, 5);
    let digest = place.repository.push_blob(&content).await;
    assert!(!place.eu.folder().exists(), "pushes go home alone");

    let region = async || {
        place
            .blob(&digest, "")
            .await
            .expect(307)
            .header("berth-region")
            .to_owned()
    };
    assert_eq!(region().await, "home");
    // Half an object is none.
    place.replicate();
    let object = only_object(&place.eu);
    std::fs::write(&object, &content[..25_000]).expect("half an object");
    place
        .shows("berth_region_fallbacks_total{region=\"eu\",why=\"missing\"} 1")
        .await;
    eventually("another look", WAIT, async || {
        assert_eq!(region().await, "home");
        place.berth.log().contains("another size").then_some(())
    })
    .await;

    place.replicate();
    eventually("the region", WAIT, async || {
        (region().await == "eu").then_some(())
    })
    .await;
    // Of what is known to be there nobody asks again.
    std::fs::remove_file(&object).expect("an object");
    assert_eq!(region().await, "eu");
}

#[tokio::test]
async fn a_bucket_with_all_that_home_has_is_not_asked_for_each_object() {
    let entry = "globallyReplicated: true\n  networks: [127.0.0.0/8]";
    let place = Place::with(entry, |builder| builder).await;
    place.is_up().await;
    let content = blob(2000, 6);
    let digest = place.repository.push_blob(&content).await;

    // Not even where it turns out to lack one: the bytes then come from home.
    let streamed = place.blob(&digest, "").await.expect(200);
    assert_eq!(streamed.header("berth-region"), "home");
    assert!(streamed.body == content);
    let asked = place
        .asking(&digest, "")
        .header("User-Agent", "containerd/v2.4.2");
    let sent = send(asked).await.expect(307);
    assert_eq!(sent.header("berth-region"), "eu");
}

#[tokio::test]
async fn a_region_opens_no_tenant_to_another() {
    let place = Place::with("networks: [127.0.0.0/8]", |builder| {
        builder
            .flag("--domain", "registry.test")
            .flag("--external-scheme", "http")
            .flag("--apex-tenant", "none")
            .flag("--redirect", "Always")
    })
    .await;
    let admin = Admin::of(&place.berth);
    let mut tokens = Vec::new();
    for tenant in ["acme", "other"] {
        admin.put_tenant(tenant, json!({})).await;
        tokens.push(admin.token(tenant, &["**"], &["pull", "push"]).await);
    }
    let ask = async |tenant: &str, token: &str, method: Method, path: &str, body: Vec<u8>| {
        let request = client()
            .request(method, place.berth.url(path))
            .header("Host", format!("{tenant}.registry.test"))
            .basic_auth("x-token", Some(token));
        send(request.body(body)).await
    };
    let content = blob(5000, 7);
    let digest = sha256(&content);
    let push = format!("/v2/app/blobs/uploads/?digest={digest}");
    ask("acme", &tokens[0], Method::POST, &push, content)
        .await
        .expect(201);
    place.replicate();
    place.is_up().await;

    let path = format!("/v2/app/blobs/{digest}");
    let own = ask("acme", &tokens[0], Method::GET, &path, Vec::new())
        .await
        .expect(307);
    assert_eq!(own.header("berth-region"), "eu");
    let foreign = ask("other", &tokens[1], Method::GET, &path, Vec::new())
        .await
        .expect(404);
    assert_eq!(foreign.header("berth-region"), "");
}

#[tokio::test]
async fn a_check_of_the_region_s_bucket_finds_what_should_be_gone_there_and_what_has_not_come() {
    let mut place = Place::with("", |builder| builder).await;
    place.repository.push_blob(&blob(1000, 8)).await;
    place.replicate();
    let object = only_object(&place.eu);
    // An object of another upload, and none of the one that there was.
    let name = object
        .file_name()
        .expect("a name")
        .to_str()
        .expect("plain")
        .to_owned();
    let first = if name.starts_with('0') { "1" } else { "0" };
    let other = object.with_file_name(format!("{first}{}", &name[1..]));
    std::fs::rename(&object, &other).expect("another object");
    // What is new may be a push under way.
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7 * 24 * 3600);
    let file = std::fs::File::options()
        .append(true)
        .open(&other)
        .expect("the object");
    file.set_modified(long_ago).expect("its time");
    place.berth.kill9();

    let mut check = place.berth.command("fsck");
    let ended = check
        .env("BERTH_BLOBS", place.eu.url())
        .args(["--admin-listen=127.0.0.1:1", "-o", "json"])
        .output();
    let ended = ended.expect("the check runs");

    let told = String::from_utf8_lossy(&ended.stdout);
    assert_eq!(
        ended.status.code(),
        Some(1),
        "{told} {}",
        String::from_utf8_lossy(&ended.stderr)
    );
    assert!(
        told.contains("OrphanObject") && told.contains("MissingObject"),
        "{told}"
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_meant_ends_the_start_and_says_why() {
    let folder = tempfile::TempDir::with_prefix("berth-regions-").expect("a temporary folder");
    for (url, entry, named) in [
        ("folder:/data", "", "s3://<bucket>/<prefix>"),
        ("s3://b?regoin=x", "", "regoin"),
        ("s3://b", "network: [10.0.0.0/8]", "unknown field `network`"),
    ] {
        let file = regions(&folder, url, entry);
        let ended = std::process::Command::new(setting("BERTH_BIN"))
            .args([
                "serve",
                "--listen=127.0.0.1:0",
                "--admin-listen=127.0.0.1:0",
                "--ops-listen=127.0.0.1:0",
            ])
            .arg(format!("--data={}", folder.path().join("data").display()))
            .arg(format!(
                "--metadata=sqlite:{}",
                folder.path().join("m.db").display()
            ))
            .args([
                "--blobs=s3://b?endpoint=http://127.0.0.1:1",
                &format!("--regions={file}"),
            ])
            .output()
            .expect("the registry runs");
        let error = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{error}");
        assert!(
            error.contains("--regions") && error.contains(named),
            "{named}: {error}"
        );
    }
}
