//! What is done on a machine: the guides to operations and to backups.

use harness::node::node_file;
use harness::{Database, setting};
use tempfile::TempDir;

use super::{Reader, blocks, commands};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_to_operations_holds_on_a_machine() {
    let database = Database::create();
    let bucket = harness::Bucket::create();
    let folder = TempDir::with_prefix("berth-machine-").expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let reader = Reader::new(&[
        ("/var/lib/berth-restored", at("restored")),
        ("/var/lib/berth", at("data")),
        ("/backup", at("backup")),
        ("/etc/berth/keys", at("data/keys")),
        ("/etc/berth/admin-key", at("data/keys/admin")),
        ("postgres://berth:secret@db/berth", database.url()),
        ("s3://images/berth?region=eu-central-1", bucket.url()),
        (
            "AWS_ACCESS_KEY_ID=...",
            format!("AWS_ACCESS_KEY_ID={}", setting("AWS_ACCESS_KEY_ID")),
        ),
        (
            "AWS_SECRET_ACCESS_KEY=...",
            format!("AWS_SECRET_ACCESS_KEY={}", setting("AWS_SECRET_ACCESS_KEY")),
        ),
    ]);
    let of = |title: &str| commands("operations.md", title);
    let image = node_file("images/busybox.tar");
    reader
        .runs(&format!("mkdir $HOME/image && tar -xf {image} -C $HOME/image"))
        .await;

    let [embedded] = of("Embedded").try_into().expect("one block");
    let server = reader.serves(&embedded, "127.0.0.1:5002").await;
    reader
        .runs("crane push $HOME/image 127.0.0.1:5000/team/app:v1")
        .await;
    let [doctor, _] = of("What is wrong").try_into().expect("two blocks");
    reader.runs(&doctor).await;
    let [backup, restored] = of("Backup").try_into().expect("two blocks");
    reader.runs(&backup).await;
    let copy = reader.serves(&restored, "127.0.0.1:6002").await;
    let digest = "crane digest 127.0.0.1:5000/team/app:v1";
    assert_eq!(
        reader.runs(digest).await,
        reader.runs(&digest.replace("5000", "6000")).await
    );
    reader
        .runs("crane pull --format=oci 127.0.0.1:6000/team/app:v1 $HOME/pulled")
        .await;
    copy.ends().await;
    server.ends().await;

    let [distributed] = of("Distributed").try_into().expect("one block");
    let server = reader.serves(&distributed, "127.0.0.1:5002").await;
    reader
        .runs("crane push $HOME/image 127.0.0.1:5000/team/app:v1")
        .await;
    server.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_to_backups_holds_on_a_machine() {
    let (database, bucket) = (Database::create(), harness::Bucket::create());
    let folder = TempDir::with_prefix("berth-machine-").expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let reader = Reader::new(&[
        ("/srv/berth-restored", at("restored")),
        ("/tmp/drill", at("drill")),
        ("/var/lib/berth", at("data")),
        ("postgres://berth@db/berth", database.url()),
        ("s3://bucket/prefix?region=eu-central-1", bucket.url()),
        // The service's folders, which its program would ask for.
        ("s3://bucket/prefix", bucket.folder().display().to_string()),
        ("s3://backup/prefix", at("copy")),
        ("/backup", at("backup")),
        ("berth.sql", "$HOME/berth.sql".to_owned()),
        // Nothing is under way.
        ("sleep 30", "true".to_owned()),
    ]);
    reader.program(
        "aws",
        r#"[ "$1 $2" = "s3 sync" ]; mkdir -p "$4"; exec cp -a "$3/." "$4""#,
    );
    reader.program(
        "docker",
        r#"[ "$1" = pull ]; exec crane pull "$2" "$HOME/pulled.tar""#,
    );
    let of = |title: &str| commands("backup.md", title);
    let image = node_file("images/busybox.tar");
    reader
        .runs(&format!("mkdir $HOME/image && tar -xf {image} -C $HOME/image"))
        .await;
    let serve = "berth-registry serve --data /var/lib/berth";
    let digest = "crane digest 127.0.0.1:5000/app:v1";

    let server = reader.serves(serve, "127.0.0.1:5002").await;
    reader.runs("crane push $HOME/image 127.0.0.1:5000/app:v1").await;
    let pushed = reader.runs(digest).await;
    let [all] = of("SQLite").try_into().expect("one block");
    reader.runs(&all).await;
    let (.., line) = blocks("backup.md")
        .into_iter()
        .find(|(_, language, _)| language == "cron")
        .expect("a line for cron");
    let (_, nightly) = line.split_once("  berth  ").expect("a time, a user, a command");
    reader.runs(nightly).await;

    // The disk is lost.
    server.ends().await;
    reader.runs("rm -r /var/lib/berth").await;
    let [restore] = of("Restore").try_into().expect("one block");
    let server = reader.serves(&restore, "127.0.0.1:5002").await;
    assert_eq!(reader.runs(digest).await, pushed);

    let [there, pull] = of("The drill").try_into().expect("two blocks");
    let drill = reader.serves(&there, "127.0.0.1:6002").await;
    reader.runs(&pull).await;
    drill.ends().await;
    server.ends().await;

    let [convert] = of("Moving").try_into().expect("one block");
    reader.runs(&convert).await;
    let serve = "berth-registry serve --metadata postgres://berth@db/berth --blobs 's3://bucket/prefix?region=eu-central-1' \
                 --keys /var/lib/berth/keys --admin-key-file /var/lib/berth/keys/admin";
    let server = reader.serves(serve, "127.0.0.1:5002").await;
    assert_eq!(reader.runs(digest).await, pushed);
    let copies = of("Postgres").into_iter().find(|block| block.contains("pg_dump"));
    let copies = copies.expect("a copy without versioning");
    let admin = "export BERTH_ADMIN_KEY_FILE=/var/lib/berth/keys/admin";
    reader.runs(&format!("{admin}\n{copies}")).await;
    reader
        .runs("grep -q 'CREATE TABLE' berth.sql && find s3://backup/prefix -type f | grep -q blobs")
        .await;
    server.ends().await;
}
