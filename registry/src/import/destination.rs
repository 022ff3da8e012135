//! What is asked of the registry that things go to: a Berth.

use bytes::Bytes;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::endpoint::{Answer, Endpoint, Trouble, question};
use super::error::ImportError;
use super::source::{Fetched, accepting, content_type, digest_of, fetch_manifest, scope};
use crate::domain::{Algorithm, Digest, MediaType, RepositoryName, TagName};
use crate::metadata::Time;
use crate::upstream::Call;

/// Longest answer to an upload or a push.
const ANSWER_LIMIT: usize = 64 * 1024;

/// The registry that things go to.
pub(super) struct Destination {
    pub at: Endpoint,
}

/// An upload session.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// Its path.
    pub location: String,
    /// Bytes that it has.
    pub offset: u64,
}

/// What came of asking for an upload.
pub(super) enum Begun {
    /// The tenant has the blob, and so has the repository now.
    Mounted,
    /// It is to be sent.
    Session(Session),
}

impl Destination {
    pub fn new(at: Endpoint) -> Self {
        Self { at }
    }

    pub async fn greet(&self) -> Result<(), ImportError> {
        self.at.greet().await
    }

    /// Returns when it has asked to be left alone for some time: which, and until when.
    pub async fn paused(&self) -> (String, Time) {
        let until = self.at.paused().await;
        (self.at.address().host(), until)
    }

    /// What a tag stands for.
    pub async fn resolve(&self, name: &RepositoryName, tag: &TagName) -> Result<Option<Digest>, ImportError> {
        let headers = self.head_manifest(name, tag.as_str()).await?;
        Ok(headers.and_then(|headers| digest_of(&headers)))
    }

    /// Whether a manifest is there, and whether it is an index.
    pub async fn has_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<bool>, ImportError> {
        let headers = self.head_manifest(name, &digest.to_string()).await?;
        Ok(headers.map(|headers| {
            let known = content_type(&headers).and_then(MediaType::parse);
            known.is_none_or(MediaType::is_index)
        }))
    }

    /// A manifest that is there.
    pub async fn manifest(&self, name: &RepositoryName, digest: &Digest) -> Result<Fetched, ImportError> {
        fetch_manifest(&self.at, name, digest, &scope(name)).await
    }

    /// Whether a repository has a blob.
    pub async fn has_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<bool, ImportError> {
        let path = format!("/v2/{name}/blobs/{digest}");
        let scope = scope(name);
        let answer = self.at.send(&question(Method::HEAD, &path, &scope)).await?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.at.refusal(&path, answer).await),
        }
    }

    /// Has the blob mounted from wherever the tenant has it, or else begins to upload it.
    pub async fn begin(&self, name: &RepositoryName, digest: &Digest) -> Result<Begun, ImportError> {
        let mut path = format!("/v2/{name}/blobs/uploads/?mount={digest}");
        if digest.algorithm() != Algorithm::Sha256 {
            path = format!("{path}&digest-algorithm={}", digest.algorithm().name());
        }
        let scope = pushing(name);
        let answer = self.ask(&question(Method::POST, &path, &scope)).await?;
        match answer.status {
            StatusCode::CREATED => Ok(Begun::Mounted),
            StatusCode::ACCEPTED => {
                let location = self.location(&answer.headers)?;
                let location =
                    location.ok_or_else(|| self.at.wrong(&path, "it names no upload".to_owned()))?;
                Ok(Begun::Session(Session { location, offset: 0 }))
            }
            // There is no such place at the destination: nothing is missing at the source.
            StatusCode::NOT_FOUND => Err(ImportError::Refused {
                host: self.at.address().host(),
                what: format!("uploads to {name}"),
                status: answer.status,
                why: String::new(),
            }),
            status => Err(self
                .at
                .refused(&format!("uploads to {name}"), status, &answer.body)),
        }
    }

    /// How many bytes a session has.
    pub async fn standing(&self, name: &RepositoryName, location: &str) -> Result<u64, ImportError> {
        let scope = pushing(name);
        let answer = self.ask(&question(Method::GET, location, &scope)).await?;
        match answer.status {
            StatusCode::NO_CONTENT => Ok(received(&answer.headers).unwrap_or(0)),
            StatusCode::NOT_FOUND => Err(lost(name)),
            status => Err(self
                .at
                .refused(&format!("the upload to {name}"), status, &answer.body)),
        }
    }

    /// Appends bytes, of which `session.offset` is the first's place. After whatever breaks, the session is asked how much
    /// it has, and the rest is sent.
    pub async fn append(
        &self,
        name: &RepositoryName,
        session: &mut Session,
        bytes: Bytes,
    ) -> Result<(), ImportError> {
        let (first, end) = (session.offset, session.offset + bytes.len() as u64);
        let scope = pushing(name);
        let mut trouble = Trouble::default();
        while session.offset < end {
            let missing = usize::try_from(session.offset - first).unwrap_or(usize::MAX);
            let is_refused = match self.patch(name, &scope, session, bytes.slice(missing..)).await {
                Ok(true) => continue,
                Ok(false) => true,
                Err(error) => {
                    self.at.bear(&mut trouble, error).await?;
                    false
                }
            };
            let before = session.offset;
            session.offset = self.standing(name, &session.location).await?;
            if session.offset < first || session.offset > end {
                return Err(lost(name));
            }
            if session.offset == before && is_refused {
                // Another writer may have it for a while.
                self.at.bear(&mut trouble, self.at.late()).await?;
            }
        }
        Ok(())
    }

    /// Sends bytes once; false if the session says that it stands elsewhere.
    async fn patch(
        &self,
        name: &RepositoryName,
        scope: &str,
        session: &mut Session,
        bytes: Bytes,
    ) -> Result<bool, ImportError> {
        self.at.may_ask().await;
        let end = session.offset + bytes.len() as u64;
        let location = session.location.clone();
        let mut call = question(Method::PATCH, &location, scope);
        let range = HeaderValue::try_from(format!("{}-{}", session.offset, end - 1));
        call.headers
            .extend(range.ok().map(|range| (CONTENT_RANGE, range)));
        octets(&mut call.headers);
        call.body = bytes;
        let answer = self.at.once(&call).await?;
        match answer.status() {
            StatusCode::ACCEPTED => {
                if let Some(location) = self.location(answer.headers())? {
                    session.location = location;
                }
                match received(answer.headers()) {
                    // It has taken something else than it was sent.
                    Some(offset) if offset <= session.offset || offset > end => return Ok(false),
                    offset => session.offset = offset.unwrap_or(end),
                }
                Ok(true)
            }
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(false),
            StatusCode::NOT_FOUND => Err(lost(name)),
            _ => Err(self.at.refusal(&format!("the upload to {name}"), answer).await),
        }
    }

    /// Ends an upload, with its last bytes if there are any. What was ended before the answer got lost counts as ended.
    pub async fn finish(
        &self,
        name: &RepositoryName,
        session: &Session,
        digest: &Digest,
        rest: Bytes,
    ) -> Result<(), ImportError> {
        let separator = if session.location.contains('?') { '&' } else { '?' };
        let path = format!("{}{separator}digest={digest}", session.location);
        let scope = pushing(name);
        let mut call = question(Method::PUT, &path, &scope);
        octets(&mut call.headers);
        let is_whole = session.offset == 0 && !rest.is_empty();
        call.body = rest;
        let mut trouble = Trouble::default();
        loop {
            self.at.may_ask().await;
            let error = match self.at.once(&call).await {
                Ok(answer) if answer.status() == StatusCode::CREATED => return Ok(()),
                Ok(answer) if answer.status() == StatusCode::NOT_FOUND => lost(name),
                // Another attempt's bytes are there already: they begin anew.
                Ok(answer) if is_whole && answer.status() == StatusCode::RANGE_NOT_SATISFIABLE => lost(name),
                // An attempt that broke may still be at it: a large object takes minutes to be put together, and asking
                // again is answered by what came of it.
                Ok(answer) if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE => {
                    self.at.bear(&mut trouble, self.at.late()).await?;
                    continue;
                }
                Ok(answer) => self.at.refusal(&format!("{digest} in {name}"), answer).await,
                Err(error) => {
                    let told = error.to_string();
                    self.at.bear(&mut trouble, error).await?;
                    // An attempt that broke may have stored some of the bytes: a session is used for one attempt.
                    if !is_whole {
                        continue;
                    }
                    ImportError::UploadLost(told)
                }
            };
            if matches!(error, ImportError::UploadLost(_)) && self.has_blob(name, digest).await? {
                return Ok(());
            }
            return Err(error);
        }
    }

    /// Gives an upload up; whether that is heard makes no difference, since idle sessions expire.
    pub async fn cancel(&self, name: &RepositoryName, session: &Session) {
        let scope = pushing(name);
        let _ = self
            .at
            .once(&question(Method::DELETE, &session.location, &scope))
            .await;
    }

    /// Stores a manifest whose parts are there, under its digest and, if one is given, under a tag.
    pub async fn put_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        tag: Option<&TagName>,
        fetched: &Fetched,
    ) -> Result<(), ImportError> {
        let path = match tag {
            None => format!("/v2/{name}/manifests/{digest}"),
            // By its tag alone a manifest is stored under its sha256.
            Some(tag) if digest.algorithm() == Algorithm::Sha256 => format!("/v2/{name}/manifests/{tag}"),
            Some(tag) => format!("/v2/{name}/manifests/{digest}?tag={tag}"),
        };
        let what = tag.map_or_else(|| format!("{name}@{digest}"), |tag| format!("{name}:{tag}"));
        let scope = pushing(name);
        let mut call = question(Method::PUT, &path, &scope);
        // A media type has no character that a header cannot hold.
        if let Ok(kind) = HeaderValue::from_str(fetched.manifest.media_type.as_str()) {
            call.headers.insert(CONTENT_TYPE, kind);
        }
        call.body = fetched.bytes.clone();
        let answer = self.ask(&call).await?;
        if answer.status == StatusCode::UNSUPPORTED_MEDIA_TYPE && fetched.manifest.is_opaque() {
            return Err(ImportError::Unsupported(format!(
                "the tenant does not take manifests of type {}; policy.opaqueMediaTypes is for that",
                fetched.manifest.media_type
            )));
        }
        if answer.status != StatusCode::CREATED {
            return Err(match self.at.refused(&what, answer.status, &answer.body) {
                // It is there at the source: what is not there is the repository, or whoever may push to it.
                ImportError::Absent { host, what } => ImportError::Refused {
                    host,
                    what,
                    status: answer.status,
                    why: String::new(),
                },
                other => other,
            });
        }
        match digest_of(&answer.headers) {
            Some(stored) if stored != *digest => Err(self
                .at
                .wrong(&what, format!("it was stored as {stored}, not as {digest}"))),
            _ => Ok(()),
        }
    }

    async fn head_manifest(
        &self,
        name: &RepositoryName,
        reference: &str,
    ) -> Result<Option<HeaderMap>, ImportError> {
        let path = format!("/v2/{name}/manifests/{reference}");
        let scope = scope(name);
        let mut call = question(Method::HEAD, &path, &scope);
        call.headers = accepting();
        let answer = self.at.send(&call).await?;
        match answer.status() {
            StatusCode::OK => Ok(Some(answer.headers().clone())),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.at.refusal(&format!("{name}, {reference}"), answer).await),
        }
    }

    async fn ask(&self, call: &Call<'_>) -> Result<Answer, ImportError> {
        self.at.fetch(call, ANSWER_LIMIT).await
    }

    fn location(&self, headers: &HeaderMap) -> Result<Option<String>, ImportError> {
        let location = headers.get(LOCATION).and_then(|to| to.to_str().ok());
        location.map(|location| self.at.path_of(location)).transpose()
    }
}

fn lost(name: &RepositoryName) -> ImportError {
    ImportError::UploadLost(format!("the upload to {name} is not known any more"))
}

/// What a token for pushes must say.
fn pushing(name: &RepositoryName) -> String {
    format!("repository:{name}:pull,push")
}

fn octets(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
}

/// Bytes that a session has: its `Range` names the last one. `0-0` is what a registry says of one byte, or of none.
fn received(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?;
    let last = text.strip_prefix("0-")?;
    match last {
        "-1" => Some(0),
        last => last.parse::<u64>().ok()?.checked_add(1),
    }
}
