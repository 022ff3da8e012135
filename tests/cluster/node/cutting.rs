//! A wire between a node and the registry that breaks in the middle of a blob.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One request for the blob that is cut, and what has come through of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// The range that is asked for; empty if there is none.
    pub range: String,
    /// The answer's status.
    pub status: u16,
    /// Bytes of the body that went through.
    pub bytes: u64,
    /// Whether the wire broke then.
    pub is_cut: bool,
}

/// Passes plain HTTP/1.1 on. Answers that bring one blob break off after so many bytes, as often as it is told. Ends when
/// dropped.
pub struct Cutting {
    address: SocketAddr,
    plan: Arc<Plan>,
    accepts: JoinHandle<()>,
}

struct Plan {
    upstream: String,
    /// The end of the blob's path.
    blob: String,
    cuts: Mutex<VecDeque<u64>>,
    passed: Mutex<Vec<Passed>>,
}

impl Cutting {
    /// Listens at a port of its own, on every address; `upstream` is `host:port`.
    pub async fn start(upstream: &str, digest: &str, cuts: &[u64]) -> Cutting {
        let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let plan = Arc::new(Plan {
            upstream: upstream.to_owned(),
            blob: format!("/blobs/{digest}"),
            cuts: Mutex::new(cuts.iter().copied().collect()),
            passed: Mutex::new(Vec::new()),
        });
        let accepting = plan.clone();
        let accepts = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let plan = accepting.clone();
                tokio::spawn(async move {
                    // Whichever side goes away, the other is let go.
                    let _ = plan.pass(client).await;
                });
            }
        });
        Cutting {
            address,
            plan,
            accepts,
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The answers with the blob so far.
    pub fn passed(&self) -> Vec<Passed> {
        self.plan.passed.lock().expect("no panic").clone()
    }
}

impl Drop for Cutting {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

impl Plan {
    async fn pass(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut server = TcpStream::connect(&self.upstream).await?;
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        while let Some(request) = head(&mut client, &mut asked).await? {
            // Clients that pull send no bodies, but for the form that buys a token.
            server.write_all(request.text.as_bytes()).await?;
            copy(&mut client, &mut asked, &mut server, request.length).await?;
            let Some(answer) = head(&mut server, &mut answered).await? else {
                break;
            };
            client.write_all(answer.text.as_bytes()).await?;
            let brings = !request.first.starts_with("HEAD ");
            let length = if brings { answer.length } else { 0 };
            let path = request.first.split(' ').nth(1).unwrap_or_default();
            let path = path.split('?').next().unwrap_or_default();
            if !path.ends_with(&self.blob) || !brings || answer.status() >= 300 {
                copy(&mut server, &mut answered, &mut client, length).await?;
                continue;
            }
            let cut = self.cuts.lock().expect("no panic").pop_front();
            let through = cut.unwrap_or(length).min(length);
            let bytes = match copy(&mut server, &mut answered, &mut client, through).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    // The client has had enough before the wire broke: it breaks another time.
                    if let Some(cut) = cut {
                        self.cuts.lock().expect("no panic").push_front(cut);
                    }
                    return Err(error);
                }
            };
            self.passed.lock().expect("no panic").push(Passed {
                range: request.header("range").to_owned(),
                status: answer.status(),
                bytes,
                is_cut: through < length,
            });
            if through < length {
                // What has been written arrives; then the connection ends.
                return client.shutdown().await;
            }
        }
        Ok(())
    }
}

struct Head {
    text: String,
    first: String,
    length: u64,
}

impl Head {
    fn header(&self, name: &str) -> &str {
        let mut lines = self.text.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value.trim())
    }

    fn status(&self) -> u16 {
        let code = self.first.split(' ').nth(1);
        code.and_then(|code| code.parse().ok()).expect("a status")
    }
}

/// The next head; nothing at the end of the connection. What comes after it stays in `buffer`.
async fn head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<Head>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&buffer[..end + 4]).into_owned();
            buffer.drain(..end + 4);
            let mut head = Head {
                first: text.lines().next().unwrap_or_default().to_owned(),
                text,
                length: 0,
            };
            head.length = head.header("content-length").parse().unwrap_or_default();
            return Ok(Some(head));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// Passes `length` bytes on, those in `buffer` first; how many there were.
async fn copy(
    from: &mut TcpStream,
    buffer: &mut Vec<u8>,
    to: &mut TcpStream,
    length: u64,
) -> std::io::Result<u64> {
    let ready = buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
    to.write_all(&buffer[..ready]).await?;
    buffer.drain(..ready);
    let rest = tokio::io::copy(&mut from.take(length - ready as u64), to).await?;
    Ok(ready as u64 + rest)
}
