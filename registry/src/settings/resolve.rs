//! Finding the effective text of every setting: flag, then environment, then file, then default.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::table::{Fallback, SETTINGS, Setting};
use super::{SettingsError, file, redact, table};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The command line.
    Flag,
    /// This environment variable.
    Environment(String),
    /// The `--config` file.
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Flag => f.write_str("flag"),
            Self::Environment(variable) => f.write_str(variable),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// One setting's effective value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The value in its usual form; `None`: absent.
    pub value: Option<String>,
    /// Where it came from.
    pub source: Source,
}

/// The effective value of every setting.
#[derive(Clone, Debug)]
pub struct Resolved {
    entries: BTreeMap<&'static str, Entry>,
}

/// What a derived default may look at: the settings before it are resolved, those after it are not.
pub struct Lookup<'a>(&'a BTreeMap<&'static str, Entry>);

impl Lookup<'_> {
    /// The value of a setting that always has one, without a final slash.
    pub(super) fn text(&self, name: &str) -> String {
        let value = self
            .0
            .get(name)
            .and_then(|entry| entry.value.as_deref())
            .unwrap_or_default();
        if value.len() > 1 {
            value.trim_end_matches('/').to_owned()
        } else {
            value.to_owned()
        }
    }

    /// Whether a setting has a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|entry| entry.value.is_some())
    }
}

/// Adds `--config` and every setting to a command.
pub fn arguments(command: Command) -> Command {
    let config = Arg::new("config").long("config").value_name("FILE").help(
        "YAML file of settings, keys named as the flags [env: BERTH_CONFIG]. \
         Flags go before variables, variables before the file",
    );
    SETTINGS.iter().fold(command.arg(config), |command, setting| {
        command.arg(argument(setting))
    })
}

fn argument(setting: &'static Setting) -> Arg {
    let default = match setting.default {
        Fallback::None => String::new(),
        Fallback::Fixed(text) | Fallback::Derived(text, _) => format!(" [default: {text}]"),
    };
    Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.value_name)
        .help_heading(setting.group)
        .action(if setting.list {
            ArgAction::Append
        } else {
            ArgAction::Set
        })
        .help(format!("{}{default} [env: {}]", setting.help, setting.variable()))
}

/// Resolves every setting. `environment` looks a variable up; an empty one counts as unset.
pub fn resolve(
    flags: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Resolved, SettingsError> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    let path = flags
        .get_one::<String>("config")
        .cloned()
        .or_else(|| variable("BERTH_CONFIG"));
    let path = path.map(PathBuf::from);
    let mut from_file = match &path {
        Some(path) => file::read(path)?,
        None => BTreeMap::new(),
    };

    // Two passes: derived defaults look at settings that may stand after them in the table.
    let mut entries = BTreeMap::new();
    for setting in &SETTINGS {
        let name = setting.variable();
        let flag = flags
            .get_many::<String>(setting.name)
            .map(|values| values.cloned().collect::<Vec<_>>().join(","));
        let found = if let Some(value) = flag {
            Some((value, Source::Flag))
        } else if let Some(value) = variable(&name) {
            Some((value, Source::Environment(name)))
        } else {
            let value = from_file.remove(setting.name);
            value.map(|value| (value, Source::File(path.clone().unwrap_or_default())))
        };
        let entry = match (found, setting.default) {
            (Some((value, source)), _) => {
                let value =
                    (setting.check)(&value).map_err(|reason| bad(setting, &source, &value, reason))?;
                Entry {
                    value: Some(value),
                    source,
                }
            }
            (None, Fallback::Fixed(value)) => {
                let value =
                    (setting.check)(value).map_err(|reason| bad(setting, &Source::Default, value, reason))?;
                Entry {
                    value: Some(value),
                    source: Source::Default,
                }
            }
            (None, Fallback::None | Fallback::Derived(..)) => Entry {
                value: None,
                source: Source::Default,
            },
        };
        entries.insert(setting.name, entry);
    }
    for setting in &SETTINGS {
        let Fallback::Derived(_, rule) = setting.default else {
            continue;
        };
        if entries
            .get(setting.name)
            .is_some_and(|entry| entry.value.is_none())
        {
            let value = Some(rule(&Lookup(&entries)));
            entries.insert(
                setting.name,
                Entry {
                    value,
                    source: Source::Default,
                },
            );
        }
    }
    Ok(Resolved { entries })
}

impl Resolved {
    /// Every setting with its value, in the order in which it is shown.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Setting, &Entry)> {
        SETTINGS
            .iter()
            .filter_map(|setting| Some((setting, self.entries.get(setting.name)?)))
    }

    /// A setting that may be absent.
    pub(super) fn find<T>(&self, name: &'static str) -> Result<Option<T>, SettingsError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let Some(Entry {
            value: Some(value),
            source,
        }) = self.entries.get(name)
        else {
            return Ok(None);
        };
        let parsed = value.parse().map(Some);
        parsed.map_err(|error: T::Err| match table::find(name) {
            Some(setting) => bad(setting, source, value, error.to_string()),
            None => SettingsError::Conflict(format!("--{name}: {error}")),
        })
    }

    /// A setting that always has a value.
    pub(super) fn get<T>(&self, name: &'static str) -> Result<T, SettingsError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.find(name)?
            .ok_or_else(|| SettingsError::Conflict(format!("--{name} has no value; set it")))
    }
}

fn bad(setting: &'static Setting, source: &Source, value: &str, reason: String) -> SettingsError {
    let source_name = match source {
        Source::Default => "the default".to_owned(),
        Source::Flag => "a flag".to_owned(),
        Source::Environment(variable) => format!("from {variable}"),
        Source::File(path) => format!("from {}", path.display()),
    };
    let value = if setting.secret_url {
        redact::url(value)
    } else {
        value.to_owned()
    };
    SettingsError::BadValue {
        setting: format!("--{}", setting.name),
        source_name,
        value,
        reason,
        example: setting.example,
    }
}
