//! Who may declare something: the tenant admits the namespace, and of several that claim a name the oldest has it.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt as _};

use super::Declared;
use crate::admission::admits;
use crate::condition::is_true;
use crate::context::Context;
use crate::status::Status;
use crate::trouble::Trouble;

/// Whether the tenant admits the object's namespace, as far as is known.
pub fn admitted<K: Declared>(object: &K, ctx: &Context) -> Result<(), Trouble> {
    let (tenant, namespace) = (object.tenant(), object.namespace().unwrap_or_default());
    let found = ctx.watched.tenants.get(&ObjectRef::new(tenant));
    let admits = found.is_some_and(|tenant| {
        tenant.metadata.deletion_timestamp.is_none()
            && ctx
                .labels_of(&namespace)
                .is_some_and(|labels| admits(&tenant.spec.allowed_namespaces, &labels))
    });
    // Whether there is such a Tenant is not told to namespaces that it does not admit.
    admits.then_some(()).ok_or_else(|| {
        Trouble::stalled(
            "NotAdmitted",
            format!("there is no Tenant {tenant} that admits namespace {namespace} (spec.allowedNamespaces)"),
        )
    })
}

/// Whether the tenant is one that cannot be read, so that nothing is known of whom it admits.
pub fn is_undecided<K: Declared>(object: &K, ctx: &Context) -> bool {
    let tenants = &ctx.watched.tenants;
    tenants.get(&ObjectRef::new(object.tenant())).is_none() && tenants.unreadable.has("", object.tenant())
}

/// The oldest object wins; of those of one second the one that is served already.
pub fn claimed<K: Declared>(object: &K, ctx: &Context) -> Result<(), Trouble> {
    let Some(claim) = object.claim() else {
        return Ok(());
    };
    let age = |object: &K| {
        let conditions = object.status().map(Status::conditions).unwrap_or_default();
        seniority(object, conditions)
    };
    let rivals = rivals(object, ctx);
    match rivals.iter().find(|other| age(other) < age(object)) {
        None => Ok(()),
        Some(winner) if winner.namespace() == object.namespace() => Err(Trouble::stalled(
            "Conflict",
            format!("{claim} is already declared by {} {}", K::KIND, winner.name_any()),
        )),
        // What other namespaces hold is not told.
        Some(_) => Err(Trouble::stalled(
            "Conflict",
            format!("{claim} is already declared elsewhere in the tenant"),
        )),
    }
}

/// Others with the same claim, of namespaces that the tenant admits.
pub fn rivals<K: Declared>(object: &K, ctx: &Context) -> Vec<Arc<K>> {
    let Some(claim) = object.claim() else {
        return Vec::new();
    };
    let mut rivals = K::all(ctx).all();
    rivals.retain(|other| {
        other.uid() != object.uid()
            && other.meta().deletion_timestamp.is_none()
            && other.tenant() == object.tenant()
            && other.claim().as_ref() == Some(&claim)
            && admitted(other.as_ref(), ctx).is_ok()
    });
    rivals
}

/// Orders rivals: creation, in whole seconds, then who is served already, then the uid.
pub fn seniority(
    object: &impl Resource,
    conditions: &[Condition],
) -> (Option<Timestamp>, bool, Option<String>) {
    let created = object.meta().creation_timestamp.as_ref().map(|time| time.0);
    (
        created,
        !is_true(conditions, "Programmed"),
        object.meta().uid.clone(),
    )
}
