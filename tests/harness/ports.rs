//! Free loopback ports.

use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// The first port handed out is in `BASE..BASE + SPAN`: below the range from which the kernel takes
/// the ports of outgoing connections, above the one that `tests/tools/servers` uses.
const BASE: u16 = 20_000;
const SPAN: u16 = 12_000;

/// A loopback port that nobody listens on. No port is handed out twice in one process, so parallel
/// tests never race for one; another process may still take it before it is used, so whoever starts
/// a server on it must be ready to try again with the next.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU16::new((std::process::id() * 97 % u32::from(SPAN)) as u16));
    for _ in 0..SPAN {
        let port = BASE + next.fetch_add(1, Ordering::Relaxed) % SPAN;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {BASE} and {}", BASE + SPAN);
}
