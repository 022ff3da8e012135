//! The routes and their OpenAPI document (3.1): one table, so that neither has what the other lacks.

use axum::Json;
use axum::handler::Handler;
use axum::routing::{self, MethodRouter};
use berth_crds::admin::{
    CacheConfig, Put, RepositoryConfig, RetentionPolicyConfig, TenantConfig, TokenConfig, TokenGrants,
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::answer::Failure;
use super::{
    Admin, collection, fsck, objects, pull_through, reports, retention, tags, tokens, usage, webhooks,
};
use crate::lifecycle::fsck::Options;

type Schema = fn(&mut SchemaGenerator) -> Value;

/// A path and what it takes.
pub struct Route {
    /// As axum writes it.
    pub path: &'static str,
    /// All its methods.
    pub handler: MethodRouter<Admin>,
    operations: Vec<Operation>,
}

struct Operation {
    method: &'static str,
    summary: &'static str,
    query: &'static [(&'static str, &'static str)],
    body: Option<Schema>,
    answer: Schema,
    /// Of the answer if nothing is wrong; the second if what is asked for goes on.
    statuses: &'static [&'static str],
    /// Media types of the answer.
    types: &'static [&'static str],
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

fn any(_: &mut SchemaGenerator) -> Value {
    json!({})
}

/// The body of an object of any of the three kinds.
fn object(generator: &mut SchemaGenerator) -> Value {
    json!({ "anyOf": [
        schema::<Put<RepositoryConfig>>(generator),
        schema::<Put<RetentionPolicyConfig>>(generator),
        schema::<Put<CacheConfig>>(generator),
    ] })
}

impl Route {
    fn at(path: &'static str) -> Self {
        Self {
            path,
            handler: MethodRouter::new(),
            operations: Vec::new(),
        }
    }

    fn on<H, T>(mut self, method: &'static str, handler: H, summary: &'static str, answer: Schema) -> Self
    where
        H: Handler<T, Admin>,
        T: 'static,
    {
        self.handler = match method {
            "get" => self.handler.merge(routing::get(handler)),
            "put" => self.handler.merge(routing::put(handler)),
            "delete" => self.handler.merge(routing::delete(handler)),
            _ => self.handler.merge(routing::post(handler)),
        };
        self.operations.push(Operation {
            method,
            summary,
            query: &[],
            body: None,
            answer,
            statuses: &["200"],
            types: &["application/json"],
        });
        self
    }

    fn takes(mut self, body: Schema) -> Self {
        if let Some(operation) = self.operations.last_mut() {
            operation.body = Some(body);
        }
        self
    }

    /// The statuses of an answer to which nothing is wrong.
    fn answers(mut self, statuses: &'static [&'static str]) -> Self {
        if let Some(operation) = self.operations.last_mut() {
            operation.statuses = statuses;
        }
        self
    }

    /// The answer may be had as CSV too.
    fn or_csv(mut self) -> Self {
        if let Some(operation) = self.operations.last_mut() {
            operation.types = &["application/json", "text/csv"];
        }
        self
    }

    fn asks(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        if let Some(operation) = self.operations.last_mut() {
            operation.query = query;
        }
        self
    }
}

const TERM: (&str, &str) = (
    "term",
    "The writer's term; an older one than the newest is refused",
);
const UID: (&str, &str) = (
    "uid",
    "Uid of the object's source; an object of the name that comes from another one is left alone, with 409",
);
const AFTER: (&str, &str) = ("after", "Where the page begins: the next of the page before");
const BEFORE: (&str, &str) = ("before", "Where the page begins: the next of the page before");
const LIMIT: (&str, &str) = ("limit", "Entries, at most 1000; 100 if absent");
const TAG: [(&str, &str); 2] = [
    ("repository", "The repository, by its name or an alias"),
    ("tag", "The tag"),
];

/// It only begins what is asked for.
const BEGINS: &[&str] = &["202"];
/// 202 if what is asked for takes longer than the request.
const MAY_GO_ON: &[&str] = &["200", "202"];

/// Every route.
#[rustfmt::skip]
pub fn routes() -> Vec<Route> {
    vec![
        Route::at("/admin/v1/openapi.json")
            .on("get", document, "This document", any),
        Route::at("/admin/v1/state")
            .on("get", objects::state, "Every object with its hash", schema::<objects::Everything>),
        Route::at("/admin/v1/terms")
            .on("post", reports::new_term, "Take over from all earlier writers", schema::<reports::Term>),
        Route::at("/admin/v1/replicas")
            .on("get", reports::replicas, "The live replicas and what they serve", schema::<reports::Replicas>),
        Route::at("/admin/v1/usage")
            .on("get", usage::month, "What tenants store, have stored in a month, and pay", schema::<Vec<usage::Usage>>)
            .asks(&[("tenant", "Of this tenant alone"), ("month", "Like 2026-11, in UTC; the current one if absent"),
                    ("repositories", "true: each repository too"), ("format", "json or csv; else as Accept says")])
            .or_csv(),
        Route::at("/admin/v1/usage/hourly")
            .on("get", usage::hourly, "What a tenant stored, hour by hour", schema::<usage::Hourly>)
            .asks(&[("tenant", "The tenant"), ("from", "Not older than this (RFC 3339)")]),
        Route::at("/admin/v1/storage")
            .on("get", usage::storage, "What the installation stores", schema::<usage::Storage>),
        Route::at("/admin/v1/gc")
            .on("get", collection::show, "Where collection stands", schema::<collection::Standing>),
        Route::at("/admin/v1/gc/run")
            .on("post", collection::run, "Collect all that is due now", schema::<collection::Ran>)
            .answers(MAY_GO_ON),
        Route::at("/admin/v1/gc/paused")
            .on("put", collection::pause, "Pause collection, or let it go on", schema::<collection::Paused>)
            .takes(schema::<collection::Pausing>),
        Route::at("/admin/v1/gc/hold")
            .on("put", collection::hold, "Delete no object for a while", schema::<collection::Held>)
            .takes(schema::<collection::Holding>),
        Route::at("/admin/v1/audit")
            .on("get", reports::audit, "The audit trail, newest first", schema::<reports::Trail>)
            .asks(&[("tenant", "Of this tenant alone"), ("since", "Not older than this (RFC 3339)"), BEFORE, LIMIT]),
        Route::at("/admin/v1/fsck")
            .on("get", fsck::show, "The newest check of the stores", schema::<fsck::Check>)
            .on("post", fsck::start, "Check the stores against each other", schema::<fsck::Check>)
            .takes(schema::<Options>)
            .answers(BEGINS)
            .on("delete", fsck::stop, "Stop the check of the stores", schema::<fsck::Check>),
        Route::at("/admin/v1/apply")
            .on("post", objects::apply, "Make several objects what they should be, all or none", schema::<objects::Applied>)
            .takes(schema::<objects::Several>),
        Route::at("/admin/v1/tenants")
            .on("get", objects::tenants, "All tenants", schema::<Vec<objects::Shown>>),
        Route::at("/admin/v1/tenants/{tenant}")
            .on("get", objects::tenant, "A tenant", schema::<objects::Shown>)
            .on("put", objects::put_tenant, "Make a tenant what the body says", schema::<objects::Changed>)
            .takes(schema::<Put<TenantConfig>>)
            .on("delete", objects::delete_tenant, "Remove a tenant with its objects and tokens", schema::<objects::Changed>)
            .asks(&[TERM, UID, ("erase", "true: what it stores is given up too")]),
        Route::at("/admin/v1/tenants/{tenant}/tokens")
            .on("get", tokens::list, "A page of a tenant's tokens", schema::<tokens::Page>)
            .asks(&[AFTER])
            .on("post", tokens::create, "Make a token; its secret is shown this once", schema::<tokens::Made>)
            .takes(schema::<tokens::NewToken>),
        Route::at("/admin/v1/tenants/{tenant}/tokens/{id}")
            .on("get", tokens::get, "A token without its secret", schema::<tokens::Shown>)
            .on("put", tokens::put, "Store a token by its hash", schema::<tokens::Shown>)
            .takes(schema::<Put<TokenConfig>>)
            .on("delete", tokens::revoke, "Revoke a token", schema::<tokens::Shown>)
            .asks(&[TERM]),
        Route::at("/admin/v1/tenants/{tenant}/tokens/{id}/grants")
            .on("put", tokens::regrant, "Give a token other grants", schema::<tokens::Shown>)
            .takes(schema::<Put<TokenGrants>>),
        Route::at("/admin/v1/tenants/{tenant}/tokens/{id}/rotate")
            .on("post", tokens::rotate, "Replace a token, with an overlap", schema::<tokens::Made>)
            .takes(schema::<tokens::Rotation>),
        Route::at("/admin/v1/tenants/{tenant}/webhooks")
            .on("get", webhooks::list, "How a tenant's webhooks fare", schema::<Vec<webhooks::Report>>),
        Route::at("/admin/v1/tenants/{tenant}/webhooks/{id}/dead")
            .on("get", webhooks::dead, "Events that were given up, newest first", schema::<webhooks::Dead>)
            .asks(&[BEFORE, LIMIT]),
        Route::at("/admin/v1/tenants/{tenant}/webhooks/{id}/replay")
            .on("post", webhooks::replay, "Send again what was given up, at most 1000 events", schema::<webhooks::Replayed>)
            .asks(&[("event", "This event alone; the oldest if absent"), ("limit", "Events, at most 1000, which holds if absent")]),
        Route::at("/admin/v1/tenants/{tenant}/webhooks/{id}/test")
            .on("post", webhooks::test, "Send an event that tells of nothing, once", schema::<webhooks::Tested>),
        Route::at("/admin/v1/tenants/{tenant}/catalog")
            .on("get", reports::catalog, "A page of the repositories that exist", schema::<reports::Catalog>)
            .asks(&[AFTER]),
        Route::at("/admin/v1/tenants/{tenant}/catalog/{*repository}")
            .on("get", reports::repository, "A repository that exists", schema::<reports::Stored>),
        Route::at("/admin/v1/tenants/{tenant}/retention")
            .on("get", retention::show, "What a policy has done and would do", schema::<retention::Known>)
            .asks(&[("policy", "This policy alone; all, in a list, if absent")]),
        Route::at("/admin/v1/tenants/{tenant}/retention/run")
            .on("post", retention::run, "Run a policy now", schema::<retention::Retention>)
            .asks(&[("policy", "The policy"), TERM])
            .answers(MAY_GO_ON),
        Route::at("/admin/v1/tenants/{tenant}/retention/preview")
            .on("post", retention::preview, "What would be deleted now", schema::<retention::Would>)
            .asks(&[("policy", "By this policy, or"), ("repository", "by all policies in this repository")]),
        Route::at("/admin/v1/tenants/{tenant}/retention/explain")
            .on("get", retention::explain, "Why a tag stays or goes", schema::<retention::Explained>)
            .asks(&TAG),
        Route::at("/admin/v1/tenants/{tenant}/pull-through")
            .on("get", pull_through::show, "How a cache fares", schema::<pull_through::Known>)
            .asks(&[("cache", "This cache alone; all, in a list, if absent")]),
        Route::at("/admin/v1/tenants/{tenant}/pull-through/warm")
            .on("post", pull_through::warm, "Fetch a manifest or a blob of a cache's upstream, unless it is here",
                schema::<crate::distribution::Warmed>)
            .asks(&[("cache", "The cache"), ("image", "`<repository>:<tag>` or `<repository>@<digest>` at the upstream"),
                ("blob", "Digest of a blob of that repository, instead of the manifest")])
            .answers(MAY_GO_ON),
        Route::at("/admin/v1/tenants/{tenant}/tags/deleted")
            .on("get", tags::deleted, "Deleted tags that can be brought back", schema::<tags::DeletedTags>)
            .asks(&[TAG[0], AFTER, LIMIT]),
        Route::at("/admin/v1/tenants/{tenant}/tags/restore")
            .on("post", tags::restore, "Bring a deleted tag back", schema::<tags::Back>)
            .asks(&TAG)
            .answers(&["201"]),
        Route::at("/admin/v1/tenants/{tenant}/tags/history")
            .on("get", tags::history, "What became of a tag, newest first", schema::<tags::TagHistory>)
            .asks(&[TAG[0], TAG[1], BEFORE, LIMIT]),
        Route::at("/admin/v1/tenants/{tenant}/{kind}")
            .on("get", objects::list, "The objects of a kind: repositories, retention-policies, caches",
                schema::<Vec<objects::Shown>>),
        Route::at("/admin/v1/tenants/{tenant}/{kind}/{*name}")
            .on("get", objects::get, "An object", schema::<objects::Shown>)
            .on("put", objects::put, "Make an object what the body says", schema::<objects::Changed>)
            .takes(object)
            .on("delete", objects::delete, "Remove an object", schema::<objects::Changed>)
            .asks(&[TERM, UID, ("erase", "true: the repository that it declares by its name is given up too")]),
    ]
}

async fn document() -> Json<Value> {
    Json(make())
}

/// The document.
fn make() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let failure = schema::<Failure>(&mut generator);
    let mut paths = Map::new();
    for route in routes() {
        let operations = route.operations.iter().map(|operation| {
            (
                operation.method.to_owned(),
                describe(route.path, operation, &failure, &mut generator),
            )
        });
        let operations: Map<String, Value> = operations.collect();
        paths.insert(route.path.replace("{*", "{"), operations.into());
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Berth admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Configures tenants, repositories, retention policies, caches and tokens.",
        },
        "security": [{ "key": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn describe(path: &str, operation: &Operation, failure: &Value, generator: &mut SchemaGenerator) -> Value {
    let in_path = path.split(['{', '}']).skip(1).step_by(2).map(|name| {
        json!({ "name": name.trim_start_matches('*'), "in": "path", "required": true, "schema": { "type": "string" } })
    });
    let in_query = operation.query.iter().map(|(name, description)| {
        json!({ "name": name, "in": "query", "description": description, "schema": { "type": "string" } })
    });
    let content = |schema: Value| json!({ "application/json": { "schema": schema } });
    let schema = (operation.answer)(generator);
    let of_type = |kind: &&str| {
        let schema = if *kind == "application/json" {
            schema.clone()
        } else {
            json!({ "type": "string" })
        };
        ((*kind).to_owned(), json!({ "schema": schema }))
    };
    let types: Map<String, Value> = operation.types.iter().map(of_type).collect();
    let mut responses = Map::new();
    for status in operation.statuses {
        let description = if *status == "202" { "Begun" } else { "Done" };
        responses.insert(
            (*status).to_owned(),
            json!({ "description": description, "content": types }),
        );
    }
    responses.insert(
        "default".to_owned(),
        json!({ "description": "Refused", "content": content(failure.clone()) }),
    );
    let mut described = json!({
        "summary": operation.summary,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": responses,
    });
    if let Some(body) = operation.body {
        described["requestBody"] = json!({ "required": true, "content": content(body(generator)) });
    }
    described
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        let document = make();
        let text = document.to_string();
        let mut references = 0;
        for part in text.split("\"$ref\":\"#").skip(1) {
            let pointer = part.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
            references += 1;
        }
        assert!(references > 20, "{references}");
        assert!(
            document
                .pointer("/paths/~1admin~1v1~1tenants~1{tenant}/put/requestBody")
                .is_some()
        );
    }
}
