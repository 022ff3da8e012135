//! What those who run the registry look at: metrics, liveness, readiness.
//!
//! [`metrics`] counts (cheaply: it is called for every request), [`ready`] knows whether the stores
//! answer, [`router`] shows both on the ops listener as plain HTTP. It knows no store: what is probed is
//! handed to it.
//!
//! What must hold: `/livez` depends on nothing but the event loop, so that a store's outage never
//! restarts the process; `/readyz` fails from the moment a drain begins; a request to either never waits
//! for a store.

pub mod metrics;
mod process;
pub mod ready;
pub mod route;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use serde_json::{Value, json};

use metrics::Metrics;
use ready::Readiness;

/// What Prometheus expects of the OpenMetrics text form.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Shown {
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
}

/// `/metrics`, `/livez` and `/readyz`.
pub fn router(metrics: Arc<Metrics>, readiness: Arc<Readiness>) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(show_readiness))
        .with_state(Shown { metrics, readiness })
}

async fn show_metrics(State(shown): State<Shown>) -> Response {
    match shown.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn show_readiness(State(shown): State<Shown>) -> Response {
    match shown.readiness.reasons() {
        reasons if reasons.is_empty() => match shown.readiness.warning() {
            None => json_answer(StatusCode::OK, &json!({ "ready": true })),
            Some(warning) => json_answer(StatusCode::OK, &json!({ "ready": true, "warnings": [warning] })),
        },
        reasons => json_answer(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({ "ready": false, "reasons": reasons }),
        ),
    }
}

/// One JSON document on a line.
fn json_answer(status: StatusCode, value: &Value) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        format!("{value}\n"),
    )
        .into_response()
}
