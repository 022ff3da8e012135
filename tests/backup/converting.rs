//! Moves to PostgreSQL and S3 and back: everything is there as it was, and goes on.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use harness::content::blob;
use harness::http::Repository;
use harness::image::{Image, Index};
use harness::{Admin, Backend, Berth, Storage, program};
use reqwest::Method;
use serde_json::{Value, json};

use super::running::{Running, past};
use super::{WAIT, assert_sound, command, done, elsewhere, on, output, refused, text};

/// URLs of the metadata and the blobs.
fn urls(storage: &Storage) -> [String; 2] {
    match (storage.database(), storage.bucket()) {
        (Some(database), Some(bucket)) => [database.url(), bucket.url()],
        _ => {
            let data = text(&storage.data(0));
            [format!("sqlite:{data}/berth.db"), format!("folder:{data}/blobs")]
        }
    }
}

/// The words of a conversion.
fn words(from: &Storage, into: &Storage) -> Vec<String> {
    let ([from_metadata, from_blobs], [to_metadata, to_blobs]) = (urls(from), urls(into));
    vec![
        "convert".to_owned(),
        format!("--from-metadata={from_metadata}"),
        format!("--from-blobs={from_blobs}"),
        format!("--to-metadata={to_metadata}"),
        format!("--to-blobs={to_blobs}"),
    ]
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn sqlite(storage: &Storage, statement: &str) {
    let done = Command::new(program("sqlite3"))
        .arg(storage.data(0).join("berth.db"))
        .arg(statement)
        .output()
        .expect("sqlite3 runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// What an installation holds, as it shows it.
struct Content {
    image: Image,
    index: Index,
    large: Vec<u8>,
    token: String,
}

impl Content {
    fn repository(&self, berth: &Berth, name: &str) -> Repository {
        let user = format!("http://x-token:{}@{}", self.token, berth.address());
        Repository::new(&user, name)
    }

    async fn fill(berth: &Berth) -> Content {
        let admin = Admin::of(berth);
        let spec = json!({ "displayName": "Acme", "quota": { "storage": "5Gi" } });
        admin.put_tenant("acme", spec).await;
        admin
            .put(
                "tenants/acme/retention-policies/ci",
                json!({ "repositories": ["ci/**"], "rules": [{ "tags": ["*"], "keepLast": 3 }] }),
            )
            .await;
        let token = admin.token("acme", &["**"], &["pull", "push", "delete"]).await;
        let content = Content {
            image: Image::new(1, 30_000),
            index: Index::new(vec![
                Image::of_platform("amd64", 2, 3000),
                Image::of_platform("arm64", 3, 3000),
            ]),
            // Several parts of S3.
            large: blob(40 << 20, 4),
            token,
        };
        let repository = content.repository(berth, "team/app");
        content.image.push(&repository, "v1").await;
        content.image.push(&repository, "gone").await;
        repository.delete("manifests/gone").await.expect(202);
        let indexes = content.repository(berth, "team/index");
        for image in &content.index.images {
            image.push(&indexes, &image.digest()).await;
        }
        let index = "application/vnd.oci.image.index.v1+json";
        indexes
            .put_manifest("v1", index, &content.index.manifest)
            .await
            .expect(201);
        repository.push_blob(&content.large).await;
        // An upload that is open does not go along.
        let open = repository.start_upload().await;
        repository
            .patch(&open, Some("0-999"), blob(1000, 5))
            .await
            .expect(202);
        content
    }

    async fn assert_there(&self, berth: &Berth) {
        let repository = self.repository(berth, "team/app");
        self.image.assert_pullable(&repository, "v1").await;
        self.index
            .assert_pullable(&self.repository(berth, "team/index"), "v1")
            .await;
        repository
            .assert_blob(&harness::content::sha256(&self.large), &self.large)
            .await;
        assert_eq!(
            repository.get("tags/list").await.expect(200).json()["tags"],
            json!(["v1"])
        );
    }
}

/// What does not depend on the stores: configuration, counters, byte-hours, tags that can be brought back.
async fn told(berth: &Berth) -> Value {
    let admin = Admin::of(berth);
    let get = async |path: &str| admin.ask(Method::GET, path, None).await.expect(200).json();
    let mut tenant = get("tenants/acme").await;
    tenant["programmed"] = Value::Null;
    let mut storage = get("storage").await;
    storage["openUploadBytes"] = Value::Null;
    let mut tokens = get("tenants/acme/tokens").await;
    // To the minute, and they are used here.
    tokens["tokens"][0]["lastUsedAt"] = Value::Null;
    json!({
        "tenant": tenant,
        "policies": get("tenants/acme/retention-policies/ci").await["spec"],
        "tokens": tokens,
        "usage": get("usage?tenant=acme&repositories=true&month=2025-03").await,
        "storage": storage,
        "deleted": get("tenants/acme/tags/deleted?repository=team/app").await,
    })
}

async fn served(storage: &Arc<Storage>, keys: &Storage) -> Berth {
    let keys = keys.data(0).join("keys");
    let to = storage.data(0).join("keys");
    if !to.exists() {
        fs::create_dir_all(&to).expect("a folder");
        for key in fs::read_dir(keys).expect("keys") {
            let key = key.expect("a key");
            fs::copy(key.path(), to.join(key.file_name())).expect("a copy");
        }
    }
    flags(on(storage)).start().await
}

fn flags(builder: harness::Builder) -> harness::Builder {
    builder.flag("--apex-tenant", "acme")
}

#[tokio::test]
async fn an_installation_moves_to_postgres_and_s3_and_back_as_it_is() {
    let embedded = elsewhere(Backend::Embedded);
    let mut berth = flags(on(&embedded)).start().await;
    let content = Content::fill(&berth).await;
    berth.terminate(WAIT).await;
    sqlite(
        &embedded,
        "INSERT INTO usage_monthly (tenant_id, month, repository_id, byte_hours) \
           SELECT id, 202503, 0, 123456789012 FROM tenant WHERE name = 'acme'; \
         INSERT INTO audit SELECT tenant_id, 1, x'00112233445566778899aabbccddeeff', 'acme', 'somebody', 'x', 'y', 'Done', \
           'a' || char(0) || 'b', '', 1 FROM config LIMIT 1;",
    );
    berth.restart().await;
    let before = told(&berth).await;
    assert_eq!(before["usage"][0]["byteHours"], 123_456_789_012_u64, "{before:#}");

    // 1. Nobody moves what is served.
    let distributed = elsewhere(Backend::Distributed);
    let there = words(&embedded, &distributed);
    let said = refused(&berth, &strs(&there)).await;
    assert!(said.contains("in use by"), "{said}");
    berth.terminate(WAIT).await;

    // 2. There.
    let outcome = done(&berth, &strs(&there)).await;
    assert_eq!(outcome["objects"], outcome["copiedObjects"]);
    let mut moved = served(&distributed, &embedded).await;
    assert_sound(&moved).await;
    assert_eq!(told(&moved).await, before);
    content.assert_there(&moved).await;
    let added = Image::new(9, 20_000);
    added.push(&content.repository(&moved, "team/app"), "v2").await;
    let between = told(&moved).await;

    // 3. Not into what holds something, nor out of what is served.
    let back = elsewhere(Backend::Embedded);
    let home = words(&distributed, &back);
    let said = refused(&moved, &strs(&home)).await;
    assert!(said.contains("is served by a replica"), "{said}");
    moved.terminate(WAIT).await;
    let said = refused(&moved, &strs(&there)).await;
    assert!(said.contains("there are rows in the destination"), "{said}");

    // 4. And back.
    done(&moved, &strs(&home)).await;
    let returned = served(&back, &embedded).await;
    assert_sound(&returned).await;
    assert_eq!(told(&returned).await, between);
    let repository = content.repository(&returned, "team/app");
    content.image.assert_pullable(&repository, "v1").await;
    added.assert_pullable(&repository, "v2").await;
    Image::new(10, 3000).push(&repository, "v3").await;
    assert_sound(&returned).await;
}

#[tokio::test]
async fn a_move_to_postgres_and_s3_that_is_killed_is_not_served_and_goes_on() {
    cut_and_resumed(Backend::Embedded, Backend::Distributed).await;
}

#[tokio::test]
async fn a_move_to_sqlite_and_a_folder_that_is_killed_is_not_served_and_goes_on() {
    cut_and_resumed(Backend::Distributed, Backend::Embedded).await;
}

async fn cut_and_resumed(from: Backend, into: Backend) {
    let (from, into) = (elsewhere(from), elsewhere(into));
    let mut berth = on(&from).start().await;
    let repository = Repository::new(&berth.url(""), "team/app");
    let images: Vec<Image> = (1..11).map(|seed| Image::new(seed, 100_000)).collect();
    for (number, image) in images.iter().enumerate() {
        image.push(&repository, &format!("v{number}")).await;
    }
    berth.terminate(WAIT).await;
    many_rows(&from);
    let words = words(&from, &into);

    // 1. Among the rows, of which a fast machine tells no second time; were the kill late, objects would hold it up.
    let slow: Vec<&str> = strs(&words).into_iter().chain(["--rate", "50KiB"]).collect();
    let mut cut = Running::start(command(&berth, &slow));
    cut.until(|line| line["step"] == "rows");
    cut.kill9();
    // 2. Among the objects.
    let mut cut = Running::start(command(&berth, &slow));
    cut.until(past(3));
    cut.kill9();

    // 3. Nobody serves a part.
    let [metadata, blobs] = urls(&into);
    let mut serve = berth.command("serve");
    serve.args([format!("--metadata={metadata}"), format!("--blobs={blobs}")]);
    serve.args([
        "--listen=127.0.0.1:0",
        "--admin-listen=127.0.0.1:0",
        "--ops-listen=127.0.0.1:0",
    ]);
    let refusal = output(serve).await;
    let said = String::from_utf8_lossy(&refusal.stderr).into_owned();
    assert!(said.contains("has not ended"), "{said}");

    // 4. It goes on, and what is there is not copied again.
    let outcome = done(&berth, &strs(&words)).await;
    assert!(
        outcome["copiedObjects"].as_u64().expect("a number") + 3
            <= outcome["objects"].as_u64().expect("a number"),
        "{outcome}"
    );
    let moved = on(&into).start().await;
    assert_sound(&moved).await;
    let repository = Repository::new(&moved.url(""), "team/app");
    for (number, image) in images.iter().enumerate() {
        image.assert_pullable(&repository, &format!("v{number}")).await;
    }
}

/// Rows that take a while.
fn many_rows(storage: &Storage) {
    let values = "SELECT 0, n, {id}, '', 'somebody', 'test', 'nothing', 'Done', '', '', 1 FROM numbers";
    match storage.database() {
        None => sqlite(
            storage,
            &format!(
                "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 60000) \
                 INSERT INTO audit {}",
                values.replace("{id}", "randomblob(16)")
            ),
        ),
        Some(database) => drop(database.query(&format!(
            "INSERT INTO audit {}",
            values.replace("{id}", "gen_random_uuid()").replace("numbers", "generate_series(1, 60000) AS n")
        ))),
    }
}

#[tokio::test]
async fn a_source_that_was_served_between_two_runs_is_noticed() {
    let (from, into) = (elsewhere(Backend::Embedded), elsewhere(Backend::Distributed));
    let mut berth = on(&from).start().await;
    let repository = Repository::new(&berth.url(""), "team/app");
    for seed in 1..6 {
        Image::new(seed, 100_000)
            .push(&repository, &format!("v{seed}"))
            .await;
    }
    berth.terminate(WAIT).await;
    let words = words(&from, &into);
    let slow: Vec<&str> = strs(&words).into_iter().chain(["--rate", "300KiB"]).collect();
    let mut cut = Running::start(command(&berth, &slow));
    cut.until(past(3));
    cut.kill9();

    berth.restart().await;
    Image::new(6, 3000).push(&repository, "v6").await;
    berth.terminate(WAIT).await;
    let said = refused(&berth, &strs(&words)).await;
    assert!(said.contains("was the source served meanwhile"), "{said}");
}
