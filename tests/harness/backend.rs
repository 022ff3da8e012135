//! The two kinds of stores, and a set of them for one test.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::database::Database;
use crate::environment::setting;

/// Which stores the registry under test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// SQLite and a folder.
    Embedded,
    /// PostgreSQL and S3.
    Distributed,
}

impl Backend {
    /// Every backend: most suites are a table over this.
    pub const BOTH: [Backend; 2] = [Backend::Embedded, Backend::Distributed];
}

/// A prefix of a test's own in the bucket of the run's S3 server.
#[derive(Debug)]
pub struct Bucket {
    prefix: String,
}

impl Bucket {
    /// A prefix that no other test has.
    pub fn create() -> Bucket {
        Bucket {
            prefix: format!("test-{}", uuid::Uuid::new_v4().simple()),
        }
    }

    /// The prefix as the registry's `--blobs` takes it.
    pub fn url(&self) -> String {
        let server = setting("BERTH_TEST_S3");
        let (bucket, query) = server.split_once('?').expect("BERTH_TEST_S3 has a query");
        format!("{}/{}?{query}", bucket.trim_end_matches('/'), self.prefix)
    }

    /// Where the S3 server keeps the prefix's objects on disk.
    pub fn folder(&self) -> PathBuf {
        Path::new(&setting("BERTH_TEST_S3_FOLDER")).join(&self.prefix)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        if let Ok(root) = std::env::var("BERTH_TEST_S3_FOLDER") {
            let _ = std::fs::remove_dir_all(Path::new(&root).join(&self.prefix));
        }
    }
}

/// Where one registry, or several replicas of it, keep everything. Removed with its value.
#[derive(Debug)]
pub struct Storage {
    data: TempDir,
    distributed: Option<(Database, Bucket)>,
}

impl Storage {
    /// Fresh stores of a kind.
    pub fn create(backend: Backend) -> Storage {
        let data = TempDir::with_prefix("berth-data-").expect("a temporary folder");
        let distributed = match backend {
            Backend::Embedded => None,
            Backend::Distributed => Some((Database::create(), Bucket::create())),
        };
        Storage { data, distributed }
    }

    /// The kind.
    pub fn backend(&self) -> Backend {
        match self.distributed {
            None => Backend::Embedded,
            Some(_) => Backend::Distributed,
        }
    }

    /// The folder for `--data` of the replica with this number.
    pub fn data(&self, replica: usize) -> PathBuf {
        self.data.path().join(format!("replica-{replica}"))
    }

    /// The database of a distributed storage.
    pub fn database(&self) -> Option<&Database> {
        self.distributed.as_ref().map(|(database, _)| database)
    }

    /// The prefix in the bucket of a distributed storage.
    pub fn bucket(&self) -> Option<&Bucket> {
        self.distributed.as_ref().map(|(_, bucket)| bucket)
    }
}
