//! One leader at a time, by a Lease.
//!
//! kube-runtime has no leader election. Whether the holder is silent is judged by this process' own clock, from
//! when it last saw the Lease change, so that clocks of machines need not agree. The Lease alone does not fence: a
//! leader that was frozen finds out too late; the registry's term does ([`crate::registry`]).

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::backoff::jittered;

/// A Lease to be held.
#[derive(Debug, Clone)]
pub struct Leadership {
    api: Api<Lease>,
    name: String,
    identity: String,
    duration: Duration,
}

/// What a Lease was when it was last seen to change.
struct Sighting {
    version: Option<String>,
    at: Instant,
}

impl Leadership {
    /// Of this process.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, duration: Duration) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            duration,
        }
    }

    /// Waits until the Lease is this process'.
    pub async fn acquire(&self) {
        let mut seen: Option<Sighting> = None;
        loop {
            match self.try_acquire(&mut seen).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, lease = self.name, "the Lease cannot be had now"),
            }
            tokio::time::sleep(jittered(self.duration / 5)).await;
        }
    }

    /// Renews the Lease; returns once it is lost, or could not be renewed for too long.
    pub async fn hold(&self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(jittered(self.duration / 5)).await;
            let attempt = tokio::time::timeout(self.duration / 3, self.renew()).await;
            match attempt {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(%error, lease = self.name, "the Lease was not renewed"),
                Err(_) => tracing::warn!(lease = self.name, "the Lease was not renewed: no answer"),
            }
            // Well before anyone else may take it.
            if renewed.elapsed() > self.duration * 2 / 3 {
                return;
            }
        }
    }

    /// Gives the Lease up, so that the next one need not wait.
    pub async fn release(&self) {
        let released = async {
            let Some(mut lease) = self.api.get_opt(&self.name).await? else {
                return Ok(());
            };
            if self.is_mine(&lease) {
                let spec = lease.spec.get_or_insert_default();
                spec.holder_identity = None;
                spec.renew_time = Some(now());
                self.api
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await?;
            }
            Ok::<(), kube::Error>(())
        };
        if let Err(error) = released.await {
            tracing::warn!(%error, lease = self.name, "the Lease was not given up; others wait until it ends");
        }
    }

    fn is_mine(&self, lease: &Lease) -> bool {
        holder(lease) == Some(self.identity.as_str())
    }

    async fn try_acquire(&self, seen: &mut Option<Sighting>) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None)),
            };
            return taken(self.api.create(&PostParams::default(), &lease).await);
        };
        let version = lease.metadata.resource_version.clone();
        let sighting = match seen.take().filter(|seen| seen.version == version) {
            Some(sighting) => sighting,
            None => Sighting {
                version,
                at: Instant::now(),
            },
        };
        let silent = sighting.at.elapsed();
        *seen = Some(sighting);
        let life = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.lease_duration_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(self.duration, Duration::from_secs);
        if holder(&lease).is_some() && !self.is_mine(&lease) && silent < life {
            return Ok(false);
        }
        self.take(lease).await
    }

    async fn renew(&self) -> Result<bool, kube::Error> {
        let lease = self.api.get(&self.name).await;
        match lease {
            Ok(lease) if self.is_mine(&lease) => self.take(lease).await,
            Ok(_) => Ok(false),
            Err(kube::Error::Api(error)) if error.code == 404 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes the very version read, so that of several only one succeeds.
    async fn take(&self, mut lease: Lease) -> Result<bool, kube::Error> {
        let spec = self.spec(lease.spec.as_ref());
        lease.spec = Some(spec);
        taken(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    fn spec(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let mine = old.filter(|old| old.holder_identity.as_deref() == Some(&self.identity));
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.duration.as_secs().max(1)).unwrap_or(i32::MAX)),
            acquire_time: mine.map_or_else(|| Some(now()), |mine| mine.acquire_time.clone()),
            renew_time: Some(now()),
            lease_transitions: Some(if mine.is_some() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref();
    holder.filter(|holder| !holder.is_empty())
}

fn taken(outcome: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match outcome {
        Ok(_) => Ok(true),
        // Another one was faster.
        Err(kube::Error::Api(error)) if error.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}
