-- The ledger. Rows of these tables are never changed after the commit that wrote them, except threads.state and
-- memberships.last; attachments may be deleted by retention. docs/storage.md explains every column.

CREATE TABLE headers (
    height INTEGER PRIMARY KEY,
    hash BLOB NOT NULL,
    header BLOB NOT NULL,
    certificate BLOB NOT NULL,
    first INTEGER NOT NULL
) STRICT;

CREATE TABLE threads (
    no INTEGER PRIMARY KEY,
    thread BLOB NOT NULL UNIQUE,
    state BLOB NOT NULL
) STRICT;

CREATE TABLE entries (
    position INTEGER PRIMARY KEY,
    height INTEGER NOT NULL REFERENCES headers (height),
    thread INTEGER NOT NULL REFERENCES threads (no),
    seq INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    shard INTEGER NOT NULL,
    leaf INTEGER NOT NULL,
    time INTEGER NOT NULL,
    envelope_bytes INTEGER NOT NULL,
    message_id BLOB NOT NULL,
    hash BLOB NOT NULL,
    prev BLOB NOT NULL,
    salt BLOB NOT NULL,
    body BLOB NOT NULL,
    signature BLOB NOT NULL,
    possession BLOB
) STRICT;

CREATE UNIQUE INDEX entries_by_seq ON entries (thread, seq);
-- With the rowid that every index ends with, this is (thread, position).
CREATE INDEX entries_by_thread ON entries (thread);
-- Not unique: that a thread repeats no message id is for the sequencer to see to, and what is certified is stored.
CREATE INDEX entries_by_message ON entries (thread, message_id);
CREATE INDEX entries_of_devices ON entries (position) WHERE kind = 3;

CREATE TABLE attachments (
    id INTEGER PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT;

CREATE TABLE nodes (
    tree INTEGER NOT NULL,
    leaf INTEGER NOT NULL,
    hashes BLOB NOT NULL,
    PRIMARY KEY (tree, leaf)
) STRICT, WITHOUT ROWID;

-- Who is told of which entries of a thread: those from first to last. An open membership has no last.
CREATE TABLE memberships (
    account BLOB NOT NULL,
    device BLOB NOT NULL,
    thread INTEGER NOT NULL REFERENCES threads (no),
    first INTEGER NOT NULL,
    last INTEGER,
    PRIMARY KEY (account, device, thread, first)
) STRICT, WITHOUT ROWID;

-- Beside the ledger.

CREATE TABLE cursors (
    account BLOB NOT NULL,
    device BLOB NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (account, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE key_packages (
    id INTEGER PRIMARY KEY,
    device BLOB NOT NULL,
    digest BLOB NOT NULL,
    last_resort INTEGER NOT NULL,
    -- NULL once it was handed out: the digest stays, so that a repeated upload does not bring it back.
    package BLOB,
    UNIQUE (device, digest)
) STRICT;

CREATE INDEX key_packages_left ON key_packages (device, last_resort, id) WHERE package IS NOT NULL;

CREATE TABLE names (
    account BLOB PRIMARY KEY,
    tag BLOB NOT NULL UNIQUE,
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
