//! A blob's way from the upstream into the store, once for all who want it.
//!
//! It is an upload session like a client's: what is durable of it is noted in its row, so that a fetch goes on after a
//! broken connection, and another replica goes on with it when this one dies.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{self, Either};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use hyper::body::Incoming;
use tracing::Instrument as _;
use uuid::Uuid;

use super::super::state::Registry;
use super::super::uploads::Writing;
use super::arriving::{Arriving, partial};
use super::claim::{Claim, Taking};
use super::growing::{Growing, Phase, Source, WINDOW};
use super::spool::Spool;
use super::trouble::Trouble;
use crate::domain::Digest;
use crate::domain::manifest::Manifest;
use crate::metadata::{BlobRow, Repository};
use crate::tenancy::Tenant;
use crate::upstream::{Kind, Question, Remote, UpstreamError};

mod elsewhere;

/// How often the upstream is asked to go on before the fetch is given up, if nothing comes in between.
const TRIES: u32 = 5;
/// Most requests for one blob, whatever each of them brings.
const REQUESTS: u32 = 100;
/// Longest wait for a turn: clients wait for 30 s.
const TURN: Duration = Duration::from_secs(20);
/// First pause between them; it doubles.
const PAUSE: Duration = Duration::from_millis(100);

type Key = (Repository, Digest);

/// Blobs that are being fetched by this replica, or waited for.
#[derive(Default)]
pub(super) struct Fetches(Arc<Mutex<HashMap<Key, Arc<Growing>>>>);

/// What is to be fetched.
pub(super) struct Wanted {
    pub registry: Registry,
    pub tenant: Arc<Tenant>,
    pub repository: Repository,
    pub digest: Digest,
    pub remote: Arc<Remote>,
    /// The repository at the upstream.
    pub upstream: String,
}

/// Sees to it that nobody waits for a fetch that has ended, however it ended.
struct Ending {
    fetches: Arc<Mutex<HashMap<Key, Arc<Growing>>>>,
    key: Key,
    growing: Arc<Growing>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut fetches = self.fetches.lock().unwrap_or_else(PoisonError::into_inner);
        fetches.remove(&self.key);
        drop(fetches);
        if !self.growing.is_over() {
            self.growing.set(Phase::Failed(Trouble::ended()));
        }
    }
}

impl Fetches {
    /// The blob that is under way, if it is.
    pub fn find(&self, key: &Key) -> Option<Arc<Growing>> {
        let fetches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fetches.get(key).cloned()
    }

    /// The blob that is under way, or is from now on; the flag says whether it was begun here. It goes on when whoever
    /// asked for it goes away.
    pub fn join(&self, wanted: Wanted) -> (Arc<Growing>, bool) {
        let key = (wanted.repository.clone(), wanted.digest);
        let mut fetches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(growing) = fetches.get(&key) {
            return (growing.clone(), false);
        }
        let growing = Growing::new(wanted.digest);
        fetches.insert(key.clone(), growing.clone());
        let ending = Ending {
            fetches: self.0.clone(),
            key,
            growing: growing.clone(),
        };
        let task = async move {
            // Before the claim, so that whoever holds one goes on; and as long as its window takes memory.
            let growing = ending.growing.clone();
            let turns = &wanted.registry.cached.fetch_turns;
            let Some(_turn) = turns.take(wanted.repository.tenant, 1, TURN).await else {
                return growing.set(Phase::Failed(Trouble::busy()));
            };
            let phase = match (Fetch {
                wanted,
                growing: &growing,
            })
            .run()
            .await
            {
                Ok(row) => Phase::Stored(row),
                Err(trouble) => Phase::Failed(trouble),
            };
            growing.set(phase);
            drop(ending);
            growing.let_go().await;
        };
        tokio::spawn(task.in_current_span());
        (growing, true)
    }
}

/// A fetch under way.
struct Fetch<'g> {
    wanted: Wanted,
    growing: &'g Growing,
}

/// A blob that an upstream sends, or why it does not.
type Opened<'r> = Result<Arriving<'r>, Cut>;

/// Why one request to the upstream did not bring the rest.
enum Cut {
    /// Another one may.
    Again(UpstreamError),
    /// None will.
    For(Trouble),
}

impl<T: Into<Trouble>> From<T> for Cut {
    fn from(error: T) -> Self {
        Self::For(error.into())
    }
}

impl Fetch<'_> {
    async fn run(&self) -> Result<BlobRow, Trouble> {
        let Wanted {
            registry,
            repository,
            digest,
            ..
        } = &self.wanted;
        // Whoever asked for it has just looked whether it is stored.
        let (claim, begun) = loop {
            match Claim::take(&registry.cached, repository, format!("blob:{digest}")).await? {
                Taking::Mine(claim, begun) => break (claim, begun),
                Taking::Theirs(address) => self.along(address).await?,
            }
            if let Some(row) = registry.metadata.blob(repository, digest).await? {
                return self.conclude(row).await;
            }
        };
        let fetched = self.fetch_claimed(&claim, begun).await;
        claim.release().await;
        fetched
    }

    async fn fetch_claimed(&self, claim: &Claim, begun: Option<Uuid>) -> Result<BlobRow, Trouble> {
        let Wanted {
            registry,
            repository,
            digest,
            ..
        } = &self.wanted;
        // Whoever held the claim before may have stored it just now.
        if let Some(row) = registry.metadata.blob(repository, digest).await? {
            return self.conclude(row).await;
        }
        let named = named_size(registry, repository, digest).shared();
        let prepare = async {
            let (session, hashes) = self.wanted.session(begun).await?;
            claim.note(session.id).await?;
            let named = named.clone().await?;
            let writing = Writing::open(registry, repository.tenant, &session, hashes, named).await?;
            Ok::<_, Trouble>((session, named, writing))
        };
        let (prepared, first) = match begun {
            None => {
                self.meanwhile(prepare, self.open(0, named.clone(), Source::Upstream))
                    .await
            }
            Some(_) => (prepare.await, None),
        };
        let (session, named, mut writing) = prepared?;
        let received = self.receive(&mut writing, claim, session.id, named, first).await;
        let last = match received {
            Ok(last) => last,
            Err(trouble) => {
                drop(writing);
                // Whoever has taken the claim over may go on with the session.
                if !claim.is_lost() {
                    self.wanted.drop_session(&session.id).await;
                }
                return Err(trouble);
            }
        };
        // It is what was asked for: now the last byte may leave, unless what another replica had sent before was not.
        let is_shown = self.growing.confirms(&last) != Some(false);
        if is_shown {
            self.growing.push(writing.offset - last.len() as u64, last);
        }
        let (size, renewal) = writing.finish().await?;
        let row = self.wanted.commit(&session, size).await;
        drop(renewal);
        match is_shown {
            true => row,
            false => Err(self
                .strange(format!("what two replicas were sent for {digest} differs"))
                .into()),
        }
    }

    /// While the session is made, the upstream is asked, and what it sends is shown: nobody waits for the session.
    async fn meanwhile<'f, T>(
        &'f self,
        prepare: impl Future<Output = Result<T, Trouble>>,
        open: impl Future<Output = Opened<'f>>,
    ) -> (Result<T, Trouble>, Option<Opened<'f>>) {
        let (prepare, open) = (pin!(prepare), pin!(open));
        match future::select(prepare, open).await {
            Either::Left((Err(trouble), _)) => (Err(trouble), None),
            Either::Left((prepared, open)) => (prepared, Some(open.await)),
            Either::Right((Err(cut), prepare)) => (prepare.await, Some(Err(cut))),
            Either::Right((Ok(mut arriving), prepare)) => {
                let prepared = tokio::select! {
                    prepared = prepare => prepared,
                    never = arriving.show_ahead(self.growing) => match never {},
                };
                (prepared, Some(Ok(arriving)))
            }
        }
    }

    /// Takes all bytes in, by as many requests as it takes, and returns the last one, which nobody has been shown.
    async fn receive(
        &self,
        writing: &mut Writing,
        claim: &Claim,
        upload: Uuid,
        named: Option<u64>,
        mut first: Option<Opened<'_>>,
    ) -> Result<Bytes, Trouble> {
        let mut last = Bytes::new();
        let (mut tries, mut pause) = (0, PAUSE);
        for request in 1.. {
            let before = writing.offset;
            let opened = first.take();
            let cut = match self
                .request(writing, (claim, upload), named, &mut last, opened)
                .await
            {
                Ok(()) => break,
                Err(cut) => cut,
            };
            let error = match cut {
                Cut::For(trouble) => return Err(trouble),
                Cut::Again(error) => error,
            };
            if writing.offset > before {
                (tries, pause) = (0, PAUSE);
            }
            tries += 1;
            // Who has got nothing yet is answered at once and may ask another.
            if tries > TRIES
                || request >= REQUESTS
                || matches!(self.growing.phase(), Phase::Asking | Phase::Elsewhere)
            {
                return Err(error.into());
            }
            tracing::info!(%error, offset = writing.offset, "an upstream broke off; asking it to go on");
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        let Wanted { digest, .. } = &self.wanted;
        let computed = writing.hashes.digest(digest.algorithm());
        if computed != Some(*digest) {
            let computed = computed.map(|digest| digest.to_string()).unwrap_or_default();
            return Err(self
                .strange(format!("it sent a blob of digest {computed} for {digest}"))
                .into());
        }
        Ok(last)
    }

    fn strange(&self, why: String) -> UpstreamError {
        UpstreamError::Strange {
            host: self.wanted.remote.host().to_owned(),
            why,
        }
    }

    /// Asks for the bytes from a place on, and lets those who wait know how many all of them are.
    async fn open(
        &self,
        offset: u64,
        named: impl Future<Output = Result<Option<u64>, Trouble>>,
        source: Source,
    ) -> Opened<'_> {
        let Wanted { remote, digest, .. } = &self.wanted;
        let mut headers = HeaderMap::new();
        if offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={offset}-"));
            headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let path = format!("blobs/{digest}");
        let question = Question {
            method: Method::GET,
            repository: &self.wanted.upstream,
            path: &path,
            headers,
        };
        let (answer, named) = tokio::join!(remote.ask(&question, Kind::Blob), named);
        let answer = answer.map_err(|error| match error {
            UpstreamError::Late { .. }
            | UpstreamError::Egress(_)
            | UpstreamError::Broken { .. }
            | UpstreamError::Failing { .. }
            | UpstreamError::Paused { .. } => Cut::Again(error),
            error => Cut::For(error.into()),
        })?;
        let (size, skip) = self.extent(&answer, offset, named?)?;
        if let Phase::Arriving { size: before, .. } = self.growing.phase()
            && before != size
        {
            return Err(self
                .strange(format!("a blob has {size} bytes, and had {before} before"))
                .into());
        }
        let spool = self.spool(size).await;
        self.growing.begin(size, offset, source, spool);
        let host = (remote.host(), remote.timeout());
        Ok(Arriving::new(answer.into_body(), host, size, skip))
    }

    /// Takes in what is missing, asking for it unless that was done.
    async fn request(
        &self,
        writing: &mut Writing,
        (claim, upload): (&Claim, Uuid),
        named: Option<u64>,
        last: &mut Bytes,
        opened: Option<Opened<'_>>,
    ) -> Result<(), Cut> {
        let Wanted { remote, digest, .. } = &self.wanted;
        let (offset, source) = (writing.offset, Source::Session(upload));
        if offset > 0 && named == Some(offset) {
            // Whoever began it died when all was there.
            self.growing.begin(offset, offset, source, None);
            return Ok(());
        }
        let mut incoming = match opened {
            Some(opened) => opened?,
            None => self.open(offset, future::ready(Ok(named)), source).await?,
        };
        let size = incoming.size;
        self.growing.begin(size, offset, source, None);
        while writing.offset < size {
            let next = incoming.next().await;
            if let Err(error) = &next {
                remote.met(Kind::Blob, Some(error));
            }
            let Some(bytes) = next.map_err(Cut::Again)? else {
                return Err(Cut::Again(self.strange("it ended a blob before its end".into())));
            };
            if claim.is_lost() {
                return Err(Cut::For(Trouble::ended()));
            }
            let left = size - writing.offset;
            if bytes.len() as u64 > left {
                return Err(self
                    .strange(format!("it sends more than the {size} bytes of {digest}"))
                    .into());
            }
            remote.news.fetched(bytes.len() as u64);
            let mut shown = bytes.clone();
            if shown.len() as u64 == left {
                *last = shown.split_off(shown.len() - 1);
            }
            self.growing.room(shown.len()).await;
            self.growing.push(writing.offset, shown);
            writing.add(bytes).await?;
        }
        Ok(())
    }

    /// Where those read who fall behind, unless they can read what the store has so far, or all is in memory.
    async fn spool(&self, size: u64) -> Option<Spool> {
        let cached = &self.wanted.registry.cached;
        if !cached.shared || matches!(self.growing.phase(), Phase::Arriving { .. }) || size <= WINDOW {
            return None;
        }
        cached.spools.open(size).await
    }

    /// How many bytes the blob has, and how many of the answer are here already.
    fn extent(
        &self,
        answer: &http::Response<Incoming>,
        offset: u64,
        named: Option<u64>,
    ) -> Result<(u64, u64), Cut> {
        let number = |name| {
            let value: Option<&HeaderValue> = answer.headers().get(name);
            value.and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        };
        if answer.status() == StatusCode::PARTIAL_CONTENT {
            let range = answer
                .headers()
                .get(CONTENT_RANGE)
                .and_then(|value| value.to_str().ok());
            let (first, size) = range
                .and_then(partial)
                .ok_or_else(|| self.strange(format!("it sent a part of a blob, and says {range:?} of it")))?;
            if first != offset {
                return Err(self
                    .strange(format!("it sent byte {first} where {offset} was asked for"))
                    .into());
            }
            return Ok((size, 0));
        }
        let size = number(CONTENT_LENGTH).or(named).ok_or_else(|| {
            self.strange("it does not say how long a blob is, and no manifest here does".into())
        })?;
        if offset > size {
            return Err(self
                .strange(format!("a blob has {size} bytes, and had more before"))
                .into());
        }
        Ok((size, offset))
    }
}

/// The size that a manifest here gives to a blob, if one names it.
pub(super) async fn named_size(
    registry: &Registry,
    repository: &Repository,
    digest: &Digest,
) -> Result<Option<u64>, Trouble> {
    let store = registry.cached.remotes.store();
    let Some(manifest) = store.names_blob(repository, digest).await? else {
        return Ok(None);
    };
    let payload = registry.metadata.manifest_payload(repository, &manifest).await?;
    Ok(payload.and_then(|payload| Manifest::size_of_blob(&payload, digest)))
}
