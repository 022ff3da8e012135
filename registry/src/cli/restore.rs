//! `restore`: a generation of a backup, into an empty data folder.

use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::administer::leaf;
use super::backup::{embedded, generation, named, pace, path, rate, show_faults, told};
use super::data_folder::DataFolder;
use super::progress::{done, shown};
use super::table::bytes;
use super::{Ended, Output};
use crate::backup::progress::Progress;
use crate::backup::{BackupFolder, restore};
use crate::settings::Settings;

/// Its name on the command line.
pub(super) const NAME: &str = "restore";

/// Its arguments.
pub(super) fn command() -> Command {
    leaf(
        NAME,
        "Put a backup into an empty data folder",
        "  berth-registry restore /backup --data /var/lib/berth\n  \
           berth-registry restore /backup --data /var/lib/berth --generation 000007-20261127T030000Z",
    )
    .arg(super::administer::positional("backup", "The folder that backups are kept in").value_name("FOLDER"))
    .arg(generation())
    .arg(rate())
    .arg(
        Arg::new("despite-faults")
            .long("despite-faults")
            .action(ArgAction::SetTrue)
            .help("Do without objects that are missing or damaged in the backup"),
    )
}

/// Restores.
pub(super) async fn run(settings: &Settings, matches: &ArgMatches, output: Output) -> Ended {
    let (metadata, blobs) = embedded(settings)?;
    let folder = BackupFolder::read(&path(matches))?;
    let _held = DataFolder::hold_unfinished(&settings.data)?;
    let options = restore::Options {
        data: settings.data.clone(),
        metadata,
        blobs,
        keys: settings.keys_in_data().then(|| settings.keys.clone()),
        pace: pace(matches),
        despite_faults: matches.get_flag("despite-faults"),
    };
    let progress = Arc::new(Progress::default());
    let work = restore::run(&folder, named(matches), &options, &progress);
    let restored = shown(output, &progress, work).await?;
    show_faults(&restored.faults);
    let mut result = told(&restored.generation);
    result["data"] = settings.data.display().to_string().into();
    result["missing"] = restored.faults.count.into();
    done(output, result, |_| {
        let data = settings.data.display();
        format!(
            "{} is in {data}: {} objects with {}\ncheck it before it is served: berth-registry fsck --data {data}\n",
            restored.generation.name,
            restored.generation.manifest.objects,
            bytes(restored.generation.manifest.bytes),
        )
    })?;
    Ok(())
}
