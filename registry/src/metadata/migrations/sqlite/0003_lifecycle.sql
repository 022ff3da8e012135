-- What tags and manifests are kept for, what became of them, and what is stored over time.

-- pulled_at: the last authorised GET or HEAD by this name, to the hour. renewed_at: the last HEAD by someone who may
-- push. lifetime: what its manifest's annotation gives it, in microseconds; it ends at expires_at.
ALTER TABLE tag ADD COLUMN pulled_at INTEGER;
ALTER TABLE tag ADD COLUMN renewed_at INTEGER;
ALTER TABLE tag ADD COLUMN lifetime INTEGER;
ALTER TABLE tag ADD COLUMN expires_at INTEGER;
-- Retention walks a repository's tags from the newest push on, and needs no more than this of them.
CREATE INDEX tag_by_push ON tag (tenant_id, repository_id, pushed_at DESC, name, digest, renewed_at);
CREATE INDEX tag_by_expiry ON tag (expires_at) WHERE expires_at IS NOT NULL;

-- The last GET by digest, of this manifest or of one below it, to the hour.
ALTER TABLE manifest ADD COLUMN pulled_at INTEGER;

-- The last pull of anything in it, to the hour.
ALTER TABLE repository ADD COLUMN pulled_at INTEGER;

-- since: when it lost its last name. condemned: 1 if it goes at due_at should nothing refer to it then; else it waits
-- for a rule on untagged manifests, and without one it waits for ever.
ALTER TABLE review_manifest ADD COLUMN since INTEGER;
ALTER TABLE review_manifest ADD COLUMN condemned INTEGER NOT NULL DEFAULT 0;

-- Whether a blob is a child of an index: without its kind the index is passed over for a scan.
DROP INDEX manifest_child_by_child;
CREATE INDEX manifest_child_by_child ON manifest_child (tenant_id, repository_id, child, kind);

-- Every manifest without a tag is looked at once: it belongs to another one, or waits.
INSERT INTO review_manifest (tenant_id, repository_id, digest, due_at, since)
    SELECT m.tenant_id, m.repository_id, m.digest, m.leased_until, m.pushed_at FROM manifest m
    WHERE NOT EXISTS (SELECT 1 FROM tag t WHERE t.tenant_id = m.tenant_id AND t.repository_id = m.repository_id
        AND t.digest = m.digest)
    ON CONFLICT DO NOTHING;

-- Manifests deleted by their digest, for as long as they can be brought back.
CREATE TABLE deleted_manifest (
    tenant_id INTEGER NOT NULL,
    repository_id INTEGER NOT NULL,
    digest BLOB NOT NULL,
    media_type TEXT NOT NULL,
    payload BLOB NOT NULL,
    deleted_at INTEGER NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, digest)
);
CREATE INDEX deleted_manifest_by_end ON deleted_manifest (until);

-- The tags that were deleted, newest first. until: up to when it can be brought back.
ALTER TABLE tag_history ADD COLUMN until INTEGER;
CREATE INDEX tag_history_deleted ON tag_history (tenant_id, repository_id, at, name) WHERE action = 1;

ALTER TABLE object_deletion ADD COLUMN size INTEGER NOT NULL DEFAULT 0;

-- Of the tenant's total: bytes of objects in the blob store, those included that nothing refers to any more and
-- that are about to be deleted.
ALTER TABLE usage ADD COLUMN stored INTEGER NOT NULL DEFAULT 0;
UPDATE usage SET stored = (SELECT coalesce(sum(b.size), 0) FROM blob b WHERE b.tenant_id = usage.tenant_id)
    WHERE repository_id = 0;

-- What a tenant stored at the beginning of each hour. hour: hours since 1970.
CREATE TABLE usage_hourly (
    tenant_id INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    tags INTEGER NOT NULL,
    repositories INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, hour)
) WITHOUT ROWID;

-- The same summed up, for each repository too. month: year times 100, plus 1 to 12. repository_id 0: the tenant.
CREATE TABLE usage_monthly (
    tenant_id INTEGER NOT NULL,
    month INTEGER NOT NULL,
    repository_id INTEGER NOT NULL,
    byte_hours INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, month, repository_id)
) WITHOUT ROWID;

-- What is done now and then by whichever replica takes it. tenant_id 0: for the installation.
CREATE TABLE job (
    tenant_id INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    name TEXT NOT NULL,
    due_at INTEGER NOT NULL,
    claimed_until INTEGER NOT NULL DEFAULT 0,
    claimed_by TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL,
    PRIMARY KEY (tenant_id, kind, name)
) WITHOUT ROWID;

-- Content to be deleted as a whole. repository: its name, or empty for all that the tenant has.
CREATE TABLE purge (
    tenant_id INTEGER NOT NULL,
    repository TEXT NOT NULL,
    due_at INTEGER NOT NULL,
    requested_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, repository)
) WITHOUT ROWID;
INSERT INTO purge (tenant_id, repository, due_at, requested_at)
    SELECT id, '', deleted_at, deleted_at FROM tenant WHERE deleted_at IS NOT NULL AND name LIKE '%~%';
