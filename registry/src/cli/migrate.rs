//! `berth-registry migrate`: the metadata store's schema, up to date.

use std::io::Write;

use serde_json::json;

use super::data_folder::DataFolder;
use super::{Ended, Output};
use crate::metadata;
use crate::settings::{Settings, redact};

pub(super) async fn run(settings: &Settings, output: Output) -> Ended {
    if settings.read_only {
        return Err("--read-only is set: migrate the primary, with its settings".into());
    }
    // SQLite has one user at a time; Postgres takes a lock of its own.
    let embedded = settings.metadata.starts_with("sqlite:");
    let _held = if embedded {
        Some(DataFolder::hold(&settings.data)?)
    } else {
        None
    };
    let options = metadata::Options {
        migrate: true,
        connections: settings.postgres_connections,
        prepared: settings.postgres_prepared,
        read_only: false,
    };
    metadata::migrate(&settings.metadata, &options).await?;
    let store = redact::url(&settings.metadata);
    let text = match output {
        Output::Text => format!("the schema of {store} is up to date\n"),
        Output::Json => format!("{}\n", json!({ "metadata": store, "migrated": true })),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
