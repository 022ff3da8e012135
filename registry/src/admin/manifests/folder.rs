//! The folder of `--manifests`: applied at the start, followed, and taken back where it says no more.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::configure::{Configurator, ConfigureError, State, Wanted, Writer};
use super::{Document, Wrong, files, read};
use crate::domain::TenantName;
use crate::metadata::configuration::{Configuration, ObjectCursor, ObjectKind};

/// Between two looks at the folder.
const EVERY: Duration = Duration::from_millis(500);
/// Objects of one query.
const PAGE: u32 = 500;
/// What the uid of an object from a folder begins with.
const ORIGIN: &str = "manifests:";

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
        ConfigureError::Invalid { at, .. }
        | ConfigureError::Taken { at, .. }
        | ConfigureError::Replaced { at } => documents.get(*at),
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
