//! Provenance in words: SLSA 0.2 and 1 (slsa.dev/spec, "Provenance"), as BuildKit, GitHub and GitLab write it.
//!
//! What they say of the source they say in different places; all that are known are looked at, the most exact first.
//! Nothing here has been verified: who has signed a statement is not asked.

mod login;
mod source;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use self::source::Source;
use super::{UnreadableDocument, clipped, is_web_link, statement};

/// What the predicate types of provenance begin with.
const PREDICATE: &str = "https://slsa.dev/provenance/";
/// Things that are kept of each list.
const KEPT: usize = 200;
/// Longest path of a parameter, in characters, and how many wait to be looked at.
const PATH: usize = 200;
const OPEN: usize = 1000;

/// How something was built, as its builder says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// Like `https://slsa.dev/provenance/v1`.
    pub predicate_type: String,
    /// Who built it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builder: Option<String>,
    /// How: a URI that the builder gives its way of building.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_type: Option<String>,
    /// The source repository, as it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Where it is in the web.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_link: Option<String>,
    /// The commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The branch or tag.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub git_ref: Option<String>,
    /// The file that says what to build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry_point: Option<String>,
    /// Which build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// Where the build is in the web.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_link: Option<String>,
    /// As it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// As it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// What was built, at most 200.
    pub subjects: Vec<Named>,
    /// How many that are.
    pub subject_count: usize,
    /// What it was built from, at most 200.
    pub materials: Vec<Named>,
    /// How many that are.
    pub material_count: usize,
    /// What the build was told, at most 200, by their paths.
    pub parameters: BTreeMap<String, String>,
}

/// Something by its name or URI, with its digests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Name or URI.
    pub name: String,
    /// By algorithm.
    pub digest: BTreeMap<String, String>,
}

/// Reads provenance of at most a few MiB.
pub fn read(bytes: &[u8]) -> Result<Provenance, UnreadableDocument> {
    let opened = statement::open(bytes)?;
    let kind = opened.predicate_type.unwrap_or_default();
    if !kind.starts_with(PREDICATE) {
        let what = if kind.is_empty() {
            "a document without a predicateType".to_owned()
        } else {
            clipped(&kind)
        };
        return Err(UnreadableDocument::Unsupported(what, "SLSA provenance 0.2 and 1"));
    }
    let predicate: Value = serde_json::from_slice(&opened.document)?;
    let mut provenance = match predicate.get("buildDefinition") {
        Some(_) => first(&predicate),
        None => zero_two(&predicate),
    };
    provenance.predicate_type = clipped(&kind);
    provenance.subject_count = opened.subjects.len();
    let subjects = opened.subjects.into_iter().take(KEPT);
    provenance.subjects = subjects
        .map(|subject| Named {
            name: clipped(subject.name.as_deref().unwrap_or_default()),
            digest: short(subject.digest),
        })
        .collect();
    let links = [&provenance.build_id, &provenance.builder];
    provenance.build_link = links
        .into_iter()
        .flatten()
        .find(|text| is_web_link(text))
        .cloned();
    Ok(provenance)
}

/// SLSA 1: `buildDefinition` and `runDetails`.
fn first(predicate: &Value) -> Provenance {
    let external = at(predicate, &["buildDefinition", "externalParameters"]);
    let metadata = at(predicate, &["runDetails", "metadata"]);
    let (materials, material_count) = named(at(predicate, &["buildDefinition", "resolvedDependencies"]));
    let source = Source::default()
        .or(source::of_vcs(at(metadata, &["buildkit_metadata", "vcs"])))
        .or(source::of_workflow(at(external, &["workflow"])))
        .or(source::of_config(at(external, &["configSource"])))
        .or(source::of_uri(text(external, &["source"]).as_deref()))
        .or(source::of_materials(&materials));
    let mut provenance = Provenance {
        builder: text(predicate, &["runDetails", "builder", "id"]),
        build_type: text(predicate, &["buildDefinition", "buildType"]),
        build_id: text(metadata, &["invocationId"]),
        started: text(metadata, &["startedOn"]),
        finished: text(metadata, &["finishedOn"]),
        parameters: flat(external),
        materials,
        material_count,
        ..Provenance::default()
    };
    source.put_into(&mut provenance);
    provenance
}

/// SLSA 0.2: `invocation`, `materials`, `metadata`.
fn zero_two(predicate: &Value) -> Provenance {
    let metadata = at(predicate, &["metadata"]);
    let (materials, material_count) = named(at(predicate, &["materials"]));
    let buildkit = at(metadata, &["https://mobyproject.org/buildkit@v1#metadata", "vcs"]);
    let source = Source::default()
        .or(source::of_vcs(buildkit))
        .or(source::of_config(at(predicate, &["invocation", "configSource"])))
        .or(source::of_materials(&materials));
    let mut provenance = Provenance {
        builder: text(predicate, &["builder", "id"]),
        build_type: text(predicate, &["buildType"]),
        build_id: text(metadata, &["buildInvocationID"]).or_else(|| text(metadata, &["buildInvocationId"])),
        started: text(metadata, &["buildStartedOn"]),
        finished: text(metadata, &["buildFinishedOn"]),
        parameters: flat(at(predicate, &["invocation", "parameters"])),
        materials,
        material_count,
        ..Provenance::default()
    };
    source.put_into(&mut provenance);
    provenance
}

/// What lies at a path; null if nothing does.
fn at<'v>(value: &'v Value, path: &[&str]) -> &'v Value {
    path.iter()
        .fold(value, |value, key| value.get(key).unwrap_or(&Value::Null))
}

/// A text that says something.
fn text(value: &Value, path: &[&str]) -> Option<String> {
    let text = at(value, path).as_str()?.trim();
    (!text.is_empty()).then(|| clipped(&login::left_away(text.to_owned())))
}

fn digests(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    let texts = pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    short(texts.collect())
}

fn short(digests: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let few = digests.into_iter().take(8);
    few.map(|(key, value)| (clipped(&key), clipped(&value))).collect()
}

/// Materials or dependencies, and how many there are.
fn named(value: &Value) -> (Vec<Named>, usize) {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let kept = list.iter().take(KEPT).map(|item| Named {
        name: text(item, &["uri"])
            .or_else(|| text(item, &["name"]))
            .unwrap_or_default(),
        digest: digests(at(item, &["digest"])),
    });
    (kept.collect(), list.len())
}

/// Texts, numbers and truths of a document by their paths, as far as [`KEPT`] goes; what may be secret by its name is not
/// told.
fn flat(value: &Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open: Vec<(String, &Value)> = vec![(String::new(), value)];
    while let Some((path, value)) = open.pop() {
        if found.len() >= KEPT {
            break;
        }
        // Each holds the path to it: so many, and so short, whatever the document says.
        let below = |key: &str| match path.as_str() {
            "" => key.chars().take(PATH).collect::<String>(),
            path => path.chars().chain(['.']).chain(key.chars()).take(PATH).collect(),
        };
        let room = OPEN.saturating_sub(open.len());
        match value {
            Value::Object(map) => {
                let items: Vec<_> = map.iter().take(room.min(KEPT)).collect();
                open.extend(items.into_iter().rev().map(|(key, value)| (below(key), value)));
            }
            Value::Array(list) => {
                let items = list.iter().take(room.min(KEPT)).enumerate();
                open.extend(items.map(|(at, value)| (below(&at.to_string()), value)));
            }
            Value::String(_) | Value::Number(_) if may_be_secret(&path) => {
                found.insert(path, "not shown".to_owned());
            }
            Value::String(text) => drop(found.insert(path, clipped(&login::left_away(text.clone())))),
            Value::Bool(_) | Value::Number(_) => drop(found.insert(path, value.to_string())),
            Value::Null => {}
        }
    }
    found
}

/// Parts of names by which a value may be a secret.
const SECRETS: [&str; 7] = [
    "secret",
    "token",
    "passw",
    "credential",
    "apikey",
    "api_key",
    "private_key",
];

/// Whether the value at a path may be one. BuildKit lists the ids of secrets, which are none.
fn may_be_secret(path: &str) -> bool {
    let path = path.to_lowercase().replace('-', "_");
    SECRETS.iter().any(|part| path.contains(part)) && !path.ends_with(".id")
}

#[cfg(test)]
mod tests;
