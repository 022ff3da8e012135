//! Manifests and tags of caches.
//!
//! What is stored by its digest is served without a word to the upstream. A tag is compared with the upstream's once in a
//! while, by a HEAD; what it points to is fetched if that is another manifest.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::request::Parts;

use super::super::error::{ApiError, Code};
use super::super::manifest::{self as stored, Found};
use super::super::state::Registry;
use super::claim::{Claim, LOOK, Taking};
use super::trouble::Trouble;
use super::upstream_manifest::{Fetched, Kept, Passed, Source, keep};
use super::{Mirrored, warn};
use crate::domain::TagName;
use crate::domain::manifest::Manifest;
use crate::metadata::events::Kind;
use crate::metadata::{Deletion, ManifestRow, Reference, Repository, Time};
use crate::tenancy::{Cache, Tenant};
use crate::upstream::{Remote, UpstreamError};

/// How long the upstream may take to say where a tag points of which something is here. containerd gives up after 30 s.
const SOON: Duration = Duration::from_secs(10);

/// What came of asking the upstream.
#[derive(Clone)]
pub(in crate::distribution) enum Outcome {
    /// What is stored is what the upstream has; the flag says whether its bytes had to be fetched.
    Current(bool),
    /// What is stored may be out of date, since the upstream fails.
    Stale(Arc<str>),
    /// It could not be stored: pass it on.
    Passed(Passed),
    /// There is nothing.
    Failed(Trouble),
}

/// What a client asks for, if it is something that the cache serves.
pub(super) fn meant(at: &Mirrored<'_>, reference: &str) -> Result<Reference, ApiError> {
    let unknown = || unknown(at, reference);
    at.allowed(unknown)?;
    let parsed = stored::parse(reference)?.ok_or_else(unknown)?;
    match &parsed {
        Reference::Tag(tag) if !at.cache.allows_tag(tag.as_str()) => Err(unknown()),
        _ => Ok(parsed),
    }
}

fn unknown(at: &Mirrored<'_>, reference: &str) -> ApiError {
    let shown = &at.repository.shown;
    ApiError::of(
        Code::ManifestUnknown,
        format!("there is no {reference} in {shown}"),
    )
}

pub(super) async fn get(at: &Mirrored<'_>, asked: &str, parts: &Parts) -> Result<Response, ApiError> {
    let unknown = || unknown(at, asked);
    let reference = meant(at, asked)?;
    let registry = &at.asked.registry;
    // What is here needs no upstream, not even one that can be asked.
    let remote = at.remote();

    // Twice, should it be collected between being found and being sent.
    for _ in 0..2 {
        let row = registry.metadata.manifest(at.repository, &reference).await?;
        let outcome = match (&row, &remote) {
            (Some(_), _) if is_current(at, &reference).await? => Outcome::Current(false),
            (Some(_), Ok(remote)) if may_be_stale(at, &reference).await? => {
                ask_soon(at, remote, &reference).await
            }
            (_, Ok(remote)) => ask(at, remote, &reference).await,
            (Some(_), Err(trouble)) if may_be_stale(at, &reference).await? => {
                let why = trouble.upstream().map(ToString::to_string);
                Outcome::Stale(why.unwrap_or_default().into())
            }
            (_, Err(trouble)) => return Err(trouble.clone().answer(unknown)),
        };
        let news = remote.as_ref().ok().map(|remote| &remote.news);
        let (row, payload, warning) = match outcome {
            Outcome::Failed(trouble) => return Err(trouble.answer(unknown)),
            Outcome::Passed(passed) => {
                let row = ManifestRow {
                    digest: passed.digest,
                    media_type: passed.manifest.media_type.to_string(),
                    size: passed.payload.len() as u64,
                    leased_until: Time(i64::MAX),
                };
                news.inspect(|news| news.miss());
                (row, Some(passed.payload.clone()), None)
            }
            Outcome::Current(fetched) => {
                let row = registry.metadata.manifest(at.repository, &reference).await?;
                let Some(row) = row else { continue };
                if fetched {
                    news.inspect(|news| news.miss());
                } else {
                    news.inspect(|news| news.hit(row.size));
                }
                (row, None, None)
            }
            Outcome::Stale(why) => {
                let row = registry.metadata.manifest(at.repository, &reference).await?;
                let Some(row) = row else { continue };
                news.inspect(|news| news.hit(row.size));
                (row, None, Some(why))
            }
        };
        let found = Found { row, payload };
        if let Some(mut response) = stored::send(at.asked, at.repository, &reference, found, parts).await? {
            if let Some(why) = warning {
                warn(&mut response, &why);
            }
            return Ok(response);
        }
    }
    Err(unknown())
}

/// Whether what is stored needs no look at the upstream.
async fn is_current(at: &Mirrored<'_>, reference: &Reference) -> Result<bool, ApiError> {
    let Reference::Tag(tag) = reference else {
        return Ok(true);
    };
    if at.cache.pins(tag) {
        return Ok(true);
    }
    let cached = &at.asked.registry.cached;
    let fresh_from = Time::now().minus(at.cache.revalidate_after());
    let key = (at.repository.repository.clone(), tag.to_string());
    if cached
        .checked
        .get(&key)
        .is_some_and(|checked| checked > fresh_from)
    {
        return Ok(true);
    }
    let checked = cached.remotes.store().tag_checked(at.repository, tag).await?;
    if let Some(checked) = checked {
        cached.checked.insert(key, checked);
    }
    Ok(checked.is_some_and(|checked| checked > fresh_from))
}

/// Whether a tag that is here may be served on while the upstream does not say what it points to.
async fn may_be_stale(at: &Mirrored<'_>, reference: &Reference) -> Result<bool, ApiError> {
    let Reference::Tag(tag) = reference else {
        return Ok(true);
    };
    let store = at.asked.registry.cached.remotes.store();
    Ok(is_young(at.cache, store.tag_checked(at.repository, tag).await?))
}

/// Whether a tag that was last looked at then is served while the upstream fails.
fn is_young(cache: &Cache, checked: Option<Time>) -> bool {
    let for_so_long = cache.revalidate_after().saturating_add(cache.stale_for());
    let stale_from = Time::now().minus(for_so_long);
    cache.stale_for() > Duration::ZERO && checked.is_some_and(|checked| checked > stale_from)
}

/// The same as [`ask`] where something is here, soon enough for clients that give up. The upstream is asked on.
async fn ask_soon(at: &Mirrored<'_>, remote: &Arc<Remote>, reference: &Reference) -> Outcome {
    let asked = tokio::time::timeout(SOON, ask(at, remote, reference)).await;
    asked.unwrap_or_else(|_| {
        let why = format!(
            "{} has not answered within {} s yet",
            remote.host(),
            SOON.as_secs()
        );
        Outcome::Stale(why.into())
    })
}

/// Asks the upstream, once for all who ask at the same time.
async fn ask(at: &Mirrored<'_>, remote: &Arc<Remote>, reference: &Reference) -> Outcome {
    let registry = &at.asked.registry;
    let question = Asking {
        registry: registry.clone(),
        tenant: at.asked.tenant.clone(),
        repository: at.repository.repository.clone(),
        cache: at.cache.clone(),
        remote: remote.clone(),
        upstream: at.upstream.to_owned(),
        since: Time::now(),
    };
    let key = (at.repository.repository.clone(), reference.clone());
    let reference = reference.clone();
    let flight = registry
        .cached
        .manifests
        .share(key, || async move { question.run(&reference).await });
    match flight.await {
        // Who waited for another's fetch is served from the cache.
        (Some(Outcome::Current(true)), false) => Outcome::Current(false),
        (Some(outcome), _) => outcome,
        (None, _) => Outcome::Failed(Trouble::ended()),
    }
}

/// A look at the upstream under way.
pub(super) struct Asking {
    pub registry: Registry,
    pub tenant: Arc<Tenant>,
    pub repository: Repository,
    pub cache: Arc<Cache>,
    pub remote: Arc<Remote>,
    /// The repository at the upstream.
    pub upstream: String,
    /// When it began: whatever was found since is good.
    pub since: Time,
}

impl Asking {
    /// Does the work, or waits until another replica has done it.
    pub async fn run(self, reference: &Reference) -> Outcome {
        let outcome = match reference {
            Reference::Digest(_) => self.fetch(reference).await,
            Reference::Tag(tag) => self.check(tag).await,
        };
        outcome.unwrap_or_else(Outcome::Failed)
    }

    fn source(&self) -> Source<'_> {
        Source {
            remote: &self.remote,
            repository: &self.upstream,
            limit: self.registry.max_manifest_size,
            takes_opaque: self.tenant.takes_opaque(),
        }
    }

    async fn row(&self, reference: &Reference) -> Result<Option<ManifestRow>, Trouble> {
        Ok(self
            .registry
            .metadata
            .manifest(&self.repository, reference)
            .await?)
    }

    /// Takes the work, or waits until another replica has done it.
    async fn claim(&self, reference: &Reference) -> Result<Option<Claim>, Trouble> {
        let what = match reference {
            Reference::Tag(tag) => format!("tag:{tag}"),
            Reference::Digest(digest) => format!("manifest:{digest}"),
        };
        loop {
            let taking = Claim::take(&self.registry.cached, &self.repository, what.clone()).await?;
            // Also with the claim: the one before may have done it just now.
            let done = self.is_done(reference).await?;
            match taking {
                Taking::Mine(claim, _) if done => {
                    claim.release().await;
                    return Ok(None);
                }
                Taking::Mine(claim, _) => return Ok(Some(claim)),
                Taking::Theirs(_) if done => return Ok(None),
                Taking::Theirs(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Whether what is asked for is here: of a tag, as the upstream has it, as far as was found since this began.
    async fn is_done(&self, reference: &Reference) -> Result<bool, Trouble> {
        if let Reference::Tag(tag) = reference {
            let checked = self.checked(tag).await?;
            if checked.is_none_or(|checked| checked < self.since) {
                return Ok(false);
            }
        }
        Ok(self.row(reference).await?.is_some())
    }

    /// A manifest that is not here, by its digest.
    async fn fetch(&self, reference: &Reference) -> Result<Outcome, Trouble> {
        let Some(claim) = self.claim(reference).await? else {
            return Ok(Outcome::Current(false));
        };
        let outcome = self.fetch_claimed(reference, None).await;
        claim.release().await;
        outcome
    }

    async fn fetch_claimed(&self, reference: &Reference, tag: Option<&TagName>) -> Result<Outcome, Trouble> {
        let mut memory = self.registry.cached.documents.hold(self.repository.tenant);
        let fetched = self.source().get(reference, &mut memory).await?;
        self.keep(fetched, tag, true).await
    }

    async fn keep(
        &self,
        fetched: Fetched,
        tag: Option<&TagName>,
        from_upstream: bool,
    ) -> Result<Outcome, Trouble> {
        let by = format!("cache/{}", self.cache.name);
        let kept = keep(&self.registry, &self.tenant, &self.repository, &by, &fetched, tag).await?;
        Ok(match kept {
            Kept::Yes | Kept::Immutable => Outcome::Current(from_upstream),
            Kept::No => Outcome::Passed(Arc::new(fetched)),
        })
    }

    /// A tag, compared with the upstream's.
    async fn check(&self, tag: &TagName) -> Result<Outcome, Trouble> {
        let reference = Reference::Tag(tag.clone());
        let Some(claim) = self.claim(&reference).await? else {
            return Ok(Outcome::Current(false));
        };
        let row = self.row(&reference).await?;
        let outcome = match &row {
            Some(row) => self.compare(tag, row).await,
            None => self.fetch_claimed(&reference, Some(tag)).await,
        };
        let outcome = match (outcome, &row) {
            (Ok(Outcome::Current(fetched)), _) => {
                self.note(tag).await?;
                Ok(Outcome::Current(fetched))
            }
            (Err(trouble), Some(_)) => self.without_upstream(tag, trouble).await,
            (outcome, _) => outcome,
        };
        claim.release().await;
        outcome
    }

    /// Compares a tag that is here with the upstream's.
    async fn compare(&self, tag: &TagName, row: &ManifestRow) -> Result<Outcome, Trouble> {
        let source = self.source();
        let wanted = match source.head(tag).await? {
            Some(digest) if digest == row.digest => return Ok(Outcome::Current(false)),
            // By digest, so that what is stored is what the HEAD spoke of, and is asked for once.
            Some(digest) => Reference::Digest(digest),
            None => Reference::Tag(tag.clone()),
        };
        if let Some(stored) = self.stored(&wanted).await? {
            return self.keep(stored, Some(tag), false).await;
        }
        match self.fetch_claimed(&wanted, Some(tag)).await {
            // The upstream has just said what the tag points to: that it lacks it speaks of a replica of its own, or was
            // remembered from before. Only that it lacks the tag is about the tag.
            Err(trouble) if trouble.is_absence() && matches!(wanted, Reference::Digest(_)) => {
                self.fetch_claimed(&Reference::Tag(tag.clone()), Some(tag)).await
            }
            outcome => outcome,
        }
    }

    /// A manifest that is here under its digest: the tag has moved back to it.
    async fn stored(&self, reference: &Reference) -> Result<Option<Fetched>, Trouble> {
        let Reference::Digest(digest) = reference else {
            return Ok(None);
        };
        let Some(row) = self.row(reference).await? else {
            return Ok(None);
        };
        let payload = self
            .registry
            .metadata
            .manifest_payload(&self.repository, digest)
            .await?;
        Ok(payload.and_then(|payload| {
            let manifest = Manifest::read_any(&payload, Some(&row.media_type)).ok()?;
            Some(Fetched {
                digest: *digest,
                payload,
                manifest,
            })
        }))
    }

    /// What holds for a tag that is here when the upstream does not say what it points to.
    async fn without_upstream(&self, tag: &TagName, trouble: Trouble) -> Result<Outcome, Trouble> {
        let Some(error) = trouble.upstream() else {
            return Err(trouble);
        };
        if matches!(error, UpstreamError::Absent { .. }) {
            if self.cache.config.tags.keep_deleted {
                return Ok(Outcome::Stale("the upstream has deleted this tag".into()));
            }
            self.drop_tag(tag).await?;
            return Err(trouble);
        }
        if is_young(&self.cache, self.checked(tag).await?) {
            return Ok(Outcome::Stale(error.to_string().into()));
        }
        Err(trouble)
    }

    async fn checked(&self, tag: &TagName) -> Result<Option<Time>, Trouble> {
        let store = self.registry.cached.remotes.store();
        Ok(store.tag_checked(&self.repository, tag).await?)
    }

    async fn note(&self, tag: &TagName) -> Result<(), Trouble> {
        let now = Time::now();
        let cached = &self.registry.cached;
        cached
            .remotes
            .store()
            .note_tag_checked(&self.repository, tag, now)
            .await?;
        cached
            .checked
            .insert((self.repository.clone(), tag.to_string()), now);
        Ok(())
    }

    /// Deletes a tag that the upstream has deleted.
    async fn drop_tag(&self, tag: &TagName) -> Result<(), Trouble> {
        let now = Time::now();
        let by = Deletion {
            until: now,
            principal: format!("cache/{}", self.cache.name),
            now,
            review_at: now.plus(self.registry.delays.review),
            immutable: Vec::new(),
            announce: self
                .tenant
                .announce(Kind::CacheDelete, Some(&self.repository.name)),
        };
        self.registry
            .metadata
            .delete_tag(&self.repository, tag, by)
            .await?;
        Ok(())
    }
}
