//! Tokens by id: looked up in batches, remembered for half a second, and noted as used.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;

use crate::domain::grant::Grants;
use crate::domain::token::{Token, TokenHash};
use crate::metadata::configuration::{Configuration, TokenRow};
use crate::metadata::{Result, TenantId, Time};

/// For how long an answer is believed. A revocation holds everywhere within a second.
const BELIEVED: Duration = Duration::from_millis(500);
/// Most answers remembered.
const REMEMBERED: u64 = 100_000;
/// Between two notes of what was used.
pub const NOTE_EVERY: Duration = Duration::from_secs(30);
/// Precision of the time of last use, in microseconds.
const MINUTE: i64 = 60_000_000;

/// A token, ready to be asked.
#[derive(Debug)]
pub struct Known {
    /// Whose.
    pub tenant: TenantId,
    /// Its public part.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it may do.
    pub grants: Arc<Grants>,
    hash: Option<TokenHash>,
    expires_at: Option<Time>,
}

/// Tokens by id.
pub struct Tokens {
    store: Arc<dyn Configuration>,
    remembered: Cache<String, Option<Arc<Known>>>,
    /// Nothing where no use is noted.
    used: Option<Mutex<HashSet<String>>>,
}

impl Tokens {
    pub fn new(store: Arc<dyn Configuration>, notes_use: bool) -> Self {
        Self {
            store,
            remembered: Cache::builder()
                .max_capacity(REMEMBERED)
                .time_to_live(BELIEVED)
                .build(),
            used: notes_use.then(Mutex::default),
        }
    }

    /// The token of this id, unless it has expired.
    pub async fn find(&self, id: &str, now: Time) -> Result<Option<Arc<Known>>> {
        let known = match self.remembered.get(id) {
            Some(known) => known,
            None => {
                let known = self.store.token(id).await?.and_then(known).map(Arc::new);
                self.remembered.insert(id.to_owned(), known.clone());
                known
            }
        };
        Ok(known.filter(|token| token.expires_at.is_none_or(|end| now < end)))
    }

    /// The token that this text is, if it is one.
    pub async fn check(&self, token: &Token, now: Time) -> Result<Option<Arc<Known>>> {
        let known = self.find(token.id().as_str(), now).await?;
        let matches = |known: &Arc<Known>| known.hash.as_ref().is_some_and(|hash| hash.matches(token));
        let known = known.filter(matches);
        if let (Some(known), Some(used)) = (&known, &self.used) {
            let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
            if !used.contains(&known.id) {
                used.insert(known.id.clone());
            }
        }
        Ok(known)
    }

    /// Forgets what was remembered of a token.
    pub fn forget(&self, id: &str) {
        self.remembered.invalidate(id);
    }

    /// Stores which tokens have been used since the last note.
    pub async fn note_used(&self) -> Result<()> {
        let Some(used) = &self.used else { return Ok(()) };
        let used = std::mem::take(&mut *used.lock().unwrap_or_else(PoisonError::into_inner));
        if used.is_empty() {
            return Ok(());
        }
        let minute = Time(Time::now().0 / MINUTE * MINUTE);
        self.store.tokens_used(used.into_iter().collect(), minute).await
    }
}

/// A row that cannot be read is no token.
fn known(row: TokenRow) -> Option<Known> {
    let grants = match serde_json::from_str(&row.grants) {
        Ok(grants) => grants,
        Err(error) => {
            tracing::error!(token = row.id, %error, "the grants of a token cannot be read; it is refused");
            return None;
        }
    };
    Some(Known {
        tenant: row.tenant,
        hash: TokenHash::from_bytes(&row.hash),
        id: row.id,
        name: row.name,
        grants: Arc::new(grants),
        expires_at: row.expires_at,
    })
}
