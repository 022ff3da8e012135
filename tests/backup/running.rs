//! A command that is watched while it runs, and can be cut.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

/// The process, killed with its value.
pub struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    pub fn start(mut command: Command) -> Running {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        Running { child, lines }
    }

    /// Reads its lines until one fits.
    ///
    /// # Panics
    /// If it ends before.
    pub fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).expect("its output");
            assert!(read > 0, "it has ended: {seen}");
            let value: Value = serde_json::from_str(&line).expect("a line of JSON");
            if fits(&value) {
                return value;
            }
            seen.push_str(&line);
        }
    }

    /// Cuts it as a power cut would.
    pub fn kill9(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end; whether it succeeded.
    pub fn ended(mut self) -> bool {
        self.child.wait().expect("a child").success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// It has begun with the objects and is past some of them.
pub fn past(objects: u64) -> impl Fn(&Value) -> bool {
    move |line| line["step"] == "objects" && line["done"].as_u64() >= Some(objects)
}
