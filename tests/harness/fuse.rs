//! A way to a server that can end the process which uses it, at a chosen one of its requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// Passes connections on to a server and, once [armed](Fuse::arm), kills a process in the middle of its work.
/// It ends with its value.
#[derive(Debug)]
pub struct Fuse {
    address: SocketAddr,
    state: Arc<State>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct State {
    /// Writes of the client that are still passed on.
    left: AtomicU64,
    pid: AtomicU64,
    has_blown: AtomicBool,
}

impl State {
    /// Whether one more write of the client goes through.
    fn passes(&self) -> bool {
        let count = |left: u64| (left < u64::MAX).then(|| left.saturating_sub(1));
        let before = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count);
        if before != Ok(0) {
            return true;
        }
        let pid = i32::try_from(self.pid.load(Ordering::SeqCst))
            .ok()
            .and_then(Pid::from_raw);
        if let Some(pid) = pid
            && !self.has_blown.swap(true, Ordering::SeqCst)
        {
            kill_process(pid, Signal::KILL).expect("a process that can be killed");
        }
        false
    }
}

impl Fuse {
    /// Opens a way to `server`, given as `host:port`.
    ///
    /// # Panics
    /// If no port is to be had.
    pub async fn before(server: &str) -> Fuse {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(State::default());
        state.left.store(u64::MAX, Ordering::SeqCst);
        let (server, passing) = (server.to_owned(), state.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (server, state) = (server.clone(), passing.clone());
                connections.spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        pass(client, server, &state).await;
                    }
                });
            }
        });
        Fuse {
            address,
            state,
            task: task.abort_handle(),
        }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills the process at its write with this number from now on, before the server has it; the first is 0.
    pub fn arm(&self, pid: u32, write: u64) {
        self.state.pid.store(u64::from(pid), Ordering::SeqCst);
        self.state.has_blown.store(false, Ordering::SeqCst);
        self.state.left.store(write, Ordering::SeqCst);
    }

    /// Passes everything on again; whether the process was killed.
    pub fn disarm(&self) -> bool {
        self.state.left.store(u64::MAX, Ordering::SeqCst);
        self.state.has_blown.load(Ordering::SeqCst)
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, server: TcpStream, state: &State) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from_client.read(&mut buffer).await {
                Ok(count) if count > 0 && state.passes() => {
                    if to_server.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    };
    tokio::select! {
        () = asking => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
}
