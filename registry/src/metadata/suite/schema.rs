//! Opening, migrating, reopening; and the tenants of a first run.

use std::sync::Arc;

use futures_util::future::join_all;

use super::builders::*;
use super::fixture::{self, TestStore};
use crate::metadata::*;

on_both_stores! {
    everything_is_there_after_reopening
    a_store_that_is_up_to_date_is_migrated_again_without_effect
    several_processes_may_migrate_at_once
    a_schema_that_a_newer_release_extended_still_opens
    an_open_store_answers_the_probe
}

async fn everything_is_there_after_reopening(store: Arc<TestStore>) {
    let here = repository("app");
    let layer = push_blob(&store, &here, "layer").await;
    let manifest = put(&store, &here, image(&[layer]).push_as("v1")).await;
    let upload = begin(&store, &here).await;
    taken(&store, &here, upload, take()).await;
    assert!(
        store
            .checkpoint_upload(here.tenant, upload, progress(1, 9))
            .await
            .unwrap()
    );

    let store = store.reopened().await;

    assert_eq!(target(&store, &here, "v1").await, Some(manifest));
    assert!(store.blob(&here, &layer).await.unwrap().is_some());
    assert_eq!(
        store
            .upload(&here, upload)
            .await
            .unwrap()
            .expect("the session")
            .offset,
        9
    );
    assert_eq!(put(&store, &here, image(&[layer]).push_as("v2")).await, manifest);
}

async fn a_store_that_is_up_to_date_is_migrated_again_without_effect(store: Arc<TestStore>) {
    let here = repository("app");
    put(&store, &here, note("n").push_as("v1")).await;

    let again = store.open_again().await.expect("it opens twice");

    assert_eq!(again.store.tags(&here, None, 10).await.unwrap().unwrap(), ["v1"]);
    assert_eq!(
        store
            .count("SELECT count(*) FROM _sqlx_migrations WHERE version = 1")
            .await,
        1
    );
}

async fn several_processes_may_migrate_at_once(store: Arc<TestStore>) {
    let place = store.empty_place().await;
    let openings: Vec<_> = (0..6)
        .map(|_| {
            let place = place.clone();
            tokio::spawn(async move { fixture::open(&place).await })
        })
        .collect();

    for opened in join_all(openings).await {
        let opened = opened.unwrap().expect("each of them opens it");
        assert_eq!(opened.configuration.version().await.unwrap(), 1);
    }
}

async fn a_schema_that_a_newer_release_extended_still_opens(store: Arc<TestStore>) {
    store.execute("ALTER TABLE tag ADD COLUMN colour TEXT").await;
    store.execute("CREATE TABLE newer (id BIGINT PRIMARY KEY)").await;
    let migration = "INSERT INTO _sqlx_migrations \
        (version, description, installed_on, success, checksum, execution_time) \
        SELECT 9999, 'newer', installed_on, success, checksum, execution_time FROM _sqlx_migrations \
        WHERE version = 1";
    store.execute(migration).await;

    let store = store.reopened().await;

    let manifest = put(&store, &repository("app"), note("n").push_as("v1")).await;
    assert_eq!(target(&store, &repository("app"), "v1").await, Some(manifest));
}

async fn an_open_store_answers_the_probe(store: Arc<TestStore>) {
    store.probe().await.unwrap();
}

#[tokio::test]
async fn a_url_that_names_no_store_is_refused_without_its_password() {
    let Err(error) = open("mysql://root:secret@host/db", &Options::default()).await else {
        panic!("it was opened")
    };
    let shown = error.to_string();
    assert!(shown.contains("host/db") && shown.contains("sqlite:"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
}
