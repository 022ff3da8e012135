//! Continuous archiving of a PostgreSQL server, and what is restored from it.

use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::environment::program;
use crate::own_server::{OwnServer, postgres_program, unprivileged};

/// A folder with a base backup and the log since.
#[derive(Debug)]
pub struct Archive(TempDir);

impl Archive {
    /// Has a server archive its log from now on; it is started again for that.
    pub fn of(server: &mut OwnServer) -> Archive {
        let folder = TempDir::with_prefix("berth-archive-").expect("a temporary folder");
        let archive = Archive(folder);
        // Whoever runs the server writes here.
        let path = archive.0.path();
        std::fs::create_dir(archive.log()).expect("a folder");
        for folder in [path, &archive.log()] {
            std::fs::set_permissions(folder, Permissions::from_mode(0o777)).expect("a mode");
        }
        let log = text(&archive.log());
        server.sql("ALTER SYSTEM SET archive_mode = 'on'");
        server.sql(&format!(
            "ALTER SYSTEM SET archive_command = 'test ! -f {log}/%f && cp %p {log}/%f'"
        ));
        server.stop();
        server.start();
        archive
    }

    /// Takes the base backup, while the server works.
    pub fn take_base_backup(&self, server: &OwnServer) {
        let source = format!("host=127.0.0.1 port={} user=berth", server.port());
        run(
            &postgres_program("pg_basebackup"),
            &[
                "-d",
                &source,
                "-D",
                &text(&self.base()),
                "-c",
                "fast",
                "--no-sync",
            ],
        );
    }

    /// Waits until everything that is committed has been archived.
    ///
    /// # Panics
    /// If that takes half a minute.
    pub fn has_everything_of(&self, server: &OwnServer) {
        let last = server.sql("SELECT pg_walfile_name(pg_switch_wal())");
        let archived = format!(
            "SELECT last_archived_wal >= '{}' FROM pg_stat_archiver",
            last[0][0]
        );
        crate::wait::until("the log is archived", || server.sql(&archived) == [["t"]]);
    }

    /// A new server with what was committed until a moment, a time as PostgreSQL reads it.
    ///
    /// # Panics
    /// If the moment is not reached.
    pub fn restored_to(&self, moment: &str) -> OwnServer {
        let server = OwnServer::prepared_postgres();
        let data = server.data();
        run(&program("cp"), &["-a", &text(&self.base()), &text(&data)]);
        let file = OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.auto.conf"));
        let mut settings = file.expect("the server's settings");
        write!(
            settings,
            "restore_command = 'cp {}/%f %p'\n\
             recovery_target_time = '{moment}'\n\
             recovery_target_action = 'promote'\n",
            text(&self.log())
        )
        .expect("settings");
        run(&program("touch"), &[&text(&data.join("recovery.signal"))]);
        let server = server.started();
        crate::wait::until("the server takes writes", || {
            server.sql("SELECT pg_is_in_recovery()") == [["f"]]
        });
        server
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("wal")
    }

    fn base(&self) -> PathBuf {
        self.0.path().join("base")
    }
}

/// Runs a program as whoever runs PostgreSQL.
fn run(program: &Path, arguments: &[&str]) {
    let ran = unprivileged(program).args(arguments).current_dir("/").output();
    let ran = ran.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(
        ran.status.success(),
        "{} {arguments:?}: {}",
        program.display(),
        String::from_utf8_lossy(&ran.stderr)
    );
}

fn text(path: &Path) -> String {
    path.to_str().expect("a plain path").to_owned()
}
