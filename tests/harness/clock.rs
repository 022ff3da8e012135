//! A wall clock of a process's own, which a test sets.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::berth::Builder;
use crate::environment::setting;

/// The clock of one registry. What the registry measures times by, its monotonic clock, goes on as it is.
#[derive(Debug)]
pub struct Clock {
    folder: TempDir,
}

impl Clock {
    /// A clock that is right so far.
    pub fn right() -> Clock {
        let folder = TempDir::with_prefix("berth-clock-").expect("a temporary folder");
        let clock = Clock { folder };
        clock.set_off_by(0);
        clock
    }

    /// From now on it differs from the right one by so many seconds.
    pub fn set_off_by(&self, seconds: i64) {
        let next = self.folder.path().join("next");
        std::fs::write(&next, format!("{seconds:+}")).expect("a file");
        std::fs::rename(next, self.file()).expect("a file");
    }

    /// A registry that goes by this clock. What fakes it comes in by the dynamic linker, which the static program under test
    /// does not have: it is the debug build of the same sources, `BERTH_DYNAMIC_BIN`.
    ///
    /// # Panics
    /// If the library is not installed.
    pub fn of(&self, builder: Builder) -> Builder {
        let file = self.file();
        builder
            .program(&PathBuf::from(setting("BERTH_DYNAMIC_BIN")))
            .variable("LD_PRELOAD", library().to_str().expect("a plain path"))
            .variable("FAKETIME_TIMESTAMP_FILE", file.to_str().expect("a plain path"))
            .variable("FAKETIME_NO_CACHE", "1")
            .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .variable("NO_FAKE_STAT", "1")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }
}

/// The library of Debian's package `libfaketime`, for programs of several threads.
fn library() -> PathBuf {
    let places = std::fs::read_dir("/usr/lib").expect("a folder of libraries");
    let mut libraries = places
        .flatten()
        .map(|place| place.path().join("faketime/libfaketimeMT.so.1"));
    let library = libraries.find(|library| library.exists());
    library.expect("libfaketime; run the tests through ./tests/run")
}
