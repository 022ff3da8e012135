//! The host itself: it leads to the list of repositories.

use axum::response::Response;

use super::answer::to;
use super::path::ROOT;

/// On to the list.
pub fn to_repositories() -> Response {
    to(ROOT)
}
