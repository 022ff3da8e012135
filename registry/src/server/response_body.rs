//! An answer's body that counts itself and closes the request's account at its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::access_log::Account;
use super::streams::Progress;

pub(super) struct ResponseBody {
    inner: Body,
    account: Account,
    /// Of a stream of HTTP/2, whose client may leave the answer untaken.
    progress: Option<Arc<Progress>>,
}

impl ResponseBody {
    pub(super) fn new(inner: Body, mut account: Account) -> Self {
        account.complete |= http_body::Body::is_end_stream(&inner);
        Self {
            inner,
            account,
            progress: Progress::current(),
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                this.account.hand_over(bytes);
                if let Some(progress) = &this.progress {
                    progress.handed_over(bytes);
                }
                this.account.complete |= this.inner.is_end_stream();
            }
            Poll::Ready(Some(Err(error))) => tracing::warn!(%error, "an answer broke off"),
            Poll::Ready(None) => this.account.complete = true,
            Poll::Pending => {
                if let Some(progress) = &this.progress {
                    progress.waits();
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
