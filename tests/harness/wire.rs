//! A connection that sends exactly the bytes it is given, for what no client library would send.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait::within;

/// No answer may take longer.
const LIMIT: Duration = Duration::from_secs(60);

/// One plain TCP connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
}

/// The status line and headers of an answer.
#[derive(Debug)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// The lines below the status line.
    lines: Vec<String>,
}

impl Head {
    /// A header's value; the empty string if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.lines
            .iter()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value.trim())
    }
}

impl Wire {
    /// Connects to `host:port`.
    ///
    /// # Panics
    /// If the address refuses the connection.
    pub async fn connect(address: &str) -> Wire {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let _ = stream.set_nodelay(true);
        Wire {
            stream,
            received: Vec::new(),
        }
    }

    /// Sends bytes; false if the server has closed the connection.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Ends the sending direction, as a client that was cut in mid-body.
    pub async fn end(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// The head of the next answer; `None` if the server closes without one.
    ///
    /// # Panics
    /// If nothing comes for a minute.
    pub async fn head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&self.received[..end]).into_owned();
                self.received.drain(..end + 4);
                let mut lines = text.split("\r\n").map(str::to_owned);
                let status_line = lines.next().unwrap_or_default();
                let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
                return Some(Head {
                    status: status.unwrap_or_else(|| panic!("no status line: {status_line}")),
                    lines: lines.collect(),
                });
            }
            if !self.receive().await {
                return None;
            }
        }
    }

    /// Everything that comes until the server closes.
    ///
    /// # Panics
    /// If it does not close within a minute of its last byte.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.receive().await {}
        std::mem::take(&mut self.received)
    }

    /// The next bytes, so many; `None` if the server closes before.
    ///
    /// # Panics
    /// If nothing comes for a minute.
    pub async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.received.len() < count {
            if !self.receive().await {
                return None;
            }
        }
        Some(self.received.drain(..count).collect())
    }

    /// Reads once; false at the end.
    async fn receive(&mut self) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        match within("an answer", LIMIT, self.stream.read(&mut buffer)).await {
            Ok(count) if count > 0 => {
                self.received.extend_from_slice(&buffer[..count]);
                true
            }
            _ => false,
        }
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
