-- What replicas share about other registries. Repositories are names, since the first pull creates the repository.

-- checked_at: when a tag of a cache was last found to be as the upstream has it.
CREATE TABLE cached_tag (
    tenant_id INTEGER NOT NULL,
    repository TEXT NOT NULL,
    tag TEXT NOT NULL,
    checked_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, repository, tag)
) WITHOUT ROWID;
CREATE INDEX cached_tag_by_check ON cached_tag (checked_at);

-- Leases on pieces of work. address: where other replicas reach the holder. upload: the session that it fills, or that
-- one before it filled whose lease ended. A claim that was given up has no row.
CREATE TABLE upstream_claim (
    tenant_id INTEGER NOT NULL,
    repository TEXT NOT NULL,
    what TEXT NOT NULL,
    holder BLOB NOT NULL,
    address TEXT,
    upload BLOB,
    held_until INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, repository, what)
) WITHOUT ROWID;
CREATE INDEX upstream_claim_by_end ON upstream_claim (held_until);

-- How a cache fares, summed up over the replicas. rate_at: when the upstream said how much of rate_limit is left.
-- reached_at: when it last answered as it should. failed_at, why: when it last did not.
CREATE TABLE cache_figures (
    tenant_id INTEGER NOT NULL,
    cache TEXT NOT NULL,
    hits INTEGER NOT NULL,
    misses INTEGER NOT NULL,
    bytes_saved INTEGER NOT NULL,
    bytes_fetched INTEGER NOT NULL,
    rate_limit INTEGER,
    rate_remaining INTEGER,
    rate_at INTEGER,
    reached_at INTEGER,
    failed_at INTEGER,
    why TEXT,
    PRIMARY KEY (tenant_id, cache)
) WITHOUT ROWID;
