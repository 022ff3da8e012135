//! Waiting for conditions, never for time.

use std::future::Future;
use std::time::{Duration, Instant};

/// Asks `condition` again and again until it answers, and returns its answer.
///
/// # Panics
/// If there is none after `limit`; the message names `what` was awaited.
pub async fn eventually<T, F>(what: &str, limit: Duration, mut condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + limit;
    // What takes long is asked about less often: two cores are few.
    let mut pause = Duration::from_millis(10);
    loop {
        if let Some(answer) = condition().await {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "after {limit:?} still waiting for: {what}"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 5 / 4).min(Duration::from_millis(100));
    }
}

/// The output of `work`.
///
/// # Panics
/// If it takes longer than `limit`.
pub async fn within<T>(what: &str, limit: Duration, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, work).await {
        Ok(output) => output,
        Err(_) => panic!("not done within {limit:?}: {what}"),
    }
}

/// The same as [`eventually`] for conditions of servers that are started, from code that does not run in a runtime.
///
/// # Panics
/// If the condition does not come true within half a minute.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "still waiting for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
