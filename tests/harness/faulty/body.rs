//! Bodies of answers, and what happens to them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::unfold;
use http::{Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::{mpsc, watch};

use super::{Fault, Progress};

pub(super) type Body = BoxBody<Bytes, io::Error>;

/// A slow body comes in so many pieces a second.
const PIECES: u64 = 20;
/// What was written before a connection is cut has this time to leave.
const LAST_BYTES: Duration = Duration::from_millis(50);

pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

pub(super) fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::from(text.to_owned()).map_err(|never| match never {});
    let mut answer = Response::new(body.boxed());
    *answer.status_mut() = status;
    answer
}

/// A server's body with these faults.
pub(super) fn faulty(
    incoming: Incoming,
    faults: Vec<Fault>,
    released: watch::Receiver<bool>,
    progress: Arc<Progress>,
) -> Body {
    let (sender, receiver) = mpsc::channel(1);
    let mut sending = Sending {
        sender,
        faults,
        released,
        progress,
        at: 0,
    };
    tokio::spawn(async move {
        // Whatever ended it: an error has been sent before, and the end of the channel is that of the body.
        let _ = sending.all(incoming).await;
        sending.progress.is_over.store(true, Ordering::SeqCst);
    });
    let frames = unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    StreamBody::new(frames).boxed()
}

/// Nothing more is to be sent.
struct Over;

struct Sending {
    sender: mpsc::Sender<io::Result<Frame<Bytes>>>,
    faults: Vec<Fault>,
    released: watch::Receiver<bool>,
    progress: Arc<Progress>,
    /// How many bytes have been sent.
    at: u64,
}

impl Sending {
    async fn all(&mut self, mut incoming: Incoming) -> Result<(), Over> {
        while let Some(frame) = incoming.frame().await {
            match frame {
                Ok(frame) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.pieces(bytes).await?;
                    }
                }
                Err(error) => return self.cut(io::Error::other(error)).await,
            }
        }
        if self.has(|fault| matches!(fault, Fault::Endless)) {
            loop {
                self.pieces(Bytes::from_static(&[7; 16 * 1024])).await?;
            }
        }
        Ok(())
    }

    /// Sends some bytes, up to each place where something happens.
    async fn pieces(&mut self, mut bytes: Bytes) -> Result<(), Over> {
        while !bytes.is_empty() {
            let next = self.until_next(bytes.len() as u64).await?;
            let next = usize::try_from(next).expect("at most what there is");
            let piece = self.flipped(bytes.split_to(next));
            self.at += piece.len() as u64;
            let sent = self.sender.send(Ok(Frame::data(piece))).await;
            sent.map_err(|_| Over)?;
            self.progress.sent.store(self.at, Ordering::SeqCst);
        }
        Ok(())
    }

    /// How many of `left` bytes are sent at once; waits until they may be.
    async fn until_next(&mut self, left: u64) -> Result<u64, Over> {
        let mut next = left;
        for fault in self.faults.clone() {
            match fault {
                Fault::Cut(place) if self.at >= place => {
                    self.cut(io::Error::other("cut, as the test says")).await?;
                }
                Fault::Short(place) if self.at >= place => return Err(Over),
                Fault::Held(place) if self.at >= place => {
                    tokio::select! {
                        _ = self.released.wait_for(|is_released| *is_released) => {}
                        () = self.sender.closed() => return Err(Over),
                    }
                }
                Fault::Cut(place) | Fault::Short(place) | Fault::Held(place) => {
                    next = next.min(place - self.at)
                }
                Fault::Slow(rate) => {
                    next = next.min((rate / PIECES).max(1));
                    tokio::time::sleep(Duration::from_secs(1) / u32::try_from(PIECES).unwrap_or(1)).await;
                }
                _ => {}
            }
        }
        Ok(next)
    }

    /// Some bytes that are sent next, one of them another if it is its turn.
    fn flipped(&self, bytes: Bytes) -> Bytes {
        let mut bytes = BytesMut::from(bytes);
        for fault in &self.faults {
            if let Fault::Flipped(place) = fault
                && let Some(place) = place.checked_sub(self.at)
                && let Some(byte) = usize::try_from(place).ok().and_then(|at| bytes.get_mut(at))
            {
                *byte ^= 1;
            }
        }
        bytes.freeze()
    }

    async fn cut(&mut self, error: io::Error) -> Result<(), Over> {
        tokio::time::sleep(LAST_BYTES).await;
        let _ = self.sender.send(Err(error)).await;
        Err(Over)
    }

    fn has(&self, what: impl Fn(&Fault) -> bool) -> bool {
        self.faults.iter().any(what)
    }
}
