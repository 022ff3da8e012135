//! Input that no honest client sends: nothing of it costs more than its own connection.
//!
//! What it is: the attacks of the wire protocol that need no identity, as raw bytes, by theme. What it may
//! use: the harness. What must hold: every test ends by showing that the server still serves, and that its
//! log tells of no panic ([`Target::survived`]).

mod documents;
mod door;
mod fuzz;
mod heads;
mod limits;
mod memory;
mod paths;
mod slow;

use harness::http::{Repository, raw};
use harness::{Berth, Builder, Image};

/// A registry with one image in it.
struct Target {
    berth: Berth,
    repository: Repository,
    image: Image,
}

/// What came back on a connection until the server closed it.
#[derive(Debug)]
struct Said {
    /// The status of the first answer; 0 if there is none.
    status: u16,
    text: String,
}

impl Target {
    async fn start() -> Target {
        Target::of(Berth::builder()).await
    }

    async fn of(builder: Builder) -> Target {
        let berth = builder.start().await;
        let repository = Repository::new(&berth.url(""), "team-a/app");
        let image = Image::new(1, 1000);
        image.push(&repository, "v1").await;
        Target {
            berth,
            repository,
            image,
        }
    }

    /// Sends these bytes and reads until the server closes.
    async fn say(&self, bytes: impl AsRef<[u8]>) -> Said {
        let answer = raw(&self.berth.address(), bytes.as_ref()).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5)?.parse().ok());
        Said {
            status: status.unwrap_or(0),
            text,
        }
    }

    /// Sends a request without a body, its target as it is.
    async fn ask(&self, method: &str, target: &str) -> Said {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        self.say(head).await
    }

    /// Fails unless the server serves what it held, and nothing panicked in it.
    async fn survived(mut self) {
        self.image.assert_pullable(&self.repository, "v1").await;
        let status = self.berth.terminate(std::time::Duration::from_secs(30)).await;
        assert_eq!(status.code(), Some(0));
        let log = self.berth.log();
        let panic = log.lines().find(|line| line.contains("panic"));
        assert!(panic.is_none(), "{panic:?}");
    }
}
