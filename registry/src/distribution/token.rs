//! `GET` and `POST /v2/token`: access tokens for what a credential may do (distribution's token and OAuth 2
//! specifications).
//!
//! What is issued is the intersection of what is asked for and what may be done; less than was asked for is no
//! error. A refresh token is issued on request, since it can be exchanged here by POST, and so is a confined token
//! (`access_type=confined`), which is a password for what was granted here and nothing else.

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde_json::json;

use super::access::{Arrival, Scope as Asking, Wish};
use super::answer;
use super::error::{ApiError, Code};
use crate::domain::RepositoryName;
use crate::domain::grant::Action;
use crate::domain::scope::{self, Resource, Scope};
use crate::identity::presented::Presented;
use crate::identity::principal::{Access, Principal, Rights};
use crate::identity::sight;
use crate::tenancy::{Place, Tenant};

/// Longest form in bytes.
const FORM_LIMIT: usize = 64 * 1024;
/// Most bytes of what an access token names: it rides in the headers of every request.
const ACCESS_LIMIT: usize = 4096;

/// What a client asks for.
#[derive(Default)]
struct Form {
    scopes: Vec<String>,
    grant_type: Option<String>,
    username: Option<String>,
    password: Option<String>,
    refresh_token: Option<String>,
    offline: bool,
    confined: bool,
}

impl Form {
    fn read(text: &[u8]) -> Self {
        let mut form = Self::default();
        for (key, value) in url::form_urlencoded::parse(text) {
            let value = value.into_owned();
            match &*key {
                "scope" => form.scopes.push(value),
                "grant_type" => form.grant_type = Some(value),
                "username" => form.username = Some(value),
                "password" => form.password = Some(value),
                "refresh_token" => form.refresh_token = Some(value),
                "offline_token" => form.offline |= value == "true",
                "access_type" => {
                    form.offline |= value == "offline";
                    form.confined |= value == "confined";
                }
                _ => {}
            }
        }
        form
    }
}

/// What a client shows for a token.
enum Shown {
    Credential(Presented),
    Refresh(String),
}

/// Issues a token.
pub(super) async fn issue(arrival: Arrival<'_>, parts: &Parts, body: Body) -> Result<Response, ApiError> {
    let post = match parts.method {
        Method::GET => false,
        Method::POST => true,
        _ => return Err(ApiError::method_not_allowed("GET, POST")),
    };
    let form = if post {
        Form::read(&read(body).await?)
    } else {
        Form::read(parts.uri.query().unwrap_or_default().as_bytes())
    };
    let scopes = scope::parse(form.scopes.iter().map(String::as_str))
        .map_err(|error| ApiError::of(Code::Denied, error.to_string()).status(StatusCode::BAD_REQUEST))?;
    let shown = shown(&form, parts, post)?;
    let tenant = tenant(&arrival, &shown, &scopes).await?;
    let principal = principal(&arrival, tenant.as_deref(), &shown).await?;
    let Some(tenant) = tenant else {
        return Err(arrival.challenge(
            PING,
            None,
            "a credential, or a scope that names a repository, is needed",
        ));
    };
    let access = access(&arrival, &tenant, &principal, &scopes)?;
    let granted = granted(&access);
    let failed = |error| ApiError::of(Code::Unknown, format!("the token could not be signed: {error}"));
    let identity = &arrival.registry.identity;
    let host = &arrival.origin.authority;
    let confined = if form.confined {
        identity
            .issue_confined(&tenant, &principal, access.clone(), host)
            .map_err(failed)?
    } else {
        None
    };
    let (token, life) = identity
        .issue_access(&tenant, &principal, access, host)
        .map_err(failed)?;
    let mut issued = json!({
        "token": token,
        "access_token": token,
        "expires_in": life,
        "issued_at": crate::rfc3339::now(),
    });
    if post {
        issued["scope"] = granted.into();
    }
    if let Some((token, life)) = confined {
        issued["confined_token"] = token.into();
        issued["confined_expires_in"] = life.into();
    }
    // A refresh token names nothing: it would do more than a password that is confined.
    let whole = principal.is_known() && !principal.rights.are_scoped();
    if whole && (form.offline || matches!(shown, Shown::Refresh(_))) {
        let refresh = match &shown {
            Shown::Refresh(token) => token.clone(),
            Shown::Credential(_) => identity
                .issue_refresh(&tenant, &principal, host)
                .map_err(failed)?,
        };
        issued["refresh_token"] = refresh.into();
    }
    let mut response = answer::json(StatusCode::OK, issued.to_string());
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    Ok(response)
}

const PING: Asking<'static> = Asking {
    name: None,
    wish: Wish::Ping,
};

async fn read(body: Body) -> Result<Vec<u8>, ApiError> {
    let read = Limited::new(body, FORM_LIMIT).collect().await;
    let refused = |_| {
        ApiError::of(
            Code::SizeInvalid,
            format!("the form has more than {FORM_LIMIT} bytes, or was cut"),
        )
    };
    Ok(read.map_err(refused)?.to_bytes().to_vec())
}

fn shown(form: &Form, parts: &Parts, post: bool) -> Result<Shown, ApiError> {
    let bad = |message: &str| Err(ApiError::of(Code::Unsupported, message).status(StatusCode::BAD_REQUEST));
    if !post {
        return Ok(Shown::Credential(Presented::of(&parts.headers)));
    }
    let form_encoded = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value
                .to_ascii_lowercase()
                .starts_with("application/x-www-form-urlencoded")
        });
    if !form_encoded {
        return bad("send the form as application/x-www-form-urlencoded");
    }
    match (form.grant_type.as_deref(), &form.password, &form.refresh_token) {
        (Some("refresh_token"), _, Some(token)) => Ok(Shown::Refresh(token.clone())),
        (Some("password"), Some(password), _) => Ok(Shown::Credential(Presented::Password {
            user: form.username.clone().unwrap_or_default(),
            secret: password.clone(),
        })),
        (Some("refresh_token"), _, None) => bad("grant_type=refresh_token goes with a refresh_token"),
        (Some("password"), None, _) => bad("grant_type=password goes with a password"),
        _ => bad("grant_type is password or refresh_token"),
    }
}

/// The host's tenant; on the apex the credential's, or, without one, that of the first repository asked for.
async fn tenant(
    arrival: &Arrival<'_>,
    shown: &Shown,
    scopes: &[Scope],
) -> Result<Option<std::sync::Arc<Tenant>>, ApiError> {
    if let Place::Tenant(tenant) = &arrival.place {
        return Ok(Some(tenant.clone()));
    }
    let refuse = |refusal| arrival.refuse(refusal, None);
    let identity = &arrival.registry.identity;
    match shown {
        Shown::Credential(Presented::Nothing) => {
            let named = scopes.iter().find_map(|scope| resolve(arrival, scope));
            Ok(named.map(|(tenant, _)| tenant))
        }
        Shown::Credential(presented) => identity
            .tenant_of(presented, &arrival.origin)
            .await
            .map_err(refuse),
        Shown::Refresh(text) => {
            let presented = Presented::Bearer(text.clone());
            identity
                .tenant_of(&presented, &arrival.origin)
                .await
                .map_err(refuse)
        }
    }
}

async fn principal(
    arrival: &Arrival<'_>,
    tenant: Option<&Tenant>,
    shown: &Shown,
) -> Result<Principal, ApiError> {
    let counted = match &arrival.place {
        Place::Tenant(tenant) => Some(tenant.id),
        Place::Apex => None,
    };
    let identity = &arrival.registry.identity;
    let found = match shown {
        // A token that was issued here buys no other.
        Shown::Credential(Presented::Bearer(_)) => Ok(Principal::anonymous(Rights::None)),
        Shown::Credential(presented) => {
            identity
                .authenticate(tenant, counted, presented, &arrival.origin)
                .await
        }
        Shown::Refresh(token) => {
            identity
                .by_refresh_token(tenant, counted, token, &arrival.origin)
                .await
        }
    };
    found.map_err(|refusal| arrival.refuse(refusal, None))
}

fn resolve(arrival: &Arrival<'_>, scope: &Scope) -> Option<(std::sync::Arc<Tenant>, RepositoryName)> {
    let Resource::Repository(name) = &scope.resource else {
        return None;
    };
    let name = name.parse().ok()?;
    let named = arrival
        .registry
        .names
        .repository(&arrival.snapshot, &arrival.place, &name)?;
    Some((named.tenant, named.name))
}

/// What the token will name: what may be done, of what is asked for.
fn access(
    arrival: &Arrival<'_>,
    tenant: &Tenant,
    principal: &Principal,
    scopes: &[Scope],
) -> Result<Vec<Access>, ApiError> {
    let mut access = Vec::new();
    let mut bytes = 0;
    for scope in scopes {
        let entry = match &scope.resource {
            Resource::Catalog if principal.rights.catalog() => Access {
                kind: "registry".to_owned(),
                name: "catalog".to_owned(),
                actions: Vec::new(),
            },
            Resource::Catalog => continue,
            Resource::Repository(_) => {
                let Some((_, name)) = resolve(arrival, scope).filter(|(owner, _)| owner.id == tenant.id)
                else {
                    continue;
                };
                let mut asked = scope.actions;
                // Clients know no such action; asking to pull asks for it.
                if asked.contains(Action::Pull) {
                    asked.insert(Action::Metadata);
                }
                let actions = asked.intersect(sight::actions_on(tenant, principal, &name));
                if actions.is_empty() {
                    continue;
                }
                Access {
                    kind: "repository".to_owned(),
                    name: name.to_string(),
                    actions: actions.iter().collect(),
                }
            }
        };
        bytes += entry.name.len() + 64;
        access.push(entry);
    }
    if bytes > ACCESS_LIMIT {
        let message = "the token would be too long for a header; ask for fewer repositories at once";
        return Err(ApiError::of(Code::Denied, message).status(StatusCode::BAD_REQUEST));
    }
    Ok(access)
}

/// The scope that was granted, as OAuth 2 tells it.
fn granted(access: &[Access]) -> String {
    let scopes = access.iter().map(|access| {
        let actions: Vec<&str> = access.actions.iter().map(|action| action.text()).collect();
        format!("{}:{}:{}", access.kind, access.name, actions.join(","))
    });
    scopes.collect::<Vec<_>>().join(" ")
}
