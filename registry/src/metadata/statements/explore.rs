//! The trait of lists for people, over whichever database this file is compiled for.

use async_trait::async_trait;
use sqlx::Row as _;

use super::super::explore::*;
use super::super::lifecycle::TagRow;
use super::super::{Repository, Result, TenantId, Time};
use super::lookups::{digest as read_digest, size};
use super::manifests::Place;
use super::{Connection, Database, builds, dialect, metering, retention};
use crate::domain::build::BuildKey;
use crate::domain::{Digest, RepositoryName, TagName};

/// What a list shows of a repository.
macro_rules! repository_columns {
    () => {
        " r.id, r.name, u.bytes, u.tags, u.pushed_at, r.pulled_at "
    };
}

#[async_trait]
impl Explore for Database {
    async fn repositories_in(
        &self,
        tenant: TenantId,
        order: RepositoryOrder,
        after: Option<RepositoryPlace>,
        limit: u32,
    ) -> Result<Vec<RepositoryRow>> {
        self.read(
            (tenant, order, after, limit),
            |c, (tenant, order, after, limit)| Box::pin(in_order(c, *tenant, *order, *after, *limit)),
        )
        .await
    }

    async fn repository_rows(
        &self,
        tenant: TenantId,
        names: Vec<RepositoryName>,
    ) -> Result<Vec<RepositoryRow>> {
        self.read((tenant, names), |c, (tenant, names)| {
            Box::pin(by_name(c, *tenant, names))
        })
        .await
    }

    async fn names_with(
        &self,
        tenant: TenantId,
        part: String,
        span: (String, Option<String>),
        rows: u32,
    ) -> Result<FoundNames> {
        self.read((tenant, part, span, rows), |c, (tenant, part, span, rows)| {
            Box::pin(names_with(c, *tenant, part, span, *rows))
        })
        .await
    }

    async fn days(&self, repository: &Repository, from: i64, limit: u32) -> Result<Vec<Day>> {
        self.read(
            (repository.clone(), from, limit),
            |c, (repository, from, limit)| Box::pin(metering::days_of(c, repository, *from, *limit)),
        )
        .await
    }

    async fn months(&self, repository: &Repository, limit: u32) -> Result<Vec<Month>> {
        self.read((repository.clone(), limit), |c, (repository, limit)| {
            Box::pin(metering::months_of(c, repository, *limit))
        })
        .await
    }

    async fn pulls_of(&self, repository: &Repository, digest: &Digest) -> Result<u64> {
        self.read((repository.clone(), *digest), |c, (repository, digest)| {
            Box::pin(pulls_of(c, repository, digest))
        })
        .await
    }

    async fn tag_rows(&self, repository: &Repository, tags: Vec<TagName>) -> Result<Vec<TagRow>> {
        self.read((repository.clone(), tags), |c, (repository, tags)| {
            Box::pin(retention::named(c, repository, tags))
        })
        .await
    }

    async fn tags_of(&self, repository: &Repository, digest: &Digest, limit: u32) -> Result<Vec<String>> {
        self.read(
            (repository.clone(), *digest, limit),
            |c, (repository, digest, limit)| Box::pin(tags_of(c, repository, digest, *limit)),
        )
        .await
    }

    async fn indexes_of(&self, repository: &Repository, digest: &Digest, limit: u32) -> Result<Vec<Digest>> {
        self.read(
            (repository.clone(), *digest, limit),
            |c, (repository, digest, limit)| Box::pin(indexes_of(c, repository, digest, *limit)),
        )
        .await
    }

    async fn builds(&self, tenant: TenantId, value: String, limit: u32) -> Result<Vec<BuildRow>> {
        self.read((tenant, value, limit), |c, (tenant, value, limit)| {
            Box::pin(builds::find(c, *tenant, value, *limit))
        })
        .await
    }

    async fn tags_named(&self, tenant: TenantId, name: String, limit: u32) -> Result<Vec<NamedTag>> {
        self.read((tenant, name, limit), |c, (tenant, name, limit)| {
            Box::pin(tags_named(c, *tenant, name, *limit))
        })
        .await
    }

    async fn due_builds(&self, now: Time, retry: Time, limit: u32) -> Result<DueBuilds> {
        self.write_later((now, retry, limit), |c, (now, retry, limit)| {
            Box::pin(builds::due(c, *now, *retry, *limit))
        })
        .await
    }

    async fn note_build(&self, due: &DueBuild, keys: Vec<BuildKey>) -> Result<()> {
        self.write_later((due.clone(), keys), |c, (due, keys)| {
            Box::pin(builds::note(c, due, keys))
        })
        .await
    }
}

/// A walk of `usage_by_push` or `usage_by_size` backwards.
async fn in_order(
    c: &mut Connection,
    tenant: TenantId,
    order: RepositoryOrder,
    after: Option<RepositoryPlace>,
    limit: u32,
) -> Result<Vec<RepositoryRow>> {
    let query = match order {
        RepositoryOrder::Pushed => concat!(
            "SELECT",
            repository_columns!(),
            "FROM usage u JOIN repository r ON r.tenant_id = u.tenant_id AND r.id = u.repository_id \
             WHERE u.tenant_id = $1 AND u.repository_id <> 0 AND (u.pushed_at, u.repository_id) < ($2, $3) \
             AND r.name NOT LIKE '%~%' ORDER BY u.pushed_at DESC, u.repository_id DESC LIMIT $4"
        ),
        RepositoryOrder::Size => concat!(
            "SELECT",
            repository_columns!(),
            "FROM usage u JOIN repository r ON r.tenant_id = u.tenant_id AND r.id = u.repository_id \
             WHERE u.tenant_id = $1 AND u.repository_id <> 0 AND (u.bytes, u.repository_id) < ($2, $3) \
             AND r.name NOT LIKE '%~%' ORDER BY u.bytes DESC, u.repository_id DESC LIMIT $4"
        ),
    };
    let (value, id) = after.map_or((i64::MAX, i64::MAX), |place| (place.value, place.id));
    let rows = sqlx::query(query)
        .bind(tenant.0)
        .bind(value)
        .bind(id)
        .bind(i64::from(limit))
        .fetch_all(&mut *c)
        .await?;
    rows.iter().map(repository).collect()
}

async fn by_name(
    c: &mut Connection,
    tenant: TenantId,
    names: &[RepositoryName],
) -> Result<Vec<RepositoryRow>> {
    let rows = sqlx::query(concat!(
        "SELECT",
        repository_columns!(),
        "FROM repository r JOIN usage u ON u.tenant_id = r.tenant_id AND u.repository_id = r.id \
         WHERE r.tenant_id = $1 AND r.name",
        in_texts!("$2"),
        "ORDER BY r.name"
    ))
    .bind(tenant.0)
    .bind(dialect::texts(names.iter().map(RepositoryName::as_str)))
    .fetch_all(&mut *c)
    .await?;
    rows.iter().map(repository).collect()
}

async fn names_with(
    c: &mut Connection,
    tenant: TenantId,
    part: &str,
    span: &(String, Option<String>),
    rows: u32,
) -> Result<FoundNames> {
    // What a pattern would take for more than itself stands for itself. Names have no capitals, so that it is the same
    // whether the pattern minds them.
    let mut pattern = String::from("%");
    for c in part.chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    // The last row says what was looked at.
    let found = sqlx::query(
        "WITH looked AS MATERIALIZED (SELECT name FROM repository WHERE tenant_id = $1 AND name > $2 \
         AND ($3 IS NULL OR name < $3) AND name NOT LIKE '%~%' ORDER BY name LIMIT $4) \
         SELECT name, CAST(0 AS BIGINT) AS looked FROM looked WHERE name LIKE $5 ESCAPE '!' \
         UNION ALL SELECT max(name), count(*) FROM looked HAVING count(*) > 0 ORDER BY looked, name",
    )
    .bind(tenant.0)
    .bind(&span.0)
    .bind(&span.1)
    .bind(i64::from(rows))
    .bind(pattern)
    .fetch_all(&mut *c)
    .await?;
    let Some((last, found)) = found.split_last() else {
        return Ok(FoundNames::default());
    };
    let names = found.iter().map(|row| Ok(row.try_get(0)?));
    Ok(FoundNames {
        names: names.collect::<Result<_>>()?,
        looked: usize::try_from(last.try_get::<i64, _>(1)?).unwrap_or(usize::MAX),
        last: last.try_get(0)?,
    })
}

async fn pulls_of(c: &mut Connection, repository: &Repository, digest: &Digest) -> Result<u64> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(0);
    };
    let pulls: Option<i64> = sqlx::query_scalar(
        "SELECT pulls FROM manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .fetch_optional(&mut *c)
    .await?;
    size(pulls.unwrap_or_default())
}

fn repository(row: &dialect::Row) -> Result<RepositoryRow> {
    // A counter that has drifted must not hide a list.
    let count = |at: usize| -> Result<u64> { size(row.try_get::<i64, _>(at)?.max(0)) };
    let pushed: i64 = row.try_get(4)?;
    Ok(RepositoryRow {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        bytes: count(2)?,
        counted: row.try_get(2)?,
        tags: count(3)?,
        pushed_at: (pushed > 0).then_some(Time(pushed)),
        pulled_at: row.try_get::<Option<i64>, _>(5)?.map(Time),
    })
}

async fn tags_of(
    c: &mut Connection,
    repository: &Repository,
    digest: &Digest,
    limit: u32,
) -> Result<Vec<String>> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(Vec::new());
    };
    // A walk of tag_by_digest.
    let names = sqlx::query_scalar(
        "SELECT name FROM tag WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3 ORDER BY name LIMIT $4",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    Ok(names)
}

async fn indexes_of(
    c: &mut Connection,
    repository: &Repository,
    digest: &Digest,
    limit: u32,
) -> Result<Vec<Digest>> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(Vec::new());
    };
    let parents: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT parent FROM manifest_child WHERE tenant_id = $1 AND repository_id = $2 AND child = $3 LIMIT $4",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    parents.iter().map(|parent| read_digest(parent)).collect()
}

async fn tags_named(c: &mut Connection, tenant: TenantId, name: &str, limit: u32) -> Result<Vec<NamedTag>> {
    let mut found = Vec::new();
    // Two walks of tag_by_name: itself, before whatever sorts behind it, and what begins with it and a dash, before the
    // character that sorts behind the dash.
    for (from, to) in [
        (name.to_owned(), format!("{name}\u{1}")),
        (format!("{name}-"), format!("{name}.")),
    ] {
        let missing = i64::from(limit) - i64::try_from(found.len()).unwrap_or(i64::MAX);
        let rows = sqlx::query(
            "SELECT r.name, t.name, t.digest FROM tag t \
             JOIN repository r ON r.tenant_id = t.tenant_id AND r.id = t.repository_id \
             WHERE t.tenant_id = $1 AND t.name >= $2 AND t.name < $3 AND r.name NOT LIKE '%~%' \
             ORDER BY t.name, t.repository_id LIMIT $4",
        )
        .bind(tenant.0)
        .bind(&from)
        .bind(&to)
        .bind(missing.max(0))
        .fetch_all(&mut *c)
        .await?;
        for row in rows {
            found.push(NamedTag {
                repository: row.try_get(0)?,
                tag: row.try_get(1)?,
                digest: read_digest(row.try_get(2)?)?,
            });
        }
    }
    Ok(found)
}
