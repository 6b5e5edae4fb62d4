"""The tables of the agent's database: which model is served, every round's outcome, and the updates that wait for a receipt."""

from __future__ import annotations

from pathlib import Path

from edgeagent.spending import tables as spending
from edgeagent.troubles import noted
from edgecommon.sqlite import Database
from modelwire.errors import OldWire

from .beside import rows as beside

FILE = "edgeagent.db"
RELEASE = 9
FIRST = 4  # that speaks wire 1 as it is final; folders before it are refused

_LAST_MODEL = """
CREATE TABLE resume (                           -- a model whose folder was set up anew, and that would like its last one back
    model TEXT PRIMARY KEY REFERENCES model(name),
    version INTEGER NOT NULL DEFAULT 0,         -- that the centre offers; 0: it has not said yet
    waited INTEGER NOT NULL DEFAULT 0           -- seconds of running in which it did not train
) WITHOUT ROWID;
CREATE TABLE taking (                           -- a command `take` whose update is on its way; an answered one has no row
    model TEXT PRIMARY KEY REFERENCES model(name),
    number INTEGER NOT NULL,
    command BLOB NOT NULL,                      -- as it came, sealed
    transfer BLOB NOT NULL DEFAULT x'',         -- how it is cut, as it came; empty before that
    have BLOB NOT NULL DEFAULT x'',             -- bit i of byte i//8: part i is in the file `incoming`
    tries INTEGER NOT NULL DEFAULT 0            -- times that all parts were here and the file was not the one named
) WITHOUT ROWID;
"""

_PLANNING = """
CREATE TABLE figure (                           -- what was measured on this board and its link; the newer weighs more
    model TEXT NOT NULL,                        -- empty: of the board and its link
    name TEXT NOT NULL,
    value REAL NOT NULL,
    count INTEGER NOT NULL,                     -- measurements folded into it
    source TEXT NOT NULL,                       -- where they come from, in words
    at INTEGER NOT NULL,                        -- Unix seconds
    PRIMARY KEY (model, name)
) WITHOUT ROWID;
CREATE TABLE plan (                             -- why an update is of its kind, and when it may go; written with its version
    model TEXT NOT NULL,
    version INTEGER NOT NULL,
    at INTEGER NOT NULL,                        -- Unix seconds
    choice TEXT NOT NULL,                       -- the row of the table that was chosen
    hold INTEGER NOT NULL,                      -- Unix seconds until which it waits for others; 0: it may go
    decision TEXT NOT NULL,                     -- JSON: the table of costs, where its figures come from, and the reason
    PRIMARY KEY (model, version)
) WITHOUT ROWID;
"""

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
    -- state: 16 random bytes made with the folder; boot: how often the agent started; nudge: rises to ask for a resend;
    -- time: the newest Unix seconds of the centre's clock that a welcome said; log: the newest end of its log, or empty;
    -- state:NAME: the same of a model that was removed and may be added again;
    -- written: JSON, what parts of the newest days in table written came from, and the count of the process that noted it;
    -- claim: why the centre's last welcome said that the board's claim does not let it in, or empty;
    -- fork: that end, and the one that a later welcome said against it, one behind the other; or empty

CREATE TABLE trust (                            -- the newest two trust records, whose keys speak for the centre
    number INTEGER PRIMARY KEY,
    record BLOB NOT NULL                        -- as it came, signed
);

CREATE TABLE model (
    name TEXT PRIMARY KEY,
    manifest BLOB NOT NULL,                     -- of the base that the head is on, as modelwire encodes it
    base_commit BLOB NOT NULL,
    place TEXT NOT NULL DEFAULT '',             -- folder of that base in the model's; empty: that one itself
    first_commit BLOB NOT NULL,                 -- of the base that the epoch began with
    based INTEGER NOT NULL DEFAULT 0,           -- the version that went over to that base last; 0: none did
    slot TEXT NOT NULL,                         -- 'a' or 'b': where the head's files are
    file_sha256 BLOB NOT NULL,
    private_sha256 BLOB NOT NULL,
    head_version INTEGER NOT NULL DEFAULT 0,    -- 0 is the base
    head_commit BLOB NOT NULL,
    last_version INTEGER NOT NULL DEFAULT 0,    -- the highest number ever used, here or as the centre said
    epoch INTEGER NOT NULL DEFAULT 0,           -- 0: none granted yet
    welcome TEXT NOT NULL DEFAULT '',           -- what the centre last said: ok, quarantine, unknown-base, challenge, ...
    trainers TEXT NOT NULL DEFAULT '[]',        -- JSON: versions of the exact trainer that it said it replays
    quiet_until INTEGER NOT NULL DEFAULT 0,     -- Unix seconds of this board: until then the centre wants nothing sent
    quiet_why TEXT NOT NULL DEFAULT '',
    desired INTEGER NOT NULL DEFAULT 0,         -- number of the last thing desired that was reported on
    blocked TEXT NOT NULL DEFAULT '',           -- why nothing more can be sent in this epoch; empty otherwise
    widen TEXT NOT NULL DEFAULT '[]',           -- JSON: tensors that met the end of their range in the last round
    step TEXT NOT NULL DEFAULT '[]',            -- JSON: [m, s] of the last adopted round's step m * 2^s; [] before the first
    rounds INTEGER NOT NULL DEFAULT 0,          -- accepted or rejected, since the folder was made
    trained_id INTEGER NOT NULL DEFAULT 0,      -- the newest sample that the last round saw
    trained_at INTEGER NOT NULL DEFAULT 0,      -- Unix seconds
    carded_id INTEGER NOT NULL DEFAULT 0,       -- the newest sample that the card of an accepted version tells of
    told TEXT NOT NULL DEFAULT '{}',            -- JSON: {"epoch": n, "facts": {...}} that an accepted version's card told last
    looked_id INTEGER NOT NULL DEFAULT 0,       -- the newest sample at the last look whether training pays
    look TEXT NOT NULL DEFAULT '',              -- what that look found; empty when a round came of it
    runtime TEXT NOT NULL DEFAULT ''            -- replay class, as last found
);

CREATE TABLE version (                          -- one row a round or snapshot; only `state` and what follows from it changes
    id INTEGER PRIMARY KEY,
    model TEXT NOT NULL REFERENCES model(name),
    version INTEGER,                            -- NULL where the guard rejected the round: it used no number
    epoch INTEGER NOT NULL,
    round INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('rejected', 'queued', 'offered', 'stored', 'verified', 'refused', 'skipped', 'lost')),
    reason TEXT NOT NULL DEFAULT '',
    kind TEXT NOT NULL DEFAULT '',
    commit_id BLOB,
    parent BLOB,
    root BLOB,
    file_sha256 BLOB,                           -- of the file that is served at this version
    bytes INTEGER NOT NULL DEFAULT 0,           -- of the whole container
    loss_before REAL, loss_after REAL, accuracy_before REAL, accuracy_after REAL,
    samples INTEGER, steps INTEGER,
    mode TEXT NOT NULL DEFAULT '',              -- in which it was trained; empty for a snapshot, and where it was not noted
    carried_by INTEGER,                         -- the version that tells the centre what a skipped one changed
    at INTEGER NOT NULL,                        -- Unix seconds
    held TEXT NOT NULL DEFAULT '',              -- of a lost one: what the centre had said of it, stored or verified; empty: nothing
    sure INTEGER NOT NULL DEFAULT 0,            -- of a refused or lost one: 1 once the centre has said so in answer to a hello that asked
    UNIQUE (model, version)
);
CREATE INDEX version_by_state ON version (model, state, version);
CREATE INDEX version_by_parent ON version (model, parent);

CREATE TABLE outbox (                           -- the bytes of updates that are queued, offered or stored
    model TEXT NOT NULL,
    version INTEGER NOT NULL,
    size INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (model, version),
    FOREIGN KEY (model, version) REFERENCES version (model, version)
);

CREATE TABLE answer (                           -- to commands, the last ones: a repeated one is answered, not done again
    model TEXT NOT NULL,
    number INTEGER NOT NULL,                    -- of the command
    ok INTEGER NOT NULL,
    text TEXT NOT NULL,
    body BLOB NOT NULL,                         -- CBOR
    PRIMARY KEY (model, number)
) WITHOUT ROWID;

CREATE TABLE mode_cost (          -- what each way to train a base takes on this board
    base BLOB NOT NULL,                         -- commit
    runtime TEXT NOT NULL,                      -- its key
    mode TEXT NOT NULL,
    seconds REAL NOT NULL,                      -- of one step
    memory INTEGER NOT NULL,                    -- bytes that a round adds, in all processes
    samples INTEGER NOT NULL,                   -- bytes of samples that were loaded
    partial INTEGER NOT NULL,                   -- 1: it was stopped at this much memory
    at INTEGER NOT NULL,                        -- Unix seconds
    PRIMARY KEY (base, runtime, mode)
) WITHOUT ROWID;
CREATE TABLE waiting (            -- why a running agent does not train
    model TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    until TEXT NOT NULL,
    at INTEGER NOT NULL                         -- Unix seconds
) WITHOUT ROWID;
""" + _LAST_MODEL + _PLANNING + spending.TABLES + noted.TABLE + beside.TABLES


def migrate(database: Database) -> None:
    """Bring a folder of an earlier release that speaks wire 1 to this one, in one transaction; one of another release stays as it is."""
    database.run("PRAGMA foreign_keys = OFF")  # a table is made anew under those that refer to it
    with database.transaction():  # in here: of two processes that open it, one changes it
        if database.number("PRAGMA user_version") == FIRST:
            _to_5(database)
        if database.number("PRAGMA user_version") == 5:
            _make(database, _PLANNING)
            database.run("PRAGMA user_version=6")
        if database.number("PRAGMA user_version") == 6:
            _make(database, spending.TABLES + noted.TABLE)
            database.run("PRAGMA user_version=7")
        if database.number("PRAGMA user_version") == 7:
            _make_anew(database, "model", first_commit="base_commit")
            _make(database, beside.TABLES)
            database.run("PRAGMA user_version=8")
        if database.number("PRAGMA user_version") == 8:
            database.run("DELETE FROM mode_cost")  # of one process alone; it is measured anew
            database.run("PRAGMA user_version=9")
    database.run("PRAGMA foreign_keys = ON")


def _make_anew(database: Database, table: str, **further: str) -> None:
    """Give a table the columns that it has now. further: what stands in new ones that have no default, as SQL over the old ones."""
    start = TABLES.index(f"CREATE TABLE {table} (")
    columns = {row["name"]: row["name"] for row in database.all(f"PRAGMA table_info({table})")} | further
    database.run(TABLES[start : TABLES.index("\n);", start) + 2].replace(f"TABLE {table}", f"TABLE {table}_anew", 1))
    database.run(f"INSERT INTO {table}_anew ({', '.join(columns)}) SELECT {', '.join(columns.values())} FROM {table}")
    database.run(f"DROP TABLE {table}")
    database.run(f"ALTER TABLE {table}_anew RENAME TO {table}")


def _to_5(database: Database) -> None:
    _make_anew(database, "version")
    database.run("CREATE INDEX version_by_state ON version (model, state, version)")
    database.run("CREATE INDEX version_by_parent ON version (model, parent)")
    database.insert("meta", key="fork", value=b"")
    _make(database, _LAST_MODEL)
    database.run("PRAGMA user_version=5")


def _make(database: Database, tables: str) -> None:
    for statement in tables.split(";\n"):
        if statement.strip():
            database.run(statement)


def older(path: Path) -> OldWire:
    """Return the error for the database of a folder that was made before wire 1 was final."""
    fix = "move settings, fleet.pub and state away, put edge-device-key: in front of the key's digits, and run edgeagent init with --key"
    return OldWire(path=path.parent, fix=fix)
