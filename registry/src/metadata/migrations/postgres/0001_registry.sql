-- Every key leads with tenant_id, so that a sharding engine can distribute by tenant.
-- Digests are one byte for the algorithm, then the hash. Times are microseconds since 1970.
-- Names compare bytewise.

CREATE TABLE tenant (
    id BIGINT PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    uid TEXT NOT NULL UNIQUE,
    sparse SMALLINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL
);

CREATE TABLE repository (
    tenant_id BIGINT NOT NULL,
    id BIGINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name)
);

-- A blob is stored once per tenant. It is collected when nothing refers to it and its lease has ended.
CREATE TABLE blob (
    tenant_id BIGINT NOT NULL,
    digest BYTEA NOT NULL,
    object_key UUID NOT NULL,
    size BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    leased_until BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, digest)
);

CREATE TABLE repository_blob (
    tenant_id BIGINT NOT NULL,
    repository_id BIGINT NOT NULL,
    digest BYTEA NOT NULL,
    linked_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, digest)
);
CREATE INDEX repository_blob_by_digest ON repository_blob (tenant_id, digest, repository_id);

CREATE TABLE manifest (
    tenant_id BIGINT NOT NULL,
    repository_id BIGINT NOT NULL,
    digest BYTEA NOT NULL,
    media_type TEXT NOT NULL,
    artifact_type TEXT,
    subject TEXT COLLATE "C",
    payload BYTEA NOT NULL,
    size BIGINT NOT NULL,
    pushed_at BIGINT NOT NULL,
    pushed_by TEXT NOT NULL,
    leased_until BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, digest)
);

-- The blobs that a manifest names, those that were absent when it was pushed included.
CREATE TABLE manifest_blob (
    tenant_id BIGINT NOT NULL,
    repository_id BIGINT NOT NULL,
    manifest BYTEA NOT NULL,
    blob BYTEA NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, manifest, blob)
);
CREATE INDEX manifest_blob_by_blob ON manifest_blob (tenant_id, blob, repository_id);

-- kind: 0 the child is a manifest, 1 it is a blob, 2 it was absent when the parent was pushed
CREATE TABLE manifest_child (
    tenant_id BIGINT NOT NULL,
    repository_id BIGINT NOT NULL,
    parent BYTEA NOT NULL,
    child BYTEA NOT NULL,
    kind SMALLINT NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, parent, child)
);
CREATE INDEX manifest_child_by_child ON manifest_child (tenant_id, repository_id, child);

-- The list of a subject's referrers, ready to be sent: descriptor is JSON.
CREATE TABLE referrer (
    tenant_id BIGINT NOT NULL,
    repository_id BIGINT NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    digest BYTEA NOT NULL,
    artifact_type TEXT COLLATE "C",
    descriptor TEXT NOT NULL,
    descriptor_size BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, subject, digest)
);
CREATE INDEX referrer_by_digest ON referrer (tenant_id, repository_id, digest);

CREATE TABLE tag (
    tenant_id BIGINT NOT NULL,
    repository_id BIGINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    digest BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    pushed_at BIGINT NOT NULL,
    pushed_by TEXT NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, name)
);
CREATE INDEX tag_by_digest ON tag (tenant_id, repository_id, digest, name);

-- action: 0 pushed, 1 deleted; digest is what the tag points to from then on, or pointed to until then
CREATE TABLE tag_history (
    tenant_id BIGINT NOT NULL,
    repository_id BIGINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    id UUID NOT NULL,
    action SMALLINT NOT NULL,
    digest BYTEA NOT NULL,
    principal TEXT NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, name, at, id)
);

-- One row an upload session. The repository is a name, since the first push creates the repository.
-- digest: bound by the first closing PUT. epoch: the number of the writer's lease.
-- committed_at: set when the blob was published; the row then only answers a repeated PUT.
CREATE TABLE upload (
    tenant_id BIGINT NOT NULL,
    id UUID NOT NULL,
    repository TEXT COLLATE "C" NOT NULL,
    principal TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    active_at BIGINT NOT NULL,
    epoch BIGINT NOT NULL DEFAULT 0,
    writer_until BIGINT NOT NULL DEFAULT 0,
    byte_offset BIGINT NOT NULL DEFAULT 0,
    hash_states BYTEA NOT NULL,
    state TEXT NOT NULL,
    digest BYTEA,
    committed_at BIGINT,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX upload_by_activity ON upload (active_at);

-- Candidates of collection, written in the transaction that drops a reference.
CREATE TABLE review_blob (
    tenant_id BIGINT NOT NULL,
    digest BYTEA NOT NULL,
    due_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, digest)
);
CREATE INDEX review_blob_by_due ON review_blob (due_at);

CREATE TABLE review_manifest (
    tenant_id BIGINT NOT NULL,
    repository_id BIGINT NOT NULL,
    digest BYTEA NOT NULL,
    due_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, digest)
);
CREATE INDEX review_manifest_by_due ON review_manifest (due_at);

-- Objects to delete from the blob store; a row outlives every crash until the object is gone.
CREATE TABLE object_deletion (
    tenant_id BIGINT NOT NULL,
    object_key UUID NOT NULL,
    due_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, object_key)
);
CREATE INDEX object_deletion_by_due ON object_deletion (due_at);
