//! Where people sign in at an [`Issuer`](crate::Issuer): its authorization and token endpoints, as strict as those of a real
//! provider. It asks nobody anything: whoever comes is the person that the test says.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::LOCATION;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The desk of one issuer.
#[derive(Debug)]
pub struct Desk {
    issuer: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Where each client has people sent back to.
    clients: HashMap<String, String>,
    person: Person,
    codes: HashMap<String, HashMap<String, String>>,
}

/// What becomes of whoever comes.
#[derive(Debug, Clone)]
pub enum Person {
    /// They get a code, and for it an ID token with these claims besides the usual ones, or instead of them; `null` leaves
    /// one out.
    Known(Value),
    /// They get a code, and for it this text as the ID token.
    Token(String),
    /// They are sent back with this error and its description.
    Declined(&'static str, &'static str),
}

impl Default for Person {
    fn default() -> Self {
        Self::Known(json!({}))
    }
}

impl Desk {
    pub(crate) fn new(issuer: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            state: Mutex::default(),
        }
    }

    /// Registers a public client, and where people are sent back to.
    pub fn register(&self, client: &str, redirect: &str) {
        self.state()
            .clients
            .insert(client.to_owned(), redirect.to_owned());
    }

    /// Says who comes from now on.
    pub fn expects(&self, person: Person) {
        self.state().person = person;
    }

    pub(crate) fn announce(&self, discovery: &mut Value) {
        discovery["authorization_endpoint"] = json!(format!("{}/authorize", self.issuer));
        discovery["token_endpoint"] = json!(format!("{}/token", self.issuer));
        discovery["code_challenge_methods_supported"] = json!(["S256"]);
        discovery["authorization_response_iss_parameter_supported"] = json!(true);
    }

    pub(crate) fn authorize(&self, query: &str) -> Response<Bytes> {
        let asked: HashMap<String, String> = url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let is = |name: &str, value: &str| asked.get(name).is_some_and(|said| said == value);
        let long = |name: &str| asked.get(name).is_some_and(|said| said.len() >= 43);
        let mut state = self.state();
        let redirect = asked
            .get("client_id")
            .and_then(|client| state.clients.get(client));
        let Some(redirect) = redirect.filter(|redirect| is("redirect_uri", redirect)) else {
            return refused(
                "unauthorized_client",
                "the client or its redirect_uri is not registered",
            );
        };
        let scopes = asked.get("scope").map(String::as_str).unwrap_or_default();
        let is_whole = is("response_type", "code")
            && is("code_challenge_method", "S256")
            && scopes.split(' ').any(|scope| scope == "openid")
            && ["state", "nonce", "code_challenge"].into_iter().all(long);
        if !is_whole {
            return refused("invalid_request", "something is missing");
        }
        let mut back = url::Url::parse(redirect).expect("a URL");
        let code = uuid::Uuid::new_v4().simple().to_string();
        back.query_pairs_mut()
            .append_pair("state", &asked["state"])
            .append_pair("iss", &self.issuer);
        if let Person::Declined(error, description) = &state.person {
            back.query_pairs_mut()
                .append_pair("error", error)
                .append_pair("error_description", description);
        } else {
            back.query_pairs_mut().append_pair("code", &code);
            state.codes.insert(code, asked);
        }
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::FOUND;
        let back = back.as_str().parse().expect("a value");
        response.headers_mut().insert(LOCATION, back);
        response
    }

    pub(crate) fn exchange(&self, form: &[u8], sign: impl Fn(&Value) -> String) -> Response<Bytes> {
        let sent: HashMap<String, String> = url::form_urlencoded::parse(form).into_owned().collect();
        let text = |name: &str| sent.get(name).map(String::as_str).unwrap_or_default();
        if text("grant_type") != "authorization_code" {
            return refused("unsupported_grant_type", "");
        }
        let mut state = self.state();
        // Used up, whatever comes of it.
        let Some(asked) = state.codes.remove(text("code")) else {
            return refused("invalid_grant", "the code is not known, or was used before");
        };
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(text("code_verifier")));
        let is_theirs =
            asked["client_id"] == text("client_id") && asked["redirect_uri"] == text("redirect_uri");
        if !is_theirs || asked["code_challenge"] != challenge {
            return refused(
                "invalid_grant",
                "the code is another client's or the verifier is wrong",
            );
        }
        let token = match &state.person {
            Person::Token(text) => text.clone(),
            Person::Known(claims) => sign(&self.claims(&asked, claims)),
            Person::Declined(error, description) => return refused(error, description),
        };
        let told =
            json!({ "access_token": "x", "token_type": "Bearer", "expires_in": 300, "id_token": token });
        Response::new(told.to_string().into())
    }

    fn claims(&self, asked: &HashMap<String, String>, besides: &Value) -> Value {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock")
            .as_secs();
        let mut claims = json!({
            "iss": self.issuer, "sub": "jo", "aud": asked["client_id"], "nonce": asked["nonce"],
            "iat": now, "exp": now + 60, "email": "jo@acme.test",
        });
        for (name, value) in besides.as_object().into_iter().flatten() {
            match value {
                Value::Null => drop(claims.as_object_mut().and_then(|claims| claims.remove(name))),
                value => claims[name] = value.clone(),
            }
        }
        claims
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(error: &str, description: &str) -> Response<Bytes> {
    let told = json!({ "error": error, "error_description": description });
    let mut response = Response::new(Bytes::from(told.to_string()));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}
