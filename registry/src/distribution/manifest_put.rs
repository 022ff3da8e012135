//! `PUT /v2/<name>/manifests/<reference>` (end-7).

use std::collections::BTreeSet;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, StatusCode};

use super::documents::Unread;
use super::error::{ApiError, Code};
use super::query::Query;
use super::{Asked, Named, answer, conditions, uploads};
use crate::audit::Outcome;
use crate::domain::manifest::{LifetimeError, Manifest};
use crate::domain::{Algorithm, Digest, TagName};
use crate::metadata::events::Kind;
use crate::metadata::{PutManifest, PutOutcome, Reference, Time, row_id};

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Stores a manifest under its digest and sets its tags, all or nothing.
pub(super) async fn put(
    asked: &Asked,
    repository: &Named,
    reference: &str,
    parts: &Parts,
    body: Body,
) -> Result<Response, ApiError> {
    let registry = &asked.registry;
    // 1. What the path and query say, before anything is read.
    let (expected, tags) = wanted(reference, parts)?;
    if parts.headers.contains_key(CONTENT_ENCODING) {
        return Err(ApiError::of(
            Code::ManifestInvalid,
            "send the manifest without Content-Encoding",
        )
        .status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }

    // 2. The bytes, at most the limit, their memory taken as they come.
    let limit = registry.max_manifest_size;
    let declared = parts
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let too_large = || {
        ApiError::of(
            Code::ManifestInvalid,
            format!("a manifest has at most {limit} bytes here"),
        )
        .status(StatusCode::PAYLOAD_TOO_LARGE)
    };
    if declared.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut memory = registry.pushed.hold(asked.tenant.id);
    let payload = memory.read(body, limit, 1).await.map_err(|unread| match unread {
        Unread::TooLarge => too_large(),
        Unread::Busy(busy) => busy.into(),
        Unread::Broken(error) => uploads::body_failed(&error),
    })?;

    // 3. Its digest, in the algorithm of the reference.
    let algorithm = expected.map_or(Algorithm::Sha256, |digest| digest.algorithm());
    let digest = Digest::of(algorithm, &payload);
    if expected.is_some_and(|expected| expected != digest) {
        return Err(ApiError::of(
            Code::DigestInvalid,
            format!("the digest of the bytes sent is {digest}"),
        ));
    }

    // 4. What it says.
    let content_type = parts
        .headers
        .get(CONTENT_TYPE)
        .map(|value| value.to_str().unwrap_or("invalid"));
    let read = if asked.tenant.takes_opaque() {
        Manifest::read_any
    } else {
        Manifest::read
    };
    let manifest = read(&payload, content_type)?;
    let subject = manifest.subject.clone();
    let refused = |error: LifetimeError| ApiError::of(Code::ManifestInvalid, error.to_string());
    let lifetime = manifest.lifetime().map_err(refused)?;

    // 5. One transaction: references, manifest, edges, referrer, tags.
    let now = Time::now();
    let limits = asked.limits(&repository.name);
    let put = PutManifest {
        digest,
        payload,
        manifest,
        immutable: tags
            .iter()
            .filter(|tag| asked.is_immutable(&repository.name, tag))
            .cloned()
            .collect(),
        limits,
        tags: tags.iter().cloned().collect(),
        precondition: conditions::precondition(&parts.headers),
        sparse: asked.tenant.sparse(&repository.name),
        principal: asked.principal.label.clone(),
        now,
        leased_until: now.plus(registry.delays.lease),
        review_at: now.plus(registry.delays.review),
        lifetime,
        repository_id: row_id(),
        announce: asked.tenant.announce(Kind::Push, Some(&repository.name)),
    };
    let standing = match registry.metadata.put_manifest(repository, put).await? {
        PutOutcome::Stored(standing) => standing,
        PutOutcome::Immutable(tag) => return Err(asked.immutable(repository, tag.as_str())),
        PutOutcome::OverQuota(over) => return Err(asked.over_quota(repository, &over)),
        PutOutcome::Missing(digests) => return Err(ApiError::missing(&digests)),
        PutOutcome::PreconditionFailed => {
            return Err(ApiError::of(
                Code::Denied,
                "the tag is not what If-Match or If-None-Match demands",
            )
            .status(StatusCode::PRECONDITION_FAILED));
        }
    };
    let pushed = tags
        .first()
        .map_or_else(|| digest.to_string(), TagName::to_string);
    asked.audit(
        "push",
        &format!("{}:{pushed}", repository.name),
        Outcome::Done,
        &digest.to_string(),
    );

    let mut response = answer::created(format!("/v2/{}/manifests/{digest}", repository.shown), &digest);
    asked.warn(&mut response, &repository.name, standing, &limits);
    if let Some(subject) = subject {
        response.headers_mut().insert(OCI_SUBJECT, answer::value(subject));
    }
    if expected.is_some() && !tags.is_empty() {
        let tags: Vec<&str> = tags.iter().map(TagName::as_str).collect();
        response
            .headers_mut()
            .insert(OCI_TAG, answer::value(tags.join(", ")));
    }
    Ok(response)
}

/// The digest that the bytes must have, if one is named, and the tags to set.
fn wanted(reference: &str, parts: &Parts) -> Result<(Option<Digest>, BTreeSet<TagName>), ApiError> {
    let query = Query::of(&parts.uri)?;
    let listed: Result<BTreeSet<TagName>, _> = query.all("tag").map(str::parse).collect();
    let listed = listed?;
    let reference: Reference = if reference.contains(':') {
        Reference::Digest(reference.parse()?)
    } else {
        Reference::Tag(reference.parse()?)
    };
    match reference {
        Reference::Digest(digest) => Ok((Some(digest), listed)),
        Reference::Tag(_) if !listed.is_empty() => Err(ApiError::of(
            Code::TagInvalid,
            "the tag parameter goes with a digest in the path",
        )),
        Reference::Tag(tag) => Ok((None, BTreeSet::from([tag]))),
    }
}
