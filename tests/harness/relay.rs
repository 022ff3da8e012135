//! A way to a server that a test moves to another one, cuts, slows down, or lets fall silent.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Passes connections of TCP on. It ends with its value.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: Arc<State>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct State {
    server: Mutex<String>,
    /// Each piece of a client is passed on after so many microseconds.
    delay: AtomicU64,
    /// What the server says with this in it is not passed on.
    lost: Mutex<Option<Vec<u8>>>,
    /// How often that happened.
    losses: AtomicU64,
    /// Connections from before a change are cut.
    cuts: watch::Sender<u64>,
    /// Connections from before a change pass nothing on, and do not end.
    silences: watch::Sender<u64>,
}

impl Relay {
    /// Opens a way to `server`, given as `host:port`.
    ///
    /// # Panics
    /// If no port is to be had.
    pub async fn before(server: &str) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(State {
            server: Mutex::new(server.to_owned()),
            delay: AtomicU64::new(0),
            lost: Mutex::default(),
            losses: AtomicU64::new(0),
            cuts: watch::Sender::new(0),
            silences: watch::Sender::new(0),
        });
        let accepting = tokio::spawn(accept(listener, state.clone())).abort_handle();
        Relay {
            address,
            state,
            accepting,
        }
    }

    /// `host:port`, where clients connect.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on new connections lead to another server; those that are open stay where they are.
    pub fn route_to(&self, server: &str) {
        server.clone_into(&mut self.state.server.lock().expect("no holder panics"));
    }

    /// Cuts every connection that is open.
    pub fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Of the connections that are open nothing comes through any more, not even their end: as if the machine at the
    /// other side had lost its power. New ones are not affected.
    pub fn silence(&self) {
        self.state.silences.send_modify(|silences| *silences += 1);
    }

    /// Whatever clients say from now on arrives so much later.
    pub fn delay(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_micros()).expect("a short time");
        self.state.delay.store(delay, Ordering::SeqCst);
    }

    /// What the server says in one piece with these bytes in it does not arrive from now on.
    pub fn lose(&self, what: &str) {
        *self.state.lost.lock().expect("no holder panics") = Some(what.as_bytes().to_vec());
    }

    /// How many pieces did not arrive for that reason.
    pub fn losses(&self) -> u64 {
        self.state.losses.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        let state = state.clone();
        connections.spawn(async move {
            let server = state.server.lock().expect("no holder panics").clone();
            if let Ok(server) = TcpStream::connect(server).await {
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                relay(client, server, &state).await;
            }
        });
    }
}

async fn relay(client: TcpStream, server: TcpStream, state: &State) {
    let (mut cuts, mut silences) = (state.cuts.subscribe(), state.silences.subscribe());
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Pinned here: both ends stay open while nothing passes.
    let mut asked = pin!(pass(from_client, to_server, state, Whose::Client));
    let mut told = pin!(pass(from_server, to_client, state, Whose::Server));
    tokio::select! {
        biased;
        _ = cuts.changed() => return,
        _ = silences.changed() => {}
        () = &mut asked => return,
        () = &mut told => return,
    }
    let _ = cuts.changed().await;
}

#[derive(Clone, Copy)]
enum Whose {
    Client,
    Server,
}

impl State {
    fn is_lost(&self, piece: &[u8]) -> bool {
        let lost = self.lost.lock().expect("no holder panics");
        let is_lost = lost
            .as_ref()
            .is_some_and(|lost| piece.windows(lost.len()).any(|part| part == lost));
        if is_lost {
            self.losses.fetch_add(1, Ordering::SeqCst);
        }
        is_lost
    }
}

/// Passes pieces on until either side ends.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    state: &State,
    whose: Whose,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let piece = &buffer[..count];
        match whose {
            Whose::Client => {
                let delay = Duration::from_micros(state.delay.load(Ordering::SeqCst));
                tokio::time::sleep(delay).await;
            }
            Whose::Server if state.is_lost(piece) => continue,
            Whose::Server => {}
        }
        if to.write_all(piece).await.is_err() {
            return;
        }
    }
}
