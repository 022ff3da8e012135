//! Stage `serve`: the process as those who run it see it.
//!
//! What it is: settings, first start, one holder a folder, TLS, probes and metrics, drain, restart,
//! migration. What it may use: the harness, and openssl as a TLS client that is not ours. What must hold:
//! exit codes and messages are read from a process of the real binary.

mod doctor;
mod draining;
mod holding;
mod observing;
mod readme;
mod restarting;
mod settings;
mod stores;
mod tls;
mod tracing;

use std::process::{Command, Stdio};

use harness::setting;

/// What a command that ended by itself left.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    output: String,
    error: String,
}

impl Ended {
    /// Runs a command to its end, without input.
    fn of(mut command: Command) -> Ended {
        let output = command.stdin(Stdio::null()).output().expect("the command runs");
        Ended {
            code: output.status.code(),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails unless the command ended with this code and named all of these on standard error.
    fn expect(self, code: i32, named: &[&str]) -> Ended {
        assert_eq!(self.code, Some(code), "{self:?}");
        for part in named {
            assert!(self.error.contains(part), "`{part}` is missing: {}", self.error);
        }
        self
    }
}

/// The binary under test.
fn program() -> Command {
    Command::new(setting("BERTH_BIN"))
}

/// Its listeners on ports that the system chooses.
const ANY_PORTS: [&str; 3] = [
    "--listen=127.0.0.1:0",
    "--admin-listen=127.0.0.1:0",
    "--ops-listen=127.0.0.1:0",
];
