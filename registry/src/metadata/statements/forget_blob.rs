//! A blob whose object is gone is taken out of the tables, from as many repositories at a time as the caller names.

use super::super::Result;
use super::super::lifecycle::{ForgetBlob, Forgotten};
use super::unlink_blob::Locked;
use super::{Connection, dialect};

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
    // 3. Itself with the last of them.
    let blob = Locked {
        tenant,
        digest: &digest,
        object: forget.object.upload(),
        size,
    };
    let goes = blob.unlink(c, &unlinked, forget.object_due).await?;
    Ok(if goes {
        Forgotten::Wholly
    } else {
        Forgotten::InPart
    })
}
