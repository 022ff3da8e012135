//! `import`: copy what another registry holds into a tenant, once or until the cut-over.

mod arguments;
mod show;

use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{env, fs, io};

use clap::ArgMatches;

pub(super) use self::arguments::command;
use self::show::Shown;
use super::signals::Signals;
use super::{Ended, Output};
use crate::import::{
    Address, Endpoint, Found, HelperError, Import, Notes, Patience, Renaming, Report, Selection, Wanted,
    ask_helper, login,
};
use crate::metadata::Time;
use crate::rfc3339;
use crate::settings::units::Span;
use crate::upstream::Login;

/// Its name on the command line.
pub(super) const NAME: &str = "import";

/// The user name that goes with a token of Berth, which says itself whose it is.
const TOKEN_USER: &str = "x-token";

#[derive(Debug, thiserror::Error)]
enum ImportFailed {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{}: it is no configuration of Docker: {error}", path.display())]
    DockerConfig { path: PathBuf, error: serde_json::Error },
    #[error(transparent)]
    Helper(#[from] HelperError),
    #[error("standard input: {0}")]
    Stdin(io::Error),
    #[error(
        "--source-username goes with a password: --source-password-file, --source-password-stdin or BERTH_SOURCE_PASSWORD"
    )]
    NoPassword,
    #[error("a password for the source goes with --source-username")]
    NoUsername,
    #[error("{0}")]
    Since(String),
    #[error("the destination is not as the source is: what differs is listed above; run it again to go on")]
    NotEqual,
    #[error("some of it could not be looked at: see above")]
    NotSeen,
    #[error("interrupted before everything was compared; run it again to go on")]
    Interrupted,
}

/// Imports.
pub(super) async fn run(matches: &ArgMatches, output: Output) -> Ended {
    let watch = matches.get_one::<Span>("watch").map(|span| span.0);
    let wanted = Wanted {
        selection: selection(matches)?,
        concurrency: arguments::concurrency(matches),
        dry_run: matches.get_flag("dry-run"),
        keep_existing: matches.get_flag("keep-existing"),
        deep: matches.get_flag("deep"),
    };
    let dry_run = wanted.dry_run;
    let (from, to) = endpoints(matches)?;
    let import = Import::new(from, to, wanted, Notes::new(notes(matches)));
    let mut signals = Signals::new()?;
    let shown = Shown::without_bar(output);
    tokio::select! {
        greeted = import.greet(&shown) => greeted?,
        _ = signals.stop() => return Err(ImportFailed::Interrupted.into()),
    }
    let mut number = 1;
    loop {
        let (report, shown, began) = (Report::default(), Shown::new(output), Instant::now());
        let failed = tokio::select! {
            passed = import.pass(&report, &shown) => passed.err(),
            _ = signals.stop() => {
                shown.report(&report, number, began.elapsed(), dry_run, true);
                return Err(ImportFailed::Interrupted.into());
            }
        };
        let verdict = match failed {
            // It will not be better the next time.
            Some(error) if number == 1 || watch.is_none() => return Err(error.into()),
            Some(error) => Err(Box::from(error)),
            None => {
                shown.report(&report, number, began.elapsed(), dry_run, false);
                match (report.is_equal(), dry_run) {
                    (true, _) => Ok(()),
                    (false, true) if report.figures().failed == 0 => Ok(()),
                    (false, true) => Err(ImportFailed::NotSeen.into()),
                    (false, false) => Err(ImportFailed::NotEqual.into()),
                }
            }
        };
        let Some(interval) = watch else { return verdict };
        if let Err(error) = &verdict {
            shown.say(&error.to_string());
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = signals.stop() => return verdict,
        }
        number += 1;
    }
}

fn selection(matches: &ArgMatches) -> Result<Selection, ImportFailed> {
    let since = matches
        .get_one::<String>("since")
        .map(|text| since(text, Time::now()));
    Ok(Selection {
        repositories: arguments::many(matches, "repositories"),
        tags: arguments::many(matches, "tags"),
        since: since.transpose().map_err(ImportFailed::Since)?,
        without_referrers: matches.get_one("referrers") == Some(&false),
        renaming: Renaming {
            strip: matches.get_one("strip-prefix").cloned(),
            prefix: matches.get_one("prefix").cloned(),
        },
    })
}

/// A time, a day, or an age before now.
fn since(text: &str, now: Time) -> Result<Time, String> {
    if let Ok(age) = text.parse::<Span>() {
        return Ok(now.minus(age.0));
    }
    let time = rfc3339::read(text).or_else(|_| rfc3339::read(&format!("{text}T00:00:00Z")));
    time.map_err(|_| {
        format!("--since {text:?}: write a time like 2027-01-31T12:00:00Z, a day like 2027-01-31, or an age like 90d")
    })
}

fn endpoints(matches: &ArgMatches) -> Result<(Endpoint, Endpoint), Box<dyn std::error::Error>> {
    let patience = Patience {
        timeout: arguments::timeout(matches),
        retries: arguments::retries(matches),
    };
    let bundle = |flag: &str| {
        matches
            .get_one::<PathBuf>(flag)
            .map(|path| read(path))
            .transpose()
    };
    let [source, to] = ["source", "to"].map(|name| matches.get_one::<Address>(name).cloned());
    let (Some(source), Some(to)) = (source, to) else {
        return Err("an import has a source and a destination".into());
    };
    let login = source_login(matches, &source)?;
    let mut from = Endpoint::new(source, login, bundle("source-ca")?.as_deref(), patience)?;
    if let Some(host) = matches.get_one::<String>("source-realm-host") {
        from = from.with_realm_host(host.clone());
    }
    let token = match matches.get_one::<PathBuf>("token-file") {
        Some(path) => Some(read(path)?),
        None => variable("BERTH_TOKEN"),
    };
    let login = token.map(|token| Login::Password {
        username: TOKEN_USER.to_owned(),
        password: token.trim().to_owned(),
    });
    let to = Endpoint::new(to, login, bundle("to-ca")?.as_deref(), patience)?;
    Ok((from, to))
}

/// Who asks the source: what the flags say, else what Docker's configuration has for it, else nobody.
fn source_login(matches: &ArgMatches, source: &Address) -> Result<Option<Login>, ImportFailed> {
    let username = matches.get_one::<String>("source-username").cloned();
    let password = if let Some(path) = matches.get_one::<PathBuf>("source-password-file") {
        Some(read(path)?)
    } else if matches.get_flag("source-password-stdin") {
        Some(io::read_to_string(io::stdin()).map_err(ImportFailed::Stdin)?)
    } else {
        variable("BERTH_SOURCE_PASSWORD")
    };
    let password = password.map(|password| password.trim_end_matches(['\r', '\n']).to_owned());
    match (username, password) {
        (Some(username), Some(password)) => return Ok(Some(Login::Password { username, password })),
        (Some(_), None) => return Err(ImportFailed::NoPassword),
        (None, Some(_)) => return Err(ImportFailed::NoUsername),
        (None, None) => {}
    }
    let given = matches.get_one::<PathBuf>("docker-config").cloned();
    let Some(path) = given.clone().or_else(docker_config) else {
        return Ok(None);
    };
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && given.is_none() => return Ok(None),
        Err(error) => return Err(ImportFailed::File { path, error }),
    };
    match login(&bytes, &source.docker_key()) {
        Ok(Found::Login(login)) => Ok(Some(login)),
        Ok(Found::Helper { name, registry }) => {
            let login = ask_helper(&name, &registry)?;
            if login.is_none() {
                eprintln!(
                    "docker-credential-{name} has no log-in for {registry}: the source is asked as by anybody"
                );
            }
            Ok(login)
        }
        Ok(Found::Nothing) => Ok(None),
        Err(error) => Err(ImportFailed::DockerConfig { path, error }),
    }
}

fn docker_config() -> Option<PathBuf> {
    let folder = variable("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".docker")))?;
    Some(folder.join("config.json"))
}

/// Where it is noted how far blobs have come.
fn notes(matches: &ArgMatches) -> Option<PathBuf> {
    let given = matches.get_one::<PathBuf>("state").cloned();
    given.or_else(|| {
        let state = variable("XDG_STATE_HOME").map(PathBuf::from);
        let state = state.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/state")))?;
        Some(state.join("berth/import"))
    })
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn read(path: &Path) -> Result<String, ImportFailed> {
    fs::read_to_string(path).map_err(|error| ImportFailed::File {
        path: path.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_a_day_or_an_age() {
        let now = rfc3339::read("2027-03-01T12:00:00Z").unwrap();
        for (text, expected) in [
            ("2027-01-31T12:00:00+01:00", "2027-01-31T11:00:00Z"),
            ("2027-01-31", "2027-01-31T00:00:00Z"),
            ("36h", "2027-02-28T00:00:00Z"),
            ("1d", "2027-02-28T12:00:00Z"),
        ] {
            assert_eq!(since(text, now).map(rfc3339::write).as_deref(), Ok(expected));
        }
        for text in ["", "yesterday", "2027-13-01", "-1d"] {
            assert!(since(text, now).is_err(), "{text}");
        }
    }
}
