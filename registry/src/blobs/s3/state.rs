//! What an upload has stored in a bucket, as the session row keeps it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Parts of a multipart upload, and the bytes after them that do not fill a part yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// S3's id of the multipart upload, once the first part was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) multipart: Option<String>,
    /// Bytes of every part but the last. Fixed by the first part that is sent; 0 before.
    #[serde(default)]
    pub(super) part_size: u64,
    /// The parts that are stored, in order, each `part_size` long.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) parts: Vec<Part>,
    /// The bytes after the parts: objects first, then bytes, fewer than `part_size` together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) tail: Vec<Segment>,
    /// Segments that this state needs no more; whoever resumes from it deletes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) retired: Vec<SegmentName>,
    /// Epoch of the writer that handed this state out.
    #[serde(default)]
    pub(super) epoch: i64,
    /// That writer had no part under way, and was about to end.
    #[serde(default)]
    pub(super) sealed: bool,
}

impl State {
    /// Durable bytes.
    pub fn offset(&self) -> u64 {
        let tail: u64 = self.tail.iter().map(Segment::size).sum();
        self.parts.len() as u64 * self.part_size + tail
    }

    /// Every segment object that this state knows of.
    pub(super) fn segments(&self) -> Vec<SegmentName> {
        let tail = self.tail.iter().filter_map(|segment| match segment {
            Segment::Bytes(_) => None,
            Segment::Object { name, .. } => Some(*name),
        });
        tail.chain(self.retired.iter().copied()).collect()
    }
}

/// A stored part: its number, and the tag that S3 gave it (without quotes).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part(pub(super) i32, pub(super) String);

/// Bytes between the last full part and the upload's end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Segment {
    /// Few enough to lie in the session row.
    Bytes(#[serde(with = "as_hex")] Bytes),
    /// An object of `size` bytes.
    Object {
        /// Which one.
        name: SegmentName,
        /// Its length.
        size: u64,
    },
}

impl Segment {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Object { size, .. } => *size,
        }
    }
}

/// A segment object, `uploads/<uuid>/<epoch>/<number>`: the epoch of the writer that made it and a number
/// that this writer used once, so that no segment is ever overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentName(pub(super) i64, pub(super) u32);

impl SegmentName {
    /// Path below the store's prefix.
    pub(super) fn path(self, upload: Uuid) -> String {
        format!("uploads/{upload}/{}/{}", self.0, self.1)
    }
}

/// Bytes as a string of hexadecimal digits.
mod as_hex {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let digits = String::deserialize(deserializer)?;
        hex::decode(digits).map(Bytes::from).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_its_row() {
        let state = State {
            multipart: Some("m".into()),
            part_size: 5,
            parts: vec![Part(1, "a".into()), Part(9, "b".into())],
            tail: vec![
                Segment::Object {
                    name: SegmentName(3, 0),
                    size: 2,
                },
                Segment::Bytes(Bytes::from_static(b"\x00\xff")),
            ],
            retired: vec![SegmentName(2, 7)],
            epoch: 4,
            sealed: true,
        };
        let stored = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&stored).unwrap(), state);
        assert_eq!(state.offset(), 14);
        assert_eq!(serde_json::from_str::<State>("{}").unwrap(), State::default());
    }
}
