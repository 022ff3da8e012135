//! Backups that are not what they were.

use std::fs;

use harness::http::Repository;
use harness::{Admin, Backend, Berth, Image};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Vault, done, elsewhere, on, refused, text};

#[tokio::test]
async fn a_damaged_object_is_found_and_not_restored() {
    let vault = Vault::new();
    let berth = Berth::start(Backend::Embedded).await;
    let repository = Repository::new(&berth.url(""), "team/app");
    Image::new(1, 50_000).push(&repository, "v1").await;
    done(&berth, &["backup", "create", &vault.text()]).await;
    let object = vault
        .objects()
        .into_iter()
        .max_by_key(|object| fs::metadata(object).expect("an object").len())
        .expect("an object");
    let mut bytes = fs::read(&object).expect("an object");
    bytes[100] ^= 1;
    fs::write(&object, &bytes).expect("a damaged object");
    let name = text(object.strip_prefix(vault.path()).expect("below the backup"));

    // 1. It is found, and named.
    let said = refused(&berth, &["backup", "verify", &vault.text()]).await;
    assert!(said.contains(&name), "{said}");

    // 2. It is not restored, unless somebody says so; then the check of the stores tells it.
    let storage = elsewhere(Backend::Embedded);
    let data = text(&storage.data(0));
    let said = refused(&berth, &["restore", &vault.text(), "--data", &data]).await;
    assert!(said.contains(&name), "{said}");
    let outcome = done(
        &berth,
        &["restore", &vault.text(), "--data", &data, "--despite-faults"],
    )
    .await;
    assert_eq!(outcome["missing"], 1);
    let restored = on(&storage).start().await;
    let said = super::output(super::command(&restored, &["fsck"])).await;
    let found = super::last(&String::from_utf8_lossy(&said.stdout));
    assert_eq!(found["findings"][0]["kind"], "MissingObject", "{found:#}");
    assert_eq!(found["findings"][0]["object"], name.as_str());

    // 3. Taken away, it is copied anew.
    fs::remove_file(&object).expect("it goes");
    let again = done(&berth, &["backup", "create", &vault.text()]).await;
    assert_eq!(again["newObjects"], 1);
    done(&berth, &["backup", "verify", &vault.text()]).await;
}

#[tokio::test]
async fn damaged_metadata_and_keys_are_found_and_not_restored() {
    let vault = Vault::new();
    let berth = Berth::start(Backend::Embedded).await;
    Image::new(1, 3000)
        .push(&Repository::new(&berth.url(""), "app"), "v1")
        .await;
    let taken = done(&berth, &["backup", "create", &vault.text()]).await;
    let generation = vault
        .path()
        .join("generations")
        .join(taken["generation"].as_str().expect("a name"));
    for file in ["berth.db", "keys/admin"] {
        let path = generation.join(file);
        let whole = fs::read(&path).expect("a file");
        let mut bytes = whole.clone();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).expect("a damaged file");

        let said = refused(&berth, &["backup", "verify", &vault.text()]).await;
        assert!(said.contains(file) && said.contains("damaged"), "{said}");
        let storage = elsewhere(Backend::Embedded);
        let said = refused(
            &berth,
            &["restore", &vault.text(), "--data", &text(&storage.data(0))],
        )
        .await;
        assert!(said.contains(file) && said.contains("damaged"), "{said}");
        fs::write(&path, &whole).expect("the file as it was");
    }
    done(&berth, &["backup", "verify", &vault.text()]).await;
}

#[tokio::test]
async fn what_the_installation_itself_has_lost_is_told_and_the_rest_is_copied() {
    let vault = Vault::new();
    let berth = Berth::start(Backend::Embedded).await;
    let repository = Repository::new(&berth.url(""), "team/app");
    Image::new(1, 3000).push(&repository, "v1").await;
    let lost = Image::new(2, 50_000);
    lost.push(&repository, "v2").await;
    let objects = walk(&berth.data().join("blobs/blobs"));
    let largest = objects
        .iter()
        .max_by_key(|path| fs::metadata(path).expect("an object").len());
    fs::remove_file(largest.expect("an object")).expect("it is lost");

    let said = refused(&berth, &["backup", "create", &vault.text()]).await;
    assert!(said.contains("1 objects of the installation"), "{said}");
    let listed = done(&berth, &["backup", "list", &vault.text()]).await;
    assert_eq!(listed[0]["faults"], 1);
    let verified = done(&berth, &["backup", "verify", &vault.text()]).await;
    assert_eq!(
        (&verified["faults"]["count"], &verified["knownFaults"]),
        (&0.into(), &1.into())
    );
    assert_eq!(vault.objects().len(), objects.len() - 1);
}

#[tokio::test]
async fn a_folder_with_something_in_it_is_not_restored_into() {
    let vault = Vault::new();
    let mut berth = Berth::start(Backend::Embedded).await;
    done(&berth, &["backup", "create", &vault.text()]).await;
    let said = refused(&berth, &["backup", "create", &text(&berth.data().join("backup"))]).await;
    assert!(said.contains("would be lost with it"), "{said}");
    let said = refused(&berth, &["restore", &vault.text()]).await;
    assert!(said.contains("is in use"), "{said}");
    berth.kill9();
    let said = refused(&berth, &["restore", &vault.text()]).await;
    assert!(said.contains("is not empty"), "{said}");
    berth.restart().await;
}

#[tokio::test]
async fn faults_that_the_list_had_no_room_for_are_not_told_as_new_without_a_word() {
    let vault = Vault::new();
    let berth = Berth::start(Backend::Embedded).await;
    let repository = Repository::new(&berth.url(""), "team/app");
    Image::new(1, 3000).push(&repository, "v1").await;
    for object in walk(&berth.data().join("blobs/blobs")) {
        fs::remove_file(object).expect("it is lost");
    }
    refused(&berth, &["backup", "create", &vault.text()]).await;
    let listed = done(&berth, &["backup", "list", &vault.text()]).await;
    let count = listed[0]["faults"].as_u64().expect("a number");

    // As if the list had room for one.
    let generation = listed[0]["generation"].as_str().expect("a name");
    let path = vault
        .path()
        .join("generations")
        .join(generation)
        .join("manifest.json");
    let text = fs::read(&path).expect("the manifest");
    let mut manifest: Value = serde_json::from_slice(&text).expect("JSON");
    let faults = manifest["faults"]["listed"].as_array_mut().expect("a list");
    faults.truncate(1);
    fs::write(&path, manifest.to_string()).expect("a shorter list");

    let said = super::output(super::command(&berth, &["backup", "verify", &vault.text()])).await;
    assert_eq!(said.status.code(), Some(1));
    let verified = super::last(&String::from_utf8_lossy(&said.stdout));
    let told = ["knownFaults", "unlistedFaults"].map(|field| verified[field].as_u64());
    assert_eq!(told, [Some(1), Some(count - 1)], "{verified}");
    assert_eq!(verified["faults"]["count"], count - 1, "{verified}");
}

#[tokio::test]
async fn an_installation_whose_tenants_were_made_anew_is_the_same() {
    let vault = Vault::new();
    let berth = Berth::start(Backend::Embedded).await;
    Image::new(1, 3000)
        .push(&Repository::new(&berth.url(""), "app"), "v1")
        .await;
    done(&berth, &["backup", "create", &vault.text()]).await;
    let admin = Admin::of(&berth);
    let deleted = admin.ask(Method::DELETE, "tenants/default", None).await;
    assert!(deleted.status.is_success(), "{deleted:?}");
    done(&berth, &["backup", "create", &vault.text()]).await;
    admin.put_tenant("default", json!({})).await;
    done(&berth, &["backup", "create", &vault.text()]).await;
    let verified = done(&berth, &["backup", "verify", &vault.text()]).await;
    assert_eq!(verified["generations"].as_array().map(Vec::len), Some(3));
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => files.extend(walk(&path)),
            false => files.push(path),
        }
    }
    files
}
