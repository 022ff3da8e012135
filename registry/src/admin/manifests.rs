//! Resources from YAML files: `--manifests` of `serve`, and `apply -f`.
//!
//! A file may hold several documents. What `secretRef` names is read from `secrets/<name>/<key>` beside the file.
//! A file is applied whole or not at all: one wrong document leaves everything that the file says as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_crds::resolve::Follow;
use berth_crds::{Invalid, Resource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize as _;

use super::configure::{Configurator, ConfigureError, Spec, State, Wanted, Writer};
use crate::domain::TenantName;
use crate::metadata::configuration::{Configuration, ObjectCursor, ObjectKind};

/// Largest file in bytes.
const FILE_LIMIT: u64 = 4 * 1024 * 1024;
/// Between two looks at the folder.
const EVERY: Duration = Duration::from_millis(500);
/// Objects of one query.
const PAGE: u32 = 500;
/// What the uid of an object from a folder begins with.
const ORIGIN: &str = "manifests:";

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
    let folder = file.parent().unwrap_or(Path::new("."));
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    for (line, text) in split(&text) {
        match document(&text, folder) {
            Ok(Some(wanted)) => documents.push(Document {
                file: file.to_owned(),
                line,
                wanted,
            }),
            Ok(None) => {}
            Err(found) => {
                let at = |(offset, why): (usize, String)| wrong(line + offset, why);
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

/// What shows that a folder has changed: its files with their sizes and times, secrets included.
fn look(folder: &Path) -> String {
    fn note(path: &Path, depth: u8, seen: &mut String) {
        let Ok(entries) = fs::read_dir(path) else { return };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort_unstable();
        for path in paths {
            let Ok(about) = fs::metadata(&path) else { continue };
            if about.is_dir() && depth > 0 {
                note(&path, depth - 1, seen);
            } else {
                // Writing to a string does not fail.
                let _ = writeln!(
                    seen,
                    "{} {} {:?}",
                    path.display(),
                    about.len(),
                    about.modified().ok()
                );
            }
        }
    }
    let mut seen = String::new();
    note(folder, 2, &mut seen);
    seen
}

/// A watched folder.
pub struct Folder {
    path: PathBuf,
    configurator: Arc<Configurator>,
    store: Arc<dyn Configuration>,
}

impl Folder {
    /// A folder to be applied through `configurator`.
    pub fn new(path: PathBuf, configurator: Arc<Configurator>, store: Arc<dyn Configuration>) -> Self {
        Self {
            path,
            configurator,
            store,
        }
    }

    /// Applies the folder now and whenever it changes, for ever.
    pub async fn follow(self) {
        let folder = Arc::new(self);
        let (mut seen, mut applied) = (None, None);
        loop {
            let path = folder.path.clone();
            let now = tokio::task::spawn_blocking(move || look(&path)).await.ok();
            // Two equal looks in a row: a file that is just being written is not read in the middle.
            if now == seen && now != applied {
                let again = folder.apply().await;
                applied = now.clone().filter(|_| !again);
            }
            seen = now;
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Applies what is right and reports what is not; true if it must be tried again.
    pub async fn apply(&self) -> bool {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || {
            let files = files(&path)?;
            Ok::<_, std::io::Error>(
                files
                    .into_iter()
                    .map(|file| (read(&file), file))
                    .collect::<Vec<_>>(),
            )
        });
        let read = match read.await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => {
                tracing::error!(folder = %self.path.display(), %error, "--manifests cannot be read");
                return false;
            }
            Err(_) => return true,
        };
        let (mut documents, mut wrong) = (Vec::new(), BTreeSet::new());
        for (outcome, file) in read {
            match outcome {
                Ok(found) => documents.extend(found),
                Err(problems) => {
                    report(&problems);
                    wrong.insert(file);
                }
            }
        }
        // Whoever is referred to comes first.
        documents.sort_by_key(|document| document.wanted.kind);
        loop {
            match self.apply_documents(&documents, &wrong).await {
                Ok(()) => return false,
                Err(Refused::File(problem)) => {
                    documents.retain(|document| document.file != problem.file);
                    wrong.insert(problem.file.clone());
                    report(&[problem]);
                }
                Err(Refused::Store(error)) => {
                    tracing::warn!(%error, "--manifests could not be applied; it is tried again");
                    return true;
                }
            }
        }
    }

    async fn apply_documents(
        &self,
        documents: &[Document],
        wrong: &BTreeSet<PathBuf>,
    ) -> Result<(), Refused> {
        let origin = |file: &Path| {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
            format!("{ORIGIN}{}", name.unwrap_or_default())
        };
        let mut wanted: Vec<Wanted> = documents
            .iter()
            .map(|document| Wanted {
                uid: Some(origin(&document.file)),
                ..document.wanted.clone()
            })
            .collect();
        let kept: BTreeSet<_> = wanted.iter().map(key).collect();
        let untouched: BTreeSet<String> = wrong.iter().map(|file| origin(file)).collect();
        let gone = self.gone(&kept, &untouched).await.map_err(Refused::Store)?;
        let prunes = gone.len();
        wanted.extend(gone);
        if wanted.is_empty() {
            return Ok(());
        }
        let writer = Writer {
            actor: "manifests".to_owned(),
            term: None,
        };
        match self.configurator.apply(wanted, &writer).await {
            Ok(done) => {
                if done.changed > 0 {
                    tracing::info!(
                        changed = done.changed,
                        removed = prunes,
                        version = done.version,
                        "applied --manifests"
                    );
                }
                Ok(())
            }
            Err(error) => Err(refused(error, documents)),
        }
    }

    /// Objects that came from a file which does not say them any more.
    async fn gone(
        &self,
        kept: &BTreeSet<(TenantName, ObjectKind, String)>,
        untouched: &BTreeSet<String>,
    ) -> Result<Vec<Wanted>, ConfigureError> {
        let mut cursor = ObjectCursor::default();
        let mut gone = Vec::new();
        loop {
            let page = self.store.objects(cursor, PAGE).await?;
            let Some(last) = page.last() else { break };
            cursor = ObjectCursor::behind(last);
            for object in page.into_iter().filter(|object| object.spec.is_some()) {
                let from_folder = object
                    .uid
                    .as_ref()
                    .is_some_and(|uid| uid.starts_with(ORIGIN) && !untouched.contains(uid));
                let Ok(tenant) = object.tenant_name.parse::<TenantName>() else {
                    continue;
                };
                let wanted = Wanted {
                    tenant,
                    kind: object.kind,
                    name: object.name,
                    uid: None,
                    generation: 0,
                    state: State::Gone,
                };
                if from_folder && !kept.contains(&key(&wanted)) {
                    gone.push(wanted);
                }
            }
        }
        // A tenant goes after its objects.
        gone.sort_by_key(|wanted| std::cmp::Reverse(wanted.kind));
        Ok(gone)
    }
}

fn key(wanted: &Wanted) -> (TenantName, ObjectKind, String) {
    (wanted.tenant.clone(), wanted.kind, wanted.name.clone())
}

enum Refused {
    File(Wrong),
    Store(ConfigureError),
}

fn refused(error: ConfigureError, documents: &[Document]) -> Refused {
    let why = error.to_string();
    let at = match &error {
        ConfigureError::Invalid { at, .. } | ConfigureError::Taken { at, .. } => documents.get(*at),
        ConfigureError::NoTenant(name) => documents.iter().find(|document| {
            document.wanted.tenant.as_str() == name && document.wanted.kind != ObjectKind::Tenant
        }),
        ConfigureError::StaleTerm { .. } | ConfigureError::Seal(_) | ConfigureError::Store(_) => None,
    };
    match at {
        Some(document) => Refused::File(Wrong {
            file: document.file.clone(),
            line: document.line,
            why,
        }),
        None => Refused::Store(error),
    }
}

fn report(problems: &[Wrong]) {
    for problem in problems {
        tracing::error!(
            file = %problem.file.display(),
            line = problem.line,
            why = problem.why,
            "a manifest is wrong; nothing of its file is applied"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Document>, Vec<Wrong>> {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secrets/hub");
        fs::create_dir_all(&secret).unwrap();
        fs::write(secret.join("username"), "user\n").unwrap();
        fs::write(secret.join("password"), "hunter2\n").unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, text).unwrap();
        read(&file)
    }

    const GOOD: &str = "\
# a comment
apiVersion: berth.dev/v1alpha1
kind: Tenant
metadata: {name: acme}
spec: {displayName: Acme}
---
apiVersion: berth.dev/v1alpha1
kind: PullThroughCache
metadata: {name: hub}
spec:
  tenantRef: {name: acme}
  upstream: {url: https://registry-1.docker.io, credentialsSecretRef: {name: hub}}
  prefix: docker.io
---
";

    #[test]
    fn a_file_of_several_documents_is_read_with_its_secrets() {
        let documents = read_text(GOOD).unwrap();
        assert_eq!(
            documents.iter().map(|document| document.line).collect::<Vec<_>>(),
            [1, 7]
        );
        let State::Is(Spec::Cache(cache)) = &documents[1].wanted.state else {
            panic!("no cache");
        };
        assert_eq!(cache.upstream.password.as_ref().unwrap().0, "hunter2");
        assert_eq!(documents[1].wanted.name, "default/hub");
        assert!(!format!("{documents:?}").contains("hunter2"));
    }

    #[test]
    fn every_mistake_is_told_with_its_line_and_nothing_is_used() {
        let bad = GOOD.replace("displayName: Acme", "displayname: Acme");
        let wrong = read_text(&bad).unwrap_err();
        assert_eq!(wrong.len(), 1);
        assert!(wrong[0].why.contains("displayname"), "{}", wrong[0]);

        let bad = GOOD.replace("prefix: docker.io", "prefix: Docker.io");
        let wrong = read_text(&bad).unwrap_err();
        assert_eq!(
            (wrong[0].line, wrong[0].why.starts_with("spec.prefix: ")),
            (13, true),
            "{}",
            wrong[0]
        );

        let wrong = read_text(&GOOD.replace("kind: PullThroughCache", "kind: Cache")).unwrap_err();
        assert_eq!(wrong[0].line, 8, "{}", wrong[0]);
        let wrong = read_text(&GOOD.replace("{name: hub}}", "{name: absent}}")).unwrap_err();
        assert!(wrong[0].why.contains("absent"), "{}", wrong[0]);
        let wrong = read_text("a: [1\nb: 2\n").unwrap_err();
        assert!(wrong[0].line >= 1, "{}", wrong[0]);
    }
}
