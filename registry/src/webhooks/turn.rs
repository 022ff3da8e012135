//! What a replica does for one webhook while it has claimed it: a turn, after which others have theirs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};

use super::Webhooks;
use super::attempt::{Answered, host};
use super::schedule::Failed;
use crate::metadata::events::{Delivery, Tried, WebhookKey};
use crate::metadata::{MetadataError, Time};
use crate::tenancy::webhooks::Webhook;
use crate::tenancy::{Snapshot, Tenant};

/// After this long no further delivery of a turn begins. With the time that one may take it is less than a claim.
const TURN: Duration = Duration::from_secs(15);
/// Deliveries to one webhook at the same time.
pub(super) const AT_ONCE: usize = 8;
/// Events that are read at once.
const BATCH: u32 = 64;
/// A turn ends when so many deliveries in a row got no answer.
const MISSES: u32 = 8;
/// And the next one comes no sooner than this.
const PAUSE: Duration = Duration::from_secs(5);
/// Events that are given up in one transaction.
const GIVEN_UP_AT_ONCE: u32 = 1000;

impl Webhooks {
    /// Delivers what is due, for a while, and gives the webhook back.
    pub(super) async fn turn(&self, key: &WebhookKey) {
        let snapshot = self.directory.now();
        let tenant = snapshot.tenant(key.tenant);
        let webhook = tenant.and_then(|tenant| Some((tenant, tenant.webhook(&key.webhook)?)));
        let done = match webhook {
            Some((tenant, webhook)) => self.deliver_due(&snapshot, tenant, webhook, key).await,
            // It is not configured any more, or this replica has not heard of it yet.
            None => self.drop_webhook(&snapshot, key).await.map(|()| PAUSE),
        };
        let pause = done.unwrap_or_else(|error| {
            tracing::warn!(%error, webhook = key.webhook, "a webhook's turn was cut short");
            PAUSE
        });
        let then = Time::now().plus(pause);
        if let Err(error) = self.store.release_webhook(key, self.name, then).await {
            tracing::warn!(%error, webhook = key.webhook, "a webhook was not given back; its claim ends by itself");
        }
    }

    /// How long to leave it alone then.
    async fn deliver_due(
        &self,
        snapshot: &Snapshot,
        tenant: &Tenant,
        webhook: &Webhook,
        key: &WebhookKey,
    ) -> Result<Duration, MetadataError> {
        let began = Instant::now();
        let misses = AtomicU32::new(0);
        let is_over = || began.elapsed() >= TURN || misses.load(Ordering::Relaxed) >= MISSES;
        while !is_over() {
            let due = self.store.deliverable(key, Time::now(), BATCH).await?;
            if due.is_empty() {
                break;
            }
            let deliver = async |delivery: Delivery| -> Result<(), MetadataError> {
                if is_over() {
                    return Ok(());
                }
                let answered = self.send(snapshot, tenant, webhook, &delivery).await;
                match &answered {
                    Answered::Unreached { .. } => drop(misses.fetch_add(1, Ordering::Relaxed)),
                    Answered::Taken { .. } | Answered::Refused { .. } => misses.store(0, Ordering::Relaxed),
                }
                self.settle(tenant, webhook, key, &delivery, answered).await
            };
            let results: Vec<_> = stream::iter(due)
                .map(deliver)
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            results.into_iter().collect::<Result<(), _>>()?;
        }
        let is_away = misses.load(Ordering::Relaxed) >= MISSES;
        Ok(if is_away { PAUSE } else { Duration::ZERO })
    }

    async fn settle(
        &self,
        tenant: &Tenant,
        webhook: &Webhook,
        key: &WebhookKey,
        delivery: &Delivery,
        answered: Answered,
    ) -> Result<(), MetadataError> {
        let now = Time::now();
        let (why, retry_after) = match answered {
            Answered::Taken { .. } => (None, None),
            Answered::Refused { why, retry_after, .. } => (Some(why), retry_after),
            Answered::Unreached { why } => (Some(why), None),
        };
        let tried = match why {
            None => Tried::Delivered,
            Some(why) => {
                let failed = Failed {
                    attempts: delivery.attempts,
                    since: delivery.since,
                    retry_after,
                    why,
                };
                self.patience.after(failed, now, rand::random())
            }
        };
        self.tally.count(tenant.name.as_str(), &tried);
        if matches!(tried, Tried::Dead { .. }) {
            self.give_up_held(tenant, webhook, key, delivery.seq, now).await?;
        }
        let (tenant, event, host) = (tenant.name.as_str(), delivery.event, host(&webhook.url));
        let webhook = webhook.id.as_str();
        match &tried {
            Tried::Delivered => {
                tracing::debug!(tenant, webhook, host, %event, kind = delivery.kind, "an event was delivered");
            }
            Tried::Again { why, .. } => {
                tracing::debug!(tenant, webhook, host, %event, why, "an event was not delivered; it will be tried again");
            }
            Tried::Dead { why } => {
                tracing::warn!(tenant, webhook, host, %event, why, "an event was given up; `berth-registry webhook dead` lists it");
            }
        }
        self.store.settle(key, delivery.seq, tried, now).await
    }

    /// Gives up what has waited for an event that is being given up for as long as events are tried: one after the other they
    /// would be tried for days, while others come.
    async fn give_up_held(
        &self,
        tenant: &Tenant,
        webhook: &Webhook,
        key: &WebhookKey,
        seq: i64,
        now: Time,
    ) -> Result<(), MetadataError> {
        let before = now.minus(self.patience.retry);
        let mut given_up = 0;
        loop {
            let held = self
                .store
                .give_up_held(key, seq, before, now, GIVEN_UP_AT_ONCE)
                .await?;
            self.tally.count_dead(tenant.name.as_str(), held);
            given_up += held;
            if held < u64::from(GIVEN_UP_AT_ONCE) {
                break;
            }
        }
        if given_up > 0 {
            tracing::warn!(
                tenant = tenant.name.as_str(),
                webhook = webhook.id,
                host = host(&webhook.url),
                given_up,
                "events that waited for one that was given up were given up with it"
            );
        }
        Ok(())
    }
}
