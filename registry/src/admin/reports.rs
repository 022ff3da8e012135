//! What the admin API tells: terms, replicas, stored repositories, the audit trail.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Admin;
use super::answer::{Answer, Asked, Failure};
use super::objects::tenant_name;
use crate::domain::RepositoryName;
use crate::metadata::configuration::{AuditQuery, AuditRecord, REPLICA_LIFE, Usage};
use crate::metadata::{Repository, Time};
use crate::rfc3339;
use crate::tenancy::Tenant;

/// Most entries of a page.
pub(super) const PAGE: u32 = 1000;

/// A fencing token.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Term {
    /// Later ones are higher.
    term: i64,
}

/// Takes over from all earlier writers: whoever writes under an older term is refused from now on.
pub async fn new_term(State(admin): State<Admin>) -> Answer<Term> {
    let term = admin.store.new_term().await?;
    Ok(Json(Term { term }))
}

/// What the replicas serve.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Replicas {
    /// Version of the configuration.
    version: i64,
    /// Whether every live replica serves it.
    served: bool,
    /// The live ones.
    replicas: Vec<Replica>,
}

/// What a replica says about itself.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    /// New with each start.
    id: String,
    /// Name of its machine.
    host: String,
    /// Start of the process (RFC 3339).
    started_at: String,
    /// Its last heartbeat (RFC 3339).
    seen_at: String,
    /// Version of the configuration that it serves.
    version: i64,
    /// Ids of the signing keys that it knows.
    keys: Vec<String>,
    /// Objects whose newest content it cannot read.
    failed: Vec<String>,
}

/// The live replicas.
pub async fn replicas(State(admin): State<Admin>) -> Answer<Replicas> {
    let version = admin.store.version().await?;
    let live = admin.store.replicas(Time::now().minus(REPLICA_LIFE)).await?;
    let served = !live.is_empty() && live.iter().all(|replica| replica.version >= version);
    let shown = live.into_iter().map(|replica| Replica {
        id: replica.id.to_string(),
        host: replica.host,
        started_at: rfc3339::write(replica.started_at),
        seen_at: rfc3339::write(replica.seen_at),
        version: replica.version,
        keys: replica.keys,
        failed: replica.failed,
    });
    Ok(Json(Replicas {
        version,
        served,
        replicas: shown.collect(),
    }))
}

/// The tenant of this name.
pub(super) fn find(admin: &Admin, name: &str) -> Result<Arc<Tenant>, Failure> {
    let name = tenant_name(name)?;
    let tenant = admin.directory.now().by_name(name.as_str()).cloned();
    tenant.ok_or_else(|| Failure::not_found(format!("tenant {name}")))
}

/// The repository that exists by this name or alias, and what it stores.
pub(super) async fn find_repository(
    admin: &Admin,
    tenant: &Tenant,
    name: &str,
) -> Result<(Repository, Usage), Failure> {
    let unknown = || Failure::not_found(format!("repository {name:?} of tenant {}", tenant.name));
    let parsed: RepositoryName = name.parse().map_err(|_| unknown())?;
    let repository = Repository {
        tenant: tenant.id,
        name: tenant.repositories.canonical(parsed),
    };
    let usage = admin.store.repository_usage(tenant.id, &repository.name).await?;
    Ok((repository, usage.ok_or_else(unknown)?))
}

/// A repository that exists.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// Its name.
    name: String,
    /// Bytes of its distinct blobs and of its manifests.
    bytes: u64,
    /// Its tags.
    tags: u64,
    /// Private or Public.
    visibility: berth_crds::Visibility,
    /// Whether a configuration object declares it.
    declared: bool,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// Its newest push that is still there, where one repository is asked for (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    last_push: Option<String>,
    /// Its last pull, to the hour, where one repository is asked for (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    last_pull: Option<String>,
}

/// A page of repositories.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Catalog {
    /// By name.
    repositories: Vec<Stored>,
    /// Where the next page begins (`after`), if there is one.
    next: Option<String>,
}

/// Where a page begins.
#[derive(Debug, Default, Deserialize)]
pub struct After {
    #[serde(default)]
    after: String,
}

fn stored(tenant: &Tenant, name: &RepositoryName, usage: Usage) -> Stored {
    Stored {
        name: name.to_string(),
        bytes: usage.bytes,
        tags: usage.tags,
        visibility: tenant.visibility(name),
        declared: tenant.repositories.declares(name),
        description: tenant.repositories.description(name).map(str::to_owned),
        last_push: None,
        last_pull: None,
    }
}

/// A page of the repositories that exist in a tenant.
pub async fn catalog(
    State(admin): State<Admin>,
    Path(tenant): Path<String>,
    Asked(from): Asked<After>,
) -> Answer<Catalog> {
    let tenant = find(&admin, &tenant)?;
    let rows = admin.store.repository_usages(tenant.id, from.after, PAGE).await?;
    let next = rows
        .last()
        .filter(|_| rows.len() == PAGE as usize)
        .map(|(name, _)| name.clone());
    let repositories = rows.into_iter().filter_map(|(name, usage)| {
        let name: RepositoryName = name.parse().ok()?;
        Some(stored(&tenant, &name, usage))
    });
    Ok(Json(Catalog {
        repositories: repositories.collect(),
        next,
    }))
}

/// One repository that exists in a tenant.
pub async fn repository(
    State(admin): State<Admin>,
    Path((tenant, name)): Path<(String, String)>,
) -> Answer<Stored> {
    let tenant = find(&admin, &tenant)?;
    let (repository, usage) = find_repository(&admin, &tenant, &name).await?;
    // What was pulled here a moment ago counts.
    let store = admin.keeper.store();
    admin.keeper.pulls.flush(&**store).await;
    let (push, pull) = store.last_times(&repository).await?;
    Ok(Json(Stored {
        last_push: push.map(rfc3339::write),
        last_pull: pull.map(rfc3339::write),
        ..stored(&tenant, &repository.name, usage)
    }))
}

/// Which part of the audit trail.
#[derive(Debug, Default, Deserialize)]
pub struct AuditAsked {
    tenant: Option<String>,
    since: Option<String>,
    before: Option<String>,
    limit: Option<u32>,
}

/// A part of the audit trail, newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Trail {
    /// What happened.
    records: Vec<Record>,
    /// Where the next, older page begins (`before`), if there is one.
    next: Option<String>,
}

/// One thing that happened.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Record {
    /// When (RFC 3339).
    at: String,
    /// Name of the tenant, or empty.
    tenant: String,
    /// Who.
    actor: String,
    /// What was done or tried.
    action: String,
    /// On what.
    object: String,
    /// done or denied.
    outcome: String,
    /// Why, or with what.
    detail: String,
    /// From where, if a client did it.
    address: String,
    /// How often within a second.
    count: i64,
}

/// A part of the audit trail.
pub async fn audit(State(admin): State<Admin>, Asked(asked): Asked<AuditAsked>) -> Answer<Trail> {
    admin.identity.audit().flush().await;
    let limit = asked.limit.unwrap_or(100).clamp(1, PAGE);
    let tenant = asked
        .tenant
        .as_deref()
        .map(|name| find(&admin, name))
        .transpose()?;
    let query = AuditQuery {
        tenant: tenant.map(|tenant| tenant.id.0),
        before: asked.before.as_deref().map(cursor).transpose()?,
        since: asked
            .since
            .as_deref()
            .map(rfc3339::read)
            .transpose()
            .map_err(Failure::invalid)?,
        limit,
    };
    let records = admin.store.audit(query).await?;
    let last = records.last().filter(|_| records.len() == limit as usize);
    let next = last.map(|record| format!("{}.{}", record.at.0, record.id.simple()));
    Ok(Json(Trail {
        records: records.into_iter().map(record).collect(),
        next,
    }))
}

/// Reads where an older page begins.
pub(super) fn cursor(text: &str) -> Result<(Time, Uuid), Failure> {
    let read = || {
        let (at, id) = text.split_once('.')?;
        Some((Time(at.parse().ok()?), id.parse().ok()?))
    };
    read().ok_or_else(|| Failure::invalid("before is no cursor; pass the next of the page before"))
}

fn record(record: AuditRecord) -> Record {
    Record {
        at: rfc3339::write(record.at),
        tenant: record.tenant,
        actor: record.actor,
        action: record.action,
        object: record.object,
        outcome: record.outcome,
        detail: record.detail,
        address: record.address,
        count: record.count,
    }
}
