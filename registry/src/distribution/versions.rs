//! Which writes an answer has seen: what a primary tells after a push, and what a registry that only reads waits for.
//!
//! A client that pushes asks the primary for the place of its push in the database's log (`Berth-Tell-Version`), and
//! shows it to a reader (`Berth-Wait-For`), which answers once the standby has come that far.

use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::answer;
use super::error::{ApiError, Code};
use super::route::Endpoint;
use super::state::Registry;
use crate::metadata::position::Lsn;
use crate::standby::Standing;

/// Asks a primary for [`VERSION`], whatever its value.
const TELL: HeaderName = HeaderName::from_static("berth-tell-version");
/// A place in the log behind everything that was acknowledged before this answer.
const VERSION: HeaderName = HeaderName::from_static("berth-version");
/// The place that an answer must have seen.
const WAIT_FOR: HeaderName = HeaderName::from_static("berth-wait-for");
/// The place that a reader had come to when it began to answer.
const REPLAYED: HeaderName = HeaderName::from_static("berth-replayed");
/// How old what a reader answers may be, in seconds.
const LAG: HeaderName = HeaderName::from_static("berth-lag-seconds");

/// The longest wait.
const WAIT: Duration = Duration::from_secs(5);

/// What one request asks about versions, and is told.
pub(super) struct Versions {
    registry: Registry,
    wait_for: Option<Result<Lsn, ApiError>>,
    tells_written: bool,
    tells_replayed: bool,
    /// How far this registry had come before the work began.
    standing: Option<Standing>,
}

impl Versions {
    /// Reads what a request asks. Bytes never change: what is told is told of names alone.
    pub fn of(registry: &Registry, endpoint: &Endpoint, headers: &HeaderMap) -> Self {
        let names = matches!(
            endpoint,
            Endpoint::Manifest(_) | Endpoint::Tags | Endpoint::Referrers(_) | Endpoint::Catalog
        );
        let reads = registry.only_reads();
        let wait_for = headers.get(WAIT_FOR).filter(|_| reads).map(|place| {
            let place = place.to_str().ok().and_then(|place| place.parse().ok());
            place.ok_or_else(|| {
                let message = "Berth-Wait-For is a place in the database's log such as 16/B374D848";
                ApiError::of(Code::Unsupported, message).status(StatusCode::BAD_REQUEST)
            })
        });
        Self {
            registry: registry.clone(),
            wait_for,
            tells_written: names && !reads && headers.contains_key(TELL),
            tells_replayed: names && reads,
            standing: None,
        }
    }

    /// Waits until what the client has seen can be read here.
    pub async fn wait(&mut self) -> Result<(), ApiError> {
        let Some(reading) = &self.registry.reading else {
            return Ok(());
        };
        let Some(place) = self.wait_for.clone().transpose()? else {
            self.standing = reading.standby.standing();
            return Ok(());
        };
        let is_there = reading.standby.has_come_to(place, WAIT).await;
        self.standing = reading.standby.standing();
        if is_there {
            return Ok(());
        }
        let stands = match self.standing {
            Some(standing) => format!("it has come to {}", standing.at),
            None => "it does not answer".to_owned(),
        };
        let message = format!(
            "the standby has not replayed {place} within {} s: {stands}; try again, or pull from the primary",
            WAIT.as_secs()
        );
        let mut error =
            ApiError::of(Code::Unavailable, message).header(RETRY_AFTER, HeaderValue::from_static("2"));
        for (name, value) in self.replayed() {
            error = error.header(name, value);
        }
        Err(error)
    }

    /// Adds to an answer what it has seen.
    pub async fn tell(self, answered: Result<Response, ApiError>) -> Result<Response, ApiError> {
        if self.tells_replayed {
            // That something is not there depends on it as well.
            let mut response = answered.unwrap_or_else(ApiError::into_response);
            response.headers_mut().extend(self.replayed());
            return Ok(response);
        }
        let mut response = answered?;
        if self.tells_written && response.status().is_success() {
            // The work is done: without the place the client waits for nothing, or asks the primary.
            match self.registry.position.written().await {
                Ok(place) => response
                    .headers_mut()
                    .extend(place.map(|place| (VERSION, answer::value(place.to_string())))),
                Err(error) => tracing::warn!(%error, "where the database's log stands could not be told"),
            }
        }
        Ok(response)
    }

    /// How far this registry has come.
    fn replayed(&self) -> Vec<(HeaderName, HeaderValue)> {
        let Some(standing) = self.standing else {
            return Vec::new();
        };
        let lag = format!("{:.1}", standing.behind.as_secs_f64());
        vec![
            (REPLAYED, answer::value(standing.at.to_string())),
            (LAG, answer::value(lag)),
        ]
    }
}
