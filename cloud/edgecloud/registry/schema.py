"""The registry's tables, as migrations that are applied in order. Rows are write-once: triggers refuse what the words forbid."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from edgecommon.sqlite import Database, in_memory
from modelwire.errors import OldWire, RegistryDamaged, UnsupportedWire

from . import views
from .database import no_registry

if TYPE_CHECKING:
    from sqlite_utils import Migrations

APPLICATION_ID = 0x65636C64  # "ecld": tells a registry from any other SQLite file
SCHEMA = 12  # kept in user_version, so that opening costs no query on tables; each migration below raises it by one
FIRST = 7  # of wire 1 as it is now; what stands below was made before it was final

_FIRST = """
CREATE TABLE registry (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  fleet TEXT NOT NULL,
  id BLOB NOT NULL CHECK (length(id) = 16),
  root BLOB NOT NULL CHECK (length(root) = 32),
  files_from INTEGER NOT NULL CHECK (files_from >= 0),
  created_at INTEGER NOT NULL
);
CREATE TABLE trust (
  number INTEGER PRIMARY KEY CHECK (number > 0),
  record BLOB NOT NULL
);
CREATE TABLE act (
  number INTEGER PRIMARY KEY CHECK (number > 0),
  device TEXT NOT NULL,
  verb TEXT NOT NULL CHECK (verb IN ('admit', 'revoke')),
  key BLOB NOT NULL CHECK (length(key) = 32),
  record BLOB NOT NULL
);
CREATE INDEX act_device ON act (device);
CREATE TABLE blob (
  sha256 BLOB PRIMARY KEY CHECK (length(sha256) = 32),
  size INTEGER NOT NULL,
  bytes BLOB NOT NULL
);
CREATE TABLE base (
  "commit" BLOB PRIMARY KEY CHECK (length("commit") = 32),
  name TEXT NOT NULL UNIQUE,
  manifest BLOB NOT NULL,
  file BLOB NOT NULL CHECK (length(file) = 32),
  size INTEGER NOT NULL,
  added_at INTEGER NOT NULL
);
CREATE TABLE device (
  name TEXT PRIMARY KEY,
  added_at INTEGER NOT NULL
);
CREATE TABLE device_key (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  device TEXT NOT NULL REFERENCES device (name),
  key BLOB NOT NULL CHECK (length(key) = 32),
  added_at INTEGER NOT NULL,
  revoked_at INTEGER
);
CREATE UNIQUE INDEX device_key_speaks ON device_key (key) WHERE revoked_at IS NULL;
CREATE INDEX device_key_device ON device_key (device);
CREATE TABLE lineage (
  id INTEGER PRIMARY KEY,
  device TEXT NOT NULL REFERENCES device (name),
  model TEXT NOT NULL,
  last_version INTEGER NOT NULL DEFAULT 0,
  online INTEGER NOT NULL DEFAULT 0,
  boot INTEGER NOT NULL DEFAULT 0,
  seen_at INTEGER,
  runtime TEXT NOT NULL DEFAULT '',
  agent TEXT NOT NULL DEFAULT '',
  UNIQUE (device, model)
);
CREATE TABLE epoch (
  lineage INTEGER NOT NULL REFERENCES lineage (id),
  epoch INTEGER NOT NULL CHECK (epoch > 0),
  state BLOB NOT NULL CHECK (length(state) = 16),
  base BLOB NOT NULL REFERENCES base ("commit"),
  floor INTEGER NOT NULL,
  granted_at INTEGER NOT NULL,
  PRIMARY KEY (lineage, epoch),
  UNIQUE (lineage, state)
);
CREATE TABLE version (
  id INTEGER PRIMARY KEY,
  lineage INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  version INTEGER NOT NULL CHECK (version > 0),
  kind TEXT NOT NULL CHECK (kind IN ('snapshot', 'delta', 'exact', 'recipe')),
  "commit" BLOB NOT NULL UNIQUE CHECK (length("commit") = 32),
  parent BLOB NOT NULL CHECK (length(parent) = 32),
  parent_id INTEGER REFERENCES version (id) CHECK (parent_id < id),
  base BLOB NOT NULL REFERENCES base ("commit"),
  root BLOB NOT NULL CHECK (length(root) = 32),
  fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 16),
  blob BLOB NOT NULL CHECK (length(blob) = 32),
  size INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  extension BLOB NOT NULL,
  status TEXT NOT NULL DEFAULT 'stored' CHECK (status IN ('stored', 'verified', 'refused')),
  reason TEXT NOT NULL DEFAULT '',
  UNIQUE (lineage, version),
  FOREIGN KEY (lineage, epoch) REFERENCES epoch (lineage, epoch),
  CHECK (CASE WHEN parent_id IS NOT NULL THEN parent <> base ELSE parent = base OR kind = 'snapshot' END)
);
CREATE INDEX version_stored ON version (id) WHERE status = 'stored';
CREATE INDEX version_parent ON version (parent_id);
CREATE INDEX version_blob ON version (blob);
CREATE TABLE head (
  lineage INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  version_id INTEGER REFERENCES version (id),
  "commit" BLOB NOT NULL CHECK (length("commit") = 32),
  version INTEGER NOT NULL,
  PRIMARY KEY (lineage, epoch),
  FOREIGN KEY (lineage, epoch) REFERENCES epoch (lineage, epoch)
);
CREATE TABLE skipped (
  version_id INTEGER NOT NULL REFERENCES version (id),
  first INTEGER NOT NULL,
  last INTEGER NOT NULL CHECK (last >= first),
  PRIMARY KEY (version_id, first)
);
CREATE TABLE parked (
  "commit" BLOB PRIMARY KEY CHECK (length("commit") = 32),
  device TEXT NOT NULL,
  lineage INTEGER NOT NULL REFERENCES lineage (id),
  epoch INTEGER NOT NULL,
  version INTEGER NOT NULL,
  parent BLOB NOT NULL,
  digest BLOB NOT NULL,
  bytes BLOB NOT NULL,
  received_at INTEGER NOT NULL
);
CREATE INDEX parked_digest ON parked (digest);
CREATE INDEX parked_parent ON parked (parent);
CREATE INDEX parked_device ON parked (device);
CREATE INDEX parked_lineage ON parked (lineage, version);
CREATE TABLE quarantine (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  device TEXT NOT NULL,
  model TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('hello', 'state', 'update')),
  reason TEXT NOT NULL CHECK (reason IN ('unknown-key', 'unknown-base')),
  mark BLOB NOT NULL,
  base BLOB NOT NULL,
  first_at INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  times INTEGER NOT NULL DEFAULT 1 CHECK (times > 0),
  looked INTEGER NOT NULL,
  bytes BLOB NOT NULL, -- last: SQLite walks through it to reach what stands behind
  UNIQUE (device, model, kind, mark)
);
CREATE TABLE rejection (
  device TEXT NOT NULL,
  key BLOB NOT NULL CHECK (length(key) = 32),
  at INTEGER NOT NULL,
  PRIMARY KEY (device, key)
);
CREATE TABLE refusal (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  digest BLOB NOT NULL UNIQUE,
  device TEXT NOT NULL,
  model TEXT NOT NULL,
  error TEXT NOT NULL,
  reason TEXT NOT NULL,
  at INTEGER NOT NULL,
  size INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  version INTEGER NOT NULL,
  "commit" BLOB NOT NULL,
  repeats INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX refusal_commit ON refusal ("commit");
CREATE INDEX refusal_device ON refusal (device, model);
CREATE TABLE command (
  lineage INTEGER NOT NULL REFERENCES lineage (id),
  number INTEGER NOT NULL CHECK (number > 0),
  verb TEXT NOT NULL,
  record BLOB NOT NULL,
  expiry INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  answered_at INTEGER,
  ok INTEGER,
  text TEXT NOT NULL DEFAULT '',
  body BLOB NOT NULL DEFAULT x'',
  PRIMARY KEY (lineage, number)
);
CREATE INDEX command_open ON command (lineage) WHERE answered_at IS NULL;
CREATE TABLE transfer (
  id BLOB PRIMARY KEY CHECK (length(id) = 32),
  device TEXT NOT NULL,
  model TEXT NOT NULL,
  record BLOB NOT NULL,
  size INTEGER NOT NULL,
  touched_at INTEGER NOT NULL,
  held INTEGER NOT NULL DEFAULT 0,
  tried_at INTEGER NOT NULL DEFAULT 0,
  tried_on BLOB NOT NULL DEFAULT x''
);
CREATE INDEX transfer_device ON transfer (device);
CREATE TABLE transfer_part (
  transfer BLOB NOT NULL REFERENCES transfer (id) ON DELETE CASCADE,
  part INTEGER NOT NULL,
  bytes BLOB NOT NULL,
  UNIQUE (transfer, part)
);
CREATE TABLE annotation (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL CHECK (kind IN ('device', 'model', 'version', 'base')),
  object TEXT NOT NULL,
  text TEXT NOT NULL,
  at INTEGER NOT NULL
);
CREATE INDEX annotation_object ON annotation (kind, object);
CREATE TABLE log (
  number INTEGER PRIMARY KEY CHECK (number > 0),
  subject BLOB NOT NULL,
  entry BLOB NOT NULL,
  link BLOB NOT NULL CHECK (length(link) = 32)
);
CREATE INDEX log_subject ON log (subject);
CREATE TABLE log_end (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  number INTEGER NOT NULL CHECK (number > 0),
  link BLOB NOT NULL CHECK (length(link) = 32),
  signature BLOB NOT NULL CHECK (length(signature) = 64)
);
"""

# Which models would like their last version back: said by their hellos, and taken back by them; the operator may decline.
_WISHES = """
CREATE TABLE wish (
  lineage INTEGER PRIMARY KEY REFERENCES lineage (id),
  epoch INTEGER NOT NULL CHECK (epoch > 0),
  at INTEGER NOT NULL,
  declined INTEGER NOT NULL DEFAULT 0 CHECK (declined IN (0, 1))
)
"""

# What boards say that this registry has lost.
_LOSSES = """
CREATE TABLE lost (
  lineage INTEGER NOT NULL REFERENCES lineage (id),
  epoch INTEGER NOT NULL CHECK (epoch > 0),
  version INTEGER NOT NULL CHECK (version > 0),
  held INTEGER NOT NULL CHECK (held IN (0, 1)),
  at INTEGER NOT NULL,
  PRIMARY KEY (lineage, version, epoch)
);
CREATE TABLE witness (
  device TEXT NOT NULL REFERENCES device (name),
  number INTEGER NOT NULL CHECK (number > 0),
  digest BLOB NOT NULL CHECK (length(digest) = 32),
  ours BLOB NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (device, number, digest)
);
CREATE INDEX refusal_number ON refusal (device, model, version);
"""

# What an operator has to decide about: one row a kind and model, so nobody floods it.
_ALARMS = """
CREATE TABLE alarm (
  device TEXT NOT NULL,
  model TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('fork', 'session')),
  text TEXT NOT NULL,
  first_at INTEGER NOT NULL,
  last_at INTEGER NOT NULL,
  times INTEGER NOT NULL CHECK (times > 0),
  seen_at INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (device, model, kind)
)
"""

_WRITE_ONCE = ("registry", "trust", "act", "blob", "base", "device", "epoch", "skipped", "annotation", "rejection", "log")
_NEVER_DELETED = (*_WRITE_ONCE, "device_key", "lineage", "version", "head", "command", "log_end")
# Table: the columns that may change, and the condition under which they may.
_ONLY = {
    "device_key": ("revoked_at", "OLD.revoked_at IS NULL"),
    "version": ("status, reason", "OLD.status = 'stored'"),
    "command": ("answered_at, ok, text, body", "OLD.answered_at IS NULL"),
}


# Tables that SQLite and the migrations' library keep for themselves.
_MIGRATIONS = "_sqlite_migrations"
_OF_LIBRARIES = ("sqlite_sequence", "sqlite_stat1", "sqlite_stat4", _MIGRATIONS)


def migrate(database: Database) -> None:
    """Bring a new or older registry to this release's schema."""
    from sqlite_utils import Database as Tables
    from sqlite_utils import Migrations

    migrations = Migrations("edgecloud")
    steps(migrations)
    with database.named():
        migrations.apply(Tables(database.connection, recursive_triggers=False, execute_plugins=False))
    database.run(f"PRAGMA application_id = {APPLICATION_ID}")
    database.run(f"PRAGMA user_version = {SCHEMA}")
    _require_own_objects(database)  # who sets the number back has a look at everything skipped otherwise


def steps(migrations: Migrations) -> None:
    """Say how each schema is made of the one before it."""

    @migrations(name="m007_wire_1")
    def m007_wire_1(tables: Any) -> None:
        _run(tables, _FIRST)
        for statement in _triggers(tables):
            tables.execute(statement)

    @migrations(name="m009_last_models")
    def m009_last_models(tables: Any) -> None:
        _run(tables, _WISHES)

    @migrations(name="m010_losses")
    def m010_losses(tables: Any) -> None:
        _run(tables, _LOSSES)
        _keep(tables, "lost", "witness")

    @migrations(name="m011_views")
    def m011_views(tables: Any) -> None:
        _run(tables, views.TABLES)
        views.keep_all_figures(tables)
        _keep(tables, "score")

    @migrations(name="m012_alarms")
    def m012_alarms(tables: Any) -> None:
        _run(tables, _ALARMS)
        tables.execute(_trigger("alarm", "no_delete", "DELETE", "1"))


def check(database: Database) -> bool:
    """Return whether the file is a registry of this release; False means that it is older and `migrate` would bring it here.

    Raises RegistryDamaged for another kind of file, OldWire for one made before wire 1 was final, UnsupportedWire for a newer registry.
    """
    if database.number("PRAGMA application_id") != APPLICATION_ID:
        raise no_registry(database.path, "it is not a registry")
    version = database.number("PRAGMA user_version")
    if version > SCHEMA:
        raise UnsupportedWire(what="registry schema", got=version, reads=SCHEMA)
    if version < FIRST:
        fix = "start a new one in another folder: edgecloud init --db FOLDER/fleet.db; the release that made this one still reads it"
        raise OldWire(path=database.path, fix=fix)
    if version == SCHEMA:
        _require_own_objects(database)
    return version == SCHEMA


def changed(database: Database) -> list[str]:
    """Return what of a registry's tables, indexes and triggers is not as this release makes them: a trigger more can add a key."""
    found = {(row[0], row[1]): (row[2], row[3]) for row in database.all("SELECT type, name, tbl_name, sql FROM sqlite_master")}
    wanted = _objects(steps)
    out = [f"the {kind} {name} is {'gone' if (kind, name) not in found else 'another'}" for (kind, name), sql in wanted.items()
           if found.get((kind, name), ("", ""))[1] != sql]  # fmt: skip
    strange = [one for one, (table, sql) in found.items() if one not in wanted and not _of_library(*one, table, sql)]
    return out + [f"there is a {kind} {name} that this release does not make" for kind, name in strange]


def _require_own_objects(database: Database) -> None:
    wrong = changed(database)
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise RegistryDamaged(path=database.path, reason=f"its schema was changed by another program: {wrong[0][:200]}{more}")


def _of_library(kind: str, name: str, table: str, sql: str | None) -> bool:
    """Whether an object is one that SQLite or the migrations' library keeps. What SQLite makes of a row is in its text, not its name."""
    if kind == "index":
        own = re.match(r"CREATE UNIQUE INDEX \W?idx__sqlite_migrations_\w+\W?\s+ON \W?_sqlite_migrations\W", sql or "")
        return (name.startswith("sqlite_autoindex_") and sql is None) or (table == _MIGRATIONS and own is not None)
    named = re.match(r"CREATE TABLE \W?(\w+)\W?\s*\(", sql or "")
    return kind == "table" and name in _OF_LIBRARIES and named is not None and named[1] == name


@lru_cache(maxsize=4)
def _objects(made_by: Callable[[Any], None]) -> dict[tuple[str, str], str | None]:
    """Return what the migrations make of an empty file: the text of each object by kind and name."""
    with closing(in_memory()) as empty:

        def at_once(name: str) -> Callable[[Callable[[Any], None]], None]:
            return lambda step: step(empty)

        made_by(at_once)
        rows = empty.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    return {(kind, name): sql for kind, name, sql in rows if name not in _OF_LIBRARIES}


def _run(tables: Any, statements: str) -> None:
    for statement in statements.split(";\n"):
        if statement.strip():
            tables.execute(statement)


def _keep(tables: Any, *names: str) -> None:
    """Let the rows of some tables stay as they are."""
    for table in names:
        for event in ("UPDATE", "DELETE"):
            tables.execute(_trigger(table, f"no_{event.lower()}", event, "1"))


def _triggers(tables: Any) -> list[str]:
    out = []
    for table in _NEVER_DELETED:
        out.append(_trigger(table, "no_delete", "DELETE", "1"))
    for table in _WRITE_ONCE:
        out.append(_trigger(table, "no_update", "UPDATE", "1"))
    for table, (columns, condition) in _ONLY.items():
        free = {c.strip() for c in columns.split(",")}
        names = [row[1] for row in tables.execute(f"PRAGMA table_info({table})").fetchall()]
        fixed = ", ".join(f'"{name}"' for name in names if name not in free)
        out.append(_trigger(table, "write_once", f"UPDATE OF {fixed}", "1"))
        out.append(_trigger(table, "once", f"UPDATE OF {columns}", f"NOT ({condition})"))
    return out


def _trigger(table: str, name: str, event: str, when: str) -> str:
    return (
        f"CREATE TRIGGER {table}_{name} BEFORE {event} ON {table} WHEN {when} "
        f"BEGIN SELECT RAISE(ABORT, 'rows of {table} are write-once'); END"
    )
