//! Takes the compression off an archive, whichever it is.
//!
//! Gzip may have several members (RFC 1952 section 2.2) and zstd several frames, some of them to be skipped (RFC 8878
//! section 3.1): eStargz and zstd:chunked make layers of thousands.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::meter::{Incoming, Meter};
use super::unreadable::UnreadableArchive;

/// Bytes that tell the formats apart.
const MAGIC: u64 = 4;
/// Bytes asked of the reader at a time.
const AT_ONCE: usize = 32 * 1024;

/// The bytes of the archive, counted.
pub(super) struct Decompressed<'m, R> {
    decoder: Decoder<Source<'m, R>>,
    meter: &'m Meter<'m>,
}

/// What was read to find the format, then the rest.
type Source<'m, R> = BufReader<Chain<Cursor<Vec<u8>>, Incoming<'m, R>>>;

enum Decoder<S> {
    Plain(S),
    // Boxed for its size.
    Gzip(Box<MultiGzDecoder<S>>),
    Zstd(Box<Frames<S>>),
}

impl<'m, R: Read> Decompressed<'m, R> {
    /// Finds the format by its first bytes.
    pub fn open(reader: R, meter: &'m Meter<'m>) -> Result<Self, UnreadableArchive> {
        let mut reader = Incoming { reader, meter };
        let mut magic = Vec::new();
        let read = (&mut reader).take(MAGIC).read_to_end(&mut magic);
        read.map_err(|error| meter.explain(&error))?;
        let is_gzip = magic.starts_with(&[0x1f, 0x8b]);
        let is_zstd = is_zstd(&magic);
        let source = BufReader::with_capacity(AT_ONCE, Cursor::new(magic).chain(reader));
        let decoder = if is_gzip {
            Decoder::Gzip(Box::new(MultiGzDecoder::new(source)))
        } else if is_zstd {
            Decoder::Zstd(Box::new(Frames::new(source, meter.limits.window)))
        } else {
            Decoder::Plain(source)
        };
        Ok(Self { decoder, meter })
    }
}

impl<R: Read> Read for Decompressed<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = match &mut self.decoder {
            Decoder::Plain(source) => source.read(into)?,
            Decoder::Gzip(decoder) => decoder.read(into)?,
            Decoder::Zstd(frames) => frames.read(into, self.meter)?,
        };
        self.meter.came_out(bytes)?;
        Ok(bytes)
    }
}

/// Whether these bytes begin a frame, or one to be skipped (RFC 8878 sections 3.1.1 and 3.1.2).
fn is_zstd(magic: &[u8]) -> bool {
    match *magic {
        [0x28, 0xb5, 0x2f, 0xfd] => true,
        [first, 0x2a, 0x4d, 0x18] => first & 0xf0 == 0x50,
        _ => false,
    }
}

/// The frames of a zstd stream, one after the other.
struct Frames<S> {
    source: S,
    decoder: FrameDecoder,
    is_inside: bool,
}

impl<S: BufRead> Frames<S> {
    fn new(source: S, window: u64) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(window);
        Self {
            source,
            decoder,
            is_inside: false,
        }
    }

    fn read(&mut self, into: &mut [u8], meter: &Meter<'_>) -> io::Result<usize> {
        loop {
            if self.is_inside {
                let bytes = self.read_frame(into)?;
                if bytes > 0 || into.is_empty() {
                    return Ok(bytes);
                }
                self.end()?;
            } else if self.source.fill_buf()?.is_empty() {
                return Ok(0);
            } else {
                self.begin(meter)?;
            }
        }
    }

    fn begin(&mut self, meter: &Meter<'_>) -> io::Result<()> {
        match self.decoder.reset(&mut self.source) {
            Ok(()) => self.is_inside = true,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                let length = u64::from(length);
                let skipped = io::copy(&mut (&mut self.source).take(length), &mut io::sink())?;
                if skipped < length {
                    return Err(io::Error::other(
                        "it ends within a zstd frame that is to be skipped",
                    ));
                }
            }
            Err(FrameDecoderError::WindowSizeTooBig { requested, max }) => {
                return Err(meter.stop(UnreadableArchive::Window {
                    wanted: requested,
                    limit: max,
                }));
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        Ok(())
    }

    /// No bytes when the frame has no more.
    fn read_frame(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // One block at a time, which is 128 KiB at most: the meter sees all of it before there is more.
        while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
            let one = BlockDecodingStrategy::UptoBlocks(1);
            let decoded = self.decoder.decode_blocks(&mut self.source, one);
            decoded.map_err(io::Error::other)?;
        }
        self.decoder.read(into)
    }

    fn end(&mut self) -> io::Result<()> {
        self.is_inside = false;
        let stated = self.decoder.get_checksum_from_data();
        if stated.is_some() && stated != self.decoder.get_calculated_checksum() {
            return Err(io::Error::other("the checksum of a zstd frame does not match"));
        }
        Ok(())
    }
}
