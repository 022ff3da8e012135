//! `berth-operator node-mirrors`: tells a node's containerd to ask a tenant for other registries' images.
//!
//! It writes one `hosts.toml` for each registry into the folder that containerd's `config_path` names, and looks again
//! every minute. It needs that folder and nothing else: no network, no API server, no token. Registries that leave the
//! list lose their files at once, all of them when it is told to end; a successor that has taken over keeps them.

mod folder;
mod hosts;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use berth_crds::check::dns_name;
use clap::{ArgAction, Parser};
use tokio_util::sync::CancellationToken;

pub use folder::FolderError;
use folder::{Done, Folder, Looked};
pub use hosts::Mirror;

use crate::settings::span;

/// What it is told by flags and variables (`BERTH_NODE_MIRRORS_…`).
#[derive(Debug, Clone, Parser)]
#[command(
    name = "berth-operator node-mirrors",
    bin_name = "berth-operator node-mirrors",
    version,
    about = "Tells a node's containerd to ask a tenant for other registries' images"
)]
pub struct Settings {
    /// The folder that containerd's config_path names.
    #[arg(
        long,
        env = "BERTH_NODE_MIRRORS_HOSTS_DIR",
        default_value = "/etc/containerd/certs.d"
    )]
    pub hosts_dir: PathBuf,
    /// A registry and whom to ask for it first, as upstream=docker.io,endpoint=https://acme.registry.example.com;
    /// server=URL is who is asked then, if not the registry itself, and ca=PATH a file of the node with further
    /// authorities. May be repeated; without any, files that were written before are removed.
    #[arg(long = "mirror", env = "BERTH_NODE_MIRRORS_MIRRORS", value_delimiter = '\n')]
    pub mirrors: Vec<Mirror>,
    /// Who runs this, like berth-system/berth: files of other owners are left alone.
    #[arg(long, env = "BERTH_NODE_MIRRORS_OWNER", default_value = "berth", value_parser = owner)]
    pub owner: String,
    /// Which of this owner's processes this is, the same after a restart; the last to start has the files.
    #[arg(long, env = "BERTH_NODE_MIRRORS_INSTANCE", default_value = "1")]
    pub instance: String,
    /// Remove the files when told to end.
    #[arg(long, env = "BERTH_NODE_MIRRORS_REMOVE_ON_EXIT", default_value_t = true, action = ArgAction::Set)]
    pub remove_on_exit: bool,
    /// Write the files and end; they stay.
    #[arg(long)]
    pub once: bool,
    /// Between two looks at the files.
    #[arg(long, env = "BERTH_NODE_MIRRORS_EVERY", default_value = "1m", value_parser = span)]
    pub every: Duration,
    /// What is logged, as a filter of `tracing`.
    #[arg(long, env = "BERTH_NODE_MIRRORS_LOG", default_value = "info")]
    pub log: String,
}

/// Why it ends.
#[derive(Debug, thiserror::Error)]
pub enum MirrorsError {
    /// The folder could not be read or changed.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Two mirrors have one file.
    #[error("--mirror names {0} twice")]
    Twice(String),
}

/// Writes the files, and keeps them as they are to be until it is told to end.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), MirrorsError> {
    let mut seen = BTreeSet::new();
    for mirror in &settings.mirrors {
        if !seen.insert(mirror.folder()) {
            return Err(MirrorsError::Twice(mirror.upstream().to_owned()));
        }
    }
    let folder = Folder::new(&settings.hosts_dir, &settings.owner, &settings.instance);
    folder.take_over()?;
    let (mut left, mut was_succeeded) = (Vec::new(), false);
    loop {
        match folder.look(&settings.mirrors)? {
            Looked::Done(done) => {
                tell(&done, &left);
                left = done.left;
                was_succeeded = false;
            }
            Looked::Succeeded if was_succeeded => {}
            Looked::Succeeded => {
                tracing::info!("a process that started later has the files");
                was_succeeded = true;
            }
        }
        if settings.once {
            folder.give_up(false)?;
            return Ok(());
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(settings.every) => {}
        }
    }
    for registry in folder.give_up(settings.remove_on_exit)? {
        tracing::info!(registry, "the node asks the registry itself");
    }
    Ok(())
}

/// Tells what was done, and what is left to others unless that was told before.
fn tell(done: &Done, left_before: &[(String, &str)]) {
    for registry in &done.written {
        tracing::info!(registry, "the node asks the mirror first");
    }
    for registry in &done.removed {
        tracing::info!(registry, "the node asks the registry itself");
    }
    for (registry, why) in done.left.iter().filter(|left| !left_before.contains(left)) {
        tracing::warn!(registry, why, "left as it is");
    }
}

/// DNS names separated by slashes.
fn owner(text: &str) -> Result<String, String> {
    if text.len() > 200 {
        return Err("at most 200 characters".to_owned());
    }
    text.split('/').try_for_each(dns_name)?;
    Ok(text.to_owned())
}
