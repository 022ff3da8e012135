//! Resources from YAML files: `--manifests` of `serve`, and `apply -f`.
//!
//! A file may hold several documents. What `secretRef` names is read from `secrets/<name>/<key>` beside the file.
//! A file is applied whole or not at all: one wrong document leaves everything that the file says as it was.

mod folder;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use berth_crds::resolve::Follow;
use berth_crds::{Invalid, Resource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize as _;

use super::configure::{Spec, State, Wanted};
use crate::domain::TenantName;
use crate::metadata::configuration::ObjectKind;
pub use folder::Folder;

/// Largest file in bytes.
const FILE_LIMIT: u64 = 4 * 1024 * 1024;

/// What is wrong with a file, with the line of the document or of the mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {why}", file.display())]
pub struct Wrong {
    /// Which.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// What to change.
    pub why: String,
}

/// A document that is right as far as it alone shows.
#[derive(Debug, Clone)]
pub struct Document {
    /// Where it comes from.
    pub file: PathBuf,
    /// Its first line.
    pub line: usize,
    /// What it says.
    pub wanted: Wanted,
}

/// References into files beside a manifest.
struct Beside<'a> {
    folder: &'a Path,
    namespace: String,
}

impl Follow for Beside<'_> {
    fn namespaces(&self, _: &LabelSelector) -> Result<Vec<String>, String> {
        Err(
            "there is no cluster whose namespaces a selector could match; list them under namespaces"
                .to_owned(),
        )
    }

    fn secret(&self, _: Option<&str>, name: &str) -> Result<BTreeMap<String, String>, String> {
        let folder = self.folder.join("secrets").join(name);
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        let mut entries = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if let (Some(key), true) = (path.file_name().and_then(|key| key.to_str()), path.is_file()) {
                let value = fs::read_to_string(&path).map_err(failed)?;
                entries.insert(key.to_owned(), value.trim_end_matches('\n').to_owned());
            }
        }
        Ok(entries)
    }

    fn cluster_keys(&self) -> Result<(Option<String>, String), String> {
        Err("there is no cluster whose keys could be read; give them under jwks".to_owned())
    }

    fn object(&self, name: &str) -> String {
        format!("{}/{name}", self.namespace)
    }
}

/// Reads a file. All that is wrong in it is told, and nothing of it is used then.
pub fn read(file: &Path) -> Result<Vec<Document>, Vec<Wrong>> {
    let wrong = |line: usize, why: String| Wrong {
        file: file.to_owned(),
        line,
        why,
    };
    let size = fs::metadata(file)
        .map_err(|error| vec![wrong(1, error.to_string())])?
        .len();
    if size > FILE_LIMIT {
        return Err(vec![wrong(
            1,
            format!("the file has more than {FILE_LIMIT} bytes"),
        )]);
    }
    let text = fs::read_to_string(file).map_err(|error| vec![wrong(1, error.to_string())])?;
    read_text(file, &text)
}

/// Reads what a file holds.
pub(crate) fn read_text(file: &Path, text: &str) -> Result<Vec<Document>, Vec<Wrong>> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    for (line, text) in split(text) {
        match document(&text, folder) {
            Ok(Some(wanted)) => documents.push(Document {
                file: file.to_owned(),
                line,
                wanted,
            }),
            Ok(None) => {}
            Err(found) => {
                let at = |(offset, why): (usize, String)| Wrong {
                    file: file.to_owned(),
                    line: line + offset,
                    why,
                };
                problems.extend(found.into_iter().map(at));
            }
        }
    }
    if problems.is_empty() {
        Ok(documents)
    } else {
        Err(problems)
    }
}

/// The documents of a text, each with the line that it begins on.
fn split(text: &str) -> Vec<(usize, String)> {
    let mut documents = vec![(1, String::new())];
    for (number, line) in text.lines().enumerate() {
        if line == "---" || line.starts_with("--- ") {
            documents.push((number + 2, String::new()));
        } else if let Some((_, document)) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    documents
}

/// What a document says; `None` if nothing. Problems come with their line inside of it, from 0.
fn document(text: &str, folder: &Path) -> Result<Option<Wanted>, Vec<(usize, String)>> {
    let syntax = |error: serde_yaml::Error| {
        let line = error
            .location()
            .map_or(0, |location| location.line().saturating_sub(1));
        vec![(line, error.to_string())]
    };
    let value = serde_yaml::Value::deserialize(serde_yaml::Deserializer::from_str(text)).map_err(syntax)?;
    if value.is_null() {
        return Ok(None);
    }
    let value = serde_json::to_value(value).map_err(|error| vec![(0, error.to_string())])?;
    let invalid = |problems: Vec<Invalid>| -> Vec<(usize, String)> {
        let place = |invalid: Invalid| (line_of(text, &invalid.path), invalid.to_string());
        problems.into_iter().map(place).collect()
    };
    let resource = Resource::from_value(value).map_err(invalid)?;
    wanted(resource, folder).map(Some).map_err(invalid)
}

/// The line of a field: that of the last name in its path which occurs in the text, searched in their order.
fn line_of(text: &str, path: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let mut at = 0;
    for part in path.split('.') {
        let name = part.split('[').next().unwrap_or(part);
        let names = |line: &&str| {
            let line = line.trim_start().trim_start_matches("- ").trim_start_matches('{');
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'))
        };
        if let Some(found) = lines.iter().skip(at).position(names) {
            at += found;
        }
    }
    at
}

fn wanted(resource: Resource, folder: &Path) -> Result<Wanted, Vec<Invalid>> {
    let beside = |namespace: Option<String>| Beside {
        folder,
        namespace: namespace.unwrap_or_else(|| "default".to_owned()),
    };
    let (tenant, kind, name, generation, spec) = match resource {
        Resource::Tenant(object) => {
            if !object.spec.tokens.is_empty() || object.spec.pull_secrets.is_some() {
                tracing::warn!(
                    tenant = object.metadata.name,
                    "tokens and pullSecrets are handed over by the operator alone; make tokens by \
                     `berth-registry token create`"
                );
            }
            let config = object.spec.resolve(&beside(None))?;
            let name = object.metadata.name.unwrap_or_default();
            let spec = Spec::Tenant(Box::new(config));
            (
                name,
                ObjectKind::Tenant,
                String::new(),
                object.metadata.generation,
                spec,
            )
        }
        Resource::Repository(object) => {
            let beside = beside(object.metadata.namespace);
            let name = beside.object(&object.metadata.name.unwrap_or_default());
            let spec = Spec::Repository(Box::new(object.spec.resolve(&beside)));
            (
                object.spec.tenant_ref.name,
                ObjectKind::Repository,
                name,
                object.metadata.generation,
                spec,
            )
        }
        Resource::RetentionPolicy(object) => {
            let beside = beside(object.metadata.namespace);
            let name = beside.object(&object.metadata.name.unwrap_or_default());
            let spec = Spec::RetentionPolicy(Box::new(object.spec.resolve()));
            (
                object.spec.tenant_ref.name,
                ObjectKind::RetentionPolicy,
                name,
                object.metadata.generation,
                spec,
            )
        }
        Resource::PullThroughCache(object) => {
            let beside = beside(object.metadata.namespace);
            let name = beside.object(&object.metadata.name.unwrap_or_default());
            let spec = Spec::Cache(Box::new(object.spec.resolve(&beside)?));
            (
                object.spec.tenant_ref.name,
                ObjectKind::Cache,
                name,
                object.metadata.generation,
                spec,
            )
        }
    };
    let tenant: TenantName = tenant.parse().map_err(|error| {
        vec![Invalid {
            path: "metadata.name".to_owned(),
            why: format!("{error}"),
        }]
    })?;
    Ok(Wanted {
        tenant,
        kind,
        name,
        uid: None,
        generation: generation.unwrap_or_default(),
        state: State::Is(spec),
    })
}

/// The YAML files of a folder, by name.
pub fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let yaml = path
            .extension()
            .is_some_and(|ending| ending == "yaml" || ending == "yml");
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if yaml && !hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests;
