//! A database of a test's own in the PostgreSQL server of the run.

use std::process::Command;

use crate::environment::setting;

/// A fresh database, dropped with its value. Its schema is whatever the server under test makes.
#[derive(Debug)]
pub struct Database {
    name: String,
}

impl Database {
    /// Creates a database with a name that no other test has.
    pub fn create() -> Database {
        let database = Database {
            name: format!("test_{}", uuid::Uuid::new_v4().simple()),
        };
        psql(
            &setting("BERTH_TEST_POSTGRES"),
            &format!("CREATE DATABASE {}", database.name),
        );
        database
    }

    /// The database as the registry's `--metadata` takes it.
    pub fn url(&self) -> String {
        let server = setting("BERTH_TEST_POSTGRES");
        let (server, _) = server
            .rsplit_once('/')
            .expect("BERTH_TEST_POSTGRES names a database");
        format!("{server}/{}", self.name)
    }

    /// The rows that `sql` gives, each a list of values as text; NULL is the empty string.
    pub fn query(&self, sql: &str) -> Vec<Vec<String>> {
        rows(&self.url(), sql)
    }
}

/// The rows that `sql` gives in a database.
pub(crate) fn rows(url: &str, sql: &str) -> Vec<Vec<String>> {
    let rows = psql(url, sql);
    rows.lines()
        .map(|row| row.split('\x1f').map(str::to_owned).collect())
        .collect()
}

impl Drop for Database {
    fn drop(&mut self) {
        // FORCE ends the connections of a server that was killed a moment ago.
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let _ = Command::new("psql")
            .args([
                "-X",
                "-q",
                "-c",
                &sql,
                &std::env::var("BERTH_TEST_POSTGRES").unwrap_or_default(),
            ])
            .output();
    }
}

fn psql(url: &str, sql: &str) -> String {
    let output = Command::new("psql")
        .args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-F",
            "\x1f",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            sql,
            url,
        ])
        .output()
        .unwrap_or_else(|e| panic!("cannot run psql: {e}; run the tests through ./tests/run"));
    assert!(
        output.status.success(),
        "`{sql}` failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
