//! Secrets and tokens that are wanted no longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use berth_crds::Tenant;
use berth_crds::token::TokenId;
use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::{Api, ResourceExt as _};

use super::super::{accounts, credential, secret};
use crate::context::Context;
use crate::registry::{RegistryError, TokenInfo};
use crate::trouble::Trouble;
use crate::{MANAGED_BY, MANAGER, TENANT};

/// Tokens that nobody names are given this long: their Secret may be about to be written.
pub(super) const ORPHAN_AGE: Duration = Duration::from_secs(30);
/// Tokens that are ended at a time.
const ENDED_AT_ONCE: usize = 8;

/// Secrets that were made for the tenant, by namespace and name.
pub(super) fn ours(ctx: &Context, tenant: &str) -> BTreeMap<(String, String), Arc<Secret>> {
    let secrets = ctx
        .watched
        .secrets
        .all()
        .into_iter()
        .filter(|secret| secret::is_ours(secret, tenant));
    secrets
        .map(|secret| {
            (
                (secret.namespace().unwrap_or_default(), secret.name_any()),
                secret,
            )
        })
        .collect()
}

/// Ends a Secret that is wanted no longer: nothing names it, its own tokens are void, then it goes. One that only looks
/// like the tenant's stays.
pub(super) async fn withdraw(
    ctx: &Context,
    tenant: &Tenant,
    own: &[TokenInfo],
    secret: &Secret,
) -> Result<(), Trouble> {
    let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    let is_owned = secret::is_owned(secret, &tenant.uid().unwrap_or_default());
    if is_owned {
        accounts::release(ctx, &namespace, &name, &secret::read(secret).accounts).await?;
    }
    let ids = own.iter().map(|token| token.id.clone()).collect();
    end(ctx, &tenant.name_any(), ids).await?;
    if !is_owned {
        return Ok(());
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: secret.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match Api::<Secret>::namespaced(ctx.client.clone(), &namespace)
        .delete(&name, &params)
        .await
    {
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        outcome => Ok(outcome.map(drop)?),
    }
}

/// Service accounts no longer name the tenant's Secrets.
pub async fn release_accounts(tenant: &Tenant, ctx: &Context) -> Result<(), Trouble> {
    let uid = tenant.uid().unwrap_or_default();
    for ((namespace, name), secret) in ours(ctx, &tenant.name_any()) {
        if !secret::is_owned(&secret, &uid) {
            continue;
        }
        accounts::release(ctx, &namespace, &name, &secret::read(&secret).accounts).await?;
    }
    Ok(())
}

/// Ends tokens that were made here and that no Secret names: their Secret was never written, or went with its
/// namespace. Whether there are some that are too young to be told from those whose Secret is on its way.
pub(super) async fn remove_orphans(
    tenant: &Tenant,
    ctx: &Context,
    tokens: &[TokenInfo],
) -> Result<bool, Trouble> {
    let (name, uid) = (tenant.name_any(), tenant.uid().unwrap_or_default());
    let now = Timestamp::now();
    let cached = named(ours(ctx, &name).values().map(AsRef::as_ref));
    let all = credential::orphans(tokens, &uid, &cached, now, Duration::ZERO).len();
    let old = credential::orphans(tokens, &uid, &cached, now, ORPHAN_AGE).len();
    if old == 0 {
        return Ok(all > 0);
    }
    // What is watched may lag behind; ending a token that is in use would be an outage.
    let mut there = Vec::new();
    for api in ctx.secrets_everywhere() {
        let labelled = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER},{TENANT}={name}"));
        there.extend(api.list(&labelled).await?.items);
    }
    let known = named(there.iter());
    for id in credential::orphans(tokens, &uid, &known, now, ORPHAN_AGE) {
        tracing::info!(tenant = name, %id, "a token that no Secret names is ended");
        ctx.registry.delete_token(&name, id).await?;
    }
    Ok(all > old)
}

/// What the records of Secrets' tokens say of each, and the ids that it names.
fn named<'a>(secrets: impl Iterator<Item = &'a Secret>) -> BTreeSet<(String, TokenId)> {
    let of = |secret: &Secret| {
        let description = secret::description(&secret.namespace().unwrap_or_default(), &secret.name_any());
        let ids = secret::read(secret).ids().into_iter();
        ids.map(move |id| (description.clone(), id))
    };
    secrets.flat_map(of).collect()
}

/// Ends tokens: those of a list, however long, within the second that is promised.
pub(super) async fn end(ctx: &Context, tenant: &str, ids: Vec<TokenId>) -> Result<(), RegistryError> {
    iter(ids)
        .map(async |id| ctx.registry.delete_token(tenant, &id).await)
        .buffer_unordered(ENDED_AT_ONCE)
        .try_for_each(async |_| Ok(()))
        .await
}
