//! What `./tests/run` puts into the environment: the binary under test, the servers, the tools.

use std::path::PathBuf;

/// The value of an environment variable that `./tests/run` sets.
///
/// # Panics
/// If it is absent, because every suite needs the set-up that only `./tests/run` does.
pub fn setting(name: &str) -> String {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => value,
        _ => panic!("{name} is not set: run the tests through ./tests/run"),
    }
}

/// The path of a program on `PATH`.
///
/// # Panics
/// If no folder of `PATH` holds it: `./tests/run` installs every program that a suite needs.
pub fn program(name: &str) -> PathBuf {
    std::env::split_paths(&setting("PATH"))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("`{name}` is not installed: run the tests through ./tests/run"))
}

/// A folder below `target/` in which a suite leaves what a person may want to read after the run.
/// Emptied first.
pub fn output_folder(suite: &str, run: &str) -> PathBuf {
    let folder = PathBuf::from(setting("BERTH_TEST_OUTPUT")).join(suite).join(run);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("cannot make {}: {e}", folder.display()));
    folder
}
