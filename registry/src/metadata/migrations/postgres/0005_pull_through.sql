-- What replicas share about other registries. Repositories are names, since the first pull creates the repository.

-- checked_at: when a tag of a cache was last found to be as the upstream has it.
CREATE TABLE cached_tag (
    tenant_id BIGINT NOT NULL,
    repository TEXT COLLATE "C" NOT NULL,
    tag TEXT COLLATE "C" NOT NULL,
    checked_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, repository, tag)
);
CREATE INDEX cached_tag_by_check ON cached_tag (checked_at);

-- Leases on pieces of work. address: where other replicas reach the holder. upload: the session that it fills, or that
-- one before it filled whose lease ended. A claim that was given up has no row.
CREATE TABLE upstream_claim (
    tenant_id BIGINT NOT NULL,
    repository TEXT COLLATE "C" NOT NULL,
    what TEXT COLLATE "C" NOT NULL,
    holder UUID NOT NULL,
    address TEXT,
    upload UUID,
    held_until BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, repository, what)
);
CREATE INDEX upstream_claim_by_end ON upstream_claim (held_until);

-- How a cache fares, summed up over the replicas. rate_at: when the upstream said how much of rate_limit is left.
-- reached_at: when it last answered as it should. failed_at, why: when it last did not.
CREATE TABLE cache_figures (
    tenant_id BIGINT NOT NULL,
    cache TEXT COLLATE "C" NOT NULL,
    hits BIGINT NOT NULL,
    misses BIGINT NOT NULL,
    bytes_saved BIGINT NOT NULL,
    bytes_fetched BIGINT NOT NULL,
    rate_limit BIGINT,
    rate_remaining BIGINT,
    rate_at BIGINT,
    reached_at BIGINT,
    failed_at BIGINT,
    why TEXT,
    PRIMARY KEY (tenant_id, cache)
);
