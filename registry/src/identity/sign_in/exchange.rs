//! The two questions to an issuer, and what is special to its ID token.

use serde_json::Value;
use url::form_urlencoded;

use super::answer::words;
use super::discovery::{Endpoints, Providers, TIMEOUT};
use super::offer::Found;
use super::pending::Pending;
use crate::identity::trust;

/// Largest answer in bytes.
const ANSWER: usize = 256 * 1024;
/// Longest name that a person is recorded by, in characters.
const NAME: usize = 128;

/// Why there is no ID token.
pub(super) enum Failed {
    /// The issuer says no, in its words.
    Declined(String),
    /// It does not answer, or not in a way that can be understood; for the log.
    Unavailable(String),
}

#[derive(serde::Deserialize)]
struct Told {
    id_token: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// Where a person goes to sign in (RFC 6749, section 4.1.1; OpenID Connect Core 1.0, section 3.1.2.1).
pub(super) fn authorization(endpoints: &Endpoints, offer: &Found<'_>, pending: &Pending) -> String {
    let mut url = endpoints.authorization.clone();
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", offer.client)
        .append_pair("redirect_uri", &pending.redirect)
        .append_pair("scope", &offer.scope())
        .append_pair("state", &pending.state)
        .append_pair("nonce", &pending.nonce)
        .append_pair("code_challenge", &pending.challenge())
        .append_pair("code_challenge_method", "S256");
    url.into()
}

impl Providers {
    /// The ID token that a code stands for (RFC 6749, section 4.1.3; RFC 7636, section 4.5).
    pub(super) async fn exchange(
        &self,
        endpoints: &Endpoints,
        offer: &Found<'_>,
        pending: &Pending,
        code: &str,
    ) -> Result<String, Failed> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", &pending.redirect)
            .append_pair("client_id", offer.client)
            .append_pair("code_verifier", &pending.verifier)
            .finish();
        let place = endpoints.exchanges.try_acquire();
        let _place = place.map_err(|_| Failed::Unavailable("too many sign-ins at once".to_owned()))?;
        let url = endpoints.token.as_str();
        let response = self
            .client
            .post(url, offer.ca_bundle, form, ANSWER, TIMEOUT)
            .await
            .map_err(|error| Failed::Unavailable(error.to_string()))?;
        let told: Option<Told> = serde_json::from_slice(&response.body).ok();
        let status = response.status;
        match told {
            Some(Told {
                id_token: Some(token),
                ..
            }) if status.is_success() => Ok(token),
            Some(Told {
                error: Some(error),
                error_description,
                ..
            }) if status.is_client_error() => {
                Err(Failed::Declined(words(&error, error_description.as_deref())))
            }
            _ => Err(Failed::Unavailable(format!(
                "{url} answers {status} without an ID token"
            ))),
        }
    }
}

/// What an ID token must say besides what any token must that a rule accepts, which has been seen to (OpenID Connect Core
/// 1.0, section 3.1.3.7). With the name that the issuer knows the person by.
pub(super) fn check(verified: &str, client: &str, nonce: &str) -> Result<String, &'static str> {
    let claims = trust::unverified(verified).ok_or("the ID token has no claims")?;
    let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
    if text("nonce") != Some(nonce) {
        return Err("the ID token is another sign-in's");
    }
    if text("sub").is_none_or(str::is_empty) {
        return Err("the ID token names nobody");
    }
    let audiences = claims.get("aud").and_then(Value::as_array).map_or(1, Vec::len);
    match claims.get("azp") {
        None if audiences > 1 => return Err("the ID token is for several and names no client"),
        Some(azp) if azp.as_str() != Some(client) => return Err("the ID token is another client's"),
        None | Some(_) => {}
    }
    let name = text("email")
        .or_else(|| text("preferred_username"))
        .unwrap_or_default();
    Ok(name.chars().filter(|c| !c.is_control()).take(NAME).collect())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    fn checked(change: Value) -> Result<String, &'static str> {
        let mut claims = json!({ "sub": "jo", "aud": "berth", "nonce": "n", "email": "jo@acme.test" });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims.to_string()));
        check(&token, "berth", "n")
    }

    #[test]
    fn an_id_token_answers_what_was_asked() {
        assert_eq!(checked(json!({})), Ok("jo@acme.test".to_owned()));
        for change in [
            json!({ "aud": ["berth"] }),
            json!({ "azp": "berth" }),
            json!({ "aud": ["berth", "other"], "azp": "berth" }),
        ] {
            assert!(checked(change.clone()).is_ok(), "{change}");
        }
        for change in [
            json!({ "nonce": "m" }),
            json!({ "nonce": null }),
            json!({ "sub": "" }),
            json!({ "sub": null }),
            json!({ "azp": "other" }),
            json!({ "azp": null }),
            json!({ "aud": ["berth", "other"] }),
            json!({ "aud": ["berth", "other"], "azp": "other" }),
        ] {
            assert!(checked(change.clone()).is_err(), "{change}");
        }
    }
}
