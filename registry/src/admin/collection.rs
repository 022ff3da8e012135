//! `/admin/v1/gc`: what waits for its collection, what was collected, and the switch.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::answer::{Answer, Body, Failure};
use super::patience;
use crate::audit::Outcome;
use crate::domain::RepositoryName;
use crate::lifecycle::collection::{CollectionError, Round, Switch};
use crate::metadata::Time;
use crate::metadata::configuration::Usage;
use crate::metadata::lifecycle::{MonthQuery, Purge, Queues};
use crate::rfc3339;

/// Longest hold in seconds: one that is forgotten does not stop the collector for ever.
const LONGEST_HOLD: u32 = 3600;
/// Purges that are told.
const PURGES: u32 = 100;

/// Where collection stands.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Whether nothing is collected, on any replica.
    paused: bool,
    /// Since when (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// Until when no object is deleted (RFC 3339), if a backup is being made.
    #[serde(skip_serializing_if = "Option::is_none")]
    held_until: Option<String>,
    /// Whether this process does a round that was asked for.
    running: bool,
    /// Why the last round that was asked for of this process failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// What waits.
    queues: Waiting,
    /// What this process has collected since it began.
    collected: Collected,
    /// What is deleted as a whole. At most 100.
    purges: Vec<Purged>,
}

/// What waits for its collection; counts are exact up to 100,000.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Manifests to be looked at.
    manifests: u64,
    /// Blobs to be looked at.
    blobs: u64,
    /// Objects to be deleted.
    objects: u64,
    /// Their bytes.
    object_bytes: u64,
    /// When the oldest of what is due was due (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_due: Option<String>,
}

/// What was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Collected {
    /// Manifests.
    manifests: u64,
    /// Blobs.
    blobs: u64,
    /// Objects whose bytes are free.
    objects: u64,
    /// Bytes of the manifests and blobs.
    bytes: u64,
}

/// Content that is deleted as a whole.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Purged {
    /// Name that the tenant had, or has.
    tenant: String,
    /// Name that the repository had; absent if all of the tenant goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    /// When that was asked for (RFC 3339).
    requested_at: String,
    /// What of it is still counted.
    left: Left,
}

/// What is left of something.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Left {
    /// Bytes.
    bytes: u64,
    /// Tags.
    tags: u64,
    /// Repositories.
    repositories: u64,
}

/// What came of a round that was asked for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ran {
    /// Whether it has ended; else it goes on.
    done: bool,
    /// What was collected by it; if it goes on, what this process has collected meanwhile.
    #[serde(flatten)]
    collected: Collected,
}

/// How the last round ended that was asked for; whoever asked may not have waited for its end.
#[derive(Debug, Default, Clone)]
pub struct LastRound(Arc<Mutex<Option<String>>>);

impl LastRound {
    fn error(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, error: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    async fn of<T, E: Display>(&self, round: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        // What panics says nothing any more.
        self.set(Some("it did not come to its end; the log says why".to_owned()));
        let outcome = round.await;
        self.set(outcome.as_ref().err().map(ToString::to_string));
        outcome
    }
}

/// What the switch is to say.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pausing {
    /// Whether nothing is collected.
    paused: bool,
}

/// What the switch says.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Paused {
    /// Whether nothing is collected.
    paused: bool,
    /// Since when (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
}

/// For how long no object is to be deleted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Holding {
    /// From now on; at most 3600.
    seconds: u32,
}

/// Until when no object is deleted.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Held {
    /// RFC 3339.
    until: String,
}

/// Where collection stands.
pub async fn show(State(admin): State<Admin>) -> Answer<Standing> {
    let switch = admin.keeper.switch().await?;
    let mut purges = Vec::new();
    for purge in admin
        .keeper
        .store()
        .pending_purges((0, String::new()), PURGES)
        .await?
    {
        purges.push(purged(&admin, purge).await?);
    }
    let running = admin.collecting.try_lock().is_err();
    Ok(Json(Standing {
        paused: switch.paused,
        since: since(&switch),
        held_until: admin.keeper.held_until().await?.map(rfc3339::write),
        running,
        last_error: (!running).then(|| admin.collecting_failed.error()).flatten(),
        queues: waiting(admin.keeper.queues().await?),
        collected: admin.keeper.collected().into(),
        purges,
    }))
}

/// Collects all that is due now, also while collection is paused; what takes longer than the request goes on.
pub async fn run(State(admin): State<Admin>) -> Result<(StatusCode, Json<Ran>), Failure> {
    let running = |_| {
        let message = "a round that was asked for is under way; wait for its end";
        Failure::new(StatusCode::CONFLICT, "Running", message)
    };
    let alone = Arc::clone(&admin.collecting).try_lock_owned().map_err(running)?;
    let before: Collected = admin.keeper.collected().into();
    admin.note(None, "gc.run", "gc", Outcome::Done, "").await;
    let (keeper, last) = (admin.keeper.clone(), admin.collecting_failed.clone());
    let round = patience::begin(async move {
        let round = last.of(keeper.collect_all()).await;
        drop(alone);
        round
    })
    .await?;
    Ok(match round.transpose()? {
        Some(round) => (
            StatusCode::OK,
            Json(Ran {
                done: true,
                collected: round.into(),
            }),
        ),
        None => {
            let collected = Collected::from(admin.keeper.collected()).since(before);
            (
                StatusCode::ACCEPTED,
                Json(Ran {
                    done: false,
                    collected,
                }),
            )
        }
    })
}

/// Pauses collection on all replicas, or lets it go on.
pub async fn pause(State(admin): State<Admin>, Body(wanted): Body<Pausing>) -> Answer<Paused> {
    let mut switch = admin.keeper.switch().await?;
    // Said again, it changes nothing.
    if switch.paused != wanted.paused {
        switch = admin.keeper.pause(wanted.paused).await?;
        let action = if wanted.paused { "gc.pause" } else { "gc.resume" };
        admin.note(None, action, "gc", Outcome::Done, "").await;
    }
    Ok(Json(Paused {
        paused: switch.paused,
        since: since(&switch),
    }))
}

/// Has no replica delete an object for a while: whoever makes a backup asks for it again and again. A longer hold of
/// somebody else stays.
pub async fn hold(State(admin): State<Admin>, Body(wanted): Body<Holding>) -> Answer<Held> {
    let wanted = Duration::from_secs(wanted.seconds.min(LONGEST_HOLD).into());
    let until = admin.keeper.hold_objects(wanted).await?;
    Ok(Json(Held {
        until: rfc3339::write(until),
    }))
}

fn since(switch: &Switch) -> Option<String> {
    switch.paused.then(|| rfc3339::write(Time(switch.since)))
}

async fn purged(admin: &Admin, purge: Purge) -> Result<Purged, Failure> {
    let left = left(admin, &purge).await?;
    let (repository, _) = named(&purge.repository);
    Ok(Purged {
        tenant: named(&purge.tenant_name).0.to_owned(),
        repository: (!repository.is_empty()).then(|| repository.to_owned()),
        requested_at: rfc3339::write(purge.requested_at),
        left: Left {
            bytes: left.bytes,
            tags: left.tags,
            repositories: left.repositories,
        },
    })
}

async fn left(admin: &Admin, purge: &Purge) -> Result<Usage, Failure> {
    if purge.repository.is_empty() {
        return Ok(admin.store.usage(purge.tenant).await?);
    }
    let (_, id) = named(&purge.repository);
    let counted = if let Some(id) = id {
        let query = MonthQuery {
            month: 0,
            tenant: Some(purge.tenant),
            repositories: true,
            after: (purge.tenant.0, id - 1),
            limit: 1,
        };
        let rows = admin.keeper.store().month(query).await?;
        rows.into_iter()
            .find(|row| row.repository_id == id)
            .map(|row| row.usage)
    } else if let Ok(name) = purge.repository.parse::<RepositoryName>() {
        admin.store.repository_usage(purge.tenant, &name).await?
    } else {
        None
    };
    // Itself is still there.
    Ok(counted.map_or(Usage::default(), |usage| Usage {
        repositories: 1,
        ..usage
    }))
}

/// The name that something had before it was given up, and its row id, which its name has since.
pub(super) fn named(stored: &str) -> (&str, Option<i64>) {
    match stored.rsplit_once('~') {
        Some((name, id)) => (name, id.parse().ok()),
        None => (stored, None),
    }
}

fn waiting(queues: Queues) -> Waiting {
    Waiting {
        manifests: queues.manifests,
        blobs: queues.blobs,
        objects: queues.objects,
        object_bytes: queues.object_bytes,
        oldest_due: queues.oldest_due.map(rfc3339::write),
    }
}

impl Collected {
    fn since(self, before: Self) -> Self {
        Self {
            manifests: self.manifests - before.manifests,
            blobs: self.blobs - before.blobs,
            objects: self.objects - before.objects,
            bytes: self.bytes - before.bytes,
        }
    }
}

impl From<Round> for Collected {
    fn from(round: Round) -> Self {
        Self {
            manifests: round.manifests,
            blobs: round.blobs,
            objects: round.objects,
            bytes: round.bytes,
        }
    }
}

impl From<CollectionError> for Failure {
    fn from(error: CollectionError) -> Self {
        match error {
            CollectionError::Metadata(error) => error.into(),
            CollectionError::Blobs(error) => {
                tracing::error!(%error, "admin API");
                let message = "the blob store does not answer; try again";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn why_a_round_failed_is_known_until_the_next_one() {
        let last = LastRound::default();
        assert_eq!(last.error(), None);
        let failing = last.of(async { Err::<(), _>("no answer") });
        assert_eq!(failing.await, Err("no answer"));
        assert_eq!(last.error().as_deref(), Some("no answer"));
        let panicking = last.clone();
        let task = tokio::spawn(async move {
            panicking
                .of(async {
                    if true {
                        panic!("on purpose")
                    } else {
                        Ok::<(), &str>(())
                    }
                })
                .await
        });
        assert!(task.await.is_err());
        assert!(
            last.error()
                .is_some_and(|error| error.contains("the log says why"))
        );
        last.of(async { Ok::<_, &str>(()) }).await.unwrap();
        assert_eq!(last.error(), None);
    }

    #[test]
    fn what_was_given_up_is_told_by_its_old_name() {
        assert_eq!(named("team/app~12"), ("team/app", Some(12)));
        assert_eq!(named("acme"), ("acme", None));
    }
}
