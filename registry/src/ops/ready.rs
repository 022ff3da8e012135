//! Whether the registry should get requests: its stores answer, and it is not draining.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::time::Instant;

use super::metrics::gauge;

/// How often each store is asked, and how long it may take.
const ASK_EVERY: Duration = Duration::from_secs(2);
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How long one answer counts: a single failure is not an outage.
const COUNTS_FOR: Duration = Duration::from_secs(7);

/// Asks one store whether it answers; the error is in words.
pub type Ask = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// Something that must answer for the registry to be ready.
pub struct Probe {
    /// What it is called in reasons, such as `metadata`.
    pub name: &'static str,
    /// Asks it.
    pub ask: Ask,
}

/// The cached answer to "ready?".
#[derive(Default)]
pub struct Readiness {
    draining: AtomicBool,
    /// Empty until the stores are open.
    seen: Mutex<Vec<Seen>>,
    /// Why they are not open yet, if that takes long.
    held_up: Mutex<String>,
    warn: OnceLock<Warn>,
}

/// What whoever runs the registry should know although requests may come.
type Warn = Box<dyn Fn() -> Option<String> + Send + Sync>;

#[derive(Debug)]
struct Seen {
    name: &'static str,
    answered: Option<Instant>,
    failure: String,
}

impl Seen {
    fn is_up(&self) -> bool {
        self.answered.is_some_and(|at| at.elapsed() <= COUNTS_FOR)
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readiness")
    }
}

/// Shows whether the process is ready, and which store keeps it from that.
#[derive(Debug)]
pub(super) struct States(pub(super) Arc<Readiness>);

impl Collector for States {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let is_ready = self.0.reasons().is_empty();
        let help = "1 while /readyz says that requests may come";
        gauge(&mut encoder, "ready", help, i64::from(is_ready))?;
        let help = "1 while this store answers; absent until it was first asked";
        let mut family = encoder.encode_descriptor("store_up", help, None, MetricType::Gauge)?;
        for one in &*self.0.seen.lock().unwrap_or_else(PoisonError::into_inner) {
            let value = ConstGauge::new(i64::from(one.is_up()));
            value.encode(family.encode_family(&[("store", one.name)])?)?;
        }
        Ok(())
    }
}

impl Readiness {
    /// From now on the registry is not ready.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Why the registry is not ready; empty when it is.
    pub fn reasons(&self) -> Vec<String> {
        if self.draining.load(Ordering::Relaxed) {
            return vec!["the registry is draining".to_owned()];
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_empty() {
            let held_up = self.held_up.lock().unwrap_or_else(PoisonError::into_inner);
            return match held_up.as_str() {
                "" => vec!["the registry is starting".to_owned()],
                why => vec![format!("the registry is starting: {why}")],
            };
        }
        seen.iter()
            .filter(|one| !one.is_up())
            .map(|one| format!("{}: {}", one.name, one.failure))
            .collect()
    }

    /// Says why the stores are not open yet.
    pub fn is_held_up(&self, why: &str) {
        why.clone_into(&mut self.held_up.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Has answers carry what this says, while it says something. Once.
    pub fn warn_by(&self, warn: impl Fn() -> Option<String> + Send + Sync + 'static) {
        if self.warn.set(Box::new(warn)).is_err() {
            tracing::error!("a further warning of readiness is not shown");
        }
    }

    /// What is not as it should be, although the registry is ready.
    pub fn warning(&self) -> Option<String> {
        self.warn.get().and_then(|warn| warn())
    }

    /// Asks the stores for ever. The registry is ready once each has answered.
    pub async fn watch(&self, probes: Vec<Probe>) {
        let unasked = |probe: &Probe| Seen {
            name: probe.name,
            answered: None,
            failure: "it has not answered yet".to_owned(),
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = probes.iter().map(unasked).collect();
        // Each store has its own pace, so that one that hangs does not keep another from being asked.
        let each = probes
            .iter()
            .enumerate()
            .map(|(index, probe)| self.watch_one(index, probe));
        futures_util::future::join_all(each).await;
    }

    async fn watch_one(&self, index: usize, probe: &Probe) {
        loop {
            let answer = match tokio::time::timeout(ANSWER_WITHIN, (probe.ask)()).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("it did not answer within {} s", ANSWER_WITHIN.as_secs())),
            };
            self.note(index, answer);
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    fn note(&self, index: usize, answer: Result<(), String>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(one) = seen.get_mut(index) else { return };
        match answer {
            Ok(()) => {
                if !one.failure.is_empty() && one.answered.is_some() {
                    tracing::info!(store = one.name, "the store answers again");
                }
                one.failure.clear();
                one.answered = Some(Instant::now());
            }
            Err(failure) => {
                if one.failure != failure {
                    tracing::warn!(store = one.name, failure, "the store does not answer");
                }
                one.failure = failure;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(up: &Arc<AtomicBool>) -> Vec<Probe> {
        let up = up.clone();
        let ask: Ask = Box::new(move || {
            let answer = if up.load(Ordering::Relaxed) {
                Ok(())
            } else {
                Err("down".to_owned())
            };
            Box::pin(async move { answer })
        });
        vec![Probe {
            name: "metadata",
            ask,
        }]
    }

    /// Lets the watch run for a while; time is the test's own.
    async fn pass(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_registry_is_ready_once_its_stores_answered_and_not_while_they_stay_away() {
        let readiness = Arc::new(Readiness::default());
        assert_eq!(readiness.reasons(), ["the registry is starting"]);
        let up = Arc::new(AtomicBool::new(true));
        let watch = tokio::spawn({
            let (readiness, probes) = (readiness.clone(), store(&up));
            async move { readiness.watch(probes).await }
        });
        pass(1).await;
        assert!(readiness.reasons().is_empty());
        up.store(false, Ordering::Relaxed);
        pass(4).await;
        assert!(
            readiness.reasons().is_empty(),
            "one missed answer is not an outage"
        );
        pass(8).await;
        assert_eq!(readiness.reasons(), ["metadata: down"]);
        up.store(true, Ordering::Relaxed);
        pass(3).await;
        assert!(readiness.reasons().is_empty());
        watch.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_draining_registry_is_not_ready() {
        let readiness = Readiness::default();
        readiness.drain();
        assert_eq!(readiness.reasons(), ["the registry is draining"]);
    }
}
