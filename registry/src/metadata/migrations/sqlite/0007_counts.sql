-- How often what is stored is asked for, and how much each repository stored in the past.

-- What a repository stored at the end of a day (days since 1970, UTC). A day on which nothing changed has no row.
CREATE TABLE usage_daily (
    tenant_id INTEGER NOT NULL,
    repository_id INTEGER NOT NULL,
    day INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, repository_id, day)
) WITHOUT ROWID;

-- GETs of the manifest by its digest. Those of a tag by its name are in migration 9: who reads and who pushes lock the two
-- tables in different orders, so no migration may lock both.
ALTER TABLE manifest ADD COLUMN pulls INTEGER NOT NULL DEFAULT 0;
