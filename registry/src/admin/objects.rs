//! `/admin/v1/tenants/...`: the configuration objects, and how far they are served.

use axum::Json;
use axum::extract::{Path, State};
use berth_crds::admin::{CacheConfig, Put, RepositoryConfig, RetentionPolicyConfig, TenantConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Admin;
use super::answer::{Answer, Asked, Body, Failure};
use super::configure::{self, ConfigureError, Spec, Wanted, Writer};
use crate::audit::Outcome;
use crate::domain::TenantName;
use crate::metadata::configuration::{Object, ObjectCursor, ObjectKind, REPLICA_LIFE, Replica};
use crate::metadata::events::Kind;
use crate::metadata::lifecycle::{EraseRepository, Erased};
use crate::metadata::{Repository, Time};
use crate::tenancy::snapshot::object_key;

/// Objects of one query.
const PAGE: u32 = 500;
/// What stands for a secret in an answer.
const SEALED: &str = "(sealed)";

/// An object, and how far it is served.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// Name of the tenant.
    tenant: String,
    /// The tenant's uid: the audience of its access tokens.
    tenant_uid: String,
    /// tenants, repositories, retention-policies or caches.
    kind: &'static str,
    /// Name of the object; empty for the tenant itself.
    name: String,
    /// Uid of its source.
    uid: Option<String>,
    /// Generation of its source.
    generation: i64,
    /// SHA-256 of its content; equal hashes are equal contents.
    hash: String,
    /// Made by a first run and not configured since.
    built_in: bool,
    /// Version of the configuration that brought it.
    version: i64,
    /// Whether every live replica serves it.
    programmed: bool,
    /// Replicas that do not serve it yet, or cannot read it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    behind: Vec<String>,
    /// Its content, without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<Value>,
}

/// What came of a change.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// Version of the configuration that has it.
    version: i64,
    /// Whether anything differs from before.
    changed: bool,
}

/// All objects.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Everything {
    /// Version of the configuration.
    version: i64,
    /// Every object without its content.
    objects: Vec<Shown>,
}

/// Parameters of a change without a body.
#[derive(Debug, Default, Deserialize)]
pub struct Removal {
    pub(super) term: Option<i64>,
    #[serde(default)]
    erase: bool,
    uid: Option<String>,
}

pub(super) fn tenant_name(name: &str) -> Result<TenantName, Failure> {
    // What is no name is nobody's.
    name.parse()
        .map_err(|_| Failure::not_found(format!("tenant {name:?}")))
}

fn kind(text: &str) -> Result<ObjectKind, Failure> {
    [
        ObjectKind::Repository,
        ObjectKind::RetentionPolicy,
        ObjectKind::Cache,
    ]
    .into_iter()
    .find(|kind| kind.text() == text)
    .ok_or_else(|| {
        Failure::not_found(format!(
            "kind {text:?}; repositories, retention-policies, caches, tokens"
        ))
    })
}

async fn live(admin: &Admin) -> Result<Vec<Replica>, Failure> {
    Ok(admin.store.replicas(Time::now().minus(REPLICA_LIFE)).await?)
}

fn shown(object: Object, replicas: &[Replica], with_spec: bool) -> Shown {
    let key = object_key(&object);
    let is_behind = |replica: &&Replica| replica.version < object.version || replica.failed.contains(&key);
    let behind = replicas.iter().filter(is_behind);
    let behind: Vec<String> = behind
        .map(|replica| format!("{} {}", replica.host, replica.id))
        .collect();
    Shown {
        tenant: object.tenant_name,
        tenant_uid: object.tenant_uid,
        kind: object.kind.text(),
        name: object.name,
        uid: object.uid,
        generation: object.generation,
        hash: object.hash,
        built_in: object.built_in,
        version: object.version,
        programmed: behind.is_empty() && !replicas.is_empty(),
        behind,
        spec: object.spec.as_deref().filter(|_| with_spec).map(without_secrets),
    }
}

fn without_secrets(spec: &str) -> Value {
    let mut value: Value = serde_json::from_str(spec).unwrap_or(Value::Null);
    let seal = |slot: Option<&mut Value>| {
        if let Some(slot) = slot.filter(|slot| slot.is_string()) {
            *slot = SEALED.into();
        }
    };
    seal(value.pointer_mut("/upstream/password"));
    for webhook in value
        .pointer_mut("/webhooks")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        seal(webhook.get_mut("secret"));
    }
    value
}

/// All objects of a kind, or of all; of a tenant, or of all.
async fn every(
    admin: &Admin,
    matches: impl Fn(&Object) -> bool,
    with_spec: bool,
) -> Result<Vec<Shown>, Failure> {
    let replicas = live(admin).await?;
    let mut cursor = ObjectCursor::default();
    let mut found = Vec::new();
    loop {
        let page = admin.store.objects(cursor, PAGE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        cursor = ObjectCursor::behind(last);
        let live = page
            .into_iter()
            .filter(|object| object.spec.is_some() && matches(object));
        found.extend(live.map(|object| shown(object, &replicas, with_spec)));
    }
}

/// Every object with its hash, so that one call shows drift and orphans.
pub async fn state(State(admin): State<Admin>) -> Answer<Everything> {
    let version = admin.store.version().await?;
    let objects = every(&admin, |_| true, false).await?;
    Ok(Json(Everything { version, objects }))
}

/// All tenants.
pub async fn tenants(State(admin): State<Admin>) -> Answer<Vec<Shown>> {
    let mut tenants = every(&admin, |object| object.kind == ObjectKind::Tenant, true).await?;
    tenants.sort_by(|a, b| a.tenant.cmp(&b.tenant));
    Ok(Json(tenants))
}

/// One tenant.
pub async fn tenant(State(admin): State<Admin>, Path(tenant): Path<String>) -> Answer<Shown> {
    find(&admin, &tenant, ObjectKind::Tenant, "").await
}

/// The objects of a kind.
pub async fn list(
    State(admin): State<Admin>,
    Path((tenant, text)): Path<(String, String)>,
) -> Answer<Vec<Shown>> {
    let (tenant, kind) = (tenant_name(&tenant)?, kind(&text)?);
    let of = |object: &Object| object.kind == kind && object.tenant_name == tenant.as_str();
    let mut found = every(&admin, of, true).await?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(found))
}

/// One object.
pub async fn get(
    State(admin): State<Admin>,
    Path((tenant, text, name)): Path<(String, String, String)>,
) -> Answer<Shown> {
    find(&admin, &tenant, kind(&text)?, &name).await
}

async fn find(admin: &Admin, tenant: &str, kind: ObjectKind, name: &str) -> Answer<Shown> {
    let tenant = tenant_name(tenant)?;
    let object = admin.store.object(&tenant, kind, name).await?;
    let object = object.ok_or_else(|| match kind {
        ObjectKind::Tenant => Failure::not_found(format!("tenant {tenant}")),
        kind => Failure::not_found(format!("{}/{name} of tenant {tenant}", kind.text())),
    })?;
    Ok(Json(shown(object, &live(admin).await?, true)))
}

/// Objects that are made what they should be together.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Several {
    /// The writer's term.
    #[serde(default)]
    term: Option<i64>,
    /// In this order; tenants before what is theirs.
    objects: Vec<Each>,
}

/// One of several objects.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Each {
    /// Name of the tenant.
    tenant: String,
    /// tenants, repositories, retention-policies or caches.
    kind: String,
    /// Name of the object; empty for the tenant itself.
    #[serde(default)]
    name: String,
    /// Uid of its source.
    #[serde(default)]
    uid: Option<String>,
    /// Generation of its source.
    #[serde(default)]
    generation: i64,
    /// Its content.
    spec: Value,
}

/// What came of several changes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Applied {
    /// Version of the configuration that has them.
    version: i64,
    /// How many objects differ from before.
    changed: usize,
}

/// Makes objects what they should be, all or none.
pub async fn apply(State(admin): State<Admin>, Body(several): Body<Several>) -> Answer<Applied> {
    fn read<T: serde::de::DeserializeOwned>(spec: Value) -> Result<Box<T>, Failure> {
        let invalid = |error: serde_json::Error| Failure::invalid(format!("spec: {error}"));
        serde_json::from_value(spec).map(Box::new).map_err(invalid)
    }
    let mut wanted = Vec::with_capacity(several.objects.len());
    for each in several.objects {
        let kind = if each.kind == ObjectKind::Tenant.text() {
            ObjectKind::Tenant
        } else {
            kind(&each.kind)?
        };
        let spec = match kind {
            ObjectKind::Tenant => Spec::Tenant(read(each.spec)?),
            ObjectKind::Repository => Spec::Repository(read(each.spec)?),
            ObjectKind::RetentionPolicy => Spec::RetentionPolicy(read(each.spec)?),
            ObjectKind::Cache => Spec::Cache(read(each.spec)?),
        };
        wanted.push(Wanted {
            tenant: each
                .tenant
                .parse()
                .map_err(|error| Failure::invalid(format!("{error}")))?,
            kind,
            name: each.name,
            uid: each.uid,
            generation: each.generation,
            state: configure::State::Is(spec),
        });
    }
    let writer = Writer {
        actor: "admin".to_owned(),
        term: several.term,
    };
    let done = admin.configurator.apply(wanted, &writer).await?;
    Ok(Json(Applied {
        version: done.version,
        changed: done.changed,
    }))
}

/// Makes a tenant what the body says.
pub async fn put_tenant(
    State(admin): State<Admin>,
    Path(tenant): Path<String>,
    Body(put): Body<Put<TenantConfig>>,
) -> Answer<Changed> {
    let tenant = tenant
        .parse()
        .map_err(|error| Failure::invalid(format!("{error}")))?;
    let wanted = wanted(tenant, ObjectKind::Tenant, String::new(), put, |spec| {
        Spec::Tenant(Box::new(spec))
    });
    change(&admin, wanted).await
}

/// Makes an object what the body says.
pub async fn put(
    State(admin): State<Admin>,
    Path((tenant, text, name)): Path<(String, String, String)>,
    Body(body): Body<Value>,
) -> Answer<Changed> {
    fn read<T: serde::de::DeserializeOwned>(body: Value) -> Result<Put<T>, Failure> {
        serde_json::from_value(body).map_err(|error| Failure::invalid(format!("the body: {error}")))
    }
    let (tenant, kind) = (tenant_name(&tenant)?, kind(&text)?);
    let wanted = match kind {
        ObjectKind::Tenant => return Err(Failure::not_found("object of kind tenants")),
        ObjectKind::Repository => {
            let put = read::<RepositoryConfig>(body)?;
            wanted(tenant, kind, name, put, |spec| Spec::Repository(Box::new(spec)))
        }
        ObjectKind::RetentionPolicy => {
            let put = read::<RetentionPolicyConfig>(body)?;
            wanted(tenant, kind, name, put, |spec| {
                Spec::RetentionPolicy(Box::new(spec))
            })
        }
        ObjectKind::Cache => {
            let put = read::<CacheConfig>(body)?;
            wanted(tenant, kind, name, put, |spec| Spec::Cache(Box::new(spec)))
        }
    };
    change(&admin, wanted).await
}

fn wanted<T>(
    tenant: TenantName,
    kind: ObjectKind,
    name: String,
    put: Put<T>,
    spec: impl FnOnce(T) -> Spec,
) -> (Wanted, Option<i64>) {
    let wanted = Wanted {
        tenant,
        kind,
        name,
        uid: put.uid,
        generation: put.generation,
        state: configure::State::Is(spec(put.spec)),
    };
    (wanted, put.term)
}

/// Removes a tenant with its objects and tokens. What it stores stays for a tenant of that name, unless
/// `erase=true` gives it up. With `uid` only if it comes from the source with that uid, else 409.
pub async fn delete_tenant(
    State(admin): State<Admin>,
    Path(tenant): Path<String>,
    Asked(removal): Asked<Removal>,
) -> Answer<Changed> {
    let tenant = tenant_name(&tenant)?;
    remove(&admin, tenant, ObjectKind::Tenant, String::new(), removal).await
}

/// Removes an object. What is stored stays, unless `erase=true` gives up the repository that it declares by name. With
/// `uid` only if it comes from the source with that uid, else 409.
pub async fn delete(
    State(admin): State<Admin>,
    Path((tenant, text, name)): Path<(String, String, String)>,
    Asked(removal): Asked<Removal>,
) -> Answer<Changed> {
    let (tenant, kind) = (tenant_name(&tenant)?, kind(&text)?);
    if removal.erase && kind == ObjectKind::Repository {
        erase(&admin, &tenant, &name, &removal).await?;
    }
    remove(&admin, tenant, kind, name, removal).await
}

/// Gives up what the repository stores that an object declares by its name. Before the object goes, so that a request
/// that was cut in between does it when it is made again.
async fn erase(admin: &Admin, tenant: &TenantName, object: &str, removal: &Removal) -> Result<(), Failure> {
    let Some(found) = admin.store.object(tenant, ObjectKind::Repository, object).await? else {
        return Ok(());
    };
    let spec: RepositoryConfig = serde_json::from_str(&found.spec.unwrap_or_default()).unwrap_or_default();
    // A glob shapes what others own.
    let Some(name) = spec.name.and_then(|name| name.parse().ok()) else {
        return Ok(());
    };
    let repository = Repository {
        tenant: found.tenant,
        name,
    };
    let snapshot = admin.directory.now();
    let wish = EraseRepository {
        object: object.to_owned(),
        only_of: removal.uid.clone(),
        term: removal.term,
        now: Time::now(),
        announce: snapshot
            .by_name(tenant.as_str())
            .and_then(|tenant| tenant.announce(Kind::Delete, Some(&repository.name))),
    };
    match admin.keeper.store().erase_repository(&repository, wish).await? {
        Erased::Done => {
            let object = format!("{tenant}/{}", repository.name);
            admin.note(None, "erase", &object, Outcome::Done, "").await;
            Ok(())
        }
        Erased::NotDeclared => Ok(()),
        Erased::Replaced => Err(ConfigureError::Replaced { at: 0 }.into()),
        Erased::StaleTerm { current } => Err(ConfigureError::StaleTerm { current }.into()),
    }
}

async fn remove(
    admin: &Admin,
    tenant: TenantName,
    kind: ObjectKind,
    name: String,
    removal: Removal,
) -> Answer<Changed> {
    let state = if removal.erase {
        configure::State::Erased
    } else {
        configure::State::Gone
    };
    let wanted = Wanted {
        tenant,
        kind,
        name,
        uid: removal.uid,
        generation: 0,
        state,
    };
    change(admin, (wanted, removal.term)).await
}

async fn change(admin: &Admin, (wanted, term): (Wanted, Option<i64>)) -> Answer<Changed> {
    let writer = Writer {
        actor: "admin".to_owned(),
        term,
    };
    let done = admin.configurator.apply(vec![wanted], &writer).await?;
    Ok(Json(Changed {
        version: done.version,
        changed: done.changed > 0,
    }))
}
