//! A stream of a blob as a thread's reader.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use crate::blobs::BlobStream;

/// Pieces that wait for the reader.
const PIECES: usize = 4;

/// What comes out of a stream; only for threads that may block.
pub struct Piped {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

/// Hands a stream to a thread that reads. Nothing is read any more once the reader is dropped.
pub fn piped(mut stream: BlobStream) -> Piped {
    let (sender, pieces) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(io::Error::other);
            let is_last = piece.is_err();
            if sender.send(piece).await.is_err() || is_last {
                return;
            }
        }
    });
    Piped {
        pieces,
        piece: Bytes::new(),
    }
}

impl Read for Piped {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.piece.len());
        let (Some(into), Some(from)) = (into.get_mut(..count), self.piece.get(..count)) else {
            return Ok(0);
        };
        into.copy_from_slice(from);
        self.piece.advance(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    #[tokio::test]
    async fn a_thread_reads_what_the_stream_brings_to_its_end() {
        let pieces = (0..100_u8).map(|byte| Ok(Bytes::from(vec![byte; 1000])));
        let mut reader = piped(stream::iter(pieces).boxed());
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        let all = read.await.unwrap().unwrap();
        assert_eq!((all.len(), all[99_999]), (100_000, 99));
    }

    #[tokio::test]
    async fn a_stream_that_breaks_is_an_error_and_no_end() {
        let broken = crate::blobs::BlobError::Unavailable("gone".into());
        let pieces = vec![Ok(Bytes::from_static(b"abc")), Err(broken)];
        let mut reader = piped(stream::iter(pieces).boxed());
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            (reader.read_to_end(&mut all).is_err(), all)
        });
        assert_eq!(read.await.unwrap(), (true, b"abc".to_vec()));
    }
}
