//! Programs that keep log-ins for Docker: `docker-credential-<name>` on the path, which read a registry's name from standard
//! input and answer in JSON (docker/docker-credential-helpers, "Development").

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::upstream::Login;

/// The user name of what is no password, but a token for a registry's own sign-in service.
const TOKEN: &str = "<token>";
/// How a program says that it has nothing, on either output.
const NOTHING: &str = "credentials not found";

/// Why a program gave no log-in.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// It is not there, or cannot be run.
    #[error("docker-credential-{name}: {error}")]
    Run {
        /// The program's name.
        name: String,
        /// What the system says.
        error: io::Error,
    },
    /// It failed.
    #[error("docker-credential-{name}: {said}")]
    Failed {
        /// The program's name.
        name: String,
        /// What it wrote.
        said: String,
    },
    /// It answered something else.
    #[error("docker-credential-{name} answered no log-in: {error}")]
    Answer {
        /// The program's name.
        name: String,
        /// What is wrong with it.
        error: serde_json::Error,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks the program of a name for a registry's log-in; none if it has none. Waits for as long as the program runs: it may ask
/// whoever sits before it.
pub fn ask_helper(name: &str, registry: &str) -> Result<Option<Login>, HelperError> {
    let run = |error: io::Error| HelperError::Run {
        name: name.to_owned(),
        error,
    };
    if name.is_empty() || name.contains('/') {
        return Err(run(io::ErrorKind::InvalidInput.into()));
    }
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(run)?;
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(registry.as_bytes()) {
            // It may know without reading.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(run(error)),
            _ => {}
        }
    }
    let output = child.wait_with_output().map_err(run)?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        return match said.contains(NOTHING) {
            true => Ok(None),
            false => Err(HelperError::Failed {
                name: name.to_owned(),
                said,
            }),
        };
    }
    let answer: Answer = serde_json::from_slice(&output.stdout).map_err(|error| HelperError::Answer {
        name: name.to_owned(),
        error,
    })?;
    Ok(Some(match answer.username.as_str() {
        TOKEN => Login::Identity(answer.secret),
        _ => Login::Password {
            username: answer.username,
            password: answer.secret,
        },
    }))
}
