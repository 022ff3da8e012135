//! Whatever the schemas admit can be read: an API server stores it, and the operator has to say something about it.

use kube::CustomResourceExt;
use kube::core::cel::Validator;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;
use proptest::string::string_regex;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::*;

/// Values that a schema admits, apart from the rules over several fields.
fn admitted(schema: &Value) -> BoxedStrategy<Value> {
    if let Some(choices) = schema["enum"].as_array() {
        return select(choices.clone()).boxed();
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return prop_oneof![integers(schema), texts(schema)].boxed();
    }
    match schema["type"].as_str() {
        Some("object") if schema["properties"].is_object() => objects(schema),
        Some("object") => vec(("[a-z]{1,8}", admitted(&schema["additionalProperties"])), 0..3)
            .prop_map(|entries| entries.into_iter().collect::<Map<_, _>>().into())
            .boxed(),
        Some("array") => {
            let bound = |name: &str| schema[name].as_f64().map(|bound| bound as usize);
            let least = bound("minItems").unwrap_or(0);
            let most = bound("maxItems").unwrap_or(usize::MAX).min(least + 2);
            vec(admitted(&schema["items"]), least..=most)
                .prop_map(Value::from)
                .boxed()
        }
        Some("integer") => integers(schema),
        Some("boolean") => any::<bool>().prop_map(Value::from).boxed(),
        Some("string") => texts(schema),
        other => panic!("a schema of type {other:?}: {schema}"),
    }
}

fn objects(schema: &Value) -> BoxedStrategy<Value> {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let fields = schema["properties"].as_object().cloned().unwrap_or_default();
    let mut all = Just(Map::new()).boxed();
    for (name, inner) in fields {
        let value = if required.contains(&json!(name)) {
            admitted(&inner).prop_map(Some).boxed()
        } else {
            prop::option::weighted(0.3, admitted(&inner)).boxed()
        };
        all = (all, value)
            .prop_map(move |(mut all, value)| {
                all.extend(value.map(|value| (name.clone(), value)));
                all
            })
            .boxed();
    }
    all.prop_map(Value::from).boxed()
}

fn integers(schema: &Value) -> BoxedStrategy<Value> {
    let bound = |name: &str| schema[name].as_f64().map(|bound| bound as i64);
    let least = bound("minimum").unwrap_or(i64::MIN);
    let most = bound("maximum").unwrap_or(i64::MAX);
    Union::new([Just(least).boxed(), Just(most).boxed(), (least..=most).boxed()])
        .prop_map(Value::from)
        .boxed()
}

fn texts(schema: &Value) -> BoxedStrategy<Value> {
    if schema["format"] == "date-time" {
        return Just(json!("2026-01-31T12:00:00Z")).boxed();
    }
    let pattern = schema["pattern"].as_str().unwrap_or(".{0,16}");
    let pattern = pattern.trim_start_matches('^').trim_end_matches('$');
    // Long repetitions are longer than any field.
    let short = pattern.replace(")+", "){1,3}").replace(")*", "){0,2}");
    let longest = schema["maxLength"].as_f64().unwrap_or(f64::MAX);
    let schema = schema.clone();
    string_regex(&short)
        .unwrap()
        .prop_map(Value::from)
        .prop_filter("longer than the schema allows, or against a rule", move |text| {
            let length = text.as_str().unwrap_or_default().chars().count();
            length as f64 <= longest && Validator::new().validate(&schema, text, None).is_ok()
        })
        .boxed()
}

fn schema<K: CustomResourceExt>() -> Value {
    let definition = serde_json::to_value(K::crd()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"].clone()
}

fn check<K: CustomResourceExt + DeserializeOwned>() {
    let schema = schema::<K>();
    let parts = (admitted(&schema["spec"]), admitted(&schema["status"]));
    let config = ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |((spec, status) in parts)| {
        let object = json!({ "metadata": { "name": "a" }, "spec": spec, "status": status });
        let read = serde_json::from_value::<K>(object.clone());
        prop_assert!(read.is_ok(), "{:?}: {object}", read.err());
    });
}

#[test]
fn every_tenant_that_its_schema_admits_is_readable() {
    check::<Tenant>();
}

#[test]
fn every_repository_that_its_schema_admits_is_readable() {
    check::<Repository>();
}

#[test]
fn every_retention_policy_that_its_schema_admits_is_readable() {
    check::<RetentionPolicy>();
}

#[test]
fn every_cache_that_its_schema_admits_is_readable() {
    check::<PullThroughCache>();
}

fn admits<T: schemars::JsonSchema>(value: &Value) -> bool {
    let schema = serde_json::to_value(schemars::schema_for!(T)).unwrap();
    let within = |number: f64| {
        number >= schema["minimum"].as_f64().unwrap_or(f64::MIN)
            && number <= schema["maximum"].as_f64().unwrap_or(f64::MAX)
    };
    Validator::new().validate(&schema, value, None).is_ok() && value.as_f64().is_none_or(within)
}

#[test]
fn what_is_too_long_or_negative_is_refused_by_the_schema_already() {
    for (span, is_sound) in [
        ("87840h", true),
        ("87839h60m", true),
        ("87840h1ms", false),
        ("87841h", false),
        ("999999999h", false),
    ] {
        assert_eq!(admits::<Span>(&json!(span)), is_sound, "{span}");
        assert_eq!(span.parse::<Span>().is_ok(), is_sound, "{span}");
    }
    for (bytes, is_sound) in [(json!(0), true), (json!(-1), false), (json!(5_u64 << 60), false)] {
        assert_eq!(admits::<Quantity>(&bytes), is_sound, "{bytes}");
    }
}
