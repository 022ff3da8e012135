//! The commands by which clients fetch what a page shows, with this host.

use serde::Serialize;

use crate::domain::Digest;
use crate::explorer::artifact::Kind;
use crate::explorer::visit::Visit;
use crate::metadata::Repository;

/// A line to be copied.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Command {
    /// Of which program.
    pub program: &'static str,
    /// The line.
    pub line: String,
}

/// The commands for a tag, or a digest if there is none.
pub fn of(
    visit: &Visit,
    repository: &Repository,
    tag: Option<&str>,
    digest: &Digest,
    kind: Kind,
) -> Vec<Command> {
    lines(
        &visit.origin.authority,
        repository.name.as_str(),
        tag,
        &digest.to_string(),
        kind,
    )
}

fn lines(host: &str, repository: &str, tag: Option<&str>, digest: &str, kind: Kind) -> Vec<Command> {
    let place = format!("{host}/{repository}");
    let fixed = format!("{place}@{digest}");
    let named = tag.map_or_else(|| fixed.clone(), |tag| format!("{place}:{tag}"));
    let command = |program, line: String| Command { program, line };
    match kind {
        Kind::Image | Kind::ImageIndex => vec![
            command("docker", format!("docker pull {named}")),
            command("docker, by digest", format!("docker pull {fixed}")),
            command("containerd", format!("ctr image pull --user x-token {named}")),
            command("crane", format!("crane manifest {named}")),
            command(
                "skopeo",
                format!("skopeo copy docker://{named} oci:{}", last(repository)),
            ),
        ],
        Kind::HelmChart => {
            // Helm knows tags only, in which it writes + as _.
            let version = tag.map(|tag| format!(" --version {}", tag.replace('_', "+")));
            let version = version.unwrap_or_default();
            vec![
                command(
                    "helm",
                    format!("helm install {} oci://{place}{version}", last(repository)),
                ),
                command(
                    "helm, to look at it",
                    format!("helm show all oci://{place}{version}"),
                ),
                command("oras", format!("oras pull {named}")),
            ]
        }
        _ => vec![
            command("oras", format!("oras pull {named}")),
            command("oras, by digest", format!("oras pull {fixed}")),
            command("crane", format!("crane manifest {named}")),
        ],
    }
}

fn last(repository: &str) -> &str {
    repository.rsplit('/').next().unwrap_or(repository)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_name_the_host_the_tag_and_the_digest() {
        let of = |kind, tag| lines("acme.registry.test:8443", "team/app", tag, "sha256:aa", kind);
        let lines = |commands: Vec<Command>| -> Vec<String> {
            commands.into_iter().map(|command| command.line).collect()
        };
        let image = lines(of(Kind::Image, Some("v1")));
        assert!(
            image.contains(&"docker pull acme.registry.test:8443/team/app:v1".to_owned()),
            "{image:?}"
        );
        assert!(image.contains(&"docker pull acme.registry.test:8443/team/app@sha256:aa".to_owned()));
        let chart = lines(of(Kind::HelmChart, Some("1.2.3_build")));
        assert_eq!(
            chart[0],
            "helm install app oci://acme.registry.test:8443/team/app --version 1.2.3+build"
        );
        let fixed = lines(of(Kind::Artifact, None));
        assert_eq!(fixed[0], "oras pull acme.registry.test:8443/team/app@sha256:aa");
    }
}
