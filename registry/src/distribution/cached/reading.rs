//! A client's way through a blob that is still arriving.
//!
//! It reads along as long as it keeps up, else from what is stored, and changes over as often as it takes. What it is sent
//! has a length that was announced: if the rest does not come, or was found wrong, the connection is cut.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::super::state::Registry;
use super::growing::{Growing, Next, Phase, Reader, Source};
use super::trouble::Trouble;
use crate::blobs::BlobStream;
use crate::metadata::BlobRow;

/// How often it may change over without getting anywhere.
const CHANGES: u32 = 20;

/// What is read.
pub(super) struct Reading {
    pub registry: Registry,
    pub growing: Arc<Growing>,
}

struct Rest {
    reading: Reading,
    reader: Reader,
    at: u64,
    end: u64,
    /// What is stored.
    source: Option<BlobStream>,
    changes: u32,
}

impl Reading {
    /// The bytes from `at` to `end`.
    pub fn body(self, at: u64, end: u64) -> Body {
        let rest = Rest {
            reader: self.growing.reader(at),
            reading: self,
            at,
            end,
            source: None,
            changes: 0,
        };
        Body::from_stream(stream::try_unfold(rest, Rest::next))
    }
}

impl Rest {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        while self.at < self.end {
            if let Some(source) = &mut self.source {
                match source.next().await {
                    Some(Ok(bytes)) if !bytes.is_empty() => return Ok(Some(self.give(bytes))),
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => {
                        tracing::debug!(%error, "what was read has ended early; looking again");
                        self.source = None;
                    }
                    None => self.source = None,
                }
                continue;
            }
            self.reader.seek(self.at);
            match self.reader.next().await {
                Next::Bytes(bytes) => return Ok(Some(self.give(bytes))),
                Next::Behind => self.behind().await?,
                Next::Otherwise(phase) => self.change(phase).await?,
            }
        }
        Ok(None)
    }

    fn give(mut self, mut bytes: Bytes) -> (Bytes, Self) {
        // At most the length of a piece in memory.
        bytes.truncate(
            usize::try_from(self.end - self.at)
                .unwrap_or(bytes.len())
                .min(bytes.len()),
        );
        self.at += bytes.len() as u64;
        self.changes = 0;
        (bytes, self)
    }

    /// Its place is not in memory any more: from the unfinished object, or once that is finished.
    async fn behind(&mut self) -> io::Result<()> {
        let growing = &self.reading.growing;
        if let Phase::Arriving {
            source: Source::Session(upload),
            ..
        } = growing.phase()
        {
            let end = growing.start().min(self.end);
            let found = match self.at < end {
                true => {
                    self.reading
                        .registry
                        .blobs
                        .read_unpublished(upload, self.at..end)
                        .await
                }
                false => Ok(None),
            };
            match found {
                Ok(Some(source)) => {
                    self.source = Some(source);
                    return self.count();
                }
                Ok(None) if self.at >= end => return self.count(),
                Ok(None) => {}
                // Published just now, or not written that far.
                Err(error) => {
                    tracing::debug!(%error, "the unfinished object cannot be read");
                    self.count()?;
                    tokio::time::sleep(super::claim::LOOK).await;
                    return Ok(());
                }
            }
        }
        let phase = self.reading.growing.settled().await;
        self.change(phase).await
    }

    async fn change(&mut self, phase: Phase) -> io::Result<()> {
        match phase {
            Phase::Stored(row) => {
                self.count()?;
                self.source = Some(stored(&self.reading.registry, &row, self.at..self.end).await?);
            }
            Phase::Failed(trouble) => return Err(cut(&trouble)),
            Phase::Elsewhere => self.reading.growing.not_elsewhere().await,
            Phase::Asking | Phase::Arriving { .. } => {}
        }
        Ok(())
    }

    fn count(&mut self) -> io::Result<()> {
        self.changes += 1;
        if self.changes > CHANGES {
            return Err(io::Error::other("a cached blob could not be read to its end"));
        }
        Ok(())
    }
}

async fn stored(registry: &Registry, row: &BlobRow, range: Range<u64>) -> io::Result<BlobStream> {
    let read = registry.blobs.read(&row.key, range).await;
    read.map_err(|error| cut(&error.into()))
}

fn cut(trouble: &Trouble) -> io::Error {
    let why = match trouble {
        Trouble::Upstream(error) => error.to_string(),
        Trouble::Here(_) => "the stores do not answer".to_owned(),
    };
    tracing::warn!(
        why,
        "a client's answer is cut: the rest of a cached blob does not come"
    );
    io::Error::other(why)
}
