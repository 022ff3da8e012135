//! What every metadata store must do, run against SQLite and Postgres alike.
//!
//! A test is an async function over a [`fixture::TestStore`]; `on_both_stores!` makes one test a store of it.
//! SQLite runs in a folder of the test's own, Postgres in a database of the test's own on the server that
//! `BERTH_TEST_POSTGRES` names. The stores are opened as the process opens them, caches included. Besides the
//! trait, tests may look at the tables (`TestStore::count`) for what no method shows yet.

/// Makes a test on SQLite and a test on Postgres of each function.
macro_rules! on_both_stores {
    ($($test:ident)+) => {
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $test() {
                    super::$test(crate::metadata::suite::fixture::TestStore::on_sqlite().await).await;
                }
            )+
        }
        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $test() {
                    super::$test(crate::metadata::suite::fixture::TestStore::on_postgres().await).await;
                }
            )+
        }
    };
}

mod builders;
mod fixture;

mod audit;
mod blobs;
mod collection;
mod collection_model;
mod collection_races;
mod configuration;
mod deletion;
mod events;
mod explore;
mod forgetting;
mod inspection;
mod isolation;
mod jobs;
mod lists;
mod manifests;
mod mounts;
mod plans;
mod pull_through;
mod pulls;
mod purges;
mod reads;
mod referrers;
mod restores;
mod retention;
mod schema;
mod tags;
mod tokens;
mod uploads;
mod usage;
mod writes;
