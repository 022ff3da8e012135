//! Places in the database's log: where a primary stands, and how far a standby has followed it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Result;

/// A place in the write-ahead log of Postgres (`pg_lsn`). A later one is larger, also after a standby has become the
/// primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

/// It is no such place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not written as 16/B374D848: two hexadecimal numbers of 32 bits")]
pub struct NoLsn;

impl FromStr for Lsn {
    type Err = NoLsn;

    fn from_str(text: &str) -> std::result::Result<Self, NoLsn> {
        let half = |text: &str| {
            let plain = (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()
        };
        let (high, low) = text.split_once('/').ok_or(NoLsn)?;
        let (high, low) = (half(high).ok_or(NoLsn)?, half(low).ok_or(NoLsn)?);
        Ok(Self(high << 32 | low))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & u64::from(u32::MAX))
    }
}

/// How far a database has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// Everything before it can be read.
    pub at: Lsn,
    /// How old what can be read may be; nothing on a primary.
    pub behind: Duration,
}

/// Where a store stands. One without such a log says nothing.
#[async_trait::async_trait]
pub trait Position: Send + Sync + 'static {
    /// A place behind everything that was committed before the call.
    async fn written(&self) -> Result<Option<Lsn>> {
        Ok(None)
    }

    /// How far what is read here has come.
    async fn replayed(&self) -> Result<Option<Replayed>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_are_ordered_by_their_number_and_nothing_else_is_one() {
        let place = |text: &str| text.parse::<Lsn>().unwrap();
        assert!(place("0/FFFFFFFF") < place("1/0") && place("9/0") < place("10/0"));
        for bad in [
            "",
            "/",
            "0/",
            "/0",
            "0",
            "0/0/0",
            "+1/0",
            "G/0",
            "0/123456789",
            " 0/0",
        ] {
            assert_eq!(bad.parse::<Lsn>(), Err(NoLsn), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_place_reads_back_as_itself(number: u64) {
            prop_assert_eq!(Lsn(number).to_string().parse(), Ok(Lsn(number)));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Lsn>();
        }
    }
}
