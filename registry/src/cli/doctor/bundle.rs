//! All of it in one file for somebody else to look at, without secrets: the report, the settings with passwords taken out,
//! the figures, and what the admin API says of replicas, tenants' names and hosts, and collection.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::report::Report;
use super::server::Told;
use crate::metadata::Time;
use crate::rfc3339;
use crate::settings::{Resolved, Settings, print, redact};

/// Writes it. A file of that name is not overwritten.
pub(super) async fn write(
    path: &Path,
    resolved: &Resolved,
    settings: &Settings,
    report: &Report,
    told: Option<&Told>,
) -> Result<(), Box<dyn Error>> {
    let system = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "at": rfc3339::write(Time::now()),
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "metadata": redact::url(&settings.metadata),
        "blobs": redact::url(&settings.blobs),
    });
    let mut files = vec![
        (
            "report.json".to_owned(),
            format!("{:#}\n", json!(report.findings())),
        ),
        (
            "settings.json".to_owned(),
            format!("{:#}\n", print::json(resolved)),
        ),
        ("system.json".to_owned(), format!("{system:#}\n")),
    ];
    if let Some(told) = told {
        files.push(("metrics.txt".to_owned(), told.metrics.clone()));
        let answers = told.answers.iter();
        files.extend(answers.map(|(name, value)| ((*name).to_owned(), format!("{value:#}\n"))));
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let file = file.map_err(|error| format!("--bundle {}: {error}", path.display()))?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(Time::now().0 / 1_000_000).unwrap_or_default());
        archive.append_data(&mut header, format!("berth-doctor/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()?;
    Ok(())
}
