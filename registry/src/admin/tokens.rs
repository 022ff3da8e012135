//! `/admin/v1/tenants/{tenant}/tokens`: made here, or handed in by their hash.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use berth_crds::admin::{Put, TokenConfig, TokenGrants, TokenKind};
use berth_crds::{Grant, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::answer::{Answer, Asked, Body, Failure};
use super::configure::ConfigureError;
use super::objects::{Removal, tenant_name};
use crate::audit::{Event, Outcome};
use crate::domain::grant::Grants;
use crate::domain::token::{Token, TokenHash, TokenId};
use crate::metadata::Time;
use crate::metadata::configuration::{TokenChange, TokenRow};
use crate::rfc3339;
use crate::tenancy::Tenant;

/// Most tokens of a page.
const PAGE: u32 = 1000;
/// For how long a replaced token stays valid unless the request says otherwise.
const OVERLAP: Duration = Duration::from_secs(24 * 3600);

/// A token to make.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewToken {
    /// Name for people: a DNS label.
    name: String,
    /// user, organization or project.
    #[serde(default)]
    kind: TokenKind,
    /// For people.
    #[serde(default)]
    description: Option<String>,
    /// What it may do.
    grants: Vec<Grant>,
    /// Its lifetime; it does not end if absent.
    #[serde(default)]
    expires_after: Option<Span>,
}

/// How a token is replaced.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rotation {
    /// For how long the old token stays valid; 24h if absent.
    #[serde(default)]
    overlap: Option<Span>,
    /// Lifetime of the new token; as long as the old one's was, if absent.
    #[serde(default)]
    expires_after: Option<Span>,
}

/// A token without its secret.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// Public part of the token.
    id: String,
    /// For people.
    name: String,
    /// user, organization or project.
    kind: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    /// What it may do.
    grants: serde_json::Value,
    /// When it was made (RFC 3339).
    created_at: String,
    /// By whom.
    created_by: String,
    /// When it ends (RFC 3339).
    expires_at: Option<String>,
    /// When it was last used, to the minute (RFC 3339).
    last_used_at: Option<String>,
}

/// A token that was just made: the only time that its secret is shown.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Made {
    /// The secret: the password of every client.
    token: String,
    /// The rest.
    #[serde(flatten)]
    shown: Shown,
}

/// A page of tokens.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Page {
    /// Tokens by id.
    tokens: Vec<Shown>,
    /// Where the next page begins (`after`), if there is one.
    next: Option<String>,
}

/// Where a page begins.
#[derive(Debug, Default, Deserialize)]
pub struct After {
    #[serde(default)]
    after: String,
}

fn shown(row: TokenRow) -> Shown {
    Shown {
        id: row.id,
        name: row.name,
        kind: row.kind,
        description: row.description,
        grants: serde_json::from_str(&row.grants).unwrap_or_default(),
        created_at: rfc3339::write(row.created_at),
        created_by: row.created_by,
        expires_at: row.expires_at.map(rfc3339::write),
        last_used_at: row.last_used_at.map(rfc3339::write),
    }
}

async fn served(admin: &Admin, name: &str) -> Result<Arc<Tenant>, Failure> {
    let name = tenant_name(name)?;
    let find = || admin.directory.now().by_name(name.as_str()).cloned();
    if let Some(tenant) = find() {
        return Ok(tenant);
    }
    // It may have been made by another replica just now.
    admin.directory.refresh().await?;
    find().ok_or_else(|| Failure::not_found(format!("tenant {name}")))
}

fn event(tenant: &Tenant, action: &'static str, object: &str, detail: String) -> Event {
    let event = Event {
        tenant: (tenant.id.0, tenant.name.to_string()),
        actor: "admin".to_owned(),
        action,
        object: format!("tokens/{object}"),
        outcome: Outcome::Done,
        detail,
        address: None,
    };
    event.log();
    event
}

fn kind_text(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::User => "user",
        TokenKind::Organization => "organization",
        TokenKind::Project => "project",
    }
}

/// Grants as they are stored, once they are known to be readable.
fn stored(grants: &[Grant]) -> Result<String, Failure> {
    let text = serde_json::to_string(grants).map_err(|error| Failure::invalid(error.to_string()))?;
    serde_json::from_str::<Grants>(&text).map_err(|error| Failure::invalid(format!("grants: {error}")))?;
    Ok(text)
}

/// Makes a token.
pub async fn create(
    State(admin): State<Admin>,
    Path(tenant): Path<String>,
    Body(new): Body<NewToken>,
) -> Answer<Made> {
    let tenant = served(&admin, &tenant).await?;
    let token = Token::generate();
    let config = TokenConfig {
        name: new.name,
        kind: new.kind,
        description: new.description,
        hash: hex::encode(token.hash().as_bytes()),
        grants: new.grants,
        expires_at: None,
    };
    config.validate()?;
    let now = Time::now();
    let row = TokenRow {
        tenant: tenant.id,
        id: token.id().to_string(),
        kind: kind_text(config.kind).to_owned(),
        name: config.name.clone(),
        description: config.description.clone().unwrap_or_default(),
        hash: token.hash().as_bytes().to_vec(),
        grants: stored(&config.grants)?,
        created_at: now,
        created_by: "admin".to_owned(),
        expires_at: new.expires_after.map(|span| now.plus(span.duration())),
        last_used_at: None,
    };
    make(&admin, &tenant, row, &token, "token.create").await
}

async fn make(
    admin: &Admin,
    tenant: &Tenant,
    row: TokenRow,
    token: &Token,
    action: &'static str,
) -> Answer<Made> {
    let event = event(tenant, action, &row.id, format!("{}: {}", row.name, row.grants));
    let made = admin.store.put_token(row.clone(), None, event.record(1)).await?;
    done(made, || Failure::invalid("the token's id is taken; try again"))?;
    Ok(Json(Made {
        token: token.reveal().to_owned(),
        shown: shown(row),
    }))
}

/// Stores a token by its hash.
pub async fn put(
    State(admin): State<Admin>,
    Path((tenant, id)): Path<(String, String)>,
    Body(put): Body<Put<TokenConfig>>,
) -> Answer<Shown> {
    let tenant = served(&admin, &tenant).await?;
    let id: TokenId = id
        .parse()
        .map_err(|_| Failure::invalid("a token's id is 12 letters and digits"))?;
    let config = put.spec;
    config.validate()?;
    let hash = TokenHash::from_hex(&config.hash).ok_or_else(|| Failure::invalid("hash is no SHA-256"))?;
    let expires_at = config.expires_at.as_deref().map(rfc3339::read).transpose();
    let row = TokenRow {
        tenant: tenant.id,
        id: id.to_string(),
        kind: kind_text(config.kind).to_owned(),
        name: config.name.clone(),
        description: config.description.clone().unwrap_or_default(),
        hash: hash.as_bytes().to_vec(),
        grants: stored(&config.grants)?,
        created_at: Time::now(),
        created_by: put.uid.unwrap_or_else(|| "admin".to_owned()),
        expires_at: expires_at.map_err(Failure::invalid)?,
        last_used_at: None,
    };
    let event = event(
        &tenant,
        "token.put",
        id.as_str(),
        format!("{}: {}", row.name, row.grants),
    );
    let change = admin
        .store
        .put_token(row.clone(), put.term, event.record(1))
        .await?;
    done(change, || {
        Failure::new(http::StatusCode::CONFLICT, "Taken", "the id is another tenant's")
    })?;
    admin.identity.token_changed(id.as_str());
    Ok(Json(shown(row)))
}

/// Gives a token other grants, under the same text.
pub async fn regrant(
    State(admin): State<Admin>,
    Path((tenant, id)): Path<(String, String)>,
    Body(put): Body<Put<TokenGrants>>,
) -> Answer<Shown> {
    let tenant = served(&admin, &tenant).await?;
    let row = own(&admin, &tenant, &id).await?;
    put.spec.validate()?;
    let row = TokenRow {
        grants: stored(&put.spec.grants)?,
        ..row
    };
    let detail = format!("{}: {}", row.name, row.grants);
    let event = event(&tenant, "token.regrant", &id, detail);
    let grants = row.grants.clone();
    let change = admin
        .store
        .regrant_token(tenant.id, &id, grants, put.term, event.record(1))
        .await?;
    done(change, || Failure::not_found(format!("token {id}")))?;
    admin.identity.token_changed(&id);
    Ok(Json(shown(row)))
}

/// Replaces a token by a new one of the same name and grants; the old one ends after the overlap.
pub async fn rotate(
    State(admin): State<Admin>,
    Path((tenant, id)): Path<(String, String)>,
    Body(rotation): Body<Rotation>,
) -> Answer<Made> {
    let tenant = served(&admin, &tenant).await?;
    let old = own(&admin, &tenant, &id).await?;
    let now = Time::now();
    let token = Token::generate();
    let lived = old
        .expires_at
        .map(|end| Duration::from_micros(end.0.saturating_sub(old.created_at.0).unsigned_abs()));
    let life = rotation.expires_after.map(|span| span.duration()).or(lived);
    let row = TokenRow {
        id: token.id().to_string(),
        hash: token.hash().as_bytes().to_vec(),
        created_at: now,
        expires_at: life.map(|life| now.plus(life)),
        last_used_at: None,
        ..old
    };
    let made = make(&admin, &tenant, row, &token, "token.rotate").await?;
    let overlap = rotation.overlap.map_or(OVERLAP, |span| span.duration());
    let event = event(
        &tenant,
        "token.expire",
        &id,
        format!("replaced by {}", token.id()),
    );
    let end = now.plus(overlap);
    admin
        .store
        .expire_token(tenant.id, &id, end, event.record(1))
        .await?;
    admin.identity.token_changed(&id);
    Ok(made)
}

fn done(change: TokenChange, missed: impl FnOnce() -> Failure) -> Result<(), Failure> {
    match change {
        TokenChange::Done => Ok(()),
        TokenChange::Missed => Err(missed()),
        TokenChange::StaleTerm { current } => Err(ConfigureError::StaleTerm { current }.into()),
    }
}

async fn own(admin: &Admin, tenant: &Tenant, id: &str) -> Result<TokenRow, Failure> {
    let row = admin.store.token(id).await?.filter(|row| row.tenant == tenant.id);
    row.ok_or_else(|| Failure::not_found(format!("token {id} of tenant {}", tenant.name)))
}

/// One token.
pub async fn get(State(admin): State<Admin>, Path((tenant, id)): Path<(String, String)>) -> Answer<Shown> {
    let tenant = served(&admin, &tenant).await?;
    Ok(Json(shown(own(&admin, &tenant, &id).await?)))
}

/// A page of the tenant's tokens.
pub async fn list(
    State(admin): State<Admin>,
    Path(tenant): Path<String>,
    Asked(from): Asked<After>,
) -> Answer<Page> {
    let tenant = served(&admin, &tenant).await?;
    let rows = admin.store.tokens(tenant.id, from.after, PAGE).await?;
    let next = rows
        .last()
        .filter(|_| rows.len() == PAGE as usize)
        .map(|row| row.id.clone());
    Ok(Json(Page {
        tokens: rows.into_iter().map(shown).collect(),
        next,
    }))
}

/// Revokes a token: it is refused everywhere within a second.
pub async fn revoke(
    State(admin): State<Admin>,
    Path((tenant, id)): Path<(String, String)>,
    Asked(removal): Asked<Removal>,
) -> Answer<Shown> {
    let tenant = served(&admin, &tenant).await?;
    let row = own(&admin, &tenant, &id).await?;
    let event = event(&tenant, "token.revoke", &id, row.name.clone());
    let change = admin
        .store
        .revoke_token(tenant.id, &id, removal.term, event.record(1))
        .await?;
    done(change, || Failure::not_found(format!("token {id}")))?;
    admin.identity.token_changed(&id);
    Ok(Json(shown(row)))
}
