//! Signing in by an issuer that the tenant trusts, by OpenID Connect: leaving for it, and coming back.
//!
//! What a browser keeps meanwhile is sealed (`identity::sign_in`). It is `SameSite=Lax`, since the way back begins at
//! the issuer's pages.

use axum::body::Body;
use axum::response::Response;
use http::header::REFRESH;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use maud::{Markup, html};

use super::answer::{self, Failure};
use super::path::ROOT;
use super::session::{self, field, form_page};
use super::visit::Visit;
use crate::identity::Refusal;
use crate::identity::sign_in::{Answer, Begun, LIFE, SignInRefused};

/// The cookie of a sign-in that has begun.
const BEGUN: &str = "__Host-berth-sign-in";
/// Where issuers send people back to; clients are registered with it.
const CALLBACK: &str = "/explorer/sign-in/callback";
/// Name of the field that says by whom.
const OFFER: &str = "by";
/// Longest page to go on to that is kept: a browser keeps cookies of 4 KiB.
const BACK: usize = 1024;

/// One button an offer. `back` is encoded.
pub fn buttons(visit: &Visit, back: &str) -> Markup {
    let offers = visit.explorer.identity.offers(&visit.tenant);
    html! {
        @if !offers.is_empty() {
            form.stack method="post" action=(format!("{ROOT}sign-in/oidc?to={back}")) {
                (visit.form_field())
                @for offer in &offers {
                    button.primary type="submit" name=(OFFER) value=(offer.id) { (offer.title) }
                }
            }
            p.or { "or by a token" }
        }
    }
}

/// Leaves for the issuer.
pub async fn begin(visit: &Visit, parts: &Parts, body: Body) -> Result<Response, Failure> {
    if parts.method != Method::POST {
        return Err(Failure::Method("POST"));
    }
    let back = session::back(parts.uri.query().unwrap_or_default());
    let fields = match session::fields(visit, &parts.headers, body).await {
        Ok(fields) => fields,
        // The page was open for too long: the browser gets another one.
        Err(Failure::Denied(why)) => return Ok(form_page(visit, StatusCode::FORBIDDEN, &back, Some(&why))),
        Err(failure) => return Err(failure),
    };
    if !visit.can_sign_in() {
        // The page says why.
        return Ok(form_page(visit, StatusCode::BAD_REQUEST, &back, None));
    }
    let kept_back = if back.len() <= BACK { &back } else { ROOT };
    let begun = visit.explorer.identity.begin_sign_in(
        &visit.tenant,
        field(&fields, OFFER).unwrap_or_default(),
        visit.origin.link(CALLBACK),
        kept_back,
    );
    match begun.await {
        Ok(begun) => Ok(leave(visit, &begun)),
        Err(refused) => told(visit, refused, &back),
    }
}

/// A page that goes on to the issuer by itself. It is no redirect: to browsers that would be a form sent to the issuer, and
/// to whomever the issuer redirects to, all of whom `form-action` would have to name. By this page it stays `'self'`.
fn leave(visit: &Visit, begun: &Begun) -> Response {
    let body = html! {
        div.narrow {
            h1 { "Sign in" }
            p { "You sign in at " (begun.issuer) ", and come back here." }
            p { a href=(begun.location) { "Go on to " (begun.issuer) } }
        }
    };
    let mut response = answer::page(StatusCode::OK, Some(visit), "Sign in", &body);
    // An unquoted URL goes on to the end of the line (HTML, "shared declarative refresh steps").
    if let Ok(refresh) = HeaderValue::try_from(format!("0; url={}", begun.location)) {
        response.headers_mut().insert(REFRESH, refresh);
    }
    session::set(&mut response, BEGUN, &begun.kept, LIFE);
    response
}

/// Comes back from the issuer.
pub async fn complete(visit: &Visit, parts: &Parts) -> Result<Response, Failure> {
    // Not HEAD: a code is good once.
    if parts.method != Method::GET {
        return Err(Failure::Method("GET"));
    }
    let (tenant, identity) = (&visit.tenant, &visit.explorer.identity);
    let kept = session::cookie_of(&parts.headers, BEGUN);
    let answer = Answer::read(parts.uri.query().unwrap_or_default());
    let completed = identity
        .complete_sign_in(tenant, kept.as_deref(), answer.as_ref(), &visit.origin)
        .await;
    let person = match completed {
        Ok(person) => person,
        // Somebody else's link must not end a sign-in that goes on in another window.
        Err(refused @ SignInRefused::NotBegun) => return told(visit, refused, ROOT),
        Err(refused) => {
            let mut response = told(visit, refused, ROOT)?;
            session::set(&mut response, BEGUN, "", 0);
            return Ok(response);
        }
    };
    let issued = identity
        .issue_session(tenant, &person.principal, &visit.origin.host, None)
        .map_err(|error| Failure::Ours(error.to_string()))?;
    let (token, life) = issued.ok_or_else(|| Failure::Ours("a person got no session".to_owned()))?;
    let mut response = session::begun(&person.back, &token, life);
    session::set(&mut response, BEGUN, "", 0);
    Ok(response)
}

/// The ways to sign in once more, with what went wrong.
fn told(visit: &Visit, refused: SignInRefused, back: &str) -> Result<Response, Failure> {
    let status = match &refused {
        SignInRefused::NotBegun | SignInRefused::Strange { .. } => StatusCode::BAD_REQUEST,
        SignInRefused::NotOffered => StatusCode::NOT_FOUND,
        SignInRefused::Declined { .. } | SignInRefused::NotAdmitted { .. } => StatusCode::FORBIDDEN,
        SignInRefused::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        SignInRefused::Throttled(wait) => return Err(Refusal::Throttled(*wait).into()),
        SignInRefused::Keys(error) => return Err(Failure::Ours(error.to_string())),
    };
    Ok(form_page(visit, status, back, Some(&refused.to_string())))
}
