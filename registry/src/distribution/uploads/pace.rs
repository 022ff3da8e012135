//! Whether a client sends too little for what it makes this process hold.

use std::time::Duration;

/// A client that sends next to nothing for this long gives its buffers back.
const WINDOW: Duration = Duration::from_secs(3);
/// What is next to nothing in that time, in bytes.
const LITTLE: u64 = 256 * 1024;
/// Bytes that are worth giving back while a client sends, since storing them apart costs the blob store a request.
const WORTH_STORING: u64 = 64 * 1024;

/// The time that was spent waiting for a client, and what it has sent meanwhile. Time in which the store is the slower
/// side does not count.
pub(super) struct Pace {
    waited: Duration,
    since: u64,
}

impl Pace {
    /// A client that begins to send at this offset.
    pub fn new(offset: u64) -> Self {
        Self {
            waited: Duration::ZERO,
            since: offset,
        }
    }

    /// How long to wait for more before asking again.
    pub fn patience(&self) -> Duration {
        WINDOW.saturating_sub(self.waited)
    }

    /// Notes a wait that has ended, and says whether what is held is to be stored: everything up to `settled` is.
    pub fn waited(&mut self, wait: Duration, offset: u64, settled: u64) -> bool {
        self.waited += wait;
        if self.waited < WINDOW {
            return false;
        }
        let came = offset.saturating_sub(self.since);
        *self = Self::new(offset);
        match offset.saturating_sub(settled) {
            0 => false,
            held => came == 0 || (came < LITTLE && held >= WORTH_STORING),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: u64 = 15 << 20;

    #[test]
    fn a_byte_now_and_then_does_not_keep_what_came_before_in_memory() {
        let mut pace = Pace::new(0);
        assert!(!pace.waited(Duration::from_millis(100), HELD, 0));
        let mut given_back = 0;
        for byte in 1..=20 {
            given_back += u32::from(pace.waited(Duration::from_millis(2900), HELD + byte, 0));
        }
        assert!(given_back > 0);
        // Nor does each byte after that cost a request of its own.
        let mut pace = Pace::new(HELD);
        for byte in 1..=20 {
            assert!(!pace.waited(WINDOW, HELD + byte, HELD), "{byte}");
        }
    }

    #[test]
    fn silence_gives_back_whatever_there_is_once() {
        let mut pace = Pace::new(0);
        assert!(!pace.waited(WINDOW, 0, 0));
        assert_eq!(pace.patience(), WINDOW);
        let mut pace = Pace::new(10);
        assert!(pace.waited(WINDOW, 10, 0));
        assert!(!pace.waited(WINDOW, 10, 10));
    }

    #[test]
    fn a_steady_client_keeps_its_buffers() {
        let mut pace = Pace::new(0);
        for second in 1..=60 {
            assert!(
                !pace.waited(Duration::from_secs(1), second * 200 * 1024, 0),
                "{second}"
            );
        }
    }
}
