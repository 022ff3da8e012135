//! `GET /v2/<name>/referrers/<digest>` (end-12).

use axum::response::Response;
use http::header::{CONTENT_TYPE, LINK};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::{ApiError, Code};
use super::query::Query;
use super::{Asked, Named, answer};
use crate::domain::digest;
use crate::domain::media_type::OCI_INDEX;
use crate::metadata::ReferrersQuery;

/// Bytes of a page's descriptors. Some clients read one page and no more than 4 MiB of it.
const PAGE_BYTES: u64 = 3_500_000;

/// Descriptors of a page.
const PAGE_LIMIT: u32 = 10_000;

pub(super) const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// An index of the manifests whose subject is `subject`; empty, never 404, for whatever is unknown.
pub(super) async fn list(
    asked: &Asked,
    repository: &Named,
    subject: &str,
    parts: &Parts,
) -> Result<Response, ApiError> {
    // A subject may be of an algorithm that this registry does not compute; the known ones are read strictly.
    if let Err(error @ digest::DigestError::Malformed) = subject.parse::<digest::Digest>() {
        return Err(error.into());
    }
    let query = Query::of(&parts.uri)?;
    let artifact_types: Vec<String> = query
        .all("artifactType")
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .collect();
    let after = query.first("last").map(str::parse).transpose()?;
    let filtered = !artifact_types.is_empty();
    let wanted = ReferrersQuery {
        subject: subject.to_owned(),
        artifact_types,
        after,
        limit: PAGE_LIMIT,
        bytes: PAGE_BYTES,
    };
    let page = asked.registry.metadata.referrers(repository, &wanted).await?;

    let descriptors: Vec<&str> = page
        .descriptors
        .iter()
        .map(|(_, descriptor)| descriptor.as_str())
        .collect();
    let body = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#,
        descriptors.join(",")
    );
    let mut response = answer::json(StatusCode::OK, body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX));
    if filtered {
        headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    if let (true, Some((last, _))) = (page.more, page.descriptors.last()) {
        headers.insert(LINK, next(asked, repository, &wanted, last)?);
    }
    Ok(response)
}

/// Whether nothing here refers to a subject.
pub(super) async fn none(asked: &Asked, repository: &Named, subject: &str) -> Result<bool, ApiError> {
    let one = ReferrersQuery {
        subject: subject.to_owned(),
        artifact_types: Vec::new(),
        after: None,
        limit: 1,
        bytes: PAGE_BYTES,
    };
    let page = asked.registry.metadata.referrers(repository, &one).await?;
    Ok(page.descriptors.is_empty())
}

fn next(
    asked: &Asked,
    repository: &Named,
    wanted: &ReferrersQuery,
    last: &digest::Digest,
) -> Result<HeaderValue, ApiError> {
    let mut query = format!("last={last}");
    for artifact_type in &wanted.artifact_types {
        query.push_str("&artifactType=");
        query.extend(utf8_percent_encode(artifact_type, NON_ALPHANUMERIC));
    }
    let path = format!("/v2/{}/referrers/{}", repository.shown, wanted.subject);
    let link = asked.page_link(&path);
    HeaderValue::try_from(format!("<{link}{query}>; rel=\"next\""))
        .map_err(|error| ApiError::of(Code::Unknown, error.to_string()))
}
