//! Tokens, as a registry's realm gives them (distribution, "Token Authentication Specification" and "Docker Registry v2
//! authentication using OAuth2").

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use url::{Url, form_urlencoded};

use super::super::realm;
use super::{Login, Upstream, UpstreamError};

/// Longest answer of a realm.
const LIMIT: usize = 64 * 1024;
/// Who we are to a realm that exchanges tokens.
const CLIENT: &str = "berth";

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Upstream {
    /// What goes along with each request to a registry that wants a password.
    pub(super) fn basic(&self) -> Result<Option<HeaderValue>, UpstreamError> {
        let basic = self.login.as_ref().map(Login::basic).transpose();
        Ok(basic.map_err(|error| self.strange(error.to_string()))?.flatten())
    }

    /// A token and for how long it is good. A realm that is nobody's of the registry's owner is asked as by anybody.
    pub(super) async fn fetch_token(
        &self,
        realm: Url,
        service: Option<&str>,
        scope: &str,
    ) -> Result<(HeaderValue, Option<Duration>), UpstreamError> {
        let host = realm.host_str().unwrap_or_default().to_owned();
        let is_trusted = realm::is_trusted(&self.base, &realm, self.realm_host.as_deref());
        let identity = match &self.login {
            Some(Login::Identity(token)) if is_trusted => Some(token),
            _ => None,
        };
        let (request, body) = match identity {
            Some(token) => exchange(&realm, service, scope, token),
            None => {
                let mut url = realm.clone();
                url.query_pairs_mut()
                    .extend_pairs(service.map(|service| ("service", service)))
                    .append_pair("scope", scope);
                let mut request = Request::get(url.as_str());
                if let Some(basic) = self.basic()?.filter(|_| is_trusted) {
                    request = request.header(AUTHORIZATION, basic);
                }
                (request, Bytes::new())
            }
        };
        let answer = self
            .send(request.header(ACCEPT, "application/json"), body)
            .await?;
        match answer.status() {
            StatusCode::OK => {}
            status if is_denial(status, identity.is_some()) => {
                let path = realm.path().to_owned();
                return Err(UpstreamError::Denied { host, path, status });
            }
            _ => return Err(self.refusal(&answer, host, realm.path())),
        }
        let strange = |why: String| UpstreamError::Strange {
            host: host.clone(),
            why: format!("what it gave in place of a token cannot be read: {why}"),
        };
        let body = tokio::time::timeout(self.timeout, Limited::new(answer.into_body(), LIMIT).collect());
        let body = body.await.map_err(|_| UpstreamError::Late {
            host: host.clone(),
            timeout: self.timeout,
        })?;
        let body = body.map_err(|error| strange(error.to_string()))?.to_bytes();
        let token: Token = serde_json::from_slice(&body).map_err(|error| strange(error.to_string()))?;
        let text = token
            .token
            .or(token.access_token)
            .ok_or_else(|| strange("there is none".into()))?;
        let mut value =
            HeaderValue::try_from(format!("Bearer {text}")).map_err(|error| strange(error.to_string()))?;
        value.set_sensitive(true);
        Ok((value, token.expires_in.map(Duration::from_secs)))
    }
}

/// Whether a realm gives none to whoever asked; an exchange is refused by 400 as well (RFC 6749, section 5.2).
fn is_denial(status: StatusCode, is_exchange: bool) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        || (is_exchange && status == StatusCode::BAD_REQUEST)
}

/// The exchange of an identity token for one of a scope.
fn exchange(
    realm: &Url,
    service: Option<&str>,
    scope: &str,
    identity: &str,
) -> (http::request::Builder, Bytes) {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token")
        .append_pair("client_id", CLIENT)
        .extend_pairs(service.map(|service| ("service", service)))
        .append_pair("scope", scope)
        .append_pair("refresh_token", identity);
    let request = Request::post(realm.as_str()).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    (request, form.finish().into())
}
