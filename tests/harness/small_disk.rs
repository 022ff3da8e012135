//! A disk of a test's own that is soon full.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::environment::setting;

/// A small file system in memory, which the processes that are started by [`SmallDisk::program`] see, and nobody else.
/// It is gone with this value.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
    /// What keeps the file system while no other process uses it.
    keeper: Child,
}

impl SmallDisk {
    /// A disk of so many bytes at the place of `folder` and of all that lies in it.
    ///
    /// # Panics
    /// If file systems cannot be mounted here.
    pub fn at(folder: &Path, size: u64) -> SmallDisk {
        fs::create_dir_all(folder).expect("a folder");
        let script = format!(
            "mount -t tmpfs -o size={size} tmpfs '{}' && echo mounted && exec sleep infinity",
            folder.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        let mut keeper = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut said = String::new();
        let output = keeper.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut said).expect("its output");
        assert_eq!(
            said.trim(),
            "mounted",
            "a disk in memory needs the rights of root"
        );
        let disk = SmallDisk {
            folder: TempDir::with_prefix("berth-disk-").expect("a temporary folder"),
            keeper,
        };
        let starter = format!(
            "#!/bin/sh\nexec nsenter --mount --target {} -- '{}' \"$@\"\n",
            disk.keeper.id(),
            setting("BERTH_BIN")
        );
        fs::write(disk.program(), starter).expect("a script");
        fs::set_permissions(disk.program(), fs::Permissions::from_mode(0o755)).expect("a script that runs");
        disk
    }

    /// The registry as a program that sees the disk.
    pub fn program(&self) -> PathBuf {
        self.folder.path().join("registry")
    }

    /// A program that sees the disk.
    pub fn command(&self, program: &Path) -> Command {
        let keeper = self.keeper.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &keeper, "--"]).arg(program);
        command
    }

    /// A file on the disk as this process reaches it.
    pub fn path(&self, file: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.keeper.id());
        Path::new(&root).join(file.strip_prefix("/").expect("a full path"))
    }

    /// Fills the disk with one file, to its last block.
    pub fn fill(&self, file: &Path) {
        let mut filler = File::create(self.path(file)).expect("a file on the disk");
        for size in [1 << 20, 4096, 1] {
            while filler.write_all(&vec![1; size]).is_ok() {}
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
