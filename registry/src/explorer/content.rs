//! Small content, read whole.

use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::Explorer;
use crate::blobs::BlobError;
use crate::domain::Digest;
use crate::metadata::{MetadataError, Repository};

/// Why content could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The metadata store failed.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Others are reading.
    #[error("others are reading; only so much is read at once")]
    Busy,
    /// The blob store failed.
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

/// A blob of a repository of at most `limit` bytes; none if it is not there, or longer.
pub async fn small(
    explorer: &Explorer,
    repository: &Repository,
    digest: &Digest,
    limit: u64,
) -> Result<Option<Bytes>, ContentError> {
    let Some(row) = explorer.metadata.blob(repository, digest).await? else {
        return Ok(None);
    };
    if row.size > limit {
        return Ok(None);
    }
    let mut stream = match explorer.blobs.read(&row.key, 0..row.size).await {
        Ok(stream) => stream,
        // Lost, or collected since: what else there is can be shown.
        Err(BlobError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // At most `limit` bytes, which is far from the end of memory.
    let mut bytes = Vec::with_capacity(usize::try_from(row.size).unwrap_or_default());
    while let Some(piece) = stream.try_next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(Some(bytes.into()))
}
