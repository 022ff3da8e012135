//! The trait of events, over whichever database this file is compiled for.

use async_trait::async_trait;
use uuid::Uuid;

use super::super::events::{DeadLetter, Delivery, Events, NewEvent, Replay, Tried, WebhookKey, WebhookState};
use super::super::{Result, TenantId, Time};
use super::{Database, dead_letters, deliveries, outbox};

#[async_trait]
impl Events for Database {
    async fn announce(&self, tenant: TenantId, event: NewEvent) -> Result<bool> {
        self.write((tenant, event), |c, (tenant, event)| {
            Box::pin(outbox::announce(c, *tenant, event))
        })
        .await
    }

    async fn has_due_webhooks(&self, now: Time) -> Result<bool> {
        self.read(now, |c, now| Box::pin(deliveries::has_due(c, *now)))
            .await
    }

    async fn claim_webhooks(&self, by: Uuid, now: Time, until: Time, limit: u32) -> Result<Vec<WebhookKey>> {
        self.write_later((by, now, until, limit), |c, (by, now, until, limit)| {
            Box::pin(deliveries::claim(c, *by, *now, *until, *limit))
        })
        .await
    }

    async fn deliverable(&self, key: &WebhookKey, now: Time, limit: u32) -> Result<Vec<Delivery>> {
        self.read((key.clone(), now, limit), |c, (key, now, limit)| {
            Box::pin(deliveries::deliverable(c, key, *now, *limit))
        })
        .await
    }

    async fn settle(&self, key: &WebhookKey, seq: i64, tried: Tried, now: Time) -> Result<()> {
        let asked = (key.clone(), seq, tried, now);
        self.write_later(asked, |c, (key, seq, tried, now)| {
            Box::pin(deliveries::settle(c, key, *seq, tried, *now))
        })
        .await
    }

    async fn give_up_held(
        &self,
        key: &WebhookKey,
        seq: i64,
        before: Time,
        now: Time,
        limit: u32,
    ) -> Result<u64> {
        let asked = (key.clone(), seq, before, now, limit);
        self.write_later(asked, |c, (key, seq, before, now, limit)| {
            Box::pin(dead_letters::give_up_held(c, key, *seq, *before, *now, *limit))
        })
        .await
    }

    async fn release_webhook(&self, key: &WebhookKey, by: Uuid, then: Time) -> Result<()> {
        self.write_later((key.clone(), by, then), |c, (key, by, then)| {
            Box::pin(deliveries::release(c, key, *by, *then))
        })
        .await
    }

    async fn end_webhook_claims(&self) -> Result<()> {
        self.write((), |c, ()| Box::pin(deliveries::end_claims(c))).await
    }

    async fn drop_webhook(&self, key: &WebhookKey, before: Time, now: Time, limit: u32) -> Result<u64> {
        let asked = (key.clone(), before, now, limit);
        self.write_later(asked, |c, (key, before, now, limit)| {
            Box::pin(dead_letters::drop_webhook(c, key, *before, *now, *limit))
        })
        .await
    }

    async fn webhook_states(&self, tenant: TenantId) -> Result<Vec<WebhookState>> {
        self.read(tenant, |c, tenant| Box::pin(deliveries::states(c, *tenant)))
            .await
    }

    async fn known_webhooks(&self, after: Option<WebhookKey>, limit: u32) -> Result<Vec<WebhookKey>> {
        self.read((after, limit), |c, (after, limit)| {
            Box::pin(deliveries::known(c, after.as_ref(), *limit))
        })
        .await
    }

    async fn dead_letters(&self, key: &WebhookKey, before: i64, limit: u32) -> Result<Vec<DeadLetter>> {
        self.read((key.clone(), before, limit), |c, (key, before, limit)| {
            Box::pin(deliveries::dead(c, key, *before, *limit))
        })
        .await
    }

    async fn replay(&self, key: &WebhookKey, which: Replay, now: Time) -> Result<u64> {
        self.write((key.clone(), which, now), |c, (key, which, now)| {
            Box::pin(dead_letters::replay(c, key, which, *now))
        })
        .await
    }

    async fn forget_dead(&self, before: Time, limit: u32) -> Result<u64> {
        self.write_later((before, limit), |c, (before, limit)| {
            Box::pin(dead_letters::forget_dead(c, *before, *limit))
        })
        .await
    }
}
