//! A blob as it arrives: where the connection breaks, it goes on at the byte that is missing.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::endpoint::{Endpoint, Trouble, question};
use super::error::ImportError;
use crate::upstream::UpstreamError;

/// A blob of a registry.
pub(super) struct Reader<'e> {
    at: &'e Endpoint,
    path: String,
    scope: String,
    /// How long it is, once that is known.
    size: Option<u64>,
    /// The next byte.
    offset: u64,
    body: Option<Incoming>,
    /// Bytes that the registry sends again although they were not asked for.
    superfluous: u64,
    trouble: Trouble,
}

impl<'e> Reader<'e> {
    pub fn new(at: &'e Endpoint, path: String, scope: String, size: Option<u64>, offset: u64) -> Self {
        Self {
            at,
            path,
            scope,
            size,
            offset,
            body: None,
            superfluous: 0,
            trouble: Trouble::default(),
        }
    }

    /// The next bytes, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ImportError> {
        loop {
            if self.body.is_none() && self.size.is_some_and(|size| self.offset >= size) {
                return Ok(None);
            }
            match self.step().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => {
                    // What makes progress may fail again.
                    self.trouble = Trouble::default();
                    return Ok(Some(bytes));
                }
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.body = None;
                    self.at.bear(&mut self.trouble, error).await?;
                }
            }
        }
    }

    /// A frame of the answer, which is asked for first if there is none.
    async fn step(&mut self) -> Result<Option<Bytes>, ImportError> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.open().await?,
        };
        let timeout = self.at.timeout();
        let frame = tokio::time::timeout(timeout, body.frame()).await;
        let frame = frame.map_err(|_| UpstreamError::Late {
            host: self.at.address().host(),
            timeout,
        })?;
        let Some(frame) = frame else {
            return match self.size {
                Some(size) if self.offset < size => Err(self.at.broken(format!(
                    "{} ended after {} of {size} bytes",
                    self.path, self.offset
                ))),
                _ => Ok(None),
            };
        };
        let frame = frame.map_err(|error| self.at.broken(error.to_string()))?;
        self.body = Some(body);
        let mut bytes = frame.into_data().unwrap_or_default();
        let known = self.superfluous.min(bytes.len() as u64);
        self.superfluous -= known;
        let bytes = bytes.split_off(usize::try_from(known).unwrap_or(bytes.len()));
        self.offset += bytes.len() as u64;
        if let Some(size) = self.size.filter(|size| self.offset > *size) {
            return Err(self.at.wrong(
                &self.path,
                format!("it has more than the {size} bytes that its manifest says"),
            ));
        }
        Ok(Some(bytes))
    }

    async fn open(&mut self) -> Result<Incoming, ImportError> {
        self.at.may_ask().await;
        let mut call = question(Method::GET, &self.path, &self.scope);
        if self.offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", self.offset));
            call.headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let answer = self.at.once(&call).await?;
        self.superfluous = match answer.status() {
            StatusCode::OK => {
                let length = number(answer.headers().get(CONTENT_LENGTH));
                match (self.size, length) {
                    (Some(size), Some(length)) if size != length => {
                        let why = format!("it has {length} bytes, its manifest says {size}");
                        return Err(self.at.wrong(&self.path, why));
                    }
                    (None, length) => self.size = length,
                    _ => {}
                }
                self.offset
            }
            StatusCode::PARTIAL_CONTENT if begins(answer.headers()) == Some(self.offset) => 0,
            StatusCode::PARTIAL_CONTENT => {
                return Err(self
                    .at
                    .wrong(&self.path, "another part was sent than was asked for".to_owned()));
            }
            _ => return Err(self.at.refusal(&self.path, answer).await),
        };
        Ok(answer.into_body())
    }
}

fn number(value: Option<&HeaderValue>) -> Option<u64> {
    value?.to_str().ok()?.parse().ok()
}

/// The first byte of a part: `bytes 5-9/10`.
fn begins(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?
        .split('-')
        .next()?
        .trim()
        .parse()
        .ok()
}
