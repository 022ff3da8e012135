//! PostgreSQL servers of a test's own that follow one another, and what a test does to them behind the registry's back.

use rustix::process::{Pid, Signal, kill_process};

use crate::own_server::{OwnServer, postgres_program, unprivileged};

impl OwnServer {
    /// A server that follows this one as of now and takes no writes (a hot standby). Commits do not wait for it.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn follower(&self) -> OwnServer {
        let follower = OwnServer::prepared_postgres();
        let source = format!(
            "host=127.0.0.1 port={} user=berth application_name=standby",
            self.port()
        );
        let copied = unprivileged(&postgres_program("pg_basebackup"))
            .args([
                "-d",
                &source,
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
                "--no-sync",
                "-D",
            ])
            .arg(follower.data())
            .current_dir("/")
            .output()
            .expect("pg_basebackup runs");
        assert!(
            copied.status.success(),
            "{}",
            String::from_utf8_lossy(&copied.stderr)
        );
        follower.started()
    }

    /// The same, and from now on a commit is acknowledged once the standby has it on its disk.
    ///
    /// # Panics
    /// If it does not follow.
    pub fn standby(&self) -> OwnServer {
        let standby = self.follower();
        self.set("synchronous_standby_names", "standby");
        let follows = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        crate::wait::until("the standby follows", || self.sql(follows) == [["1"]]);
        standby
    }

    /// Makes a standby a primary.
    pub fn promote(&self) {
        self.sql("SELECT pg_promote(true, 60)");
    }

    /// Ends PostgreSQL without a warning; its processes see that their parent is gone, and end.
    pub fn kill9(&mut self) {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        kill_process(pid.expect("the server runs"), Signal::KILL).expect("a process that can be killed");
        self.kill();
    }

    /// A setting of the server, in force at once also for sessions that are open.
    pub fn set(&self, name: &str, value: &str) {
        self.sql(&format!("ALTER SYSTEM SET {name} = '{value}'"));
        self.sql("SELECT pg_reload_conf()");
        let shown = format!("SHOW {name}");
        crate::wait::until("the setting is in force", || self.sql(&shown) == [[value]]);
    }

    /// The rows that a statement gives, by somebody who may do everything.
    ///
    /// # Panics
    /// If it fails.
    pub fn sql(&self, statement: &str) -> Vec<Vec<String>> {
        crate::database::query(
            &format!("postgres://berth@{}/postgres", self.address()),
            statement,
        )
    }
}
