//! The bytes of one part or object on their way to S3: in memory, or in segments that are read back
//! while they are sent. Sending can start over, so that a failed attempt is retried.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body::{Body, Frame, SizeHint};
use uuid::Uuid;

use super::bucket::Bucket;
use super::reader;
use super::state::{Segment, SegmentName};
use crate::blobs::BlobError;

/// Bytes in order: segment objects first, then what is in memory.
#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) pieces: Vec<Segment>,
    pub(super) size: u64,
}

impl Content {
    /// The content of a state's tail.
    pub(super) fn of_tail(tail: &[Segment]) -> Self {
        Self {
            pieces: tail.to_vec(),
            size: tail.iter().map(Segment::size).sum(),
        }
    }

    /// Appends bytes.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.size += bytes.len() as u64;
        self.pieces.push(Segment::Bytes(bytes));
    }

    /// The segment objects in it.
    pub(super) fn objects(&self) -> impl Iterator<Item = SegmentName> {
        self.pieces.iter().filter_map(|piece| match piece {
            Segment::Object { name, .. } => Some(*name),
            Segment::Bytes(_) => None,
        })
    }

    /// Bytes in memory.
    pub(super) fn memory_size(&self) -> u64 {
        let in_memory = self
            .pieces
            .iter()
            .filter(|piece| matches!(piece, Segment::Bytes(_)));
        in_memory.map(Segment::size).sum()
    }

    /// Takes out the bytes in memory; they follow the objects.
    pub(super) fn take_memory(&mut self) -> Self {
        let objects = self.objects().count();
        let pieces = self.pieces.split_off(objects);
        let size = pieces.iter().map(Segment::size).sum();
        self.size -= size;
        Self { pieces, size }
    }

    /// Appends a segment object that holds what [`Self::take_memory`] took out.
    pub(super) fn push_object(&mut self, name: SegmentName, size: u64) {
        self.size += size;
        self.pieces.push(Segment::Object { name, size });
    }

    /// All bytes in memory, in one piece.
    pub(super) fn memory(&self) -> Bytes {
        let mut bytes = Vec::new();
        for piece in &self.pieces {
            if let Segment::Bytes(piece) = piece {
                bytes.extend_from_slice(piece);
            }
        }
        Bytes::from(bytes)
    }

    /// A request body that can be sent again.
    pub(super) fn body(&self, bucket: &Arc<Bucket>, upload: Uuid) -> ByteStream {
        if let [Segment::Bytes(bytes)] = &self.pieces[..] {
            return ByteStream::from(bytes.clone());
        }
        let (bucket, pieces, size) = (bucket.clone(), self.pieces.clone(), self.size);
        let pieces: Arc<[Segment]> = pieces.into();
        ByteStream::new(SdkBody::retryable(move || {
            let bytes = Mutex::new(stream_of(bucket.clone(), upload, pieces.clone()));
            SdkBody::from_body_1_x(Pieces { bytes, left: size })
        }))
    }
}

/// Streams the pieces; a segment is asked for when its turn comes.
fn stream_of(
    bucket: Arc<Bucket>,
    upload: Uuid,
    pieces: Arc<[Segment]>,
) -> BoxStream<'static, Result<Bytes, BlobError>> {
    let count = pieces.len();
    stream::iter(0..count)
        .then(move |index| {
            let (bucket, piece) = (bucket.clone(), pieces[index].clone());
            async move {
                match piece {
                    Segment::Bytes(bytes) => Ok(stream::iter([Ok(bytes)]).boxed()),
                    Segment::Object { name, size } => {
                        reader::read(bucket.clone(), bucket.segment(upload, name), 0..size).await
                    }
                }
            }
        })
        .try_flatten()
        .boxed()
}

/// The body of one attempt. The lock is never waited for: it only makes the stream shareable by type.
struct Pieces {
    bytes: Mutex<BoxStream<'static, Result<Bytes, BlobError>>>,
    left: u64,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BlobError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BlobError>>> {
        let stream = self.bytes.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(bytes) = ready!(stream.poll_next_unpin(context)).transpose()? else {
            return Poll::Ready(None);
        };
        self.left = self.left.saturating_sub(bytes.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
