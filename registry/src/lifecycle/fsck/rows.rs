//! The tables: each row has what it belongs to, and everything is referred to or waits for its collection.

use berth_crds::Sparse;

use super::finding::{Finding, Kind};
use super::worker::{Halt, REPAIR_DELAY, SETTLED, Worker};
use crate::domain::Digest;
use crate::domain::manifest::Manifest;
use crate::metadata::inspection::{Fault, Names, Position, Presence, Problem, Start, Table, Walked};
use crate::metadata::{TenantId, Time};

/// The manifest that was asked about last, and the blobs that it needs.
#[derive(Default)]
struct Needs {
    of: Position,
    blobs: Vec<Digest>,
}

impl Worker {
    /// A page of a table; false behind its end.
    pub(super) async fn rows(&mut self, table: Table) -> Result<bool, Halt> {
        let walked = self.walk(table, Start::After(self.run.row.clone())).await?;
        let Some(last) = walked.last else { return Ok(false) };

        // 1. What may not be as it is. Of what is wrong with a whole tenant, repository or manifest, one row is told.
        let (mut suspects, mut absent): (Vec<Fault>, u64) = (Vec::new(), 0);
        let mut needs = Needs::default();
        for fault in walked.faults {
            let before = suspects.last().map_or(&self.run.row, |told| &told.at);
            if is_told_with(&fault, before) || is_told_with(&fault, &self.run.row) {
                continue;
            }
            if self.may_be_absent(&fault, &mut needs).await? {
                absent += 1;
                continue;
            }
            suspects.push(fault);
        }

        // 2. What still is so a moment later.
        if !suspects.is_empty() {
            self.moment().await?;
        }
        let mut findings = Vec::new();
        for fault in suspects {
            let again = self.walk(table, Start::At(fault.at.clone())).await?;
            if again.faults.contains(&fault) {
                findings.extend(self.judge(table, fault).await?);
            }
            self.tick().await?;
        }

        // 3. This page is done with.
        self.run.row = last;
        self.run.done += walked.rows;
        self.run.checked.rows += walked.rows;
        self.run.absent += absent;
        findings.into_iter().for_each(|finding| self.run.note(finding));
        Ok(true)
    }

    async fn walk(&self, table: Table, start: Start) -> Result<Walked, Halt> {
        let now = Time::now();
        Ok(self
            .inspection()
            .walk(table, start, now, now.minus(SETTLED))
            .await?)
    }

    /// Whether a blob that a manifest names may be absent: the tenant takes such manifests, or the manifest does not
    /// need it.
    async fn may_be_absent(&self, fault: &Fault, needs: &mut Needs) -> Result<bool, Halt> {
        let (Problem::NotLinked(Presence::Unknown) | Problem::NoBlob(Presence::Unknown)) = fault.problem
        else {
            return Ok(false);
        };
        let snapshot = self.shared.parts.directory.now();
        let tenant = snapshot.tenant(TenantId(fault.at.tenant));
        if tenant.is_none_or(|tenant| tenant.config.repositories.sparse == Sparse::Always) {
            return Ok(true);
        }
        // What a cache lacks comes when it is asked for.
        let names = self
            .inspection()
            .names(fault.at.tenant, Some(fault.at.repository))
            .await?;
        let name = names.repository.and_then(|name| name.parse().ok());
        if name.is_some_and(|name| tenant.is_some_and(|tenant| tenant.caches.of(&name).is_some())) {
            return Ok(true);
        }
        let manifest = Position {
            other: Vec::new(),
            ..fault.at.clone()
        };
        if needs.of != manifest {
            let found = self
                .inspection()
                .payloads(Start::At(manifest.clone()), u64::MAX)
                .await?;
            let found = found
                .first()
                .filter(|found| {
                    (found.at.tenant, found.at.repository) == (manifest.tenant, manifest.repository)
                })
                .filter(|found| found.at.digest == manifest.digest);
            let read =
                found.and_then(|found| Manifest::read_any(&found.payload, Some(&found.media_type)).ok());
            let blobs = read.into_iter().flat_map(|manifest| manifest.blobs);
            needs.blobs = blobs
                .filter(|blob| blob.required)
                .map(|blob| blob.digest)
                .collect();
            needs.of = manifest;
        }
        let blob = Digest::from_bytes(&fault.at.other);
        Ok(blob.is_none_or(|blob| !needs.blobs.contains(&blob)))
    }

    /// Tells what is wrong, and takes care of it where that is safe.
    async fn judge(&self, table: Table, fault: Fault) -> Result<Option<Finding>, Halt> {
        let at = &fault.at;
        let repository =
            (table != Table::Repositories || fault.problem != Problem::NoTenant).then_some(at.repository);
        let names = self.inspection().names(at.tenant, repository).await?;
        if names.going {
            return Ok(None);
        }
        let kind = match fault.problem {
            Problem::NoTenant => Kind::UnknownTenant,
            Problem::NoRepository => Kind::UnknownRepository,
            Problem::NoManifest(_) => Kind::DanglingTag,
            Problem::EdgeOfNothing => Kind::MissingManifest,
            Problem::NotLinked(_) => Kind::MissingLink,
            Problem::NoBlob(_) => Kind::MissingBlob,
            Problem::LinkToNothing => Kind::DanglingLink,
            Problem::Forgotten => Kind::ForgottenManifest,
        };
        let repaired = kind == Kind::ForgottenManifest
            && self.run.options.repair
            && self
                .inspection()
                .review_manifest(at, Time::now().plus(REPAIR_DELAY))
                .await?;
        let (digest, detail) = match &fault.problem {
            Problem::NoTenant | Problem::NoRepository => (None, format!("{table:?}, among others")),
            Problem::NoManifest(digest) => (Some(shown(digest)), String::new()),
            Problem::NotLinked(_) | Problem::NoBlob(_) => {
                (Some(shown(&at.other)), format!("needed by {}", shown(&at.digest)))
            }
            Problem::EdgeOfNothing | Problem::LinkToNothing | Problem::Forgotten => {
                (Some(shown(&at.digest)), String::new())
            }
        };
        Ok(Some(Finding {
            tag: (table == Table::Tags && kind == Kind::DanglingTag).then(|| at.name.clone()),
            digest,
            detail,
            repaired,
            ..named(kind, names, at, repository)
        }))
    }
}

/// Whether this was told with the row `before`.
fn is_told_with(fault: &Fault, before: &Position) -> bool {
    let at = &fault.at;
    match fault.problem {
        Problem::NoTenant => at.tenant == before.tenant,
        Problem::NoRepository => (at.tenant, at.repository) == (before.tenant, before.repository),
        Problem::EdgeOfNothing => {
            (at.tenant, at.repository, &at.digest) == (before.tenant, before.repository, &before.digest)
        }
        Problem::NoManifest(_)
        | Problem::NotLinked(_)
        | Problem::NoBlob(_)
        | Problem::LinkToNothing
        | Problem::Forgotten => false,
    }
}

/// A finding at a place. What has no name is called by its number.
pub(super) fn named(kind: Kind, names: Names, at: &Position, repository: Option<i64>) -> Finding {
    Finding {
        tenant: Some(names.tenant.unwrap_or_else(|| format!("#{}", at.tenant))),
        repository: names.repository.or_else(|| repository.map(|id| format!("#{id}"))),
        ..Finding::new(kind)
    }
}

/// A stored digest as text, or its bytes if it is none.
pub(super) fn shown(stored: &[u8]) -> String {
    match Digest::from_bytes(stored) {
        Some(digest) => digest.to_string(),
        None => format!("unreadable:{}", hex::encode(stored)),
    }
}
