//! One run: what was asked for, where it stands, what it has found. Plain data that replicas share.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::finding::{Finding, Kind};
use crate::blobs::ObjectKey;
use crate::metadata::Time;
use crate::metadata::inspection::{Position, Table, Totals};

/// Most findings that are kept; the others are counted.
const FINDINGS: usize = 1000;
/// Most repositories' names of all findings together.
const NAMES: usize = 5000;
/// Looking an object up costs about as much as so many rows.
const LOOKUP: f64 = 20.0;
/// Reading so many bytes costs about as much as a row.
const BYTES: f64 = 16_384.0;

/// What is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// Read every object and manifest, and compare its digest.
    #[serde(default)]
    pub rehash: bool,
    /// Take care of what can be taken care of without a loss.
    #[serde(default)]
    pub repair: bool,
    /// Forget blobs whose objects are gone, so that clients push them again. Releases before do not know of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forget_lost: bool,
    /// Most bytes a second that are read; as fast as it goes if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It has seen everything.
    Done,
    /// Somebody stopped it.
    Stopped,
    /// The metadata store holds something that cannot be read.
    Failed,
}

/// The parts of a run, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Step {
    /// How much there is.
    Count,
    /// Repositories have tenants.
    Repositories,
    /// Tags have manifests.
    Tags,
    /// Manifests have repositories, and are referred to.
    Manifests,
    /// What manifests name is there.
    BlobEdges,
    /// What indexes name is there.
    ChildEdges,
    /// Links lead to blobs.
    Links,
    /// The bytes of manifests are those of their digests.
    Payloads,
    /// Blobs have objects of their size.
    Blobs,
    /// The bytes of objects are those of their blobs' digests.
    Contents,
    /// Blobs without objects are forgotten.
    Lost,
    /// Objects are known.
    Objects,
    /// Unknown objects are queued for their deletion.
    Orphans,
}

impl Step {
    const ALL: [Self; 13] = [
        Self::Count,
        Self::Repositories,
        Self::Tags,
        Self::Manifests,
        Self::BlobEdges,
        Self::ChildEdges,
        Self::Links,
        Self::Payloads,
        Self::Blobs,
        Self::Contents,
        Self::Lost,
        Self::Objects,
        Self::Orphans,
    ];

    /// The table that is walked in this step.
    pub(super) fn table(self) -> Option<Table> {
        Some(match self {
            Self::Repositories => Table::Repositories,
            Self::Tags => Table::Tags,
            Self::Manifests => Table::Manifests,
            Self::BlobEdges => Table::BlobEdges,
            Self::ChildEdges => Table::ChildEdges,
            Self::Links => Table::Links,
            Self::Count
            | Self::Payloads
            | Self::Blobs
            | Self::Contents
            | Self::Lost
            | Self::Objects
            | Self::Orphans => {
                return None;
            }
        })
    }

    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Count => "counting",
            Self::Repositories => "repositories",
            Self::Tags => "tags",
            Self::Manifests => "manifests",
            Self::BlobEdges => "blobs of manifests",
            Self::ChildEdges => "children of indexes",
            Self::Links => "blobs of repositories",
            Self::Payloads => "contents of manifests",
            Self::Blobs => "blobs",
            Self::Contents => "contents of blobs",
            Self::Lost => "lost blobs",
            Self::Objects => "objects",
            Self::Orphans => "orphans",
        }
    }
}

/// What has been looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Checked {
    /// Rows of metadata.
    pub rows: u64,
    /// Blobs, each compared with its object.
    pub blobs: u64,
    /// Objects that were listed, each compared with the metadata.
    pub objects: u64,
    /// Bytes that were read and hashed.
    pub bytes_rehashed: u64,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Rows, blobs, objects or bytes of the step.
    pub done: u64,
    /// About how many there are.
    pub total: Option<u64>,
    /// Of the whole run, from 0 to 100.
    pub percent: Option<f64>,
}

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// What was asked for.
    pub options: Options,
    started_at: i64,
    ended_at: Option<i64>,
    /// How it ended.
    pub end: Option<End>,
    /// What is being done.
    pub step: Step,
    /// The last row that is done with in this step.
    pub(super) row: Position,
    /// The last object that is done with in this step.
    pub(super) object: Option<ObjectKey>,
    /// How many are done with in this step.
    pub(super) done: u64,
    /// Bytes of the blob that is being read.
    pub(super) reading: u64,
    totals: Option<[u64; 8]>,
    /// What has been looked at.
    pub checked: Checked,
    /// Blobs that a manifest names and that are not there, as may be.
    pub absent: u64,
    /// How many findings there are.
    pub found: u64,
    /// How many of them have been taken care of.
    pub repaired: u64,
    pub(super) orphans: u64,
    orphans_queued: u64,
    pub(super) lost: u64,
    lost_forgotten: u64,
    /// The first of them.
    pub findings: Vec<Finding>,
    /// Why nothing goes on just now, or did to the end.
    pub trouble: Option<String>,
    /// What a person should know about the result.
    pub warning: Option<String>,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            options: Options::default(),
            started_at: 0,
            ended_at: None,
            end: None,
            step: Step::Count,
            row: Position::default(),
            object: None,
            done: 0,
            reading: 0,
            totals: None,
            checked: Checked::default(),
            absent: 0,
            found: 0,
            repaired: 0,
            orphans: 0,
            orphans_queued: 0,
            lost: 0,
            lost_forgotten: 0,
            findings: Vec::new(),
            trouble: None,
            warning: None,
        }
    }
}

impl Run {
    pub(super) fn new(options: Options, now: Time) -> Self {
        Self {
            options,
            started_at: now.0,
            ..Self::default()
        }
    }

    pub(super) fn to_stored(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers always serialise")
    }

    pub(super) fn from_stored(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// When it began.
    pub fn started_at(&self) -> Time {
        Time(self.started_at)
    }

    /// When it ended.
    pub fn ended_at(&self) -> Option<Time> {
        self.ended_at.map(Time)
    }

    /// How many findings nobody has taken care of.
    pub fn remaining(&self) -> u64 {
        self.found.saturating_sub(self.repaired)
    }

    pub(super) fn end(&mut self, end: End, now: Time) {
        self.end = Some(end);
        self.ended_at = Some(now.0);
        self.reading = 0;
    }

    pub(super) fn counted(&mut self, totals: &Totals) {
        let Totals { rows, blobs, bytes } = totals;
        let [a, b, c, d, e, f] = *rows;
        self.totals = Some([a, b, c, d, e, f, *blobs, *bytes]);
    }

    /// The step that comes next; `None` at the end.
    pub(super) fn next(&self) -> Option<Step> {
        Step::ALL
            .into_iter()
            .find(|step| *step > self.step && self.takes(*step))
    }

    fn takes(&self, step: Step) -> bool {
        match step {
            Step::Payloads | Step::Contents => self.options.rehash,
            Step::Lost => self.options.forget_lost && self.lost > 0,
            Step::Orphans => self.options.repair && self.orphans > 0,
            Step::Count
            | Step::Repositories
            | Step::Tags
            | Step::Manifests
            | Step::BlobEdges
            | Step::ChildEdges
            | Step::Links
            | Step::Blobs
            | Step::Objects => true,
        }
    }

    pub(super) fn begin(&mut self, step: Step) {
        self.step = step;
        self.row = Position::default();
        self.object = None;
        (self.done, self.reading) = (0, 0);
    }

    /// Counts a finding, and keeps it if there is room.
    pub(super) fn note(&mut self, mut finding: Finding) {
        self.found += 1;
        self.repaired += u64::from(finding.repaired);
        self.orphans += u64::from(finding.kind == Kind::OrphanObject);
        self.lost += u64::from(finding.kind == Kind::MissingObject);
        if self.findings.len() < FINDINGS {
            let named: usize = self
                .findings
                .iter()
                .map(|finding| finding.repositories.len())
                .sum();
            finding.repositories.truncate(NAMES.saturating_sub(named).max(3));
            finding.log();
            self.findings.push(finding);
        }
    }

    /// Counts findings of which nothing is known.
    pub(super) fn note_more(&mut self, count: u64) {
        self.found += count;
    }

    /// Notes that an orphan has been queued.
    pub(super) fn orphan_queued(&mut self, path: &str) {
        // One that has become an orphan since they were counted is not among them.
        if self.orphans_queued < self.orphans {
            self.orphans_queued += 1;
            self.repaired += 1;
        }
        self.mark(Kind::OrphanObject, path);
    }

    /// Notes that a blob without its object has been forgotten.
    pub(super) fn lost_forgotten(&mut self, path: &str) {
        if self.lost_forgotten < self.lost {
            self.lost_forgotten += 1;
            self.repaired += 1;
        }
        self.mark(Kind::MissingObject, path);
    }

    fn mark(&mut self, kind: Kind, path: &str) {
        let is_it = |finding: &&mut Finding| finding.kind == kind && finding.object.as_deref() == Some(path);
        if let Some(finding) = self.findings.iter_mut().find(is_it) {
            finding.repaired = true;
        }
    }

    /// How long it has taken.
    pub fn duration(&self, now: Time) -> Duration {
        let end = self.ended_at.unwrap_or(now.0);
        Duration::from_micros(u64::try_from(end - self.started_at).unwrap_or(0))
    }

    fn total(&self, step: Step) -> Option<u64> {
        let totals = self.totals?;
        Some(match step {
            Step::Count => 0,
            Step::Repositories => totals[0],
            Step::Tags => totals[1],
            Step::Manifests | Step::Payloads => totals[2],
            Step::BlobEdges => totals[3],
            Step::ChildEdges => totals[4],
            Step::Links => totals[5],
            Step::Blobs | Step::Lost | Step::Objects => totals[6],
            Step::Contents => totals[7],
            Step::Orphans => self.checked.objects,
        })
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let done = self.done + self.reading;
        // What has come meanwhile is looked at too.
        let total = self.total(self.step).map(|total| total.max(done));
        let weight = |step: Step| {
            let total = self.total(step)? as f64;
            Some(match step {
                Step::Contents => total / BYTES,
                Step::Blobs | Step::Lost => total * LOOKUP,
                _ => total,
            })
        };
        let percent = || {
            if self.end == Some(End::Done) {
                return Some(100.0);
            }
            let (mut all, mut over) = (0.0, 0.0);
            for step in Step::ALL.into_iter().filter(|step| self.takes(*step)) {
                let weight = weight(step)?;
                all += weight;
                if step < self.step {
                    over += weight;
                } else if step == self.step && weight > 0.0 {
                    over += weight * (done as f64 / total.unwrap_or(1).max(1) as f64);
                }
            }
            Some(if all > 0.0 {
                (over / all * 100.0).min(100.0)
            } else {
                0.0
            })
        };
        Progress {
            done,
            total,
            percent: percent(),
        }
    }
}
