//! Keeps the tenant's route as it should be, and reads what the edge says about it.

use std::sync::Arc;

use berth_crds::Tenant;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::Value;

use super::route::{self, Accepted};
use crate::MANAGER;
use crate::condition::{Fact, State};
use crate::context::Context;
use crate::trouble::Trouble;

/// The Tenant as owner of what is made for it.
pub fn owner(tenant: &Tenant) -> OwnerReference {
    OwnerReference {
        controller: Some(true),
        ..tenant.owner_ref(&()).unwrap_or_default()
    }
}

/// Makes the route what it should be; whether the tenant can be reached.
pub async fn ensure(tenant: &Tenant, ctx: &Context) -> Result<Fact, Trouble> {
    let exposed = |state, reason, message: String| Ok(Fact::new("Exposed", state, reason, message));
    let name = tenant.name_any();
    let settings = &ctx.settings;
    let (Some(resource), Some(wanted)) = (
        route::resource(settings.exposure),
        route::wanted(settings, &name, &owner(tenant), &tenant.spec.hosts),
    ) else {
        return exposed(State::True, "NotManaged", "routes are made by others".to_owned());
    };
    let observed = find(ctx, &resource, &wanted.name);
    let routes = Api::<DynamicObject>::namespaced_with(ctx.client.clone(), &settings.namespace, &resource);
    if tenant.spec.suspend {
        if observed.is_some() {
            ignore_absent(
                routes
                    .delete(&wanted.name, &DeleteParams::default())
                    .await
                    .map(drop),
            )?;
        }
        return exposed(
            State::False,
            "Suspended",
            "the route is closed while spec.suspend is true".to_owned(),
        );
    }
    let is_kept = observed.as_deref().is_some_and(|route| {
        route::covers(
            &serde_json::to_value(route).unwrap_or(Value::Null),
            &wanted.object,
        )
    });
    let mut current = observed;
    if !is_kept {
        let params = PatchParams::apply(MANAGER).force();
        match routes
            .patch(&wanted.name, &params, &Patch::Apply(&wanted.object))
            .await
        {
            // What the edge said about the route before is said of another generation.
            Ok(route) => current = Some(Arc::new(route)),
            Err(kube::Error::Api(error)) if error.code == 404 => {
                return exposed(
                    State::False,
                    "NoSuchResource",
                    format!(
                        "the cluster has no {}: install its definitions, or choose another exposure.mode",
                        resource.kind
                    ),
                );
            }
            Err(error) => return Err(error.into()),
        }
    }
    let said = current.map_or(Accepted::NotYet, |route| {
        route::accepted(settings.exposure, &route)
    });
    match said {
        Accepted::Yes => exposed(
            State::True,
            "Accepted",
            format!("{} {}", resource.kind, wanted.name),
        ),
        Accepted::NotYet => exposed(
            State::Unknown,
            "RoutePending",
            format!("the edge has not accepted {} {} yet", resource.kind, wanted.name),
        ),
        Accepted::No(why) => exposed(State::False, "RouteRefused", why),
    }
}

/// Removes the route.
pub async fn remove(tenant: &str, ctx: &Context) -> Result<(), Trouble> {
    let Some(resource) = route::resource(ctx.settings.exposure) else {
        return Ok(());
    };
    let name = format!("berth-{tenant}");
    if find(ctx, &resource, &name).is_none() {
        return Ok(());
    }
    let routes =
        Api::<DynamicObject>::namespaced_with(ctx.client.clone(), &ctx.settings.namespace, &resource);
    ignore_absent(routes.delete(&name, &DeleteParams::default()).await.map(drop))
}

fn find(ctx: &Context, resource: &ApiResource, name: &str) -> Option<Arc<DynamicObject>> {
    let key = ObjectRef::new_with(name, resource.clone()).within(&ctx.settings.namespace);
    ctx.watched.routes.as_ref()?.get(&key)
}

fn ignore_absent(outcome: Result<(), kube::Error>) -> Result<(), Trouble> {
    match outcome {
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        outcome => outcome.map_err(Trouble::from),
    }
}
