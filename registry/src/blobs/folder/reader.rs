//! Streaming an object's bytes.
//!
//! What lies in the page cache is read at once, on the calling task: copying a chunk takes some ten
//! microseconds, less than a hop to another thread. Only a read that would wait for the disk goes to a
//! blocking thread; the kernel reads ahead of it.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use rustix::io::{Errno, ReadWriteFlags};

use super::{blocking, failed};
use crate::blobs::{BlobError, BlobStream, ObjectKey};

/// Bytes of one read: large enough to make calls cheap, small enough to stay in a core's cache.
const CHUNK: usize = 256 << 10;
/// Ranges up to this are read whole into a buffer of their own.
const SMALL: u64 = 64 << 10;
/// Chunk buffers kept for reuse: 16 MiB.
const BUFFERS_KEPT: usize = 64;

/// Chunk buffers that were used before: their pages are mapped, zeroed and warm.
#[derive(Clone, Default)]
pub(super) struct Buffers {
    free: Arc<Mutex<Vec<Box<[u8]>>>>,
}

/// A chunk buffer; goes back when the last reference to its bytes is dropped.
struct Buffer {
    bytes: Box<[u8]>,
    filled: usize,
    home: Buffers,
}

impl Buffers {
    fn take(&self) -> Buffer {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = free.unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice());
        Buffer {
            bytes,
            filled: 0,
            home: self.clone(),
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < BUFFERS_KEPT {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// What is left to stream.
struct Rest {
    file: Arc<File>,
    name: ObjectKey,
    range: Range<u64>,
    buffers: Buffers,
    /// Read on the blocking thread that opened the file.
    first: Option<Bytes>,
    /// Whether the file system can read from the page cache only.
    cached_reads: bool,
}

/// Opens an object and streams `range` of it.
pub(super) async fn read(
    path: PathBuf,
    name: ObjectKey,
    range: Range<u64>,
    buffers: Buffers,
) -> Result<BlobStream, BlobError> {
    let rest = blocking(move || open(&path, name, range, buffers)).await?;
    let whole = rest.first.as_ref().is_some_and(|_| rest.range.is_empty());
    if whole {
        return Ok(stream::iter(rest.first.map(Ok)).boxed());
    }
    Ok(stream::try_unfold(rest, next).boxed())
}

/// Opens the file and reads the first bytes, all in one hop.
fn open(path: &PathBuf, name: ObjectKey, range: Range<u64>, buffers: Buffers) -> Result<Rest, BlobError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => BlobError::NotFound { what: name.path() },
        _ => failed("cannot open an object")(error),
    })?;
    let size = file
        .metadata()
        .map_err(failed("cannot read an object's size"))?
        .len();
    if range.end > size {
        return Err(BlobError::Broken(format!(
            "{} has {size} bytes, not {}",
            name.path(),
            range.end
        )));
    }
    let mut rest = Rest {
        file: Arc::new(file),
        name,
        range,
        buffers,
        first: None,
        cached_reads: true,
    };
    let length = rest.range.end.saturating_sub(rest.range.start);
    if length == 0 {
        return Ok(rest);
    }
    let first = if length <= SMALL {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        rest.file
            .read_exact_at(&mut bytes, rest.range.start)
            .map_err(failed("cannot read an object"))?;
        Bytes::from(bytes)
    } else {
        if length > CHUNK as u64 {
            // Doubles the kernel's read-ahead; a file system without advice reads on without it.
            let _ = rustix::fs::fadvise(&rest.file, 0, None, rustix::fs::Advice::Sequential);
        }
        fill(&rest.file, &rest.range, rest.buffers.take())?
    };
    rest.range.start += first.len() as u64;
    rest.first = Some(first);
    Ok(rest)
}

/// The next chunk.
async fn next(mut rest: Rest) -> Result<Option<(Bytes, Rest)>, BlobError> {
    if let Some(first) = rest.first.take() {
        return Ok(Some((first, rest)));
    }
    if rest.range.is_empty() {
        return Ok(None);
    }
    let mut buffer = rest.buffers.take();
    if rest.cached_reads {
        let wanted = wanted(&rest.range);
        let slice = &mut [IoSliceMut::new(&mut buffer.bytes[..wanted])];
        match rustix::io::preadv2(&rest.file, slice, rest.range.start, ReadWriteFlags::NOWAIT) {
            Ok(0) => return Err(shortened(&rest.name)),
            Ok(read) => {
                buffer.filled = read;
                rest.range.start += read as u64;
                return Ok(Some((Bytes::from_owner(buffer), rest)));
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // No such read here: every chunk is a hop, and errors show there.
            Err(_) => rest.cached_reads = false,
        }
    }
    let (file, range) = (rest.file.clone(), rest.range.clone());
    let bytes = blocking(move || fill(&file, &range, buffer)).await?;
    rest.range.start += bytes.len() as u64;
    Ok(Some((bytes, rest)))
}

/// Bytes of the next chunk of `range`.
fn wanted(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start)
        .unwrap_or(CHUNK)
        .min(CHUNK)
}

/// Reads the first chunk of `range`, waiting for the disk.
fn fill(file: &File, range: &Range<u64>, mut buffer: Buffer) -> Result<Bytes, BlobError> {
    let wanted = wanted(range);
    file.read_exact_at(&mut buffer.bytes[..wanted], range.start)
        .map_err(failed("cannot read an object"))?;
    buffer.filled = wanted;
    Ok(Bytes::from_owner(buffer))
}

fn shortened(name: &ObjectKey) -> BlobError {
    BlobError::Broken(format!("{} became shorter while it was read", name.path()))
}
