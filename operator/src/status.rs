//! Statuses are written in one patch, only when something in them differs, and told as events on transitions.

use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::MANAGER;
use crate::condition::Verdict;
use crate::context::Context;

/// What all statuses have.
pub trait Status: Serialize + PartialEq + Send + Sync {
    /// Fields that are written apart, by [`note`]; no other write touches them.
    const NOTED: &'static [&'static str] = &[];

    /// Its conditions.
    fn conditions(&self) -> &[Condition];
}

/// Writes a status if it differs from the old one.
pub async fn write<K, S>(
    ctx: &Context,
    api: &Api<K>,
    object: &K,
    old: Option<&S>,
    new: &S,
) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    S: Status,
{
    if old == Some(new) {
        return Ok(());
    }
    let status = serde_json::to_value(new).map_err(kube::Error::SerdeError)?;
    apply::<K, K, S>(ctx, api, &object.name_any(), status).await
}

/// Writes a status of an object of kind `K`, whatever its answer is read as.
pub async fn apply<K, A, S>(
    ctx: &Context,
    api: &Api<A>,
    name: &str,
    mut status: Value,
) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()>,
    A: Clone + DeserializeOwned + Debug,
    S: Status,
{
    if let Some(fields) = status.as_object_mut() {
        fields.retain(|name, _| !S::NOTED.contains(&name.as_str()));
    }
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": name },
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    match api.patch_status(name, &params, &Patch::Apply(patch)).await {
        // It was deleted meanwhile.
        Err(kube::Error::Api(error)) if error.code == 404 => return Ok(()),
        outcome => outcome?,
    };
    ctx.metrics.status_written();
    Ok(())
}

/// Whether a text of the registry's is short enough for a field of a status; one that is not would have the API server
/// refuse the whole.
pub fn fits(text: &str, most: usize) -> bool {
    text.chars().count() <= most
}

/// Writes one field of a status, only if nobody has changed the object since it was read: of several who try, one
/// succeeds. The object as it is then, or nothing if another was faster.
pub async fn note<K>(
    api: &Api<K>,
    object: &K,
    field: &str,
    value: Option<&str>,
) -> Result<Option<K>, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let patch = json!({
        "metadata": { "resourceVersion": object.resource_version() },
        "status": { field: value },
    });
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match api
        .patch_status(&object.name_any(), &params, &Patch::Merge(patch))
        .await
    {
        Ok(noted) => Ok(Some(noted)),
        Err(kube::Error::Api(error)) if error.code == 409 || error.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the summary differs from what was last said.
pub fn is_transition(old: &[Condition], verdict: &Verdict) -> bool {
    let [ready, ..] = verdict.facts();
    !old.iter()
        .any(|old| old.type_ == "Ready" && old.status == ready.state.text() && old.reason == ready.reason)
}

/// Tells a transition; work that goes on is no news.
pub async fn tell<K>(ctx: &Context, object: &K, old: &[Condition], verdict: &Verdict)
where
    K: Resource<DynamicType = ()>,
{
    if !is_transition(old, verdict) {
        return;
    }
    let type_ = match verdict {
        Verdict::Ready(..) => EventType::Normal,
        Verdict::Working(..) => return,
        Verdict::Failing(..) | Verdict::Stalled(..) => EventType::Warning,
    };
    publish(ctx, object, type_, verdict.reason(), verdict.message()).await;
}

/// Writes an event. One that cannot be written is only logged: nothing depends on it.
pub async fn publish<K>(ctx: &Context, object: &K, type_: EventType, reason: &str, note: &str)
where
    K: Resource<DynamicType = ()>,
{
    let event = Event {
        type_,
        reason: reason.to_owned(),
        // The API server's limit is 1 kB.
        note: Some(note.chars().take(500).collect()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    if let Err(error) = ctx.recorder.publish(&event, &object.object_ref(&())).await {
        tracing::warn!(%error, object = object.name_any(), reason, "an event was not written");
    }
}
