//! One connection from its first byte to its last: HTTP/1.1 or HTTP/2, watched and drained.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, Verdict, Watch};
use super::handler::Handler;
use super::streams::Streams;
use super::{HEAD_LIMIT, Limits};

/// Go's flow control is slow with small windows (BuildKit turned HTTP/2 off for pushes because of it).
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
const STREAMS: u32 = 256;
/// Larger frames cost less each; clients that prefer small ones send small ones.
const FRAME: u32 = 256 * 1024;
/// Above [`HEADERS_LIMIT`](super::HEADERS_LIMIT), so that what exceeds it is answered in words; clients
/// that know this number do not even send more.
const HEADER_LIST: u32 = 128 * 1024;
/// An HTTP/2 client that is gone is noticed by its silence.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) fn builder(limits: Limits) -> Builder<Streams> {
    let mut builder = Builder::new(Streams::new(limits.idle_timeout));
    // The time limits on heads and pauses are ours (activity.rs): hyper's would arm a timer per request.
    builder.http1().header_read_timeout(None).max_buf_size(HEAD_LIMIT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADER_LIST)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Serves requests until the client leaves, the connection is stuck or idle, or a drain finds it done.
pub(super) async fn serve<I>(
    builder: &Builder<Streams>,
    io: I,
    handler: Handler,
    limits: Limits,
    drain: &CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let activity: Arc<Activity> = handler.activity.clone();
    let peer = handler.connection.peer;
    let mut watch = Watch::new(limits, Instant::now());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), handler));
    let mut drained = pin!(drain.cancelled());
    let mut draining = false;
    let mut look = pin!(tokio::time::sleep(watch.interval()));
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, error, "a connection ended early");
                }
                return;
            }
            () = drained.as_mut(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = look.as_mut() => {
                let now = Instant::now();
                match watch.look(&activity, now) {
                    Verdict::Fine => {}
                    Verdict::Idle => connection.as_mut().graceful_shutdown(),
                    Verdict::Stuck(reason) => {
                        tracing::debug!(%peer, reason, "a connection was cut");
                        return;
                    }
                }
                look.as_mut().reset(now + watch.interval());
            }
        }
    }
}
