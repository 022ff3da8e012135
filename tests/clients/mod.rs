//! Stage `clients`: programs that people use, against both backends.
//!
//! What it is: one file a program; each test is something that a person does with it. What it may
//! use: the harness, and plain HTTP to see what the program left in the registry. What must hold:
//! everything that comes back is compared byte for byte with what was pushed; a program finds no
//! login, cache or setting of whoever runs the tests.

/// Makes each of these functions, which take the backend, a test on SQLite and a folder and a test on
/// Postgres and S3, where blob reads are redirected for clients that can follow.
macro_rules! on_both_backends {
    ($($test:ident),+ $(,)?) => {
        mod on_sqlite_and_a_folder {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(harness::Backend::Embedded).await;
            })+
        }
        mod on_postgres_and_s3 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(harness::Backend::Distributed).await;
            })+
        }
    };
}

mod buildah;
mod crane;
mod curl;
mod helm;
mod oras;
mod regctl;
mod skopeo;

use harness::http::Repository;
use harness::{Berth, Image, Index};

/// Big enough that a layer takes more than one read and write anywhere.
const LAYER: usize = 300_000;

/// An index over an amd64 and an arm64 image.
fn two_platforms(seed: u64) -> Index {
    let images = ["amd64", "arm64"];
    Index::new(
        images
            .iter()
            .zip(seed..)
            .map(|(a, seed)| Image::of_platform(a, seed, LAYER))
            .collect(),
    )
}

/// A repository of the registry, to look at what a client left there.
fn repository(berth: &Berth, name: &str) -> Repository {
    Repository::new(&berth.url(""), name)
}

/// The tags of a repository in the registry's order.
async fn tags(berth: &Berth, name: &str) -> Vec<String> {
    let list = repository(berth, name).get("tags/list").await.expect(200).json();
    let tags = list["tags"].as_array().expect("tags is a list");
    tags.iter()
        .map(|tag| tag.as_str().expect("a tag is text").to_owned())
        .collect()
}
