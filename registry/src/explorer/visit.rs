//! Whose host a request is at, who asks, and what they may see: the explorer's one access decision.

use std::sync::{Arc, OnceLock};

use axum::response::Response;
use http::header::{AUTHORIZATION, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use maud::{Markup, html};

use super::answer::Failure;
use super::path::{Form, ROOT};
use super::{Explorer, session};
use crate::audit::{Event, Outcome};
use crate::domain::grant::{Action, Actions, Grants};
use crate::domain::{RepositoryName, TagName};
use crate::identity::presented::Presented;
use crate::identity::{Held, Principal, Rights, sight};
use crate::metadata::Repository;
use crate::settings::Scheme;
use crate::tenancy::origin::OriginError;
use crate::tenancy::{Origin, Place, Tenant};

/// What a browser says a request is for (Fetch Metadata).
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
/// Name of a form's field that says that this page has sent it.
pub const FORM_FIELD: &str = "form";

/// One request of somebody at a tenant.
pub struct Visit {
    /// Everything shared.
    pub explorer: Explorer,
    /// What the client gets.
    pub form: Form,
    /// Whose host it is.
    pub tenant: Arc<Tenant>,
    /// Who asks.
    pub principal: Principal,
    /// From where.
    pub origin: Origin,
    /// Path and query.
    pub asked: String,
    /// Whether nobody needs a credential here.
    pub is_open: bool,
    session: Option<Held>,
    /// Whether the browser goes to the page, as far as it says.
    is_navigation: bool,
    /// The secret of a browser that has no session.
    guest: Option<String>,
    /// One that this answer gives it, since it has none and a form needs one.
    fresh: OnceLock<String>,
}

impl Visit {
    /// Recognises who asks. What is wrong with a session is no failure: it has ended.
    pub async fn of(
        explorer: &Explorer,
        form: Form,
        origin: Result<Origin, OriginError>,
        parts: &Parts,
    ) -> Result<Self, Failure> {
        // 1. Whose host.
        let origin = origin.map_err(|error| Failure::Bad(error.to_string()))?;
        let snapshot = explorer.directory.now();
        let place = explorer.names.place(&snapshot, &origin.host);
        let tenant = match place {
            Some(Place::Tenant(tenant)) => tenant,
            Some(Place::Apex) => {
                let why = format!(
                    "each tenant has its own host: go to <tenant>.{}",
                    explorer.names.domain
                );
                return Err(Failure::absent(why));
            }
            None => return Err(Failure::absent(format!("nobody lives at {}", origin.host))),
        };
        let is_open = explorer.may_be_open && origin.local && !snapshot.is_configured();

        // 2. Who asks: by a header as programs do, or by a browser's session.
        let headers = &parts.headers;
        let mut visit = Self {
            explorer: explorer.clone(),
            form,
            principal: Principal::anonymous(if is_open { Rights::All } else { Rights::None }),
            asked: parts
                .uri
                .path_and_query()
                .map_or_else(String::new, ToString::to_string),
            is_open,
            session: None,
            is_navigation: headers.get(FETCH_MODE).is_none_or(|mode| mode == "navigate"),
            guest: session::guest(headers),
            fresh: OnceLock::new(),
            tenant,
            origin,
        };
        if !is_open {
            visit.recognise(headers).await?;
        }
        Ok(visit)
    }

    async fn recognise(&mut self, headers: &HeaderMap) -> Result<(), Failure> {
        let (identity, tenant) = (&self.explorer.identity, &self.tenant);
        if headers.contains_key(AUTHORIZATION) {
            let presented = Presented::of(headers);
            let scope = Some(tenant.id);
            self.principal = identity
                .authenticate(Some(tenant), scope, &presented, &self.origin)
                .await?;
            return Ok(());
        }
        let Some(text) = session::held(headers) else {
            return Ok(());
        };
        if let Some(held) = identity.by_session(tenant, &text).await? {
            self.principal = held.principal.clone();
            self.session = Some(held);
        }
        Ok(())
    }

    /// Whether a browser's session says who asks.
    pub fn is_signed_in(&self) -> bool {
        self.session.is_some()
    }

    /// Whether a browser would keep a session that comes over this connection: a cookie that only travels encrypted.
    pub fn can_sign_in(&self) -> bool {
        self.origin.scheme == Scheme::Https || self.origin.local
    }

    /// Where to sign in and come back.
    pub fn sign_in_path(&self) -> String {
        let back = url::form_urlencoded::byte_serialize(self.asked.as_bytes()).collect::<String>();
        match self.asked.as_str() {
            ROOT | "/" => format!("{ROOT}sign-in"),
            asked if asked.starts_with("/explorer/sign-") => format!("{ROOT}sign-in"),
            _ => format!("{ROOT}sign-in?to={back}"),
        }
    }

    /// GET and HEAD alone.
    pub fn reads(&self, method: &Method) -> Result<(), Failure> {
        match *method {
            Method::GET | Method::HEAD => Ok(()),
            _ => Err(Failure::Method("GET, HEAD")),
        }
    }

    /// Whether it has been shown who asks. The API tells nobody who pushed or when was pulled; people are told, guests are
    /// not.
    pub fn is_known(&self) -> bool {
        self.is_open || self.principal.is_known()
    }

    /// What may be done with a repository.
    pub fn actions_on(&self, name: &RepositoryName) -> Actions {
        let actions = sight::actions_on(&self.tenant, &self.principal, name);
        match self.explorer.only_reads {
            true => actions.intersect([Action::Pull, Action::Metadata].into_iter().collect()),
            false => actions,
        }
    }

    /// The repository that a name means, for whoever may do this with it. To others it makes no difference whether it
    /// exists.
    pub fn repository(&self, name: RepositoryName, action: Action) -> Result<Repository, Failure> {
        let canonical = self.tenant.canonical(name.clone());
        let actions = self.actions_on(&canonical);
        if !actions.contains(action) {
            return Err(
                match (self.principal.is_known(), actions.contains(Action::Metadata)) {
                    (false, _) => Failure::SignIn,
                    (true, false) => {
                        self.denied(action.text(), canonical.as_str(), "not granted");
                        self.unknown(&name)
                    }
                    (true, true) if self.explorer.only_reads => {
                        Failure::Denied("this registry only reads; change it at its primary".into())
                    }
                    (true, true) => {
                        self.denied(action.text(), canonical.as_str(), "not granted");
                        let (label, verb) = (&self.principal.label, action.text());
                        Failure::Denied(format!("{label} may not {verb} {name}"))
                    }
                },
            );
        }
        self.not_suspended(canonical.as_str())?;
        // What a cache's lists leave out is not there, though it may be stored.
        if let Some((cache, upstream)) = self.tenant.caches.of(&canonical)
            && !cache.allows(upstream)
        {
            return Err(self.unknown(&name));
        }
        Ok(Repository {
            tenant: self.tenant.id,
            name: canonical,
        })
    }

    /// What a cache's list of tags leaves out is no tag of it, though it may be stored.
    pub fn listed_tag(&self, repository: &Repository, tag: &TagName) -> Result<(), Failure> {
        match self.tenant.caches.of(&repository.name) {
            Some((cache, _)) if !cache.allows_tag(tag.as_str()) => Err(Failure::absent(format!(
                "there is no tag {tag} in {}",
                repository.name
            ))),
            _ => Ok(()),
        }
    }

    /// What whoever may not see a repository is told, and whoever asks for one that is not there.
    pub fn unknown(&self, name: &RepositoryName) -> Failure {
        Failure::absent(format!("there is no repository {name}, or none that you may see"))
    }

    /// Refuses what a suspended tenant does not show.
    pub fn not_suspended(&self, object: &str) -> Result<(), Failure> {
        let config = &self.tenant.config;
        if !config.suspend {
            return Ok(());
        }
        self.denied("access", object, "suspended");
        let why = config.suspend_reason.as_deref();
        let why = why.unwrap_or("ask whoever runs this registry");
        Err(Failure::Denied(format!(
            "tenant {} is suspended: {why}",
            self.tenant.name
        )))
    }

    /// A record of what somebody may not do.
    fn denied(&self, action: &'static str, object: &str, why: &str) {
        self.note(action, object, Outcome::Denied, why);
    }

    /// A record of what somebody has done.
    pub fn note(&self, action: &'static str, object: &str, outcome: Outcome, why: &str) {
        self.explorer.identity.audit().add(Event {
            tenant: (self.tenant.id.0, self.tenant.name.to_string()),
            actor: self.principal.label.clone(),
            action,
            object: object.to_owned(),
            outcome,
            detail: why.to_owned(),
            address: Some(self.origin.address),
        });
    }

    /// What a form must carry that this browser sends.
    pub fn form_token(&self) -> Option<String> {
        let guest = || self.guest.as_deref().map(crate::identity::form_token);
        self.session
            .as_ref()
            .map(|held| held.form_token.clone())
            .or_else(guest)
    }

    /// The field of a form that says that this page has sent it. A browser that has nothing to know that by is given it.
    pub fn form_field(&self) -> Markup {
        let fresh = || {
            let secret = self
                .fresh
                .get_or_init(|| uuid::Uuid::new_v4().simple().to_string());
            crate::identity::form_token(secret)
        };
        html! {
            input type="hidden" name=(FORM_FIELD) value=(self.form_token().unwrap_or_else(fresh));
        }
    }

    /// Gives the browser what its next form is known by, if the page has one.
    pub fn remember(&self, response: &mut Response) {
        if let Some(secret) = self.fresh.get() {
            session::remember(response, secret);
        }
    }

    /// Whether somebody sees all repositories there are.
    pub fn sees_all(&self) -> bool {
        let rights = &self.principal.rights;
        let seeing = [Action::Pull, Action::Push, Action::Metadata];
        let sees_all = |grants: &Grants| seeing.iter().any(|action| grants.covers_all(*action));
        !rights.are_scoped() && rights.grants().is_none_or(sees_all)
    }

    /// Whether somebody may do this, and is offered it: pages of a cache change nothing.
    pub fn may(&self, action: Action, name: &RepositoryName) -> bool {
        self.actions_on(name).contains(action) && self.tenant.caches.of(name).is_none()
    }

    /// Refuses guests: they are not told who did what.
    pub fn known(&self) -> Result<(), Failure> {
        match self.is_known() {
            true => Ok(()),
            false => Err(Failure::SignIn),
        }
    }

    /// Lets the session go on, if that is due.
    pub fn renew(&self, response: &mut Response) {
        let Some(held) = self.session.as_ref().filter(|held| held.is_old()) else {
            return;
        };
        // With a page that a person sees and nothing else: what a script asks for beside a sign-out must not undo that, and
        // whoever signs in has another by now.
        let is_page = self.form == Form::Html && response.status() == StatusCode::OK && self.is_navigation;
        if !is_page || response.headers().contains_key(SET_COOKIE) {
            return;
        }
        let issued = self.explorer.identity.issue_session(
            &self.tenant,
            &self.principal,
            &self.origin.host,
            Some(held),
        );
        if let Ok(Some((token, life))) = issued
            && let Ok(cookie) = HeaderValue::try_from(session::cookie(session::SESSION, &token, life))
        {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }
}

/// Name and value of each parameter, where a value may be a name in an archive, with whatever characters that has. It
/// goes to no store.
pub fn query_of_content(parts: &Parts) -> Vec<(String, String)> {
    let text = parts.uri.query().unwrap_or_default();
    url::form_urlencoded::parse(text.as_bytes())
        .into_owned()
        .collect()
}

/// Name and value of each parameter. Nothing here has control characters in it, and databases cannot store NUL.
pub fn query(parts: &Parts) -> Result<Vec<(String, String)>, Failure> {
    let pairs = query_of_content(parts);
    match pairs.iter().any(|(_, value)| value.chars().any(char::is_control)) {
        true => Err(Failure::Bad("the query holds control characters".into())),
        false => Ok(pairs),
    }
}
