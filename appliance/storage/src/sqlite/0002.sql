-- Who may come in. Every row is sealed or authenticated by its owner under a key of custody, bound to its kind and id:
-- whoever writes here makes nobody an officer. Kinds are the numbers of AccessKind (docs/storage.md).

CREATE TABLE access (
    kind INTEGER NOT NULL,
    id BLOB NOT NULL,
    row BLOB NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
