//! The answers that the server itself gives, in the distribution API's error format.

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};

/// `{"errors":[{code,message}]}` with its headers. `code` and `message` are plain ASCII without quotes.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let mut answer = Response::new(Body::from(format!(
        r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#
    )));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        "docker-distribution-api-version",
        HeaderValue::from_static("registry/2.0"),
    );
    answer
}
