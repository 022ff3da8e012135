//! The outbox: what has happened, for the webhooks that want to hear of it.
//!
//! An event is written in the transaction of what it tells, once for each webhook that wants it, and only then: whoever
//! changes something says in [`Announce`] who wants to hear of it, and nothing costs nothing. Events of one place (a tag,
//! mostly) go out in the order of their commits, since the next becomes due only when the one before it is delivered or
//! given up. A replica claims a webhook as a whole; a claim ends by itself, so that a killed replica holds nothing up.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Result, TenantId, Time};

/// Who wants to hear of a change, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announce {
    /// Types of the events, for tags and else.
    pub kind: Kind,
    /// Ids of the webhooks, each once; not empty.
    pub webhooks: Arc<[String]>,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A tag or manifest was pushed.
    Push,
    /// A deleted tag was brought back.
    Restore,
    /// A tag, a manifest or a repository was deleted because somebody asked for it.
    Delete,
    /// A retention policy deleted a tag.
    Retention,
    /// A tag's time was over.
    Expiry,
    /// A push was refused, since a quota is used up.
    QuotaExceeded,
    /// A quota is nearly used up.
    QuotaThreshold,
    /// A cache has fetched a tag for the first time, or one that the upstream has moved.
    CacheFetch,
    /// A cache has dropped a tag that the upstream has deleted.
    CacheDelete,
    /// A cache's upstream does not answer any more.
    CacheUnreachable,
    /// It does again.
    CacheRecovered,
    /// Somebody wants to know whether a webhook works.
    Test,
}

impl Kind {
    /// The event's type in CloudEvents.
    pub fn text(self) -> &'static str {
        match self {
            Self::Push => "dev.berth.registry.push",
            Self::Restore => "dev.berth.registry.restore",
            Self::Delete => "dev.berth.registry.delete",
            Self::Retention => "dev.berth.registry.retention.delete",
            Self::Expiry => "dev.berth.registry.retention.expire",
            Self::QuotaExceeded => "dev.berth.registry.quota.exceeded",
            Self::QuotaThreshold => "dev.berth.registry.quota.threshold",
            Self::CacheFetch => "dev.berth.registry.cache.fetch",
            Self::CacheDelete => "dev.berth.registry.cache.delete",
            Self::CacheUnreachable => "dev.berth.registry.cache.unreachable",
            Self::CacheRecovered => "dev.berth.registry.cache.recovered",
            Self::Test => "dev.berth.registry.test",
        }
    }
}

/// An event to be written by itself: what it tells has changed nothing that is stored.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Who wants to hear of it.
    pub announce: Announce,
    /// What it is about.
    pub subject: String,
    /// Its place: within one the order is kept.
    pub place: String,
    /// What it says.
    pub data: Map<String, Value>,
    /// When.
    pub now: Time,
    /// If it is told once, and not each time.
    pub once: Option<Once>,
}

/// An event that is told when something has become so, and at most so often while it stays so.
#[derive(Debug, Clone)]
pub struct Once {
    /// Of what.
    pub name: String,
    /// What has become of it.
    pub state: String,
    /// Told again if it was last told before this.
    pub before: Time,
}

/// A webhook of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebhookKey {
    /// Whose.
    pub tenant: TenantId,
    /// Its id.
    pub webhook: String,
}

/// An event on its way to a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its number with this webhook.
    pub seq: i64,
    /// The event's id, the same for all webhooks and tries.
    pub event: Uuid,
    /// Its type.
    pub kind: String,
    /// What it is about.
    pub subject: String,
    /// When it happened.
    pub at: Time,
    /// What it says, as JSON.
    pub data: String,
    /// Tries that failed.
    pub attempts: u64,
    /// From when on it is tried.
    pub since: Time,
}

/// What became of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// The receiver has it.
    Delivered,
    /// It is tried again then.
    Again {
        /// When.
        at: Time,
        /// Why it failed.
        why: String,
    },
    /// It is not tried again.
    Dead {
        /// Why it failed.
        why: String,
    },
}

/// How a webhook fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookState {
    /// Its id.
    pub webhook: String,
    /// Events that wait, counted up to 100,000.
    pub pending: u64,
    /// Events that were given up, counted up to 100,000.
    pub dead: u64,
    /// When the oldest that waits happened.
    pub oldest: Option<Time>,
    /// The last delivery.
    pub delivered_at: Option<Time>,
    /// The last failure, and why. At most 512 bytes of text are kept.
    pub failed: Option<(Time, String)>,
}

/// An event that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event.
    pub delivery: Delivery,
    /// When it was given up.
    pub dead_at: Time,
    /// Why the last try failed.
    pub why: String,
}

/// Which dead letters are tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// The one of this event.
    One(Uuid),
    /// The oldest, at most so many.
    Oldest(u32),
}

/// Events, webhooks, deliveries.
#[async_trait]
pub trait Events: Send + Sync + 'static {
    /// Writes an event; false if it is told once and was told already.
    async fn announce(&self, tenant: TenantId, event: NewEvent) -> Result<bool>;

    /// Whether any webhook has something to deliver at `now` and is nobody's.
    async fn has_due_webhooks(&self, now: Time) -> Result<bool>;

    /// Claims up to `limit` webhooks that have something to deliver, those that have waited the longest first.
    async fn claim_webhooks(&self, by: Uuid, now: Time, until: Time, limit: u32) -> Result<Vec<WebhookKey>>;

    /// Up to `limit` events that are to go out now, at most one of each place.
    async fn deliverable(&self, key: &WebhookKey, now: Time, limit: u32) -> Result<Vec<Delivery>>;

    /// Notes what became of a try. Of no effect on an event that is gone, or dead already.
    async fn settle(&self, key: &WebhookKey, seq: i64, tried: Tried, now: Time) -> Result<()>;

    /// Gives up to `limit` events up, oldest first, that have waited since before `before` for the event `seq` of their
    /// place; how many. Of no effect if that one is gone, or dead already.
    async fn give_up_held(
        &self,
        key: &WebhookKey,
        seq: i64,
        before: Time,
        now: Time,
        limit: u32,
    ) -> Result<u64>;

    /// Gives a claim up; the webhook's next turn does not come before `then`. Of no effect if it is another's by now.
    async fn release_webhook(&self, key: &WebhookKey, by: Uuid, then: Time) -> Result<()>;

    /// Ends all claims. Only for a process that knows that it is alone with the store.
    async fn end_webhook_claims(&self) -> Result<()>;

    /// Forgets up to `limit` events of a webhook that happened before `before`, dead ones included, and the webhook once
    /// it has none; how many. What waited for one of these may go out at `now`.
    async fn drop_webhook(&self, key: &WebhookKey, before: Time, now: Time, limit: u32) -> Result<u64>;

    /// How a tenant's webhooks fare that have had an event.
    async fn webhook_states(&self, tenant: TenantId) -> Result<Vec<WebhookState>>;

    /// The webhooks of all tenants that have had an event, after `after`.
    async fn known_webhooks(&self, after: Option<WebhookKey>, limit: u32) -> Result<Vec<WebhookKey>>;

    /// Up to `limit` dead letters of a webhook with numbers below `before`, newest first.
    async fn dead_letters(&self, key: &WebhookKey, before: i64, limit: u32) -> Result<Vec<DeadLetter>>;

    /// Has dead letters tried again; how many.
    async fn replay(&self, key: &WebhookKey, which: Replay, now: Time) -> Result<u64>;

    /// Forgets up to `limit` dead letters given up before `before`; how many.
    async fn forget_dead(&self, before: Time, limit: u32) -> Result<u64>;
}
