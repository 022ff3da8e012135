//! `/metrics`, `/livez`, `/readyz`, plain HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::context::Context;

/// For how long a leader may not have seen what it looks after, as while the API server is busy.
const UNSEEN: Duration = Duration::from_secs(60);

/// Listens. A replica that waits for the Lease is ready too: it is what takes over.
pub async fn listen(ctx: Arc<Context>, tasks: &mut JoinSet<()>) -> std::io::Result<()> {
    let listener = TcpListener::bind(ctx.settings.ops_listen).await?;
    let asked = ctx.clone();
    let ready = async move || {
        let leading = asked.leading.get().map(Instant::elapsed);
        readiness(leading, &asked.watched.unseen())
    };
    let metrics = async move || {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], ctx.metrics.text())
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || StatusCode::OK))
        .route("/readyz", get(ready));
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the ops listener ended");
        }
    });
    Ok(())
}

/// A leader that has not seen everything looks at nothing, which somebody must be told.
fn readiness(leading: Option<Duration>, unseen: &[String]) -> (StatusCode, String) {
    if unseen.is_empty() || leading.is_none_or(|leading| leading < UNSEEN) {
        return (StatusCode::OK, String::new());
    }
    let text = format!(
        "not seen yet, so that nothing is looked at: {}\n",
        unseen.join(", ")
    );
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_has_not_seen_everything_for_a_minute_is_not_ready_and_says_what() {
        let unseen = ["Repositories of apps".to_owned()];
        let late = Some(UNSEEN);
        let early = Some(UNSEEN - Duration::from_secs(1));
        for (leading, unseen) in [(None, &unseen[..]), (early, &unseen), (late, &[])] {
            assert_eq!(
                readiness(leading, unseen).0,
                StatusCode::OK,
                "{leading:?} {unseen:?}"
            );
        }
        let (status, text) = readiness(late, &unseen);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("Repositories of apps"), "{text}");
    }
}
