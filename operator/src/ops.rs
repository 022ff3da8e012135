//! `/metrics`, `/livez`, `/readyz`, plain HTTP.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::context::Context;

/// Listens. A replica that waits for the Lease is ready too: it is what takes over.
pub async fn listen(ctx: Arc<Context>, tasks: &mut JoinSet<()>) -> std::io::Result<()> {
    let listener = TcpListener::bind(ctx.settings.ops_listen).await?;
    let metrics = async move || {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], ctx.metrics.text())
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || StatusCode::OK))
        .route("/readyz", get(async || StatusCode::OK));
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the ops listener ended");
        }
    });
    Ok(())
}
