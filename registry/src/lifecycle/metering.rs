//! What is stored over time: hourly samples, months, prices; and the nightly recount of the counters.

use std::sync::Arc;
use std::time::Duration;

use berth_crds::Billing;
use serde::{Deserialize, Serialize};
use tracing::Instrument as _;

use super::keeper::{Keeper, count};
use crate::metadata::lifecycle::{JobKey, JobKind};
use crate::metadata::{MetadataError, Repository, TenantId, Time};
use crate::telemetry::span;

/// Between two looks at the clock.
const EVERY: Duration = Duration::from_secs(15);
/// How long a replica may be silent before another one takes a job over.
const CLAIM: Duration = Duration::from_secs(300);
const HOUR: i64 = 3_600_000_000;
/// Hours of which a process that was down makes up for; with nobody to sample, what was stored stayed so.
const CATCH_UP: i64 = 31 * 24;
/// Hours of a month, by agreement.
const MONTH: u128 = 730;
/// Bytes that the price is for.
const UNIT: u128 = 1_000_000_000;
/// Hourly samples are kept for this many hours.
const SAMPLES_KEPT: i64 = 2 * 366 * 24;
/// Rows of one statement that forgets.
const FORGET: u32 = 5000;
/// Between two recounts.
const RECOUNT: Duration = Duration::from_secs(24 * 3600);
/// Tenants or repositories of one query.
const PAGE: u32 = 500;

/// What stored bytes cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// Of 10⁹ bytes and a month of 730 hours, in millionths of the currency.
    pub micros: u64,
    /// Three letters.
    pub currency: String,
}

impl Price {
    /// What a tenant pays.
    pub fn of(&self, billing: Option<&Billing>) -> Self {
        let own = billing.and_then(|billing| Some((billing.price_micros()?, billing.currency.clone())));
        match own {
            Some((micros, currency)) => Self {
                micros,
                currency: currency.unwrap_or_else(|| self.currency.clone()),
            },
            None => self.clone(),
        }
    }

    /// The price as text.
    pub fn text(&self) -> String {
        shortened(self.micros, 2)
    }

    /// What these byte-hours cost, with six decimals, rounded half up.
    pub fn cost(&self, byte_hours: u64) -> String {
        let micros = u128::from(byte_hours) * u128::from(self.micros);
        let rounded = (micros + UNIT * MONTH / 2) / (UNIT * MONTH);
        format!("{}.{:06}", rounded / 1_000_000, rounded % 1_000_000)
    }
}

/// Byte-hours as hours of 2³⁰ bytes, with three decimals, rounded down.
pub fn gib_hours(byte_hours: u64) -> String {
    let thousandths = u128::from(byte_hours) * 1000 / (1 << 30);
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

/// Millionths as a decimal number with at least so many decimals.
fn shortened(micros: u64, least: usize) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let point = text.len() - 6;
    let trimmed = text.trim_end_matches('0').len().max(point + least);
    text[..trimmed].to_owned()
}

/// A month as the store keeps it: year times 100, plus 1 to 12.
pub fn month_of(time: Time) -> i64 {
    let date = time::OffsetDateTime::from_unix_timestamp(time.0.div_euclid(1_000_000));
    date.map_or(197_001, |date| {
        i64::from(date.year()) * 100 + i64::from(u8::from(date.month()))
    })
}

/// Reads a month like `2026-11`.
pub fn read_month(text: &str) -> Result<i64, String> {
    let read = || {
        let (year, month) = text.split_once('-')?;
        let is_plain =
            year.len() == 4 && month.len() == 2 && text.bytes().all(|c| c == b'-' || c.is_ascii_digit());
        let (year, month): (i64, i64) = (year.parse().ok()?, month.parse().ok()?);
        (is_plain && (1..=12).contains(&month)).then_some(year * 100 + month)
    };
    read().ok_or_else(|| format!("{text:?} is no month; write it like 2026-11"))
}

/// Writes a month like `2026-11`.
pub fn write_month(month: i64) -> String {
    format!("{:04}-{:02}", month / 100, month % 100)
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Sampled {
    /// The last hour.
    hour: i64,
}

/// Samples and recounts for ever.
pub(super) async fn follow(keeper: Arc<Keeper>) {
    loop {
        if let Err(error) = keeper.sample(Time::now()).instrument(span::task("sample")).await {
            tracing::warn!(%error, "sampling what is stored failed; it is tried again");
        }
        if let Err(error) = keeper.recount_nightly().await {
            tracing::warn!(%error, "the recount failed; it is tried again");
        }
        tokio::time::sleep(EVERY).await;
    }
}

impl Keeper {
    /// Samples the hours that have begun since the last one.
    async fn sample(&self, now: Time) -> Result<(), MetadataError> {
        let key = JobKey::of(JobKind::Sample);
        let hour = now.0.div_euclid(HOUR);
        let Some(job) = self.take(&key, now, CLAIM).await? else {
            return Ok(());
        };
        let last = serde_json::from_str::<Sampled>(&job.state)
            .unwrap_or_default()
            .hour;
        // The first sample of all is that of this hour.
        let from = if last == 0 {
            hour
        } else {
            (last + 1).max(hour - CATCH_UP)
        };
        let next = Time((hour + 1) * HOUR);
        let state = serde_json::to_string(&Sampled { hour }).unwrap_or_default();
        if from <= hour {
            self.store
                .sample(&key, &self.name, (from, hour), state, next)
                .await?;
        } else {
            self.store
                .save_job(&key, &self.name, job.state, Some(next), Time(0))
                .await?;
        }
        Ok(())
    }

    async fn recount_nightly(&self) -> Result<(), MetadataError> {
        let (key, now) = (JobKey::of(JobKind::Recount), Time::now());
        let Some(job) = self.take(&key, now, CLAIM).await? else {
            return Ok(());
        };
        // Not around the statements: they are as many as there are repositories.
        let _spanned = span::task("recount");
        let mut after = 0;
        loop {
            let tenants = self.store.tenant_ids(after, PAGE).await?;
            let Some(last) = tenants.last() else { break };
            after = *last;
            for tenant in tenants {
                // What fails for one of them is no reason to leave out those behind it, tonight and every night.
                if let Err(error) = self.recount(TenantId(tenant)).await {
                    tracing::warn!(tenant, %error, "a tenant was not recounted; the next night's recount comes");
                }
                if let Err(error) = self.forget_history(TenantId(tenant), now).await {
                    tracing::warn!(tenant, %error, "a tenant's old history was not removed; it is tried again next night");
                }
                let until = Time::now().plus(CLAIM);
                self.store
                    .save_job(&key, &self.name, job.state.clone(), None, until)
                    .await?;
            }
        }
        while self
            .store
            .forget_samples(now.0.div_euclid(HOUR) - SAMPLES_KEPT, FORGET)
            .await?
            > 0
        {}
        let next = Some(now.plus(RECOUNT));
        self.store
            .save_job(&key, &self.name, job.state, next, Time(0))
            .await?;
        Ok(())
    }

    /// Recounts one tenant; how many counters were wrong. They are corrected.
    pub async fn recount(&self, tenant: TenantId) -> Result<usize, MetadataError> {
        let drifts = self.store.recount(tenant).await?;
        for drift in &drifts {
            tracing::error!(
                tenant = tenant.0,
                repository = drift.repository,
                counter = drift.counter,
                counted = drift.counted,
                found = drift.found,
                "a counter of what is stored was wrong; it has been corrected"
            );
        }
        count(&self.tally.drifts, drifts.len() as u64);
        Ok(drifts.len())
    }

    async fn forget_history(&self, tenant: TenantId, now: Time) -> Result<(), MetadataError> {
        let before = now.minus(self.history);
        let mut after = String::new();
        loop {
            let names = self.metadata.repositories(tenant, after, None, PAGE).await?;
            let Some(last) = names.last() else { return Ok(()) };
            after = last.clone();
            for name in names.iter().filter_map(|name| name.parse().ok()) {
                let repository = Repository { tenant, name };
                while self.store.forget_history(&repository, before, FORGET).await? > 0 {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sqlx::SqlitePool;
    use sqlx::sqlite::SqliteConnectOptions;

    use super::*;
    use crate::audit::Audit;
    use crate::blobs::{self, budget::Budget};
    use crate::lifecycle::Parts;
    use crate::metadata;
    use crate::metadata::configuration::FirstTenant;
    use crate::settings::Delays;
    use crate::tenancy::Directory;

    /// A keeper of an SQLite store whose only tenant is `acme`, and a look behind the store.
    async fn keeper(folder: &Path) -> (Arc<Keeper>, SqlitePool) {
        let file = folder.join("berth.db");
        let url = format!("sqlite:{}", file.display());
        let opened = metadata::open(&url, &metadata::Options::default()).await.unwrap();
        let first = FirstTenant {
            name: "acme".parse().unwrap(),
            spec: "{}".to_owned(),
            now: Time::now(),
        };
        opened.configuration.first_tenant(first).await.unwrap();
        let blobs = format!("folder:{}", folder.join("blobs").display());
        let directory = Directory::open(opened.configuration.clone(), Arc::new(Vec::new));
        let keeper = Keeper::new(Parts {
            metadata: opened.store,
            store: opened.lifecycle,
            blobs: blobs::open::open(&blobs, Budget::new(1)).await.unwrap(),
            directory: directory.await.unwrap(),
            audit: Audit::logging(),
            delays: Delays {
                lease: Duration::ZERO,
                review: Duration::ZERO,
                object: Duration::ZERO,
                url: Duration::ZERO,
                restore: Duration::ZERO,
            },
            rate: 1,
            history: Duration::ZERO,
            price: price("0"),
            tells_tenants: false,
        });
        let tables = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&file));
        (keeper, tables.await.unwrap())
    }

    #[tokio::test]
    async fn a_tenant_that_cannot_be_recounted_keeps_no_other_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, tables) = keeper(folder.path()).await;
        for statement in [
            // A name that is no text cannot be read.
            "INSERT INTO tenant (id, name, uid, created_at) VALUES (1, 'first', 'u', 0)",
            "INSERT INTO repository (id, tenant_id, name, created_at) VALUES (1, 1, x'ff', 0)",
            "INSERT INTO usage (tenant_id, repository_id, tags) SELECT id, 0, 7 FROM tenant WHERE name = 'acme'",
        ] {
            sqlx::query(statement).execute(&tables).await.unwrap();
        }
        assert!(keeper.recount(TenantId(1)).await.is_err());
        keeper.recount_nightly().await.unwrap();
        let tags: i64 = sqlx::query_scalar("SELECT sum(tags) FROM usage")
            .fetch_one(&tables)
            .await
            .unwrap();
        assert_eq!(tags, 0, "what was wrong of the other one is corrected");
        let job = keeper.store().job(&JobKey::of(JobKind::Recount)).await.unwrap();
        assert!(
            job.unwrap().due_at > Time::now().plus(RECOUNT / 2),
            "it is done for tonight"
        );
    }

    fn price(text: &str) -> Price {
        Price {
            micros: berth_crds::price_micros(text).unwrap(),
            currency: "USD".into(),
        }
    }

    #[test]
    fn a_terabyte_for_a_month_costs_a_thousand_times_the_price() {
        assert_eq!(price("0.20").cost(1_000_000_000_000 * 730), "200.000000");
        assert_eq!(price("0.20").cost(0), "0.000000");
        assert_eq!(price("0.000001").cost(u64::MAX), "25.269512");
        assert_eq!(
            price("1").cost(365_000),
            "0.000001",
            "half of a millionth is rounded up"
        );
        assert_eq!(price("1").cost(364_999), "0.000000");
    }

    #[test]
    fn prices_months_and_hours_are_written_as_they_are_read() {
        for (text, shown) in [
            ("0.20", "0.20"),
            ("0.023", "0.023"),
            ("5", "5.00"),
            ("0.000001", "0.000001"),
        ] {
            assert_eq!(price(text).text(), shown);
        }
        assert_eq!(gib_hours(3 << 29), "1.500");
        assert_eq!(read_month("2026-11").map(write_month).as_deref(), Ok("2026-11"));
        for wrong in [
            "2026", "2026-13", "2026-00", "26-11", "2026-1", "2026-+1", "-026-11",
        ] {
            assert!(read_month(wrong).is_err(), "{wrong}");
        }
        assert_eq!(month_of(Time(1_764_115_200_000_000)), 202_511);
    }

    #[test]
    fn a_tenants_own_price_goes_before_that_of_the_installation() {
        let own = Billing {
            price: Some("1.5".into()),
            currency: Some("EUR".into()),
        };
        let everyone = price("0.20");
        assert_eq!(everyone.of(Some(&own)).text(), "1.50");
        assert_eq!(everyone.of(Some(&own)).currency, "EUR");
        assert_eq!(everyone.of(Some(&Billing::default())), everyone);
        assert_eq!(everyone.of(None), everyone);
    }
}
