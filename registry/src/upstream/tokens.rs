//! Tokens of an upstream: one for each scope, fetched once however many requests want it.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use moka::sync::Cache;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Scopes that are remembered.
const SCOPES: u64 = 10_000;
/// A token without a lifetime lives for so long (distribution, "Token Authentication Specification").
const DEFAULT: Duration = Duration::from_secs(60);
/// None is used for longer, whatever it says.
const LONGEST: Duration = Duration::from_secs(3600);
/// So long before its end a token is not used any more, or for the last tenth of a short life.
const SPARE: Duration = Duration::from_secs(30);

/// An `Authorization` and its end.
#[derive(Clone)]
struct Held {
    value: HeaderValue,
    until: Instant,
}

/// The tokens of one upstream and one login.
pub(super) struct Tokens(Cache<String, Arc<Mutex<Option<Held>>>>);

impl Default for Tokens {
    fn default() -> Self {
        Self(
            Cache::builder()
                .max_capacity(SCOPES)
                .time_to_idle(2 * LONGEST)
                .build(),
        )
    }
}

impl Tokens {
    /// What a scope is asked with, without asking anybody.
    pub(super) async fn known(&self, scope: &str) -> Option<HeaderValue> {
        let slot = self.0.get(scope)?;
        let held = slot.lock().await;
        let held = held.as_ref().filter(|held| held.until > Instant::now())?;
        Some(held.value.clone())
    }

    /// What a scope is asked with; `fetch` gives it and its lifetime if it is not known, or if what is known has been
    /// refused. Of several callers one fetches, and the others wait for that.
    pub(super) async fn get<E>(
        &self,
        scope: &str,
        refused: Option<&HeaderValue>,
        fetch: impl Future<Output = Result<(HeaderValue, Option<Duration>), E>>,
    ) -> Result<HeaderValue, E> {
        let slot = self.0.get_with(scope.to_owned(), Arc::default);
        let mut held = slot.lock().await;
        if let Some(held) = &*held
            && held.until > Instant::now()
            && refused != Some(&held.value)
        {
            return Ok(held.value.clone());
        }
        *held = None;
        let (value, lifetime) = fetch.await?;
        let lifetime = lifetime.unwrap_or(DEFAULT).min(LONGEST);
        *held = Some(Held {
            value: value.clone(),
            until: Instant::now() + lifetime.saturating_sub(SPARE.min(lifetime / 10)),
        });
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_fetched_once_and_again_after_its_end_or_its_refusal() {
        let (tokens, fetched) = (Tokens::default(), AtomicU32::new(0));
        let get = async |scope: &'static str, refused: Option<&HeaderValue>| {
            let fetch = async {
                let number = fetched.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok::<_, Infallible>((HeaderValue::from(number), Some(Duration::from_secs(300))))
            };
            let Ok(value) = tokens.get(scope, refused, fetch).await;
            value
        };
        assert_eq!(tokens.known("a").await, None);
        let all = join_all((0..20).map(|_| get("a", None))).await;
        assert!(all.iter().all(|value| value == "0"), "one fetch for all");
        assert_eq!(get("b", None).await, "1", "each scope has its own");
        assert_eq!(tokens.known("a").await, Some(HeaderValue::from(0)));

        let refused = all[0].clone();
        let again = join_all((0..20).map(|_| get("a", Some(&refused)))).await;
        assert!(
            again.iter().all(|value| value == "2"),
            "one fetch after a refusal"
        );

        tokio::time::advance(Duration::from_secs(275)).await;
        assert_eq!(tokens.known("a").await, None, "it would end on the way");
        assert_eq!(get("a", None).await, "3");
    }

    #[tokio::test]
    async fn a_fetch_that_failed_is_not_remembered() {
        let tokens = Tokens::default();
        let failed = tokens.get("a", None, async { Err("down") }).await;
        assert_eq!(failed, Err("down"));
        let value = HeaderValue::from_static("Bearer x");
        let got = tokens
            .get::<&str>("a", None, async { Ok((value.clone(), None)) })
            .await;
        assert_eq!(got, Ok(value));
    }
}
