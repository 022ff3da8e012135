//! `backup`: copies of an installation on SQLite and a folder, made while it runs or while it does not.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use http::Method;
use serde_json::{Value, json};

use super::administer::{group, leaf, plain, positional};
use super::client::Client;
use super::data_folder::{DataFolder, DataFolderError};
use super::file_limit;
use super::progress::{done, shown};
use super::table::{Table, bytes};
use super::{Ended, Output};
use crate::backup::progress::Progress;
use crate::backup::{BackupFolder, Faults, Generation, Pace, take, verify};
use crate::metadata::Time;
use crate::rfc3339;
use crate::settings::Settings;
use crate::settings::units::Rate;

/// Its name on the command line.
pub(super) const NAME: &str = "backup";

/// For how long the server is asked to delete nothing, and how often it is asked again.
const HOLD: Duration = Duration::from_secs(60);
const HOLD_AGAIN: Duration = Duration::from_secs(15);
/// Faults that are shown to people.
const SHOWN: usize = 20;

/// Why there is no good backup.
#[derive(Debug, thiserror::Error)]
enum BackupCommandError {
    #[error(
        "--metadata and --blobs are not SQLite and a folder: databases and buckets are backed up by their own tools, as \
         docs/backup.md says"
    )]
    Distributed,
    #[error("{} is in the data folder, and would be lost with it: name another disk's", .0.display())]
    Within(PathBuf),
    #[error("there is no {}: name the installation's data folder by --data", .0.display())]
    Absent(PathBuf),
    #[error(
        "{0} objects of the installation are missing or damaged; the generation holds all else. `berth-registry fsck --rehash` tells who had them"
    )]
    Faults(u64),
    #[error("{0} objects are missing or damaged; do not rely on these generations")]
    Damaged(u64),
    #[error(
        "{held}; no server answers at --admin-listen either, which could be asked to delete nothing meanwhile: name its admin listener"
    )]
    Unasked { held: DataFolderError },
}

/// Its arguments.
pub(super) fn command() -> Command {
    let create = leaf(
        "create",
        "Copy metadata, objects and keys into a folder; objects that it has are not copied again",
        "  berth-registry backup create /backup\n  berth-registry backup create /backup --keep 14 --rate 50MiB\n  \
           berth-registry backup create /backup -o json",
    )
    .arg(folder())
    .arg(
        Arg::new("keep")
            .long("keep")
            .value_name("COUNT")
            .value_parser(clap::value_parser!(u16).range(1..))
            .help("Generations to keep, this one among them; older ones go, with objects that no other names. All if absent"),
    )
    .arg(rate())
    .arg(
        Arg::new("without-keys")
            .long("without-keys")
            .action(ArgAction::SetTrue)
            .help("Leave out the keys, which are secrets: keep them elsewhere"),
    );
    let list = leaf(
        "list",
        "List the generations of a backup",
        "  berth-registry backup list /backup",
    )
    .arg(folder());
    let verify = leaf(
        "verify",
        "Read a backup as a whole and compare every digest",
        "  berth-registry backup verify /backup\n  berth-registry backup verify /backup --generation 000007-20261127T030000Z",
    )
    .arg(folder())
    .arg(generation())
    .arg(rate());
    group(NAME, "Backups: create, list, verify", [create, list, verify])
}

fn folder() -> Arg {
    positional(
        "backup",
        "The folder that backups are kept in, one for each installation",
    )
    .value_name("FOLDER")
}

pub(super) fn generation() -> Arg {
    Arg::new("generation")
        .long("generation")
        .value_name("NAME")
        .help("A generation, as `backup list` shows it")
}

pub(super) fn rate() -> Arg {
    let parse = |text: &str| match text.parse::<Rate>() {
        Ok(Rate(0)) => Err("at least one byte a second".to_owned()),
        Ok(Rate(rate)) => Ok(rate),
        Err(error) => Err(error.to_owned()),
    };
    Arg::new("rate")
        .long("rate")
        .value_name("SIZE")
        .value_parser(parse)
        .help("Most bytes a second, like 50MiB")
}

pub(super) fn pace(matches: &ArgMatches) -> Pace {
    Pace::new(matches.get_one::<u64>("rate").copied())
}

/// The folder that an argument names.
pub(super) fn path(matches: &ArgMatches) -> PathBuf {
    matches
        .get_one::<String>("backup")
        .map(PathBuf::from)
        .unwrap_or_default()
}

pub(super) fn named(matches: &ArgMatches) -> Option<&str> {
    matches.get_one::<String>("generation").map(String::as_str)
}

/// The metadata store's file and the blob store's folder.
pub(super) fn embedded(settings: &Settings) -> Result<(PathBuf, PathBuf), Box<dyn Error>> {
    let metadata = settings.metadata.strip_prefix("sqlite:");
    let blobs = settings.blobs.strip_prefix("folder:");
    match (metadata, blobs) {
        (Some(metadata), Some(blobs)) => Ok((metadata.into(), blobs.into())),
        _ => Err(BackupCommandError::Distributed.into()),
    }
}

/// Does what the matches of a leaf say.
pub(super) async fn run(settings: &Settings, leaf: &str, matches: &ArgMatches, output: Output) -> Ended {
    match leaf {
        "create" => create(settings, matches, output).await,
        "list" => {
            let generations = BackupFolder::read(&path(matches))?.generations()?;
            let rows: Vec<Value> = generations.iter().map(told).collect();
            super::administer::show(output, &rows.into(), list)
        }
        _ => check(matches, output).await,
    }
}

async fn create(settings: &Settings, matches: &ArgMatches, output: Output) -> Ended {
    let (metadata, blobs) = embedded(settings)?;
    if !metadata.is_file() {
        return Err(BackupCommandError::Absent(metadata).into());
    }
    let place = path(matches);
    if std::path::absolute(&place)?.starts_with(std::path::absolute(&settings.data)?) {
        return Err(BackupCommandError::Within(place).into());
    }
    // Each generation is a file that stays open.
    file_limit::raise();
    let folder = BackupFolder::write(&place)?;
    let keys = settings.keys_in_data() && settings.keys.is_dir() && !matches.get_flag("without-keys");
    let who = Who::find(settings).await?;
    let options = take::Options {
        held: who.hold().await?,
        metadata,
        blobs,
        keys: keys.then(|| settings.keys.clone()),
        keep: matches.get_one::<u16>("keep").map(|keep| usize::from(*keep)),
        pace: pace(matches),
    };
    let progress = Arc::new(Progress::default());
    let work = async {
        tokio::select! {
            taken = take::run(&folder, &options, &progress) => Ok::<_, Box<dyn Error>>(taken?),
            never = who.keep_holding() => never,
        }
    };
    let taken = shown(output, &progress, work).await?;
    let mut result = told(&taken.generation);
    result["removedGenerations"] = taken.removed.clone().into();
    result["removedObjects"] = taken.pruned.objects.into();
    result["removedBytes"] = taken.pruned.bytes.into();
    done(output, result, |result| created(result, &taken))?;
    match taken.generation.manifest.faults.count {
        0 => Ok(()),
        count => {
            show_faults(&taken.generation.manifest.faults);
            Err(BackupCommandError::Faults(count).into())
        }
    }
}

/// Who might delete objects while they are copied.
enum Who {
    /// Nobody: this process holds the data folder.
    Nobody { _held: DataFolder },
    /// A server, which is asked not to.
    Server(Client),
}

impl Who {
    async fn find(settings: &Settings) -> Result<Self, Box<dyn Error>> {
        match DataFolder::hold(&settings.data) {
            Ok(_held) => Ok(Self::Nobody { _held }),
            Err(held @ DataFolderError::Held { .. }) => match Client::of_server(settings).await? {
                Some(client) => Ok(Self::Server(client)),
                None => Err(BackupCommandError::Unasked { held }.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Until when nothing is deleted; `None` if nobody could.
    async fn hold(&self) -> Result<Option<Time>, Box<dyn Error>> {
        let Self::Server(client) = self else {
            return Ok(None);
        };
        let wanted = json!({ "seconds": HOLD.as_secs() });
        let held = client
            .ask(Method::PUT, "/admin/v1/gc/hold", Some(&wanted))
            .await?;
        Ok(Some(rfc3339::read(held["until"].as_str().unwrap_or_default())?))
    }

    /// Asks again and again. A server that is being started again has it in its store.
    async fn keep_holding<T>(&self) -> T {
        loop {
            tokio::time::sleep(HOLD_AGAIN).await;
            let _ = tokio::time::timeout(HOLD_AGAIN, self.hold()).await;
        }
    }
}

async fn check(matches: &ArgMatches, output: Output) -> Ended {
    file_limit::raise();
    let folder = BackupFolder::read(&path(matches))?;
    let progress = Arc::new(Progress::default());
    let pace = pace(matches);
    let work = verify::run(&folder, named(matches), &pace, &progress);
    let verified = shown(output, &progress, work).await?;
    let result = json!({
        "generations": verified.generations, "objects": verified.objects, "bytes": verified.bytes,
        "faults": verified.faults, "knownFaults": verified.known, "unlistedFaults": verified.unlisted,
    });
    done(output, result, |_| {
        format!(
            "{} generations, {} objects and {} read; {}\n",
            verified.generations.len(),
            verified.objects,
            bytes(verified.bytes),
            match verified.faults.count {
                0 => "nothing is wrong".to_owned(),
                count => format!("{count} faults{}", unlisted(verified.unlisted)),
            }
        )
    })?;
    match verified.faults.count {
        0 => Ok(()),
        count => {
            show_faults(&verified.faults);
            Err(BackupCommandError::Damaged(count).into())
        }
    }
}

/// That some faults may have been known when a backup was taken.
fn unlisted(count: u64) -> String {
    match count {
        0 => String::new(),
        count => format!(
            ", of which up to {count} may have been known when the backups were taken: their manifests list {} each",
            Faults::LISTED
        ),
    }
}

pub(super) fn show_faults(faults: &Faults) {
    for fault in faults.listed.iter().take(SHOWN) {
        eprintln!("{} ({}): {}", fault.object, fault.digest, fault.why);
    }
    let more = faults.count.saturating_sub(SHOWN as u64);
    if more > 0 {
        eprintln!("and {more} more");
    }
}

pub(super) fn told(generation: &Generation) -> Value {
    let manifest = &generation.manifest;
    json!({
        "generation": generation.name, "takenAt": manifest.taken_at, "objects": manifest.objects,
        "bytes": manifest.bytes, "newObjects": manifest.new_objects, "newBytes": manifest.new_bytes,
        "keys": manifest.keys.is_some(), "faults": manifest.faults.count, "release": manifest.release,
    })
}

fn created(result: &Value, taken: &take::Taken) -> String {
    let manifest = &taken.generation.manifest;
    let mut text = format!(
        "{}: {} objects with {}, of which {} with {} are new; metadata {}{}\n",
        plain(&result["generation"]),
        manifest.objects,
        bytes(manifest.bytes),
        manifest.new_objects,
        bytes(manifest.new_bytes),
        bytes(manifest.database.size),
        match &manifest.keys {
            Some(_) => "; with the keys: keep it as secret as they are",
            None => "; without the keys: nothing that they have sealed opens without them",
        }
    );
    if !taken.removed.is_empty() || taken.pruned.objects > 0 {
        text.push_str(&format!(
            "removed: {} generations, {} objects with {}\n",
            taken.removed.len(),
            taken.pruned.objects,
            bytes(taken.pruned.bytes)
        ));
    }
    text
}

fn list(generations: &Value) -> String {
    let row = |generation: &Value| {
        let mut row = generation.clone();
        for field in ["bytes", "newBytes"] {
            row[field] = bytes(generation[field].as_u64().unwrap_or_default()).into();
        }
        row["keys"] = if generation["keys"] == true { "yes" } else { "no" }.into();
        row
    };
    let rows: Vec<Value> = generations.as_array().into_iter().flatten().map(row).collect();
    Table::of(
        [
            "GENERATION",
            "TAKEN",
            "OBJECTS",
            "BYTES",
            "NEW",
            "NEW BYTES",
            "KEYS",
            "FAULTS",
        ],
        [
            "generation",
            "takenAt",
            "objects",
            "bytes",
            "newObjects",
            "newBytes",
            "keys",
            "faults",
        ],
        &rows.into(),
    )
    .to_string()
}
