//! Which writes an answer has seen: what a primary tells after a push, and what a registry that only reads waits for.
//!
//! A client that pushes asks the primary for the place of its push in the database's log (`Berth-Tell-Version`), and
//! shows it to a reader (`Berth-Wait-For`), which answers once the standby has come that far.

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::answer;
use super::asked::Asked;
use super::error::{ApiError, Code};
use super::route::Endpoint;
use super::state::Registry;
use crate::metadata::position::Lsn;
use crate::standby::Standing;
use crate::tenancy::Tenant;

/// Asks a primary for [`VERSION`], whatever its value.
const TELL: HeaderName = HeaderName::from_static("berth-tell-version");
/// A place in the log behind everything that was acknowledged before this answer, sealed for the tenant: how far the log
/// has grown is what all tenants have written.
const VERSION: HeaderName = HeaderName::from_static("berth-version");
/// The [`VERSION`] that an answer must have seen.
const WAIT_FOR: HeaderName = HeaderName::from_static("berth-wait-for");
/// How old what a reader answers may be, in seconds.
const LAG: HeaderName = HeaderName::from_static("berth-lag-seconds");

/// The longest wait.
const WAIT: Duration = Duration::from_secs(5);
/// How long a primary looks where its log stands: the work is done, and its answer must not wait for this.
const LOOK: Duration = Duration::from_secs(1);

/// What one request asks about versions, and is told.
pub(super) struct Versions {
    registry: Registry,
    tenant: Arc<Tenant>,
    wait_for: Option<Result<Lsn, ApiError>>,
    tells_written: bool,
    tells_lag: bool,
    /// How far this registry had come before the work began.
    standing: Option<Standing>,
}

impl Versions {
    /// Reads what a request asks. Bytes never change: what is told is told of names alone.
    pub fn of(asked: &Asked, endpoint: &Endpoint, headers: &HeaderMap) -> Self {
        let (registry, tenant) = (&asked.registry, &asked.tenant);
        let names = matches!(
            endpoint,
            Endpoint::Manifest(_) | Endpoint::Tags | Endpoint::Referrers(_) | Endpoint::Catalog
        );
        let reads = registry.only_reads();
        let wait_for = headers.get(WAIT_FOR).filter(|_| reads).map(|version| {
            let version = version.to_str().ok();
            let place = version.and_then(|version| registry.identity.open_version(tenant, version));
            place.and_then(|place| place.parse().ok()).ok_or_else(|| {
                let message = "Berth-Wait-For is what Berth-Version said at the primary, to a client of this tenant and by \
                               the same keys";
                ApiError::of(Code::Unsupported, message).status(StatusCode::BAD_REQUEST)
            })
        });
        Self {
            registry: registry.clone(),
            tenant: tenant.clone(),
            wait_for,
            tells_written: names && !reads && headers.contains_key(TELL),
            tells_lag: names && reads,
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
        let message = format!(
            "the standby has not come to what Berth-Wait-For names within {} s; try again, or pull from the primary",
            WAIT.as_secs()
        );
        let mut error =
            ApiError::of(Code::Unavailable, message).header(RETRY_AFTER, HeaderValue::from_static("2"));
        if let Some(lag) = self.lag() {
            error = error.header(LAG, lag);
        }
        Err(error)
    }

    /// Adds to an answer what it has seen.
    pub async fn tell(self, answered: Result<Response, ApiError>) -> Result<Response, ApiError> {
        if self.tells_lag {
            // That something is not there depends on it as well.
            let mut response = answered.unwrap_or_else(ApiError::into_response);
            response.headers_mut().extend(self.lag().map(|lag| (LAG, lag)));
            return Ok(response);
        }
        let mut response = answered?;
        if self.tells_written && response.status().is_success() {
            // Without it the client waits for nothing, or asks the primary.
            match tokio::time::timeout(LOOK, self.registry.position.written()).await {
                Ok(Ok(place)) => {
                    let identity = &self.registry.identity;
                    let version =
                        place.and_then(|place| identity.seal_version(&self.tenant, &place.to_string()));
                    let told = version.map(|version| (VERSION, answer::value(version)));
                    response.headers_mut().extend(told);
                }
                Ok(Err(error)) => tracing::warn!(%error, "where the database's log stands could not be told"),
                Err(_) => tracing::warn!("where the database's log stands could not be told in time"),
            }
        }
        Ok(response)
    }

    /// How old what this registry answers may be.
    fn lag(&self) -> Option<HeaderValue> {
        let standing = self.standing?;
        Some(answer::value(format!("{:.1}", standing.behind.as_secs_f64())))
    }
}
