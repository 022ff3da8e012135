-- Events that wait for webhooks, written in the transaction of what they tell.

-- One row a webhook that has had an event. id: what its URL makes of it. due_at: when there is something to deliver;
-- 9223372036854775807 while there is nothing. last_seq: of its newest event; the row's lock puts events in the order of
-- their commits.
CREATE TABLE webhook (
    tenant_id INTEGER NOT NULL,
    id TEXT NOT NULL,
    due_at INTEGER NOT NULL,
    claimed_until INTEGER NOT NULL DEFAULT 0,
    claimed_by BLOB,
    last_seq INTEGER NOT NULL,
    delivered_at INTEGER,
    failed_at INTEGER,
    error TEXT,
    PRIMARY KEY (tenant_id, id)
) WITHOUT ROWID;
CREATE INDEX webhook_by_due ON webhook (due_at);

-- One row an event and webhook, until it is delivered. place: of one place, a tag mostly, only the oldest goes out;
-- those behind it have due_at 9223372036854775807. since: from when on it is tried. dead_at: when it was given up.
CREATE TABLE delivery (
    tenant_id INTEGER NOT NULL,
    webhook TEXT NOT NULL,
    seq INTEGER NOT NULL,
    event BLOB NOT NULL,
    type TEXT NOT NULL,
    subject TEXT NOT NULL,
    place TEXT NOT NULL,
    at INTEGER NOT NULL,
    data TEXT NOT NULL,
    due_at INTEGER NOT NULL,
    since INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    dead_at INTEGER,
    PRIMARY KEY (tenant_id, webhook, seq)
) WITHOUT ROWID;
CREATE INDEX delivery_by_due ON delivery (tenant_id, webhook, due_at, seq) WHERE dead_at IS NULL;
CREATE INDEX delivery_by_place ON delivery (tenant_id, webhook, place, seq) WHERE dead_at IS NULL;
CREATE INDEX delivery_dead ON delivery (tenant_id, webhook, seq) WHERE dead_at IS NOT NULL;
CREATE INDEX delivery_by_death ON delivery (dead_at) WHERE dead_at IS NOT NULL;

-- What was last told of something that is told once and not each time, and when.
CREATE TABLE told (
    tenant_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, name)
) WITHOUT ROWID;
