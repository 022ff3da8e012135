//! Request ids: the client's if it is sane, else ours.

use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;

/// The longest id taken from a client, in bytes.
const LONGEST: usize = 128;

/// Makes ids that differ within a process, and almost surely between processes.
#[derive(Debug)]
pub(super) struct RequestIds {
    next: AtomicU64,
    process: u64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        Self {
            next: AtomicU64::new(rand::random()),
            process: rand::random(),
        }
    }

    /// The client's id if it is at most 128 visible ASCII characters, else a new one of 24 hex digits.
    pub(super) fn accept_or_make(&self, given: Option<&HeaderValue>) -> HeaderValue {
        match given {
            Some(id) if is_sane(id.as_bytes()) => id.clone(),
            _ => self.make(),
        }
    }

    fn make(&self) -> HeaderValue {
        // splitmix64 is a bijection: counting up gives ids that look random and never repeat.
        let mut mixed = self.next.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let mut text = [0; 24];
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.process.to_be_bytes()[..4]);
        bytes[4..].copy_from_slice(&mixed.to_be_bytes());
        match hex::encode_to_slice(bytes, &mut text) {
            Ok(()) => HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-")),
            Err(_) => HeaderValue::from_static("-"),
        }
    }
}

fn is_sane(id: &[u8]) -> bool {
    !id.is_empty() && id.len() <= LONGEST && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_sane_id_of_the_client_is_kept_and_any_other_replaced() {
        let ids = RequestIds::new();
        let kept = HeaderValue::from_static("trace-01/abc");
        assert_eq!(ids.accept_or_make(Some(&kept)), kept);
        for bad in ["", "two words", &"x".repeat(129)] {
            let bad = HeaderValue::from_str(bad).unwrap();
            assert_eq!(ids.accept_or_make(Some(&bad)).len(), 24);
        }
        let eight_bit = HeaderValue::from_bytes(b"caf\xe9").unwrap();
        assert_ne!(ids.accept_or_make(Some(&eight_bit)), eight_bit);
    }

    #[test]
    fn ids_that_we_make_differ() {
        let ids = RequestIds::new();
        let made: HashSet<_> = (0..10_000).map(|_| ids.accept_or_make(None)).collect();
        assert_eq!(made.len(), 10_000);
    }
}
