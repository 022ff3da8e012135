//! The version of the schema.

use sqlx::migrate::Migrator;

use super::super::{MetadataError, Result};
use super::Connection;

/// Fails unless every migration that this release knows has been applied.
pub(super) async fn check(c: &mut Connection, migrator: &Migrator) -> Result<()> {
    let applied = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(&mut *c)
        .await;
    let applied: Option<i64> = match applied {
        Ok(version) => version,
        // The table of migrations itself comes with the first.
        Err(sqlx::Error::Database(_)) => None,
        Err(error) => return Err(error.into()),
    };
    if applied < migrator.iter().map(|migration| migration.version).max() {
        return Err(MetadataError::Behind);
    }
    Ok(())
}
