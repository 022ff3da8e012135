//! Work that may take longer than a request should.

use std::time::Duration;

use http::StatusCode;
use tokio::task::JoinHandle;

use super::answer::Failure;

/// How long a request waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Does the work, and waits for it a while; what came of it, or nothing if it goes on without the request.
pub async fn begin<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<Option<T>, Failure> {
    wait(tokio::spawn(work)).await
}

async fn wait<T>(work: JoinHandle<T>) -> Result<Option<T>, Failure> {
    match tokio::time::timeout(PATIENCE, work).await {
        Err(_) => Ok(None),
        Ok(Ok(outcome)) => Ok(Some(outcome)),
        // A panic, which has been logged.
        Ok(Err(_)) => Err(Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Failed",
            "it failed; the log says why",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_goes_on_without_the_request() {
        assert_eq!(begin(async { 7 }).await.ok().flatten(), Some(7));
        let done = Arc::new(Notify::new());
        let told = done.clone();
        let slow = async move {
            tokio::time::sleep(2 * PATIENCE).await;
            told.notify_one();
        };
        assert_eq!(begin(slow).await.ok(), Some(None));
        done.notified().await;
        assert!(
            begin(async { panic!("on purpose") })
                .await
                .is_err_and(|_: Failure| true)
        );
    }
}
