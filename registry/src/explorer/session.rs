//! Signing in and out.
//!
//! A session is a signed cookie that only travels encrypted, to this host, and that no script can read
//! (`__Host-`, RFC 6265bis, section 4.1.3). Forms carry what only a page of this host can know, and are refused if the
//! browser says that they come from elsewhere.

use axum::body::Body;
use axum::response::Response;
use http::header::{COOKIE, ORIGIN, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use maud::{Markup, html};
use subtle::ConstantTimeEq as _;

use super::answer::{self, Failure};
use super::oidc;
use super::path::ROOT;
use super::visit::{FORM_FIELD, Visit};
use crate::identity::Refusal;
use crate::identity::presented::Presented;

/// The cookie of a session.
pub const SESSION: &str = "__Host-berth-session";
/// The cookie of a browser without one, for the form to sign in by.
const GUEST: &str = "__Host-berth-guest";
/// Lifetime of the latter in seconds.
const GUEST_LIFE: i64 = 3600;
/// Most bytes of a form.
const FORM_LIMIT: usize = 64 * 1024;
/// What a browser says about where a request was made (Fetch Metadata).
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The session that a browser holds.
pub fn held(headers: &HeaderMap) -> Option<String> {
    cookie_of(headers, SESSION)
}

/// What a browser without a session holds.
pub fn guest(headers: &HeaderMap) -> Option<String> {
    cookie_of(headers, GUEST).filter(|text| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A cookie; none if it stands there twice, since one of them is not ours.
pub fn cookie_of(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned());
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// `Set-Cookie`. A lifetime of 0 removes it.
pub fn cookie(name: &str, value: &str, life: i64) -> String {
    format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={life}")
}

/// Has the browser keep a cookie.
pub fn set(response: &mut Response, name: &str, value: &str, life: i64) {
    if let Ok(line) = HeaderValue::try_from(cookie(name, value, life)) {
        response.headers_mut().append(SET_COOKIE, line);
    }
}

/// The form, or what was sent by it.
pub async fn sign_in(visit: &Visit, parts: &Parts, body: Body) -> Result<Response, Failure> {
    let back = back(parts.uri.query().unwrap_or_default());
    match parts.method {
        Method::GET | Method::HEAD => Ok(form_page(visit, StatusCode::OK, &back, None)),
        Method::POST => {
            let fields = match fields(visit, &parts.headers, body).await {
                Ok(fields) => fields,
                // The page was open for too long: the browser gets another one.
                Err(Failure::Denied(why)) => {
                    return Ok(form_page(visit, StatusCode::FORBIDDEN, &back, Some(&why)));
                }
                Err(failure) => return Err(failure),
            };
            begin(visit, &fields, &back).await
        }
        _ => Err(Failure::Method("GET, HEAD, POST")),
    }
}

async fn begin(visit: &Visit, fields: &[(String, String)], back: &str) -> Result<Response, Failure> {
    let secret = field(fields, "token").unwrap_or_default().trim().to_owned();
    if secret.is_empty() {
        return Ok(form_page(
            visit,
            StatusCode::BAD_REQUEST,
            back,
            Some("Paste a token."),
        ));
    }
    let presented = Presented::Password {
        user: "explorer".to_owned(),
        secret,
    };
    let (tenant, identity) = (&visit.tenant, &visit.explorer.identity);
    let found = identity
        .authenticate(Some(tenant), Some(tenant.id), &presented, &visit.origin)
        .await;
    let principal = match found {
        Ok(principal) => principal,
        Err(refusal @ (Refusal::Unknown(_) | Refusal::Foreign(_))) => {
            let why = refusal.to_string();
            return Ok(form_page(visit, StatusCode::UNAUTHORIZED, back, Some(&why)));
        }
        Err(refusal) => return Err(refusal.into()),
    };
    let issued = identity
        .issue_session(tenant, &principal, &visit.origin.host, None)
        .map_err(|error| Failure::Ours(error.to_string()))?;
    let Some((token, life)) = issued else {
        let why = "this token is for a few repositories and a short time; sign in with the one that it was made from";
        return Ok(form_page(visit, StatusCode::FORBIDDEN, back, Some(why)));
    };
    Ok(begun(back, &token, life))
}

/// On to a page, with a session.
pub fn begun(back: &str, token: &str, life: i64) -> Response {
    let mut response = answer::to(back);
    set(&mut response, SESSION, token, life);
    set(&mut response, GUEST, "", 0);
    response
}

/// Ends the session of this browser.
pub async fn sign_out(visit: &Visit, parts: &Parts, body: Body) -> Result<Response, Failure> {
    if parts.method != Method::POST {
        return Err(Failure::Method("POST"));
    }
    // Another site's page brings no session along, and must not end one.
    if !visit.is_signed_in() {
        return Ok(answer::to(ROOT));
    }
    fields(visit, &parts.headers, body).await?;
    let mut response = answer::to(ROOT);
    set(&mut response, SESSION, "", 0);
    Ok(response)
}

/// What a form has sent, if it is one of ours.
pub async fn fields(
    visit: &Visit,
    headers: &HeaderMap,
    body: Body,
) -> Result<Vec<(String, String)>, Failure> {
    let is_ours = is_same_origin(headers, &visit.origin.authority);
    let body = Limited::new(body, FORM_LIMIT).collect().await;
    let body = body
        .map_err(|_| Failure::Bad("the form could not be read".into()))?
        .to_bytes();
    let fields: Vec<(String, String)> = url::form_urlencoded::parse(&body).into_owned().collect();
    let expected = visit.form_token();
    let sent = field(&fields, FORM_FIELD).unwrap_or_default();
    let matches = expected.is_some_and(|expected| expected.as_bytes().ct_eq(sent.as_bytes()).into());
    if !is_ours || !matches {
        let why = "The form was not sent by this page, or the page was open for too long. Send it again.";
        return Err(Failure::Denied(why.into()));
    }
    Ok(fields)
}

/// The first value of a field.
pub fn field<'f>(fields: &'f [(String, String)], name: &str) -> Option<&'f str> {
    let mut found = fields.iter().filter(|(key, _)| key == name);
    found.next().map(|(_, value)| value.as_str())
}

/// Whether the browser says that the request was made by a page of this host; old ones say nothing.
fn is_same_origin(headers: &HeaderMap, authority: &str) -> bool {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text(&FETCH_SITE) {
        return matches!(site, "same-origin" | "none");
    }
    text(&ORIGIN).is_none_or(|origin| {
        let named = origin.split_once("://").map(|(_, named)| named);
        named.is_some_and(|named| named.eq_ignore_ascii_case(authority))
    })
}

/// Where to go on, which is a page of the explorer whatever the query says.
pub fn back(query: &str) -> String {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let to = pairs
        .find(|(key, _)| key == "to")
        .map(|(_, value)| value.into_owned());
    to.filter(|to| to.starts_with(ROOT) && to.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'))
        .unwrap_or_else(|| ROOT.to_owned())
}

/// The ways to sign in, and why there is no session yet.
pub fn form_page(visit: &Visit, status: StatusCode, back: &str, why: Option<&str>) -> Response {
    answer::page(status, Some(visit), "Sign in", &form_body(visit, back, why))
}

/// Gives a browser without a session what its forms are known by.
pub fn remember(response: &mut Response, secret: &str) {
    set(response, GUEST, secret, GUEST_LIFE);
}

fn form_body(visit: &Visit, back: &str, why: Option<&str>) -> Markup {
    let tenant = visit.tenant.name.as_str();
    let encoded: String = url::form_urlencoded::byte_serialize(back.as_bytes()).collect();
    html! {
        div.narrow {
            h1 { "Sign in" }
            @if let Some(why) = why { p.alert role="alert" { (why) } }
            @if visit.can_sign_in() {
                (oidc::buttons(visit, &encoded))
                form.stack method="post" action=(format!("{ROOT}sign-in?to={encoded}")) {
                    (visit.form_field())
                    label for="token" { "Token of " (tenant) }
                    input #token name="token" type="password" required autocomplete="off" autocapitalize="none"
                        spellcheck="false" autofocus;
                    button.primary type="submit" { "Sign in" }
                }
                p.hint {
                    "The same token as for " code { "docker login" } ". You see what it may pull, for as long as it "
                    "lasts; the browser keeps it only as a session of an hour that is renewed while you are here."
                }
            } @else {
                p {
                    "A browser keeps a session only over HTTPS, and this page has come over plain HTTP. Reach the "
                    "registry by HTTPS, or from the machine that it runs on."
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_read_among_others_and_not_where_it_stands_twice() {
        let mut headers = HeaderMap::new();
        headers.append(
            COOKIE,
            HeaderValue::from_static("a=b; __Host-berth-session=x.y.z; c=d"),
        );
        assert_eq!(held(&headers).as_deref(), Some("x.y.z"));
        headers.append(COOKIE, HeaderValue::from_static("__Host-berth-session=other"));
        assert_eq!(held(&headers), None);
    }

    #[test]
    fn signing_in_leads_to_pages_of_the_explorer_and_nowhere_else() {
        for (query, expected) in [
            ("to=%2Fexplorer%2Fr%2Fapp", "/explorer/r/app"),
            ("to=%2Fexplorer%2F%3Fq%3Da%26after%3Db", "/explorer/?q=a&after=b"),
            ("to=https%3A%2F%2Fevil.test%2Fexplorer%2F", ROOT),
            ("to=%2F%2Fevil.test", ROOT),
            ("to=%2Fexplorer%2F%0d%0aSet-Cookie", ROOT),
            ("to=%2Fexplorer%2F..%5C%5Cevil", ROOT),
            ("", ROOT),
        ] {
            assert_eq!(back(query), expected, "{query}");
        }
    }

    #[test]
    fn a_form_from_elsewhere_is_known_by_what_the_browser_says() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            pairs.collect::<HeaderMap>()
        };
        for (pairs, expected) in [
            (&[][..], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "cross-site")], false),
            (
                &[("sec-fetch-site", "same-site"), ("origin", "https://acme.test")],
                false,
            ),
            (&[("origin", "https://acme.test")], true),
            (&[("origin", "https://evil.test")], false),
            (&[("origin", "null")], false),
        ] {
            assert_eq!(
                is_same_origin(&headers(pairs), "acme.test"),
                expected,
                "{pairs:?}"
            );
        }
    }
}
