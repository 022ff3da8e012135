//! A blob that its caller has locked leaves some repositories, and the tables with the last that has it.

use uuid::Uuid;

use super::super::{Limits, Result, TenantId, Time};
use super::usage::{self, Growth};
use super::{Connection, objects};

/// A blob, locked by `SELECT ... FOR UPDATE`.
pub(super) struct Locked<'b> {
    pub tenant: TenantId,
    /// As the tables have it.
    pub digest: &'b [u8],
    /// Its object's key.
    pub object: Uuid,
    /// In bytes.
    pub size: i64,
}

impl Locked<'_> {
    /// Takes it out of these repositories, which are in the order of their ids. True if no other has it: then it goes itself,
    /// and its object is deleted from `object_due` on.
    pub async fn unlink(&self, c: &mut Connection, repositories: &[i64], object_due: Time) -> Result<bool> {
        for repository in repositories {
            sqlx::query(
                "DELETE FROM repository_blob WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
            )
            .bind(self.tenant.0)
            .bind(repository)
            .bind(self.digest)
            .execute(&mut *c)
            .await?;
        }
        let left: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM (SELECT 1 FROM repository_blob WHERE tenant_id = $1 AND digest = $2 LIMIT 1) AS links",
        )
        .bind(self.tenant.0)
        .bind(self.digest)
        .fetch_one(&mut *c)
        .await?;
        let goes = left == 0;
        if goes {
            self.remove(c, object_due).await?;
        }
        // The counters, which are locked last; a tenant's counts each blob once.
        for (at, repository) in repositories.iter().enumerate() {
            let last = goes && at + 1 == repositories.len();
            let growth = Growth {
                bytes: -self.size,
                tenant_bytes: if last { -self.size } else { 0 },
                ..Growth::default()
            };
            let _ = usage::grow(c, self.tenant, *repository, growth, &Limits::default()).await?;
        }
        Ok(goes)
    }

    async fn remove(&self, c: &mut Connection, object_due: Time) -> Result<()> {
        for statement in [
            "DELETE FROM blob WHERE tenant_id = $1 AND digest = $2",
            "DELETE FROM review_blob WHERE tenant_id = $1 AND digest = $2",
        ] {
            sqlx::query(statement)
                .bind(self.tenant.0)
                .bind(self.digest)
                .execute(&mut *c)
                .await?;
        }
        objects::enqueue(c, self.tenant, self.object, self.size, object_due).await
    }
}
