//! Why an archive is not read, or not to its end.

use std::fmt;
use std::io;

use serde::Serialize;

/// Why nothing can be said about an archive.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableArchive {
    /// The bytes are of no known format.
    #[error("this is neither a tar archive nor one compressed with gzip or zstd")]
    Unknown,
    /// The bytes contradict their format.
    #[error("the archive is broken: {0}")]
    Broken(String),
    /// A zstd frame needs too much memory.
    #[error("a zstd frame has a window of {wanted} bytes; at most {limit} are allowed")]
    Window {
        /// Bytes that the frame asks for.
        wanted: u64,
        /// Bytes that are allowed.
        limit: u64,
    },
    /// The archive grows out of all proportion.
    #[error(
        "{compressed} compressed bytes became more than {decompressed}; at most {ratio} are allowed for each"
    )]
    Bomb {
        /// Bytes read until then.
        compressed: u64,
        /// Bytes that came of them.
        decompressed: u64,
        /// Decompressed bytes allowed for each compressed one.
        ratio: u64,
    },
    /// The content is too long.
    #[error("the archive is longer than the {limit} bytes that are read")]
    Compressed {
        /// Bytes that are read.
        limit: u64,
    },
    /// The archive is too long once decompressed.
    #[error("the archive is longer than {limit} bytes when decompressed")]
    Decompressed {
        /// Bytes that are decompressed.
        limit: u64,
    },
    /// There are too many entries.
    #[error("the archive has more than {limit} entries")]
    Entries {
        /// Entries that are read.
        limit: usize,
    },
    /// The deadline came first.
    #[error("the archive could not be read in the time allowed")]
    Late,
    /// Nobody waits for the answer any more.
    #[error("the reading was cancelled")]
    Cancelled,
    /// The reader failed, which says nothing about the archive.
    #[error("the content could not be read: {0}")]
    Source(io::Error),
    /// No `Chart.yaml` where a chart has it.
    #[error("there is no Chart.yaml in the first folder of the archive, so this is no Helm chart")]
    NoChart,
    /// `Chart.yaml` is too long to be read.
    #[error("Chart.yaml is longer than {limit} bytes")]
    LongChart {
        /// Bytes that are read.
        limit: u64,
    },
    /// `Chart.yaml` is not what Helm reads.
    #[error("Chart.yaml cannot be read: {0}")]
    Chart(String),
}

/// Why a listing ends before its archive does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "why", content = "detail")]
pub enum Cut {
    /// There are more entries than this.
    Entries(usize),
    /// The names have more bytes than this in total.
    Names(usize),
    /// The archive has more bytes than this.
    Bytes(u64),
    /// The deadline came first.
    Time,
    /// The rest is broken in this way.
    Broken(String),
}

impl Cut {
    /// The end that an error makes for what was read before it; the error itself if that must not be shown, or if
    /// there is `nothing` to show.
    pub(super) fn of(error: UnreadableArchive, nothing: bool) -> Result<Self, UnreadableArchive> {
        use UnreadableArchive as Error;
        match error {
            Error::Compressed { limit } | Error::Decompressed { limit } => Ok(Self::Bytes(limit)),
            Error::Entries { limit } => Ok(Self::Entries(limit)),
            Error::Late => Ok(Self::Time),
            Error::Broken(how) if !nothing => Ok(Self::Broken(how)),
            error @ Error::Window { .. } if !nothing => Ok(Self::Broken(error.to_string())),
            error @ (Error::Unknown
            | Error::Broken(_)
            | Error::Window { .. }
            | Error::Bomb { .. }
            | Error::Cancelled
            | Error::Source(_)
            | Error::NoChart
            | Error::LongChart { .. }
            | Error::Chart(_)) => Err(error),
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries(limit) => write!(f, "only the first {limit} entries are listed"),
            Self::Names(limit) => write!(f, "only entries whose names fit into {limit} bytes are listed"),
            Self::Bytes(limit) => write!(f, "only what the first {limit} bytes hold is listed"),
            Self::Time => write!(f, "only what could be read in time is listed"),
            Self::Broken(how) => write!(f, "only what comes before the broken part is listed: {how}"),
        }
    }
}
