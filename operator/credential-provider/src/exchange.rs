//! The exchange: a service-account token for a confined one, at the token endpoint of the image's own host.

use std::error::Error;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use url::{Url, form_urlencoded};

use crate::account::Account;
use crate::challenge::{Challenge, NoEndpoint};
use crate::image::Image;

/// Longest answer in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;
/// Longest message of a registry that is passed on, in characters.
const MESSAGE_LIMIT: usize = 300;

/// What the registry gives.
pub enum Exchanged {
    /// It asks nobody for a credential.
    NotNeeded,
    /// A password for this repository.
    Password {
        /// The confined token.
        token: String,
        /// How long it is good.
        life: Duration,
    },
}

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Nothing answers, or not to the end.
    #[error("{url} gives no answer that can be used: {why}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why, with what to change where that is known.
        why: String,
    },
    /// Nothing that could issue a token.
    #[error("{url} {why}; look at the image's host and at `matchImages`")]
    NoEndpoint {
        /// What was asked.
        url: String,
        /// Why.
        why: NoEndpoint,
    },
    /// An answer that means nothing here.
    #[error("{url} answers {status}{message}; look at the image's host and at `matchImages`")]
    Unexpected {
        /// What was asked.
        url: String,
        /// Its status.
        status: StatusCode,
        /// Behind a colon, if it says anything.
        message: String,
    },
    /// The account is nobody there.
    #[error(
        "{host} does not accept the token of {user}{message}. Tenant.spec.trust must have `serviceAccounts` with its \
         namespace and name, and the token's audience {audiences:?} must be the registry's domain"
    )]
    NotTrusted {
        /// The image's.
        host: String,
        /// Whose token.
        user: String,
        /// Behind a colon.
        message: String,
        /// The token's.
        audiences: Vec<String>,
    },
    /// The account is known, and may not pull.
    #[error(
        "{user} may not pull {image}: {host} trusts it, but no `grants` of its rule in Tenant.spec.trust names this \
         repository with the action pull"
    )]
    NotGranted {
        /// The image's.
        host: String,
        /// Whose token.
        user: String,
        /// Without tag.
        image: String,
    },
    /// It cannot be done at the moment.
    #[error("{host} cannot issue a token now ({status}{message}); the next attempt to pull asks again")]
    Later {
        /// The image's.
        host: String,
        /// Its status.
        status: StatusCode,
        /// Behind a colon.
        message: String,
    },
    /// The registry does not know of confined tokens.
    #[error("{0} issues no confined tokens: it is no Berth, or one that is older than this program")]
    NotConfined(String),
}

#[derive(Deserialize)]
struct Issued {
    #[serde(default)]
    scope: String,
    confined_token: Option<String>,
    #[serde(default)]
    confined_expires_in: u64,
}

/// Exchanges the token of an account for one that pulls this image, at `origin`.
pub async fn exchange(
    http: &Client,
    origin: &Url,
    image: &Image,
    account: &Account<'_>,
) -> Result<Exchanged, ExchangeError> {
    let Some(challenge) = challenge(http, origin).await? else {
        return Ok(Exchanged::NotNeeded);
    };
    let host = &image.authority;
    let url = &challenge.realm;
    let request = http
        .post(url.clone())
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form(&challenge, image, account));
    let response = request
        .send()
        .await
        .map_err(|error| unreachable(url, &error.without_url()))?;
    let status = response.status();
    let body = body(url, response).await?;
    match status {
        StatusCode::OK => granted(url, image, account, &body),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(ExchangeError::NotTrusted {
            host: host.clone(),
            user: account.user.clone(),
            message: message(&body, account),
            audiences: account.audiences.clone(),
        }),
        StatusCode::TOO_MANY_REQUESTS => Err(ExchangeError::Later {
            host: host.clone(),
            status,
            message: message(&body, account),
        }),
        status if status.is_server_error() => Err(ExchangeError::Later {
            host: host.clone(),
            status,
            message: message(&body, account),
        }),
        status => Err(ExchangeError::Unexpected {
            url: url.to_string(),
            status,
            message: message(&body, account),
        }),
    }
}

/// Where a token is to be had; nothing if none is needed.
async fn challenge(http: &Client, origin: &Url) -> Result<Option<Challenge>, ExchangeError> {
    let url = origin.join("v2/").map_err(|error| unreachable(origin, &error))?;
    let response = http.get(url.clone()).send().await;
    let response = response.map_err(|error| unreachable(&url, &error.without_url()))?;
    match response.status() {
        StatusCode::OK => Ok(None),
        StatusCode::UNAUTHORIZED => match Challenge::of(response.headers(), origin) {
            Ok(challenge) => Ok(Some(challenge)),
            Err(why) => Err(ExchangeError::NoEndpoint {
                url: url.to_string(),
                why,
            }),
        },
        status => Err(ExchangeError::Unexpected {
            url: url.to_string(),
            status,
            message: String::new(),
        }),
    }
}

/// What is asked for (distribution's OAuth 2 specification, and `access_type=confined` of Berth).
fn form(challenge: &Challenge, image: &Image, account: &Account<'_>) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "password")
        .append_pair("client_id", "berth-credential-provider")
        .append_pair("access_type", "confined")
        .append_pair("scope", &format!("repository:{}:pull", image.name))
        .append_pair("username", &account.user)
        .append_pair("password", account.token);
    if let Some(service) = &challenge.service {
        form.append_pair("service", service);
    }
    form.finish()
}

fn granted(url: &Url, image: &Image, account: &Account<'_>, body: &[u8]) -> Result<Exchanged, ExchangeError> {
    let host = || image.authority.clone();
    let issued: Issued = serde_json::from_slice(body).map_err(|_| ExchangeError::Unreachable {
        url: url.to_string(),
        why: "its answer is no token of the distribution specification".to_owned(),
    })?;
    // Aliases may give the repository another name there; only one was asked for.
    let may_pull = issued.scope.split(' ').any(|scope| {
        let actions = scope
            .strip_prefix("repository:")
            .and_then(|rest| rest.rsplit_once(':'));
        actions.is_some_and(|(_, actions)| actions.split(',').any(|action| action == "pull"))
    });
    match issued.confined_token {
        Some(token) if may_pull => Ok(Exchanged::Password {
            token,
            life: Duration::from_secs(issued.confined_expires_in),
        }),
        None if may_pull => Err(ExchangeError::NotConfined(host())),
        _ => Err(ExchangeError::NotGranted {
            host: host(),
            user: account.user.clone(),
            image: image.key(),
        }),
    }
}

/// The body of an answer, if it has at most [`ANSWER_LIMIT`] bytes.
async fn body(url: &Url, mut response: Response) -> Result<Vec<u8>, ExchangeError> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| unreachable(url, &error.without_url()))?
    {
        if body.len() + chunk.len() > ANSWER_LIMIT {
            return Err(ExchangeError::Unreachable {
                url: url.to_string(),
                why: format!("its answer has more than {ANSWER_LIMIT} bytes"),
            });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The message of an OCI error, behind a colon: short, on one line, and without the token, whoever wrote it.
fn message(body: &[u8], account: &Account<'_>) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(text) = body["errors"][0]["message"].as_str() else {
        return String::new();
    };
    let text = text.replace(account.token, "(the token)");
    let text: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(MESSAGE_LIMIT)
        .collect();
    format!(": {text}")
}

/// An error with all that is behind it; reqwest's own text says little.
fn unreachable(url: &Url, error: &(dyn Error + 'static)) -> ExchangeError {
    let mut why: Vec<String> = Vec::new();
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !why.iter().any(|before| before.contains(&text)) {
            why.push(text);
        }
        next = error.source();
    }
    let mut why = why.join(": ");
    if why.contains("invalid peer certificate") {
        why.push_str("; a private authority is named by --ca-file");
    }
    ExchangeError::Unreachable {
        url: url.to_string(),
        why,
    }
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
