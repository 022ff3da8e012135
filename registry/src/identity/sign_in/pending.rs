//! What a browser keeps between leaving for the issuer and coming back.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::answer::Answer;
use super::offer::Found;
use crate::identity::trust::Seconds;

/// How long a person may take at the issuer, in seconds.
pub const LIFE: Seconds = 600;

/// A sign-in that has begun. It is sealed when it leaves: its holder reads and changes nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    /// Comes back with the answer.
    pub state: String,
    /// Comes back in the ID token.
    pub nonce: String,
    /// Shown with the code (RFC 7636).
    pub verifier: String,
    /// By whom.
    pub offer: String,
    /// Where the issuer sends the person, which the exchange names again (RFC 6749, section 4.1.3).
    pub redirect: String,
    /// The page that they want.
    pub back: String,
    ends: Seconds,
}

impl Pending {
    /// A new one; none if there is no randomness.
    pub fn new(offer: &Found<'_>, redirect: String, back: &str, now: Seconds) -> Option<Self> {
        Some(Self {
            state: random()?,
            nonce: random()?,
            verifier: random()?,
            offer: offer.id.clone(),
            redirect,
            back: back.to_owned(),
            ends: now + LIFE,
        })
    }

    /// As it is sealed.
    pub fn to_text(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// Reads what was sealed, unless it has ended.
    pub fn from_text(text: &str, now: Seconds) -> Option<Self> {
        let pending: Self = serde_json::from_str(text).ok()?;
        (now < pending.ends).then_some(pending)
    }

    /// Whether an answer is one to this.
    pub fn is_answered_by(&self, answer: &Answer) -> bool {
        self.state.as_bytes().ct_eq(answer.state().as_bytes()).into()
    }

    /// What the issuer is told of the verifier (RFC 7636, section 4.2, `S256`).
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.as_bytes()))
    }
}

/// 256 random bits, as text of 43 characters.
fn random() -> Option<String> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending() -> Pending {
        Pending {
            state: random().unwrap(),
            nonce: random().unwrap(),
            // RFC 7636, appendix B.
            verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into(),
            offer: "x".into(),
            redirect: "https://acme.test/explorer/sign-in/callback".into(),
            back: "/explorer/".into(),
            ends: 1600,
        }
    }

    #[test]
    fn the_challenge_is_that_of_the_standard() {
        assert_eq!(
            pending().challenge(),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }

    #[test]
    fn it_comes_back_as_it_was_until_it_ends() {
        let pending = pending();
        let text = pending.to_text();
        assert_eq!(Pending::from_text(&text, 1599), Some(pending));
        assert_eq!(Pending::from_text(&text, 1600), None);
        assert_eq!(Pending::from_text("{}", 0), None);
    }

    #[test]
    fn only_its_own_state_answers_it() {
        let pending = pending();
        let answer = |state: &str| Answer::read(&format!("state={state}&code=c")).unwrap();
        assert!(pending.is_answered_by(&answer(&pending.state)));
        assert!(!pending.is_answered_by(&answer(&random().unwrap())));
        assert!(!pending.is_answered_by(&answer(&pending.state[1..])));
    }
}
