//! What the registry was told of and no object of the cluster stands for any more is removed from it: objects that
//! were let go while it did not answer, or deleted while no operator ran. What they store stays.
//!
//! What was configured by hand has no uid of a source and is left alone.

use std::collections::HashSet;
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;

use crate::context::Context;
use crate::registry::{RegistryError, Stored};

/// Between two attempts while the registry does not answer.
const RETRY: Duration = Duration::from_secs(10);

/// Sweeps at once and with every resync; ends only if another operator has taken over.
pub async fn run(ctx: &Context) -> RegistryError {
    // Before everything was seen, everything would look like an orphan.
    ctx.watched.ready().await;
    loop {
        let wait = match sweep(ctx).await {
            Ok(()) => {
                let accounts = &ctx.watched.accounts;
                ctx.accounts_seen.retain(|namespace, account| {
                    accounts.get(&ObjectRef::new(account).within(namespace)).is_some()
                });
                ctx.settings.resync
            }
            Err(error @ RegistryError::StaleTerm(_)) => return error,
            Err(error) => {
                tracing::warn!(%error, "orphans in the registry were not looked for");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // Something was let go untold just now.
            () = ctx.untold.notified() => {}
        }
    }
}

async fn sweep(ctx: &Context) -> Result<(), RegistryError> {
    // The registry first: what it knows was in the cluster's stores before it was put.
    let stored = ctx.registry.state().await?;
    let alive = alive(ctx);
    for object in stored
        .iter()
        .filter(|object| is_orphan(object, &alive, |namespace| ctx.settings.covers(namespace)))
    {
        let Some(uid) = &object.uid else { continue };
        let path = match object.kind.as_str() {
            "tenants" => format!("tenants/{}", object.tenant),
            kind => format!("tenants/{}/{kind}/{}", object.tenant, object.name),
        };
        let removed = match ctx.registry.delete_of(&path, uid).await {
            // Made again meanwhile, and no orphan any more.
            Err(RegistryError::Replaced(_)) => false,
            removed => removed?,
        };
        tracing::info!(
            tenant = object.tenant,
            kind = object.kind,
            name = object.name,
            removed,
            "an orphan was found"
        );
    }
    Ok(())
}

fn alive(ctx: &Context) -> HashSet<String> {
    let watched = &ctx.watched;
    let declared = [
        watched.repositories.uids(),
        watched.policies.uids(),
        watched.caches.uids(),
    ];
    declared
        .into_iter()
        .flatten()
        .chain(watched.tenants.uids())
        .collect()
}

fn is_orphan(object: &Stored, alive: &HashSet<String>, covers: impl Fn(&str) -> bool) -> bool {
    let Some(uid) = &object.uid else { return false };
    // Objects of namespaces that are not looked at are another operator's.
    let is_covered = match object.name.split_once('/') {
        Some((namespace, _)) => covers(namespace),
        None => true,
    };
    is_covered && !alive.contains(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(name: &str, uid: Option<&str>) -> Stored {
        Stored {
            tenant: "acme".to_owned(),
            kind: "repositories".to_owned(),
            name: name.to_owned(),
            uid: uid.map(str::to_owned),
        }
    }

    #[test]
    fn only_what_came_from_a_cluster_and_is_gone_from_it_is_an_orphan() {
        let alive = HashSet::from(["lives".to_owned()]);
        let of = |object: &Stored| is_orphan(object, &alive, |namespace| namespace == "apps");
        assert!(of(&stored("apps/api", Some("gone"))));
        assert!(!of(&stored("apps/api", Some("lives"))));
        assert!(!of(&stored("apps/api", None)), "made by hand");
        assert!(!of(&stored("elsewhere/api", Some("gone"))), "another operator's");
        assert!(of(&stored("", Some("gone"))), "a tenant");
    }
}
