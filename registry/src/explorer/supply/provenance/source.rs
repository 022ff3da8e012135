//! Which commit of which repository something was built from.

use serde_json::Value;

use super::{Named, Provenance, text};
use crate::explorer::supply::is_web_link;

/// What is known of the source.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Source {
    repository: Option<String>,
    commit: Option<String>,
    git_ref: Option<String>,
    entry_point: Option<String>,
}

impl Source {
    /// What is not known yet, from somewhere else.
    pub fn or(self, other: Self) -> Self {
        Self {
            repository: self.repository.or(other.repository),
            commit: self.commit.or(other.commit),
            git_ref: self.git_ref.or(other.git_ref),
            entry_point: self.entry_point.or(other.entry_point),
        }
    }

    /// Puts it where it is shown.
    pub fn put_into(self, provenance: &mut Provenance) {
        provenance.source_link = self.repository.as_deref().and_then(link);
        provenance.source = self.repository;
        provenance.commit = self.commit;
        provenance.git_ref = self.git_ref;
        provenance.entry_point = self.entry_point;
    }
}

/// BuildKit's `vcs`: `source` and `revision` of the folder that was built.
pub fn of_vcs(value: &Value) -> Source {
    Source {
        repository: text(value, &["source"]),
        // Changes that were not committed are marked behind it.
        commit: text(value, &["revision"]),
        ..Source::default()
    }
}

/// GitHub's `workflow`: `repository`, `ref` and `path`.
pub fn of_workflow(value: &Value) -> Source {
    Source {
        repository: text(value, &["repository"]),
        git_ref: text(value, &["ref"]),
        entry_point: text(value, &["path"]),
        commit: None,
    }
}

/// A `configSource`: `uri`, `digest` and `entryPoint`, or `path` in BuildKit's SLSA 1.
pub fn of_config(value: &Value) -> Source {
    let digest = |algorithm| text(value, &["digest", algorithm]);
    let of_uri = of_uri(text(value, &["uri"]).as_deref());
    Source {
        commit: digest("sha1").or_else(|| digest("gitCommit")),
        entry_point: text(value, &["entryPoint"]).or_else(|| text(value, &["path"])),
        ..of_uri
    }
}

/// The first material that is a repository.
pub fn of_materials(materials: &[Named]) -> Source {
    let is_git = |material: &&Named| {
        material.name.starts_with("git+")
            || material.digest.contains_key("gitCommit")
            || material.name.contains(".git")
    };
    let Some(material) = materials.iter().find(is_git) else {
        return Source::default();
    };
    let commit = ["gitCommit", "sha1"]
        .into_iter()
        .find_map(|key| material.digest.get(key));
    Source {
        commit: commit.cloned(),
        ..of_uri(Some(&material.name))
    }
}

/// A URI with what stands behind it: `git+https://host/a/b@refs/heads/main` (SPDX's way), or
/// `https://host/a/b.git#refs/heads/main:folder` (Docker's).
pub fn of_uri(uri: Option<&str>) -> Source {
    let Some(uri) = uri.filter(|uri| !uri.is_empty()) else {
        return Source::default();
    };
    let (place, behind) = match uri.split_once('#') {
        Some((place, behind)) => (place, behind.split(':').next()),
        None => match uri.rsplit_once('@') {
            // Not the user before a host.
            Some((place, behind))
                if place.contains("://")
                    && !behind.contains("://")
                    && place.contains('.')
                    && !behind.contains('.') =>
            {
                (place, Some(behind))
            }
            _ => (uri, None),
        },
    };
    let behind = behind.filter(|text| !text.is_empty());
    let is_commit = |text: &str| text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    Source {
        repository: Some(place.to_owned()),
        commit: behind.filter(|text| is_commit(text)).map(str::to_owned),
        git_ref: behind.filter(|text| !is_commit(text)).map(str::to_owned),
        entry_point: None,
    }
}

/// Where a repository is in the web, as far as its address tells.
fn link(repository: &str) -> Option<String> {
    let place = repository.strip_prefix("git+").unwrap_or(repository);
    let place = match (place.strip_prefix("git@"), place.strip_prefix("ssh://git@")) {
        // git@host:path
        (Some(rest), _) => format!("https://{}", rest.replacen(':', "/", 1)),
        (None, Some(rest)) => format!("https://{rest}"),
        (None, None) => place.to_owned(),
    };
    let place = place.strip_suffix(".git").unwrap_or(&place).to_owned();
    is_web_link(&place).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_lead_to_the_web_where_they_can() {
        for (repository, expected) in [
            ("https://git.test/a/b.git", Some("https://git.test/a/b")),
            ("git+https://git.test/a/b", Some("https://git.test/a/b")),
            ("git@git.test:a/b.git", Some("https://git.test/a/b")),
            ("ssh://git@git.test/a/b", Some("https://git.test/a/b")),
            ("file:///home/me", None),
            ("javascript:alert(1)", None),
        ] {
            assert_eq!(link(repository).as_deref(), expected, "{repository}");
        }
    }

    #[test]
    fn a_uri_is_read_with_its_ref_or_commit() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let read = |uri: &str| {
            let source = of_uri(Some(uri));
            (source.repository.unwrap(), source.git_ref, source.commit)
        };
        let place = "https://git.test/a/b.git".to_owned();
        let main = Some("refs/heads/main".to_owned());
        assert_eq!(
            read("https://git.test/a/b.git#refs/heads/main:sub"),
            (place.clone(), main.clone(), None)
        );
        assert_eq!(
            read(&format!("https://git.test/a/b.git#{commit}")),
            (place, None, Some(commit.to_owned()))
        );
        assert_eq!(
            read("git+https://git.test/a/b@refs/heads/main"),
            ("git+https://git.test/a/b".to_owned(), main, None)
        );
        assert_eq!(read("git@git.test:a/b").0, "git@git.test:a/b");
    }
}
