-- Every key leads with tenant_id, so that a sharding engine can distribute by tenant.
-- Digests are one byte for the algorithm, then the hash. Times are microseconds since 1970.
-- Names compare bytewise (the BINARY collation).

CREATE TABLE tenant (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    uid TEXT NOT NULL UNIQUE,
    sparse INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL
);

CREATE TABLE repository (
    tenant_id INTEGER NOT NULL,
    id INTEGER NOT NULL,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name)
) WITHOUT ROWID;

-- A blob is stored once per tenant. It is collected when nothing refers to it and its lease has ended.
CREATE TABLE blob (
    tenant_id INTEGER NOT NULL,
    digest BLOB NOT NULL,
    object_key BLOB NOT NULL,
    size INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    leased_until INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, digest)
) WITHOUT ROWID;

CREATE TABLE repository_blob (
    tenant_id INTEGER NOT NULL,
    repository_id INTEGER NOT NULL,
    digest BLOB NOT NULL,
    linked_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, digest)
) WITHOUT ROWID;
CREATE INDEX repository_blob_by_digest ON repository_blob (tenant_id, digest, repository_id);

CREATE TABLE manifest (
    tenant_id INTEGER NOT NULL,
    repository_id INTEGER NOT NULL,
    digest BLOB NOT NULL,
    media_type TEXT NOT NULL,
    artifact_type TEXT,
    subject TEXT,
    payload BLOB NOT NULL,
    size INTEGER NOT NULL,
    pushed_at INTEGER NOT NULL,
    pushed_by TEXT NOT NULL,
    leased_until INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, digest)
);

-- The blobs that a manifest names, those that were absent when it was pushed included.
CREATE TABLE manifest_blob (
    tenant_id INTEGER NOT NULL,
    repository_id INTEGER NOT NULL,
    manifest BLOB NOT NULL,
    blob BLOB NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, manifest, blob)
) WITHOUT ROWID;
CREATE INDEX manifest_blob_by_blob ON manifest_blob (tenant_id, blob, repository_id);

-- kind: 0 the child is a manifest, 1 it is a blob, 2 it was absent when the parent was pushed
CREATE TABLE manifest_child (
    tenant_id INTEGER NOT NULL,
    repository_id INTEGER NOT NULL,
    parent BLOB NOT NULL,
    child BLOB NOT NULL,
    kind INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, parent, child)
) WITHOUT ROWID;
CREATE INDEX manifest_child_by_child ON manifest_child (tenant_id, repository_id, child);

-- The list of a subject's referrers, ready to be sent: descriptor is JSON.
CREATE TABLE referrer (
    tenant_id INTEGER NOT NULL,
    repository_id INTEGER NOT NULL,
    subject TEXT NOT NULL,
    digest BLOB NOT NULL,
    artifact_type TEXT,
    descriptor TEXT NOT NULL,
    descriptor_size INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, subject, digest)
) WITHOUT ROWID;
CREATE INDEX referrer_by_digest ON referrer (tenant_id, repository_id, digest);

CREATE TABLE tag (
    tenant_id INTEGER NOT NULL,
    repository_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    digest BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    pushed_at INTEGER NOT NULL,
    pushed_by TEXT NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, name)
) WITHOUT ROWID;
CREATE INDEX tag_by_digest ON tag (tenant_id, repository_id, digest, name);

-- action: 0 pushed, 1 deleted; digest is what the tag points to from then on, or pointed to until then
CREATE TABLE tag_history (
    tenant_id INTEGER NOT NULL,
    repository_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    at INTEGER NOT NULL,
    id BLOB NOT NULL,
    action INTEGER NOT NULL,
    digest BLOB NOT NULL,
    principal TEXT NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, name, at, id)
) WITHOUT ROWID;

-- One row an upload session. The repository is a name, since the first push creates the repository.
-- digest: bound by the first closing PUT. epoch: the number of the writer's lease.
-- committed_at: set when the blob was published; the row then only answers a repeated PUT.
CREATE TABLE upload (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL,
    repository TEXT NOT NULL,
    principal TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    active_at INTEGER NOT NULL,
    epoch INTEGER NOT NULL DEFAULT 0,
    writer_until INTEGER NOT NULL DEFAULT 0,
    byte_offset INTEGER NOT NULL DEFAULT 0,
    hash_states BLOB NOT NULL,
    state TEXT NOT NULL,
    digest BLOB,
    committed_at INTEGER,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX upload_by_activity ON upload (active_at);

-- Candidates of collection, written in the transaction that drops a reference.
CREATE TABLE review_blob (
    tenant_id INTEGER NOT NULL,
    digest BLOB NOT NULL,
    due_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, digest)
) WITHOUT ROWID;
CREATE INDEX review_blob_by_due ON review_blob (due_at);

CREATE TABLE review_manifest (
    tenant_id INTEGER NOT NULL,
    repository_id INTEGER NOT NULL,
    digest BLOB NOT NULL,
    due_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, digest)
) WITHOUT ROWID;
CREATE INDEX review_manifest_by_due ON review_manifest (due_at);

-- Objects to delete from the blob store; a row outlives every crash until the object is gone.
CREATE TABLE object_deletion (
    tenant_id INTEGER NOT NULL,
    object_key BLOB NOT NULL,
    due_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, object_key)
) WITHOUT ROWID;
CREATE INDEX object_deletion_by_due ON object_deletion (due_at);
