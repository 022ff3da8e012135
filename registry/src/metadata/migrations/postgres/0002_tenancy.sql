-- Configuration, credentials, usage, replicas, audit.

-- One row. version counts commits that change configuration: it is raised inside each of them, and its row
-- lock puts them in order. term is the fencing token of the configuration's writers.
CREATE TABLE config_version (
    id SMALLINT PRIMARY KEY,
    version BIGINT NOT NULL,
    term BIGINT NOT NULL
);
INSERT INTO config_version (id, version, term) VALUES (0, 1, 0);

-- One row an object of configuration. kind: 0 tenant (its name is empty), 1 repository, 2 retention policy,
-- 3 cache. spec is JSON, NULL once the object was deleted. built_in: made by a first run, not configured.
CREATE TABLE config (
    tenant_id BIGINT NOT NULL,
    kind SMALLINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    uid TEXT,
    generation BIGINT NOT NULL,
    spec TEXT,
    hash TEXT NOT NULL,
    built_in BOOLEAN NOT NULL DEFAULT FALSE,
    version BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, kind, name)
);
CREATE INDEX config_by_version ON config (version, tenant_id, kind, name);

-- Names that only one object may hold. scope: 0 in the installation, else the tenant whose names they are.
-- kind: 0 host, 1 name on the apex, 2 repository or alias, 3 prefix of a cache, 4 registry that is mirrored.
CREATE TABLE claim (
    scope BIGINT NOT NULL,
    kind SMALLINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    tenant_id BIGINT NOT NULL,
    object_kind SMALLINT NOT NULL,
    object TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (scope, kind, name)
);
CREATE INDEX claim_by_object ON claim (tenant_id, object_kind, object);

-- A tenant that was deleted keeps its row, and its data under it, until they are collected or taken up again.
ALTER TABLE tenant ADD COLUMN deleted_at BIGINT;

INSERT INTO config (tenant_id, kind, name, generation, spec, hash, built_in, version, changed_at)
    SELECT id, 0, '', 0, '{"repositories":{"sparse":"' ||
        CASE sparse WHEN 1 THEN 'Indexes' WHEN 2 THEN 'Always' ELSE 'Never' END || '"}}', '', TRUE, 1, created_at
    FROM tenant;

-- Only the SHA-256 of a token is kept.
CREATE TABLE token (
    tenant_id BIGINT NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    hash BYTEA NOT NULL,
    grants TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    PRIMARY KEY (tenant_id, id)
);
-- The token of a request on the apex says which tenant it belongs to.
CREATE UNIQUE INDEX token_by_id ON token (id);

-- What is stored, counted in the transaction that changes it. repository_id 0: the tenant's total, in which
-- a blob of several repositories counts once.
CREATE TABLE usage (
    tenant_id BIGINT NOT NULL,
    repository_id BIGINT NOT NULL,
    bytes BIGINT NOT NULL DEFAULT 0,
    tags BIGINT NOT NULL DEFAULT 0,
    repositories BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, repository_id)
);
INSERT INTO usage (tenant_id, repository_id, bytes, tags, repositories)
    SELECT r.tenant_id, r.id,
        (SELECT coalesce(sum(b.size), 0) FROM repository_blob l
            JOIN blob b ON b.tenant_id = l.tenant_id AND b.digest = l.digest
            WHERE l.tenant_id = r.tenant_id AND l.repository_id = r.id)
        + (SELECT coalesce(sum(m.size), 0) FROM manifest m
            WHERE m.tenant_id = r.tenant_id AND m.repository_id = r.id),
        (SELECT count(*) FROM tag t WHERE t.tenant_id = r.tenant_id AND t.repository_id = r.id), 0
    FROM repository r;
INSERT INTO usage (tenant_id, repository_id, bytes, tags, repositories)
    SELECT t.id, 0,
        (SELECT coalesce(sum(b.size), 0) FROM blob b WHERE b.tenant_id = t.id AND EXISTS (
            SELECT 1 FROM repository_blob l WHERE l.tenant_id = b.tenant_id AND l.digest = b.digest))
        + (SELECT coalesce(sum(m.size), 0) FROM manifest m WHERE m.tenant_id = t.id),
        (SELECT count(*) FROM tag g WHERE g.tenant_id = t.id),
        (SELECT count(*) FROM repository r WHERE r.tenant_id = t.id)
    FROM tenant t;

-- What the replicas serve, as they say themselves. keys: ids of the signing keys that they know. failed: the
-- objects whose newest spec they cannot read, as JSON.
CREATE TABLE replica (
    id UUID PRIMARY KEY,
    host TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    version BIGINT NOT NULL,
    keys TEXT NOT NULL,
    failed TEXT NOT NULL
);

-- tenant_id 0: the installation. count: how often the same happened in the second before `at`.
CREATE TABLE audit (
    tenant_id BIGINT NOT NULL,
    at BIGINT NOT NULL,
    id UUID NOT NULL,
    tenant TEXT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL,
    address TEXT NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, at, id)
);
CREATE INDEX audit_by_time ON audit (at, id);
