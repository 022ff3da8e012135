//! Configuration objects, their versions, and the names they hold.

use sqlx::Row as _;
use uuid::Uuid;

use super::super::configuration::{
    Applied, Change, ChangeSet, Claim, FirstTenant, NewSpec, Object, ObjectCursor, ObjectKind, Wish,
};
use super::super::{MetadataError, Result, TenantId, Time, row_id};
use super::{Connection, audit, dialect, purge};
use crate::domain::TenantName;

macro_rules! object_columns {
    () => {
        " c.tenant_id, t.name, t.uid, c.kind, c.name, c.uid, c.generation, c.spec, c.hash, c.built_in, c.version \
          FROM config c JOIN tenant t ON t.id = c.tenant_id "
    };
}

fn object(row: &dialect::Row) -> Result<Object> {
    let kind: i16 = row.try_get(3)?;
    Ok(Object {
        tenant: TenantId(row.try_get(0)?),
        tenant_name: row.try_get(1)?,
        tenant_uid: row.try_get(2)?,
        kind: ObjectKind::from_stored(kind)
            .ok_or_else(|| MetadataError::Corrupt(format!("configuration object of kind {kind}")))?,
        name: row.try_get(4)?,
        uid: row.try_get(5)?,
        generation: row.try_get(6)?,
        spec: row.try_get(7)?,
        hash: row.try_get(8)?,
        built_in: row.try_get(9)?,
        version: row.try_get(10)?,
    })
}

pub(super) async fn version(c: &mut Connection) -> Result<i64> {
    Ok(
        sqlx::query_scalar("SELECT version FROM config_version WHERE id = 0")
            .fetch_one(&mut *c)
            .await?,
    )
}

pub(super) async fn new_term(c: &mut Connection) -> Result<i64> {
    Ok(
        sqlx::query_scalar("UPDATE config_version SET term = term + 1 WHERE id = 0 RETURNING term")
            .fetch_one(&mut *c)
            .await?,
    )
}

pub(super) async fn objects(c: &mut Connection, cursor: &ObjectCursor, limit: u32) -> Result<Vec<Object>> {
    // A walk of config_by_version.
    let rows = sqlx::query(concat!(
        "SELECT",
        object_columns!(),
        "WHERE (c.version, c.tenant_id, c.kind, c.name) > ($1, $2, $3, $4) \
         ORDER BY c.version, c.tenant_id, c.kind, c.name LIMIT $5"
    ))
    .bind(cursor.version)
    .bind(cursor.tenant)
    .bind(cursor.kind)
    .bind(&cursor.name)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    rows.iter().map(object).collect()
}

pub(super) async fn find(
    c: &mut Connection,
    tenant: &TenantName,
    kind: ObjectKind,
    name: &str,
) -> Result<Option<Object>> {
    let row = sqlx::query(concat!(
        "SELECT",
        object_columns!(),
        "WHERE t.name = $1 AND t.deleted_at IS NULL AND c.kind = $2 AND c.name = $3 AND c.spec IS NOT NULL"
    ))
    .bind(tenant.as_str())
    .bind(kind.to_stored())
    .bind(name)
    .fetch_optional(&mut *c)
    .await?;
    row.as_ref().map(object).transpose()
}

pub(super) async fn forget_deleted(c: &mut Connection, before: Time) -> Result<()> {
    sqlx::query("DELETE FROM config WHERE spec IS NULL AND changed_at < $1")
        .bind(before.0)
        .execute(&mut *c)
        .await?;
    Ok(())
}

pub(super) async fn first_tenant(c: &mut Connection, first: &FirstTenant) -> Result<()> {
    let found = sqlx::query("SELECT 1 FROM tenant WHERE name = $1")
        .bind(first.name.as_str())
        .fetch_optional(&mut *c)
        .await?;
    if found.is_some() {
        return Ok(());
    }
    let (version, _) = next_version(c).await?;
    let made = sqlx::query(
        "INSERT INTO tenant (id, name, uid, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO NOTHING",
    )
    .bind(row_id())
    .bind(first.name.as_str())
    .bind(Uuid::new_v4().to_string())
    .bind(first.now.0)
    .execute(&mut *c)
    .await?;
    if made.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO config (tenant_id, kind, name, generation, spec, hash, built_in, version, changed_at) \
         SELECT id, 0, '', 0, $2, '', TRUE, $3, $4 FROM tenant WHERE name = $1",
    )
    .bind(first.name.as_str())
    .bind(&first.spec)
    .bind(version)
    .bind(first.now.0)
    .execute(&mut *c)
    .await?;
    Ok(())
}

/// Raises the version, which makes other writers wait until this one has committed; with the term.
async fn next_version(c: &mut Connection) -> Result<(i64, i64)> {
    let row =
        sqlx::query("UPDATE config_version SET version = version + 1 WHERE id = 0 RETURNING version, term")
            .fetch_one(&mut *c)
            .await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// The present term if `term` is an older one. New terms wait until this transaction has ended.
pub(super) async fn overthrown(c: &mut Connection, term: Option<i64>) -> Result<Option<i64>> {
    let Some(term) = term else { return Ok(None) };
    let current = hold(c).await?;
    Ok((term < current).then_some(current))
}

/// The present term. Terms and configuration stay as they are until this transaction has ended.
pub(super) async fn hold(c: &mut Connection) -> Result<i64> {
    // A write, since a read would not keep others from changing them in between.
    let row = sqlx::query("UPDATE config_version SET term = term WHERE id = 0 RETURNING term")
        .fetch_one(&mut *c)
        .await?;
    Ok(row.try_get(0)?)
}

pub(super) async fn apply(c: &mut Connection, set: &ChangeSet) -> Result<Applied> {
    let (version, current) = next_version(c).await?;
    if set.term.is_some_and(|term| term < current) {
        return Ok(Applied::StaleTerm { current });
    }
    let mut changed = 0;
    for (at, change) in set.changes.iter().enumerate() {
        let Some(tenant) = tenant_of(c, change, set.now).await? else {
            match change.wish {
                Wish::Put(_) => return Ok(Applied::NoTenant(change.tenant.to_string())),
                Wish::Delete | Wish::Erase => continue,
            }
        };
        if is_of_another(c, tenant, change).await? {
            return Ok(Applied::Replaced { at });
        }
        let differs = match &change.wish {
            Wish::Put(spec) => {
                if let Some((claim, by)) = claim(c, tenant, change, spec).await? {
                    return Ok(Applied::Taken { at, claim, by });
                }
                put(c, tenant, change, spec, version, set.now).await?
            }
            Wish::Delete | Wish::Erase => delete(c, tenant, change, version, set.now).await?,
        };
        changed += usize::from(differs);
    }
    if changed > 0 {
        audit::insert(c, &set.audit).await?;
        dialect::notify(c).await?;
    }
    // Without a change the version is not raised: the transaction is rolled back.
    let version = if changed > 0 { version } else { version - 1 };
    Ok(Applied::Done { version, changed })
}

/// The row id of a change's tenant, which a put of the tenant itself makes or takes up again.
async fn tenant_of(c: &mut Connection, change: &Change, now: Time) -> Result<Option<i64>> {
    let live = "SELECT id FROM tenant WHERE name = $1 AND deleted_at IS NULL";
    let found: Option<i64> = sqlx::query_scalar(live)
        .bind(change.tenant.as_str())
        .fetch_optional(&mut *c)
        .await?;
    let makes = change.kind == ObjectKind::Tenant && matches!(change.wish, Wish::Put(_));
    if found.is_some() || !makes {
        return Ok(found);
    }
    // The uid is new in any case: what was signed for the tenant before is not valid for it now.
    let id = sqlx::query_scalar(
        "INSERT INTO tenant (id, name, uid, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (name) DO UPDATE SET deleted_at = NULL, uid = excluded.uid RETURNING id",
    )
    .bind(row_id())
    .bind(change.tenant.as_str())
    .bind(Uuid::new_v4().to_string())
    .bind(now.0)
    .fetch_one(&mut *c)
    .await?;
    Ok(Some(id))
}

/// Whether the object is there and comes from another source than the change is meant for.
async fn is_of_another(c: &mut Connection, tenant: i64, change: &Change) -> Result<bool> {
    let Some(uid) = &change.only_of else {
        return Ok(false);
    };
    let found = sqlx::query(
        "SELECT 1 FROM config WHERE tenant_id = $1 AND kind = $2 AND name = $3 AND spec IS NOT NULL \
         AND coalesce(uid, '') <> $4",
    )
    .bind(tenant)
    .bind(change.kind.to_stored())
    .bind(&change.name)
    .bind(uid)
    .fetch_optional(&mut *c)
    .await?;
    Ok(found.is_some())
}

/// Whether the object differs from what it was.
async fn put(
    c: &mut Connection,
    tenant: i64,
    change: &Change,
    spec: &NewSpec,
    version: i64,
    now: Time,
) -> Result<bool> {
    let written = sqlx::query(
        "INSERT INTO config (tenant_id, kind, name, uid, generation, spec, hash, version, changed_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (tenant_id, kind, name) DO UPDATE SET \
         uid = excluded.uid, generation = excluded.generation, spec = excluded.spec, hash = excluded.hash, \
         built_in = FALSE, version = excluded.version, changed_at = excluded.changed_at \
         WHERE config.hash <> excluded.hash OR config.spec IS NULL OR config.built_in \
         OR config.generation <> excluded.generation OR coalesce(config.uid, '') <> coalesce(excluded.uid, '')",
    )
    .bind(tenant)
    .bind(change.kind.to_stored())
    .bind(&change.name)
    .bind(&spec.uid)
    .bind(spec.generation)
    .bind(&spec.json)
    .bind(&spec.hash)
    .bind(version)
    .bind(now.0)
    .execute(&mut *c)
    .await?;
    Ok(written.rows_affected() > 0)
}

async fn delete(c: &mut Connection, tenant: i64, change: &Change, version: i64, now: Time) -> Result<bool> {
    let whole_tenant = change.kind == ObjectKind::Tenant;
    if whole_tenant && matches!(change.wish, Wish::Erase) {
        purge::ask(c, tenant, "", now).await?;
    }
    let deleted = sqlx::query(
        "UPDATE config SET spec = NULL, version = $4, changed_at = $5 WHERE tenant_id = $1 AND spec IS NOT NULL \
         AND ($6 OR (kind = $2 AND name = $3))",
    )
    .bind(tenant)
    .bind(change.kind.to_stored())
    .bind(&change.name)
    .bind(version)
    .bind(now.0)
    .bind(whole_tenant)
    .execute(&mut *c)
    .await?;
    sqlx::query("DELETE FROM claim WHERE tenant_id = $1 AND ($4 OR (object_kind = $2 AND object = $3))")
        .bind(tenant)
        .bind(change.kind.to_stored())
        .bind(&change.name)
        .bind(whole_tenant)
        .execute(&mut *c)
        .await?;
    if whole_tenant {
        sqlx::query("DELETE FROM token WHERE tenant_id = $1")
            .bind(tenant)
            .execute(&mut *c)
            .await?;
        // An erased tenant gives its name away; no name has a '~'.
        let erase = matches!(change.wish, Wish::Erase);
        sqlx::query(
            "UPDATE tenant SET deleted_at = $2, name = CASE WHEN $3 THEN name || '~' || id ELSE name END \
             WHERE id = $1",
        )
        .bind(tenant)
        .bind(now.0)
        .bind(erase)
        .execute(&mut *c)
        .await?;
    }
    Ok(deleted.rows_affected() > 0)
}

/// The repository that an object of configuration declares by its name, the one whose claim it holds, and the uid that
/// the object has at its source.
pub(super) async fn declared(
    c: &mut Connection,
    tenant: i64,
    object: &str,
) -> Result<Option<(String, Option<String>)>> {
    let (_, claim, _) = Claim::Repository(String::new()).to_stored();
    let row = sqlx::query(
        "SELECT c.spec, c.uid FROM config c WHERE c.tenant_id = $1 AND c.kind = $2 AND c.name = $3 \
         AND EXISTS (SELECT 1 FROM claim h WHERE h.scope = $1 AND h.kind = $4 AND h.object_kind = $2 \
         AND h.object = $3)",
    )
    .bind(tenant)
    .bind(ObjectKind::Repository.to_stored())
    .bind(object)
    .bind(claim)
    .fetch_optional(&mut *c)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let spec: Option<String> = row.try_get(0)?;
    let spec: serde_json::Value = serde_json::from_str(&spec.unwrap_or_default()).unwrap_or_default();
    let uid = row.try_get(1)?;
    Ok(spec["name"].as_str().map(|name| (name.to_owned(), uid)))
}

/// Makes the object hold exactly the names that it claims; or the name that it cannot have, and who has it.
async fn claim(
    c: &mut Connection,
    tenant: i64,
    change: &Change,
    spec: &NewSpec,
) -> Result<Option<(Claim, String)>> {
    sqlx::query("DELETE FROM claim WHERE tenant_id = $1 AND object_kind = $2 AND object = $3")
        .bind(tenant)
        .bind(change.kind.to_stored())
        .bind(&change.name)
        .execute(&mut *c)
        .await?;
    for claim in &spec.claims {
        let (installation, kind, name) = claim.to_stored();
        let scope = if installation { 0 } else { tenant };
        let held = sqlx::query(
            "INSERT INTO claim (scope, kind, name, tenant_id, object_kind, object) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (scope, kind, name) DO NOTHING",
        )
        .bind(scope)
        .bind(kind)
        .bind(name)
        .bind(tenant)
        .bind(change.kind.to_stored())
        .bind(&change.name)
        .execute(&mut *c)
        .await?;
        if held.rows_affected() == 0 {
            return Ok(Some((claim.clone(), holder(c, scope, kind, name).await?)));
        }
        let shadowed: Option<&str> = match claim {
            Claim::Apex(_) => exists(c, "SELECT 1 FROM tenant WHERE name = $2 AND $1 > 0", tenant, name)
                .await?
                .then_some("the tenant of that name"),
            Claim::Alias(_) => exists(
                c,
                "SELECT 1 FROM repository WHERE tenant_id = $1 AND name = $2",
                tenant,
                name,
            )
            .await?
            .then_some("a repository of that name"),
            Claim::Host(_) | Claim::Repository(_) | Claim::Prefix(_) | Claim::Mirror(_) => None,
        };
        if let Some(by) = shadowed {
            return Ok(Some((claim.clone(), by.to_owned())));
        }
    }
    Ok(None)
}

async fn exists(c: &mut Connection, query: &'static str, tenant: i64, name: &str) -> Result<bool> {
    let found = sqlx::query(query)
        .bind(tenant)
        .bind(name)
        .fetch_optional(&mut *c)
        .await?;
    Ok(found.is_some())
}

async fn holder(c: &mut Connection, scope: i64, kind: i16, name: &str) -> Result<String> {
    let row = sqlx::query(
        "SELECT t.name, h.object_kind, h.object FROM claim h JOIN tenant t ON t.id = h.tenant_id \
         WHERE h.scope = $1 AND h.kind = $2 AND h.name = $3",
    )
    .bind(scope)
    .bind(kind)
    .bind(name)
    .fetch_one(&mut *c)
    .await?;
    let (tenant, kind, object): (String, i16, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(match ObjectKind::from_stored(kind) {
        Some(ObjectKind::Tenant) | None => format!("tenant {tenant}"),
        Some(kind) => format!("{}/{object} of tenant {tenant}", kind.text()),
    })
}
