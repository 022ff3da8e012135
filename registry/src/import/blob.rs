//! One blob's way from the one registry to the other, piece by piece.
//!
//! Two halves run at the same time: one reads from the source, hashes and cuts into pieces, the other sends the pieces. No
//! more than three pieces of a blob are in memory, whatever its size.

use std::mem;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::Import;
use super::destination::{Begun, Session};
use super::error::ImportError;
use super::reader::Reader;
use super::report::{Event, Report, Watcher};
use super::resume::{Note, Resumed};
use crate::domain::hasher::Hasher;
use crate::domain::{Digest, RepositoryName};

/// Bytes that are sent at a time.
const PIECE: usize = 8 * 1024 * 1024;
/// How often a blob begins anew because its upload is gone.
const ANEW: u32 = 3;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// Nothing was fetched: the tenant had it in another repository.
    Mounted,
    /// It was fetched.
    Copied,
}

/// A blob that is to be copied.
pub(super) struct Parcel<'p> {
    pub import: &'p Import,
    pub report: &'p Report,
    pub watcher: &'p dyn Watcher,
    pub from: &'p RepositoryName,
    pub to: &'p RepositoryName,
    pub digest: Digest,
    /// As its manifest says.
    pub size: Option<u64>,
}

/// Bytes of a blob, and the hash of everything up to their end.
struct Piece {
    start: u64,
    bytes: Bytes,
    hasher: Hasher,
}

impl Parcel<'_> {
    /// Copies it.
    pub async fn carry(&self) -> Result<Moved, ImportError> {
        let mut left = ANEW;
        loop {
            match self.attempt().await {
                Err(ImportError::UploadLost(_)) if left > 0 => left -= 1,
                ended => return ended,
            }
        }
    }

    async fn attempt(&self) -> Result<Moved, ImportError> {
        let to = &self.import.destination;
        let is_large = self.size.is_none_or(|size| size > PIECE as u64);
        // Others go in one request, which is not gone on with.
        let note = is_large.then(|| self.note());
        if let Some(note) = &note
            && let Some((resumed, session)) = self.resumed(note).await?
        {
            return self.pieces(note, resumed.hasher, resumed.offset, session).await;
        }
        let session = match to.begin(self.to, &self.digest).await? {
            Begun::Mounted => return Ok(Moved::Mounted),
            Begun::Session(session) => session,
        };
        let hasher = Hasher::new(self.digest.algorithm());
        if let Some(note) = &note {
            return self.pieces(note, hasher, 0, session).await;
        }
        let sent = self.whole(hasher, &session).await;
        if sent.is_err() {
            self.import.destination.cancel(self.to, &session).await;
        }
        sent.map(|()| Moved::Copied)
    }

    /// A small one goes in one request.
    async fn whole(&self, mut hasher: Hasher, session: &Session) -> Result<(), ImportError> {
        let mut reader = self.reader(0);
        let size = usize::try_from(self.size.unwrap_or_default()).unwrap_or(PIECE);
        let mut bytes = BytesMut::with_capacity(size.min(PIECE));
        while let Some(more) = reader.next().await? {
            self.moved(more.len());
            hasher.update(&more);
            bytes.extend_from_slice(&more);
        }
        self.compare(&hasher)?;
        let to = &self.import.destination;
        to.finish(self.to, session, &self.digest, bytes.freeze()).await
    }

    /// A large one goes in pieces, from `start` on, of which `hasher` has hashed everything before.
    async fn pieces(
        &self,
        note: &Note,
        hasher: Hasher,
        start: u64,
        mut session: Session,
    ) -> Result<Moved, ImportError> {
        let (sender, receiver) = mpsc::channel(1);
        let reading = self.read(sender, hasher, start);
        let sending = self.send(receiver, note, &mut session);
        let halves = futures_util::future::try_join(reading, sending).await;
        let to = &self.import.destination;
        let ended = match halves {
            Ok(_) => to.finish(self.to, &session, &self.digest, Bytes::new()).await,
            Err(error) => Err(error),
        };
        match &ended {
            Ok(()) => note.forget(),
            // A registry that was not reached may be the next time: the upload waits for it.
            Err(ImportError::Upstream(_)) => {}
            Err(_) => {
                note.forget();
                to.cancel(self.to, &session).await;
            }
        }
        ended.map(|()| Moved::Copied)
    }

    async fn read(
        &self,
        sender: mpsc::Sender<Piece>,
        mut hasher: Hasher,
        mut start: u64,
    ) -> Result<(), ImportError> {
        let mut reader = self.reader(start);
        let mut waiting = BytesMut::with_capacity(PIECE);
        loop {
            let more = reader.next().await?;
            let is_over = more.is_none();
            let mut more = more.unwrap_or_default();
            self.moved(more.len());
            while waiting.len() + more.len() >= PIECE || (is_over && !waiting.is_empty()) {
                let part = more.split_to(more.len().min(PIECE - waiting.len()));
                hasher.update(&part);
                waiting.extend_from_slice(&part);
                // Not `split`: what is left of its room would grow beyond a piece.
                let bytes = mem::replace(&mut waiting, BytesMut::with_capacity(PIECE)).freeze();
                let length = bytes.len() as u64;
                let piece = Piece {
                    start,
                    bytes,
                    hasher: hasher.clone(),
                };
                if sender.send(piece).await.is_err() {
                    // The other half has failed, and says why.
                    return std::future::pending().await;
                }
                start += length;
            }
            hasher.update(&more);
            waiting.extend_from_slice(&more);
            if is_over {
                // The upload is not ended before both halves have succeeded.
                return self.compare(&hasher);
            }
        }
    }

    async fn send(
        &self,
        mut receiver: mpsc::Receiver<Piece>,
        note: &Note,
        session: &mut Session,
    ) -> Result<(), ImportError> {
        while let Some(piece) = receiver.recv().await {
            let end = piece.start + piece.bytes.len() as u64;
            // A resumed upload may have more than the hash had seen.
            if session.offset >= end {
                continue;
            }
            let known = usize::try_from(session.offset.saturating_sub(piece.start)).unwrap_or(usize::MAX);
            let to = &self.import.destination;
            to.append(self.to, session, piece.bytes.slice(known..)).await?;
            note.write(&session.location, session.offset, &piece.hasher);
        }
        Ok(())
    }

    /// Where the last run has left this blob, if the destination still knows.
    async fn resumed(&self, note: &Note) -> Result<Option<(Resumed, Session)>, ImportError> {
        let Some(resumed) = note.read() else {
            return Ok(None);
        };
        let standing = self.import.destination.standing(self.to, &resumed.location).await;
        let fits = |offset: u64| offset >= resumed.offset && self.size.is_none_or(|size| offset <= size);
        match standing {
            Ok(offset) if fits(offset) && resumed.hasher.algorithm() == self.digest.algorithm() => {
                self.moved_before(resumed.offset);
                let session = Session {
                    location: resumed.location.clone(),
                    offset,
                };
                Ok(Some((resumed, session)))
            }
            Ok(_)
            | Err(ImportError::UploadLost(_) | ImportError::Refused { .. } | ImportError::Absent { .. }) => {
                note.forget();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn compare(&self, hasher: &Hasher) -> Result<(), ImportError> {
        let actual = hasher.digest();
        if actual == self.digest {
            return Ok(());
        }
        let what = format!("{}@{}", self.from, self.digest);
        let why = format!("what was sent has the digest {actual}");
        Err(self.import.source.at.wrong(&what, why))
    }

    fn reader(&self, at: u64) -> Reader<'_> {
        self.import.source.blob(self.from, &self.digest, self.size, at)
    }

    fn note(&self) -> Note {
        let base = self.import.destination.at.address().to_string();
        self.import.notes.of(&base, self.to, &self.digest)
    }

    fn moved(&self, bytes: usize) {
        if bytes > 0 {
            self.report.fetched(bytes as u64);
            self.watcher.hear(&Event::Moved(bytes as u64));
        }
    }

    /// Bytes that a run before this one has moved.
    fn moved_before(&self, bytes: u64) {
        self.report.resumed(bytes);
        self.watcher.hear(&Event::Moved(bytes));
    }
}
