//! Power that fails: what a client is told is on the disk by then, in an order that a power cut cannot turn into half
//! of it.
//!
//! The kernel's record of the registry's calls shows it: the bytes of an object are synced before it gets its name, its
//! name before the metadata that points to it, and that before the answer.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use harness::content::blob;
use harness::http::Repository;
use harness::{Backend, Berth, Image, Storage, setting};

/// Of the calls' texts so much is recorded.
const TEXT: usize = 48;

/// One call of the kernel, from its beginning to its end as places in the record.
#[derive(Debug)]
struct Call {
    name: String,
    arguments: String,
    begins: usize,
    ends: usize,
}

/// The calls of a record that succeeded.
fn calls(record: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut open: HashMap<&str, (usize, String)> = HashMap::new();
    for (place, line) in record.lines().enumerate() {
        let Some((thread, said)) = line.split_once(' ') else {
            continue;
        };
        let said = said.trim_start();
        let (begins, whole) = if let Some(beginning) = said.strip_suffix(" <unfinished ...>") {
            open.insert(thread, (place, beginning.to_owned()));
            continue;
        } else if said.starts_with("<... ") {
            let Some((begins, beginning)) = open.remove(thread) else {
                continue;
            };
            let rest = said.split_once(" resumed>").map_or("", |(_, rest)| rest);
            (begins, format!("{beginning}{rest}"))
        } else {
            (place, said.to_owned())
        };
        let Some((name, rest)) = whole.split_once('(') else {
            continue;
        };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else {
            continue;
        };
        if !result.starts_with('-') {
            calls.push(Call {
                name: name.to_owned(),
                arguments: arguments.to_owned(),
                begins,
                ends: place,
            });
        }
    }
    calls
}

/// A registry whose calls are recorded in a file.
fn recorded(folder: &Path, record: &Path) -> PathBuf {
    let program = folder.join("registry");
    let script = format!(
        "#!/bin/sh\nexec strace -D -f -y -s {TEXT} -o '{}' -e \
         trace=write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,fsync,fdatasync,sync_file_range,rename,renameat,renameat2 \
         '{}' \"$@\"\n",
        record.display(),
        setting("BERTH_BIN")
    );
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a script that runs");
    program
}

#[tokio::test]
async fn bytes_are_synced_before_their_name_and_both_before_the_metadata_and_all_before_the_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("record");
    let storage = Arc::new(Storage::create(Backend::Embedded));
    let mut berth = Berth::builder()
        .storage(storage, 0)
        .program(&recorded(folder.path(), &record))
        .start()
        .await;
    let repository = Repository::new(&berth.url(""), "app");
    for (number, size) in [1, 100_000, 40 << 20].into_iter().enumerate() {
        repository.push_blob(&blob(size, number as u64)).await;
    }
    Image::new(9, 1000).push(&repository, "v1").await;
    berth.terminate(Duration::from_secs(30)).await;

    let record = fs::read_to_string(record).expect("a record");
    let calls = calls(&record);
    let is_sync = |call: &&Call| call.name == "fsync" || call.name == "fdatasync";
    let is_written = |call: &&Call| call.name.starts_with("write") || call.name.starts_with("pwrite");
    let answers: Vec<&Call> = calls
        .iter()
        .filter(|call| call.arguments.contains("HTTP/1.1 201"))
        .collect();
    let metadata: Vec<&Call> = calls
        .iter()
        .filter(is_sync)
        .filter(|call| call.arguments.contains("berth.db-wal>"))
        .collect();
    let mut published = 0;
    for named in calls.iter().filter(|call| call.name.starts_with("rename")) {
        let paths: Vec<&str> = named.arguments.split('"').skip(1).step_by(2).collect();
        let [from, to] = paths[..] else { continue };
        if !from.contains("/blobs/tmp/") {
            continue;
        }
        published += 1;
        let of_file = |call: &&Call| call.arguments.contains(&format!("<{from}>"));
        let last_write = calls
            .iter()
            .filter(is_written)
            .filter(of_file)
            .map(|call| call.ends)
            .max();
        let synced = calls
            .iter()
            .filter(is_sync)
            .filter(of_file)
            .any(|call| Some(call.begins) > last_write && call.ends < named.begins);
        assert!(
            synced && last_write.is_some(),
            "{to} got its name before its bytes were synced"
        );
        let shard = Path::new(to).parent().expect("a folder").display().to_string();
        let named_for_good = calls
            .iter()
            .filter(is_sync)
            .filter(|call| call.begins > named.ends && call.arguments.contains(&format!("<{shard}>")))
            .map(|call| call.ends)
            .min();
        let named_for_good = named_for_good.unwrap_or_else(|| panic!("{shard} was not synced after {to}"));
        let answer = answers
            .iter()
            .map(|answer| answer.begins)
            .filter(|begins| *begins > named.ends)
            .min();
        let answer = answer.unwrap_or_else(|| panic!("no answer after {to}"));
        assert!(
            metadata
                .iter()
                .any(|sync| sync.begins > named_for_good && sync.ends < answer),
            "{to} was acknowledged before the metadata was synced that points to it"
        );
    }
    assert_eq!(published, 6, "blobs were published");
    // Every answer, that to the manifest included, has a sync of the metadata between it and the one before.
    let mut before = 0;
    for answer in &answers {
        let is_durable = metadata
            .iter()
            .any(|sync| sync.begins > before && sync.ends < answer.begins);
        assert!(is_durable, "an answer without a sync: {answer:?}");
        before = answer.ends;
    }
    assert_eq!(answers.len(), 7, "six blobs and a manifest");
}
