//! `convert`: an installation into other stores, while nobody serves it.

use std::path::Path;
use std::sync::Arc;

use clap::{Arg, ArgMatches, Command};
use serde_json::Value;

use super::administer::{leaf, plain};
use super::backup::{pace, rate};
use super::data_folder::DataFolder;
use super::progress::{done, shown};
use super::table::bytes;
use super::{Ended, Output};
use crate::backup::convert::{self, Place};
use crate::backup::progress::Progress;
use crate::blobs::{self, budget::Budget};
use crate::metadata::transfer::Side;
use crate::settings::values::{BlobsUrl, MetadataUrl};
use crate::settings::{Settings, redact};

/// Its name on the command line.
pub(super) const NAME: &str = "convert";

/// The two sides cannot be the two sides of a conversion.
#[derive(Debug, thiserror::Error)]
#[error("source and destination have one {0} in common: name another")]
struct Same(&'static str);

/// Its arguments.
pub(super) fn command() -> Command {
    leaf(
        NAME,
        "Move an installation into other stores, while nobody serves it; what was cut goes on when it is given again",
        "  berth-registry convert --from-metadata sqlite:/var/lib/berth/berth.db --from-blobs folder:/var/lib/berth/blobs \\\n  \
           --to-metadata postgres://berth@db/berth --to-blobs 's3://bucket/prefix?region=eu-central-1'",
    )
    .arg(url::<MetadataUrl>("from-metadata", "The source's metadata store"))
    .arg(url::<BlobsUrl>("from-blobs", "The source's blob store"))
    .arg(url::<MetadataUrl>("to-metadata", "The destination's metadata store, which is made or empty"))
    .arg(url::<BlobsUrl>("to-blobs", "The destination's blob store, which is empty"))
    .arg(rate())
}

fn url<T>(name: &'static str, help: &'static str) -> Arg
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let parse = |text: &str| match text.parse::<T>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    };
    Arg::new(name)
        .long(name)
        .value_name("URL")
        .required(true)
        .value_parser(parse)
        .help(help)
}

/// Moves everything.
pub(super) async fn run(settings: &Settings, matches: &ArgMatches, output: Output) -> Ended {
    let given = |name: &str| matches.get_one::<String>(name).map_or("", String::as_str);
    let (from, into) = (
        (given("from-metadata"), given("from-blobs")),
        (given("to-metadata"), given("to-blobs")),
    );
    if from.0 == into.0 {
        return Err(Same("metadata store").into());
    }
    if from.1 == into.1 {
        return Err(Same("blob store").into());
    }
    let _held = (held(from.0)?, held(into.0)?);
    let budget = Budget::new(settings.upload_memory);
    let mut source = Place {
        metadata: Side::open(from.0, false).await?,
        blobs: blobs::open::open(from.1, budget.clone()).await?,
    };
    let mut destination = Place {
        metadata: Side::open(into.0, true).await?,
        blobs: blobs::open::open(into.1, budget).await?,
    };
    let progress = Arc::new(Progress::default());
    let pace = pace(matches);
    let work = convert::run(&mut source, &mut destination, &pace, &progress);
    let converted = shown(output, &progress, work).await?;
    let mut result = serde_json::to_value(&converted)?;
    result["metadata"] = redact::url(into.0).into();
    result["blobs"] = redact::url(into.1).into();
    done(output, result, told)?;
    Ok(())
}

/// The folder of an SQLite file, which its server holds.
fn held(metadata: &str) -> Result<Option<DataFolder>, Box<dyn std::error::Error>> {
    let folder = metadata
        .strip_prefix("sqlite:")
        .and_then(|file| Path::new(file).parent())
        .filter(|folder| !folder.as_os_str().is_empty());
    Ok(folder.map(DataFolder::hold).transpose()?)
}

fn told(result: &Value) -> String {
    let number = |field: &str| result[field].as_u64().unwrap_or_default();
    format!(
        "{} rows of {} tables and {} objects with {} are in {} and {}, and the same on both sides\n\
         copy the keys of the source to where the destination is served, and serve only one of the two\n",
        number("rows"),
        number("tables"),
        number("objects"),
        bytes(number("bytes")),
        plain(&result["metadata"]),
        plain(&result["blobs"]),
    )
}
