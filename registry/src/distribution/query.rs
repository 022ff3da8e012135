//! The query string, decoded once.

use http::Uri;

use super::error::{ApiError, Code};

/// Name and value of each parameter, in order.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query of a URI. Its length is bounded by the server's limit on URLs.
    pub fn of(uri: &Uri) -> Result<Self, ApiError> {
        let text = uri.query().unwrap_or_default();
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(text.as_bytes())
            .into_owned()
            .collect();
        // No parameter of the API holds one, and databases cannot store NUL.
        if pairs.iter().any(|(_, value)| value.chars().any(char::is_control)) {
            return Err(
                ApiError::of(Code::Unsupported, "the query holds control characters")
                    .status(http::StatusCode::BAD_REQUEST),
            );
        }
        Ok(Self(pairs))
    }

    /// The first value of a parameter.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub fn all<'q>(&'q self, name: &'q str) -> impl Iterator<Item = &'q str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}
