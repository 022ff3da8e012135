//! Sign-in of people by an issuer that a tenant trusts: OpenID Connect's authorization code flow, as a public client with
//! PKCE (RFC 7636) and without a secret.
//!
//! ```text
//!   begin ──> state, nonce, verifier ──sealed──> the browser's cookie        complete <── code, state
//!     │                                                                          │
//!     └─> the issuer's authorization endpoint ──> person ──> callback ───────────┘──> token endpoint ──> rule ──> principal
//! ```
//!
//! [`offer`] says by whom one can sign in, [`pending`] is what a browser keeps meanwhile, [`answer`] what it brings back,
//! [`discovery`] where an issuer's endpoints are, [`exchange`] fetches the ID token for a code and says what is special to
//! ID tokens. It may use the trust rules and their verifier, the keys and the egress door.
//!
//! What must hold: nothing is stored here between the two steps; an answer counts only in the browser that began, once for
//! each code as the issuer sees to, and from the issuer that was asked; an ID token is held to the same rules as any other
//! token of its issuer; a person who is not admitted does not learn what was missing; endpoints are URLs of strangers.

pub(crate) mod answer;
mod discovery;
mod exchange;
mod offer;
mod pending;

use std::time::{Duration, Instant};

pub use self::answer::Answer;
pub use self::offer::Offer;
pub use self::pending::LIFE;

use super::authenticate::{Identity, seconds};
use super::keys::SealError;
use super::principal::{Credential, Principal, Rights};
use super::trust::Refused;
use crate::audit::{Event, Outcome};
use crate::tenancy::{Origin, Tenant};

pub(super) use self::discovery::Providers;
use self::pending::Pending;

/// User name under which failed sign-ins count together.
const SIGN_IN: &str = "(sign-in)";

/// Why nobody has been signed in. What is displayed is fit for whoever asks.
#[derive(Debug, thiserror::Error)]
pub enum SignInRefused {
    /// It was not begun here.
    #[error("This sign-in was not begun in this browser, or more than ten minutes ago. Begin again.")]
    NotBegun,
    /// No rule offers it any more.
    #[error("This way to sign in is not offered here any more.")]
    NotOffered,
    /// The issuer says no.
    #[error("{issuer} did not sign you in: {why}")]
    Declined {
        /// Its host.
        issuer: String,
        /// In its own words.
        why: String,
    },
    /// What has come is no answer to what was asked.
    #[error("What came back from {issuer} does not belong to this sign-in. Begin again.")]
    Strange {
        /// Its host.
        issuer: String,
        /// For the log.
        why: &'static str,
    },
    /// No rule accepts the person.
    #[error(
        "{issuer} knows you, and {tenant} does not admit you by what it says. Ask whoever runs {tenant}."
    )]
    NotAdmitted {
        /// Its host.
        issuer: String,
        /// The tenant's name.
        tenant: String,
        /// For the log.
        why: String,
    },
    /// The issuer cannot be asked.
    #[error("{issuer} does not answer as it should at the moment. Try again, or sign in by a token.")]
    Unavailable {
        /// Its host.
        issuer: String,
        /// For the log.
        why: String,
    },
    /// Too many failures before.
    #[error("too many failed sign-ins; wait {} seconds", .0.as_secs() + 1)]
    Throttled(Duration),
    /// There is no key, or no randomness.
    #[error(transparent)]
    Keys(#[from] SealError),
}

impl SignInRefused {
    /// What the audit trail gets of what somebody has tried.
    fn tried(&self) -> Option<String> {
        match self {
            Self::Declined { why, .. } | Self::NotAdmitted { why, .. } => Some(why.clone()),
            Self::Strange { why, .. } => Some((*why).to_owned()),
            Self::NotBegun
            | Self::NotOffered
            | Self::Unavailable { .. }
            | Self::Throttled(_)
            | Self::Keys(_) => None,
        }
    }

    /// What the log gets.
    fn reason(&self) -> String {
        match self {
            Self::Unavailable { why, .. } => why.clone(),
            other => other.to_string(),
        }
    }
}

/// A sign-in that has begun.
pub struct Begun {
    /// Where the person goes on.
    pub location: String,
    /// The issuer's host, for people.
    pub issuer: String,
    /// What the browser keeps and brings back.
    pub kept: String,
}

/// A person who has signed in.
pub struct SignedIn {
    /// Who.
    pub principal: Principal,
    /// Where they wanted to go.
    pub back: String,
}

impl Identity {
    /// Ways to sign in at a tenant, in the order of its rules.
    pub fn offers(&self, tenant: &Tenant) -> Vec<Offer> {
        offer::all(tenant)
    }

    /// Begins a sign-in: `redirect` is the URL to which the issuer sends the person back, `back` the page they want.
    pub async fn begin_sign_in(
        &self,
        tenant: &Tenant,
        offer: &str,
        redirect: String,
        back: &str,
    ) -> Result<Begun, SignInRefused> {
        let offer = offer::find(tenant, offer).ok_or(SignInRefused::NotOffered)?;
        let endpoints = self.providers.endpoints(&offer).await.map_err(|why| {
            let issuer = offer.host();
            SignInRefused::Unavailable { issuer, why }
        })?;
        let pending = Pending::new(&offer, redirect, back, seconds()).ok_or(SealError::Key)?;
        Ok(Begun {
            location: exchange::authorization(&endpoints, &offer, &pending),
            issuer: offer.host(),
            kept: self.keys.seal(&pending.to_text(), &place_of(tenant))?,
        })
    }

    /// Ends a sign-in with what the browser has kept and what it brings from the issuer.
    pub async fn complete_sign_in(
        &self,
        tenant: &Tenant,
        kept: Option<&str>,
        answer: Option<&Answer>,
        origin: &Origin,
    ) -> Result<SignedIn, SignInRefused> {
        // 1. Whoever did not begin here has nothing to end: that costs nothing and is told to nobody.
        let opened = kept.and_then(|kept| self.keys.open_sealed(kept, &place_of(tenant)).ok());
        let pending = opened.and_then(|text| Pending::from_text(&text, seconds()));
        let (pending, answer) = pending
            .zip(answer)
            .filter(|(pending, answer)| pending.is_answered_by(answer))
            .ok_or(SignInRefused::NotBegun)?;
        let offer = offer::find(tenant, &pending.offer).ok_or(SignInRefused::NotOffered)?;

        // 2. Each try asks the issuer for something.
        let login = self.throttle.login(Some(tenant.id), SIGN_IN, origin.address);
        if let Some(wait) = self.throttle.wait(&login, &pending.state, Instant::now()) {
            return Err(SignInRefused::Throttled(wait));
        }
        let record = |actor: String, outcome: Outcome, detail: String| {
            self.audit().add(Event {
                tenant: (tenant.id.0, tenant.name.to_string()),
                actor,
                action: "login",
                object: offer.issuer.to_owned(),
                outcome,
                detail,
                address: Some(origin.address),
            });
        };
        match self.redeem(tenant, &offer, &pending, answer).await {
            Ok((principal, known_as)) => {
                self.throttle.succeeded(&login, &pending.state);
                record(principal.label.clone(), Outcome::Done, known_as);
                let back = pending.back;
                Ok(SignedIn { principal, back })
            }
            Err(refused) => {
                if let Some(why) = refused.tried() {
                    self.throttle.failed(&login, &pending.state, Instant::now());
                    record(format!("user:{SIGN_IN}"), Outcome::Denied, why);
                } else {
                    tracing::warn!(
                        issuer = offer.issuer,
                        why = refused.reason(),
                        "nobody can sign in by this issuer"
                    );
                }
                Err(refused)
            }
        }
    }

    /// From an answer to a person, with what else they are known as.
    async fn redeem(
        &self,
        tenant: &Tenant,
        offer: &offer::Found<'_>,
        pending: &Pending,
        answer: &Answer,
    ) -> Result<(Principal, String), SignInRefused> {
        let issuer = offer.host();
        let unavailable = |why: String| SignInRefused::Unavailable {
            issuer: issuer.clone(),
            why,
        };
        let strange = |why: &'static str| SignInRefused::Strange {
            issuer: issuer.clone(),
            why,
        };
        // 1. It is the asked issuer's answer, and a code.
        let endpoints = self.providers.endpoints(offer).await.map_err(unavailable)?;
        if !answer.is_of(offer.issuer, endpoints.names_itself) {
            return Err(strange("the answer is another issuer's"));
        }
        let code = answer.code().map_err(|why| SignInRefused::Declined {
            issuer: issuer.clone(),
            why,
        })?;

        // 2. The code buys an ID token.
        let token = self.providers.exchange(&endpoints, offer, pending, code).await;
        let token = token.map_err(|failed| match failed {
            exchange::Failed::Declined(why) => SignInRefused::Declined {
                issuer: issuer.clone(),
                why,
            },
            exchange::Failed::Unavailable(why) => unavailable(why),
        })?;

        // 3. It is held to the tenant's rules, as it would be as a password, and to what was asked.
        let now = seconds();
        let rules = offer.rules.iter().map(|trusted| &trusted.rule);
        let accepted = self.verifier.verify(tenant.id, rules, &token, now).await;
        let accepted = accepted.map_err(|refused| match refused {
            Refused::NoRule(why) => SignInRefused::NotAdmitted {
                issuer: issuer.clone(),
                tenant: tenant.name.to_string(),
                why,
            },
            Refused::Keys(why) => unavailable(why),
        })?;
        let known_as = exchange::check(&token, offer.client, &pending.nonce).map_err(strange)?;

        // 4. The session's length is ours: an ID token lives for minutes.
        let rule = offer.rules.get(accepted.rule).ok_or(SignInRefused::NotOffered)?;
        let principal = Principal {
            label: accepted.subject.clone(),
            user: String::new(),
            rights: Rights::Granted(rule.grants.clone()),
            credential: Credential::Trust {
                rule: rule.rule.id.clone(),
                subject: accepted.subject,
                until: now + offer::session_of(&rule.rule),
            },
        };
        Ok((principal, known_as))
    }
}

/// What a sealed sign-in belongs to: it opens at no other tenant and as nothing else.
fn place_of(tenant: &Tenant) -> String {
    format!("sign-in of {}", tenant.uid)
}
