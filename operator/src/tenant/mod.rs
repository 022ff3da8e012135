//! Tenant: its registry configuration, its route, its credentials, its status.
//!
//! The order matters: the registry is told first, the route opens next, and tokens are handed over only once every
//! live replica serves the tenant, so that whoever reads a Secret can use it.

pub mod accounts;
mod claim;
pub mod credential;
pub(crate) mod credentials;
mod delete;
mod exposure;
pub mod predecessor;
pub mod route;
pub mod secret;

use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_crds::{PullSecretsStatus, Tenant, TenantStatus, TenantUsage, TokenStatus, WebhookStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt as _};

use crate::backoff::jittered;
use crate::condition::{Fact, State, Verdict, conditions};
use crate::context::Context;
use crate::declared::{self, RIVALRY, SOON, Told, outcome, patience, put};
use crate::finalizer;
use crate::follow::Followed;
use crate::registry::Usage;
use crate::status::fits;
use crate::trouble::Trouble;
use crate::{PAUSED, status};
use credentials::{Distributed, Refusal};

/// What was found out about a Tenant.
#[derive(Debug, Default)]
struct Findings {
    programmed: Option<Fact>,
    exposed: Option<Fact>,
    distributed: Option<Fact>,
    tokens: Vec<TokenStatus>,
    pull_secrets: Option<PullSecretsStatus>,
    again: Option<Duration>,
}

/// Looks at a Tenant, and makes everything what it says.
pub async fn reconcile(tenant: Arc<Tenant>, ctx: Arc<Context>) -> Result<Action, Trouble> {
    let started = Instant::now();
    let name = tenant.name_any();
    let key = format!("Tenant/{name}");
    let api = Api::<Tenant>::all(ctx.client.clone());
    if tenant.metadata.deletion_timestamp.is_some() {
        return delete::run(&tenant, &api, &key, &ctx).await;
    }
    if tenant.annotations().contains_key(PAUSED) {
        return Ok(Action::await_change());
    }
    finalizer::add(&api, tenant.as_ref()).await?;
    let (uid, generation) = (
        tenant.uid().unwrap_or_default(),
        tenant.metadata.generation.unwrap_or_default(),
    );
    let mut findings = Findings::default();
    let looked = look(&tenant, &ctx, &mut findings).await;
    let (verdict, again) = match looked {
        Ok(verdict) => {
            ctx.failures.reset(&key);
            let again = match verdict {
                Verdict::Working(..) => {
                    if ctx.memory.waits_quietly(&uid, generation) {
                        return Ok(Action::requeue(SOON));
                    }
                    patience(ctx.memory.waited(&uid))
                }
                _ => {
                    ctx.memory.waits_no_more(&uid);
                    let resync = jittered(ctx.settings.resync);
                    findings.again.map_or(resync, |again| again.min(resync))
                }
            };
            (verdict, again)
        }
        Err(trouble) if trouble.is_overthrow() => {
            ctx.overthrown.cancel();
            return Err(trouble);
        }
        Err(trouble) => {
            let (verdict, again) = (trouble.verdict(), ctx.failures.next(&key));
            // The winner may go any moment.
            let is_rivalry = verdict.reason() == "Conflict";
            (verdict, if is_rivalry { again.min(RIVALRY) } else { again })
        }
    };
    let old = tenant.status.as_ref();
    let new = report(&tenant, &ctx, &verdict, findings).await;
    status::write(&ctx, &api, tenant.as_ref(), old, &new).await?;
    let before = old.map(|old| old.conditions.as_slice()).unwrap_or_default();
    status::tell(&ctx, tenant.as_ref(), before, &verdict).await;
    ctx.metrics
        .reconciled("Tenant", outcome(&verdict), started.elapsed());
    Ok(Action::requeue(again))
}

async fn look(tenant: &Tenant, ctx: &Context, findings: &mut Findings) -> Result<Verdict, Trouble> {
    let (name, uid) = (tenant.name_any(), tenant.uid().unwrap_or_default());
    tenant
        .spec
        .validate()
        .map_err(|problems| Trouble::invalid(&problems))?;
    claim::claimed(tenant, ctx).await?;
    let followed = Followed::tenant(ctx, tenant).await?;
    let config = tenant
        .spec
        .resolve(&followed)
        .map_err(|problems| Trouble::invalid(&problems))?;
    let spec = serde_json::to_value(&config).unwrap_or_default();
    let generation = tenant.metadata.generation.unwrap_or_default();
    let version = put(ctx, &format!("tenants/{name}"), &uid, generation, &spec).await?;
    let behind = ctx
        .registry
        .replicas()
        .await?
        .behind(&format!("tenants/{name}/"), version);
    findings.programmed = Some(match &behind {
        None => Fact::new(
            "Programmed",
            State::True,
            "Served",
            "every live replica serves it",
        ),
        Some(why) => Fact::new("Programmed", State::Unknown, "ReplicasBehind", why),
    });
    let exposed = exposure::ensure(tenant, ctx).await?;
    let is_exposed = exposed.state == State::True || tenant.spec.suspend;
    findings.exposed = Some(exposed.clone());
    if let Some(why) = behind {
        return Ok(Verdict::Working("ReplicasBehind", why));
    }
    let distributed = credentials::ensure(tenant, ctx).await?;
    findings.distributed = Some(distributed.fact());
    if let Some(times) = distributed.times() {
        ctx.metrics.tokens(&name, times);
    }
    findings.again = distributed.again;
    let (refused, failed) = (distributed.refused(), distributed.failed());
    let Distributed {
        tokens, pull_secrets, ..
    } = distributed;
    (findings.tokens, findings.pull_secrets) = (tokens, pull_secrets);
    if let Some(Refusal { reason, message }) = refused {
        return Err(Trouble::stalled(reason, message));
    }
    if let Some(why) = failed {
        return Ok(Verdict::Failing("CredentialsRetrying", why));
    }
    if !is_exposed {
        return Ok(match exposed.state {
            State::False => Verdict::Failing(exposed.reason, exposed.message),
            _ => Verdict::Working(exposed.reason, exposed.message),
        });
    }
    if tenant.spec.suspend {
        return Ok(Verdict::Ready(
            "Suspended",
            "pushes and pulls are refused".to_owned(),
        ));
    }
    Ok(Verdict::Ready("Served", String::new()))
}

async fn report(tenant: &Tenant, ctx: &Context, verdict: &Verdict, findings: Findings) -> TenantStatus {
    let old = tenant.status.clone().unwrap_or_default();
    let generation = tenant.metadata.generation.unwrap_or_default();
    let unknown = |aspect| Fact::new(aspect, State::Unknown, verdict.reason(), verdict.message());
    let mut facts = verdict.facts().to_vec();
    let told = findings.distributed.is_some();
    facts.push(findings.programmed.unwrap_or_else(|| unknown("Programmed")));
    facts.push(findings.exposed.unwrap_or_else(|| unknown("Exposed")));
    facts.push(
        findings
            .distributed
            .unwrap_or_else(|| unknown("CredentialsDistributed")),
    );
    let (usage, webhooks) = figures(tenant, ctx, old.usage, old.webhooks).await;
    TenantStatus {
        observed_generation: generation,
        host: Some(ctx.settings.with_port(&ctx.settings.host(&tenant.name_any()))),
        conditions: conditions(&old.conditions, &facts, generation, &Time(Timestamp::now())),
        usage,
        tokens: if told { findings.tokens } else { old.tokens },
        pull_secrets: if told {
            findings.pull_secrets
        } else {
            old.pull_secrets
        },
        webhooks,
    }
}

/// What the tenant stores, and how its webhooks fare.
async fn figures(
    tenant: &Tenant,
    ctx: &Context,
    usage: Option<TenantUsage>,
    webhooks: Vec<WebhookStatus>,
) -> (Option<TenantUsage>, Vec<WebhookStatus>) {
    let name = tenant.name_any();
    let ask = async {
        let mut usage = ctx.registry.usage(&name).await?;
        if let Some(usage) = usage.as_mut().filter(|_| !tenant.spec.webhooks.is_empty()) {
            usage.webhooks = ctx.registry.webhooks(&name).await?;
        }
        Ok(usage)
    };
    match declared::usage(ctx, tenant, ask).await {
        Told::News(mut usage) => {
            let webhooks = std::mem::take(&mut usage.webhooks);
            (Some(shown(usage)), webhooks.into_iter().map(fitting).collect())
        }
        Told::NoNews | Told::Nothing => (usage, webhooks),
    }
}

/// What the definition's schema takes of it.
fn fitting(mut webhook: WebhookStatus) -> WebhookStatus {
    webhook.last_delivery = webhook.last_delivery.filter(|at| fits(at, 64));
    webhook.last_error = webhook.last_error.map(|error| error.chars().take(1024).collect());
    webhook
}

fn shown(usage: Usage) -> TenantUsage {
    let cost = usage.cost.zip(usage.currency);
    TenantUsage {
        storage: usage.bytes,
        repositories: usage.repositories,
        tags: usage.tags,
        month_to_date_gib_hours: usage.gib_hours.filter(|hours| fits(hours, 32)),
        estimated_cost: cost
            .map(|(cost, currency)| format!("{cost} {currency}"))
            .filter(|cost| fits(cost, 32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_shown_with_its_currency_or_not_at_all() {
        let of = |cost: Option<&str>, currency: Option<&str>| {
            shown(Usage {
                bytes: 7,
                tags: 1,
                repositories: 1,
                gib_hours: Some("12.345".to_owned()),
                cost: cost.map(str::to_owned),
                currency: currency.map(str::to_owned),
                last_push: None,
                last_pull: None,
                webhooks: Vec::new(),
            })
        };
        let full = of(Some("0.0123"), Some("USD"));
        assert_eq!(full.month_to_date_gib_hours.as_deref(), Some("12.345"));
        assert_eq!(full.estimated_cost.as_deref(), Some("0.0123 USD"));
        assert_eq!(of(Some("0.0123"), None).estimated_cost, None);
        assert_eq!(of(None, Some("USD")).estimated_cost, None);
        let endless = of(Some(&"9".repeat(40)), Some("USD"));
        assert_eq!(
            endless.estimated_cost, None,
            "the API server would refuse the whole status"
        );
    }
}
