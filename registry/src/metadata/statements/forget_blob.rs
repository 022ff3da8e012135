//! A blob whose object is gone is taken out of the tables, from as many repositories at a time as the caller names.

use super::super::lifecycle::{ForgetBlob, Forgotten};
use super::super::{Limits, Result};
use super::usage::{self, Growth};
use super::{Connection, dialect, objects};

pub(super) async fn forget(c: &mut Connection, forget: &ForgetBlob) -> Result<Forgotten> {
    let (tenant, digest) = (forget.tenant, forget.digest.to_bytes());
    // 1. The blob, locked, so that no link is made or dropped meanwhile.
    let size: Option<i64> = sqlx::query_scalar(concat!(
        "SELECT size FROM blob WHERE tenant_id = $1 AND digest = $2 AND object_key = $3",
        for_update!()
    ))
    .bind(tenant.0)
    .bind(&digest)
    .bind(forget.object.upload())
    .fetch_optional(&mut *c)
    .await?;
    let Some(size) = size else {
        return Ok(Forgotten::Changed);
    };
    // 2. Its links.
    let unlinked: Vec<i64> = sqlx::query_scalar(concat!(
        "SELECT l.repository_id FROM repository_blob l JOIN repository r ON r.tenant_id = l.tenant_id \
         AND r.id = l.repository_id WHERE l.tenant_id = $1 AND l.digest = $2 AND r.name",
        in_texts!("$3"),
        "ORDER BY l.repository_id"
    ))
    .bind(tenant.0)
    .bind(&digest)
    .bind(dialect::texts(forget.among.iter().map(String::as_str)))
    .fetch_all(&mut *c)
    .await?;
    for repository in &unlinked {
        sqlx::query(
            "DELETE FROM repository_blob WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
        )
        .bind(tenant.0)
        .bind(repository)
        .bind(&digest)
        .execute(&mut *c)
        .await?;
    }
    let left: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT 1 FROM repository_blob WHERE tenant_id = $1 AND digest = $2 LIMIT 1) AS links",
    )
    .bind(tenant.0)
    .bind(&digest)
    .fetch_one(&mut *c)
    .await?;
    // 3. Itself with the last of them.
    let goes = left == 0;
    if goes {
        for statement in [
            "DELETE FROM blob WHERE tenant_id = $1 AND digest = $2",
            "DELETE FROM review_blob WHERE tenant_id = $1 AND digest = $2",
        ] {
            sqlx::query(statement)
                .bind(tenant.0)
                .bind(&digest)
                .execute(&mut *c)
                .await?;
        }
        objects::enqueue(c, tenant, forget.object.upload(), size, forget.object_due).await?;
    }
    // 4. The counters, which are locked last; a tenant's counts each blob once.
    for (at, repository) in unlinked.iter().enumerate() {
        let last = goes && at + 1 == unlinked.len();
        let growth = Growth {
            bytes: -size,
            tenant_bytes: if last { -size } else { 0 },
            ..Growth::default()
        };
        let _ = usage::grow(c, tenant, *repository, growth, &Limits::default()).await?;
    }
    Ok(if goes {
        Forgotten::Wholly
    } else {
        Forgotten::InPart
    })
}
