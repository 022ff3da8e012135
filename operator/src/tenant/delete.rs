//! The end of a Tenant: its route closes, its credentials end, the registry forgets it; what it stores stays
//! unless its deletion was asked for and confirmed.

use std::time::Duration;

use berth_crds::{DeletionPolicy, Tenant};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt as _};

use super::{credentials, exposure};
use crate::condition::{Fact, State, Verdict, conditions};
use crate::context::Context;
use crate::declared::{LET_GO, is_overdue, until_let_go};
use crate::metrics::{Outcome, TokenTimes};
use crate::registry::RegistryError;
use crate::trouble::Trouble;
use crate::{CONFIRM, finalizer, status};

/// Between two looks at what waits for a person.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends a Tenant.
pub async fn run(tenant: &Tenant, api: &Api<Tenant>, key: &str, ctx: &Context) -> Result<Action, Trouble> {
    let name = tenant.name_any();
    let erase = tenant.spec.deletion_policy == DeletionPolicy::Delete;
    match end(tenant, erase, ctx).await {
        Ok(()) => {}
        Err(Trouble::Registry(error @ RegistryError::Unreachable(_)))
            if !erase && is_overdue(&tenant.metadata, LET_GO) =>
        {
            // A namespace or a cluster being taken down must not wait for a registry that is gone as well.
            exposure::remove(&name, ctx).await?;
            credentials::release_accounts(tenant, ctx).await?;
            let note =
                format!("let go although the registry was not told; it is told once it answers: {error}");
            status::publish(ctx, tenant, EventType::Warning, "ReleasedUntold", &note).await;
            ctx.untold.notify_one();
        }
        Err(trouble) if trouble.is_overthrow() => {
            ctx.overthrown.cancel();
            return Err(trouble);
        }
        Err(trouble) => {
            let verdict = trouble.verdict();
            say(tenant, api, ctx, &verdict).await?;
            let wait = ctx.failures.next(key);
            let wait = if erase {
                wait.min(PATIENCE)
            } else {
                until_let_go(&tenant.metadata, LET_GO, wait)
            };
            return Ok(Action::requeue(wait));
        }
    }
    finalizer::remove(api, tenant).await?;
    ctx.memory.forget(&tenant.uid().unwrap_or_default());
    ctx.failures.reset(key);
    ctx.metrics.tokens(&name, TokenTimes::default());
    ctx.metrics.reconciled("Tenant", Outcome::Deleted, Duration::ZERO);
    Ok(Action::await_change())
}

async fn end(tenant: &Tenant, erase: bool, ctx: &Context) -> Result<(), Trouble> {
    let name = tenant.name_any();
    if erase && tenant.annotations().get(CONFIRM) != Some(&name) {
        let usage = match ctx.registry.usage(&name).await {
            Err(RegistryError::NotFound(_)) => None,
            usage => usage?,
        };
        if let Some(usage) = usage.filter(|usage| usage.bytes > 0 || usage.repositories > 0) {
            return Err(Trouble::stalled(
                "DeletionUnconfirmed",
                format!(
                    "the tenant stores {} bytes in {} repositories; to delete them annotate it with {CONFIRM}={name}, \
                     to keep them set spec.deletionPolicy to Retain",
                    usage.bytes, usage.repositories
                ),
            ));
        }
    }
    exposure::remove(&name, ctx).await?;
    credentials::release_accounts(tenant, ctx).await?;
    // Its tokens end with it; Secrets and routes go with their owner.
    ctx.registry.delete(&format!("tenants/{name}"), erase).await?;
    Ok(())
}

async fn say(tenant: &Tenant, api: &Api<Tenant>, ctx: &Context, verdict: &Verdict) -> Result<(), Trouble> {
    let mut new = tenant.status.clone().unwrap_or_default();
    let old = std::mem::take(&mut new.conditions);
    let generation = tenant.metadata.generation.unwrap_or_default();
    let mut facts = verdict.facts().to_vec();
    for aspect in ["Programmed", "Exposed", "CredentialsDistributed"] {
        facts.push(Fact::new(aspect, State::Unknown, "Deleting", ""));
    }
    new.observed_generation = generation;
    new.conditions = conditions(&old, &facts, generation, &Time(Timestamp::now()));
    status::write(ctx, api, tenant, tenant.status.as_ref(), &new).await?;
    status::tell(ctx, tenant, &old, verdict).await;
    Ok(())
}
