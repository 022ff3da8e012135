//! Credentials that are asked for in a server's place.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use uuid::Uuid;

use super::body::{Body, plain};

/// Where tokens are to be had.
const TOKEN_PATH: &str = "/token";

/// Who is let through.
#[derive(Debug)]
pub struct Guard {
    /// Name and password of whoever may come; anybody gets a token if absent.
    login: Option<(String, String)>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Shows the password with each request.
    Basic,
    /// Shows a token.
    Bearer {
        /// Where tokens come from, if not from here.
        realm: Option<String>,
        /// For how many requests a token is good, whatever lifetime it is given with.
        uses: usize,
        /// What is left of the uses of those that were given.
        tokens: HashMap<String, usize>,
    },
}

impl Guard {
    /// Asks for name and password with each request.
    pub fn basic(username: &str, password: &str) -> Guard {
        Guard {
            login: Some((username.to_owned(), password.to_owned())),
            kind: Kind::Basic,
        }
    }

    /// Asks for a token, which its `/token` gives to anybody.
    pub fn bearer() -> Guard {
        Guard {
            login: None,
            kind: Kind::Bearer {
                realm: None,
                uses: usize::MAX,
                tokens: HashMap::new(),
            },
        }
    }

    /// Gives tokens to this name and password only.
    pub fn to(mut self, username: &str, password: &str) -> Guard {
        self.login = Some((username.to_owned(), password.to_owned()));
        self
    }

    /// Each token is refused after so many requests, long before the end that it was given with.
    pub fn good_for(mut self, requests: usize) -> Guard {
        if let Kind::Bearer { uses, .. } = &mut self.kind {
            *uses = requests;
        }
        self
    }

    /// Sends those who want a token to another URL.
    pub fn at_realm(mut self, url: &str) -> Guard {
        if let Kind::Bearer { realm, .. } = &mut self.kind {
            *realm = Some(url.to_owned());
        }
        self
    }

    /// An answer in place of the server's: a refusal, or a token. Otherwise takes the credentials off the request.
    pub(super) fn look(&mut self, request: &mut Request<Incoming>) -> Option<Response<Body>> {
        let shown = request.headers_mut().remove(AUTHORIZATION);
        let shown = shown.as_ref().and_then(|value| value.to_str().ok());
        let host = request.headers().get("host");
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        let knows = self.login.as_ref().is_none_or(|(username, password)| {
            let expected = format!("Basic {}", STANDARD.encode(format!("{username}:{password}")));
            shown == Some(expected.as_str())
        });
        let challenge = match &mut self.kind {
            Kind::Basic if knows => return None,
            Kind::Basic => r#"Basic realm="test""#.to_owned(),
            Kind::Bearer { uses, tokens, .. } if request.uri().path() == TOKEN_PATH => {
                if !knows {
                    return Some(plain(StatusCode::UNAUTHORIZED, "wrong password"));
                }
                let token = Uuid::new_v4().simple().to_string();
                tokens.insert(token.clone(), *uses);
                return Some(given(&token));
            }
            Kind::Bearer { tokens, realm, .. } => {
                let token = shown.and_then(|shown| shown.strip_prefix("Bearer "));
                let left = token.and_then(|token| tokens.get_mut(token));
                if let Some(left) = left.filter(|left| **left > 0) {
                    *left -= 1;
                    return None;
                }
                let own = format!("http://{host}{TOKEN_PATH}");
                let realm = realm.as_ref().unwrap_or(&own);
                format!(r#"Bearer realm="{realm}",service="test""#)
            }
        };
        let mut refusal = plain(StatusCode::UNAUTHORIZED, "");
        let challenge = HeaderValue::from_str(&challenge).expect("a header's value");
        refusal.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        Some(refusal)
    }
}

fn given(token: &str) -> Response<Body> {
    let mut answer = plain(
        StatusCode::OK,
        &json!({ "token": token, "expires_in": 3600 }).to_string(),
    );
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}
