-- What people look for: repositories by last push and by size, images by their build.

-- The same tag in all repositories of a tenant.
CREATE INDEX tag_by_name ON tag (tenant_id, name, repository_id);

-- By what a manifest, its configuration or its provenance says of its build. kind: 0 build, 1 commit, 2 ref
CREATE TABLE build_key (
    tenant_id BIGINT NOT NULL,
    kind SMALLINT NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    repository_id BIGINT NOT NULL,
    digest BYTEA NOT NULL,
    PRIMARY KEY (tenant_id, value, kind, repository_id, digest)
);
CREATE INDEX build_key_by_manifest ON build_key (tenant_id, repository_id, digest);

-- Manifests whose configuration or provenance has yet to be read for that.
CREATE TABLE build_due (
    tenant_id BIGINT NOT NULL,
    repository_id BIGINT NOT NULL,
    digest BYTEA NOT NULL,
    due_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, digest)
);
CREATE INDEX build_due_by_time ON build_due (due_at);

-- Last, as pushes lock it.
-- pushed_at: the last push of a manifest into the repository; 0 if there was none.
ALTER TABLE usage ADD COLUMN pushed_at BIGINT NOT NULL DEFAULT 0;
UPDATE usage SET pushed_at = coalesce((SELECT max(t.pushed_at) FROM tag t
    WHERE t.tenant_id = usage.tenant_id AND t.repository_id = usage.repository_id), 0)
    WHERE repository_id <> 0;
CREATE INDEX usage_by_push ON usage (tenant_id, pushed_at, repository_id) WHERE repository_id <> 0;
CREATE INDEX usage_by_size ON usage (tenant_id, bytes, repository_id) WHERE repository_id <> 0;
