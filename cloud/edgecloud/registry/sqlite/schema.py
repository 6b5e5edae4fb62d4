"""The registry's tables, as migrations that are applied in order. Rows are write-once: triggers refuse what the words forbid."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from edgecommon.sqlite import Database, in_memory
from modelwire.errors import OldWire, RegistryDamaged, UnsupportedWire

from . import deleting, evaluations, probing, sketches, tallies, views
from . import tables as tables_of
from .database import no_registry
from .deploying import tables as deploying

if TYPE_CHECKING:
    from sqlite_utils import Migrations

APPLICATION_ID = 0x65636C64  # "ecld": tells a registry from any other SQLite file
SCHEMA = 22  # kept in user_version, so that opening costs no query on tables; each migration below raises it by one
FIRST = 7  # of wire 1 as it is now; what stands below was made before it was final

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
        _run(tables, tables_of.FIRST)
        for statement in _triggers(tables):
            tables.execute(statement)

    @migrations(name="m009_last_models")
    def m009_last_models(tables: Any) -> None:
        _run(tables, tables_of.WISHES)

    @migrations(name="m010_losses")
    def m010_losses(tables: Any) -> None:
        _run(tables, tables_of.LOSSES)
        _keep(tables, "lost", "witness")

    @migrations(name="m011_views")
    def m011_views(tables: Any) -> None:
        _run(tables, views.TABLES)
        views.keep_all_figures(tables)
        _keep(tables, "score")

    @migrations(name="m012_alarms")
    def m012_alarms(tables: Any) -> None:
        _run(tables, tables_of.ALARMS)
        tables.execute(_trigger("alarm", "no_delete", "DELETE", "1"))

    @migrations(name="m013_keeping")
    def m013_keeping(tables: Any) -> None:
        _run(tables, tables_of.KEEPING)
        _keep(tables, "policy")
        tables.execute(_trigger("state", "no_update", "UPDATE", "1"))

    @migrations(name="m014_thinning")
    def m014_thinning(tables: Any) -> None:
        _run(tables, tables_of.THINNING)
        deleting.allow(tables, _trigger)

    @migrations(name="m015_tallies")
    def m015_tallies(tables: Any) -> None:
        _run(tables, tallies.TABLES)
        tallies.count_all(tables)

    _steps_of_comparing(migrations)


def _steps_of_comparing(migrations: Migrations) -> None:
    """Say the same of what comparing needs."""

    @migrations(name="m016_sketches")
    def m016_sketches(tables: Any) -> None:
        _run(tables, sketches.TABLES)

    @migrations(name="m017_probes")
    def m017_probes(tables: Any) -> None:
        _run(tables, probing.TABLES)
        _keep(tables, *probing.WRITE_ONCE)
        probing.hold_bytes(tables, _trigger)

    @migrations(name="m018_evaluations")
    def m018_evaluations(tables: Any) -> None:
        _run(tables, evaluations.TABLES)

    @migrations(name="m019_merges")
    def m019_merges(tables: Any) -> None:
        _run(tables, tables_of.MERGES)
        _keep(tables, "merge")
        tables.execute(_trigger("merged_from", "no_update", "UPDATE", "1"))
        tables.execute(_trigger("merged_from", "no_delete", "DELETE", deleting.UNLESS_ERASED))

    @migrations(name="m020_quotas")
    def m020_quotas(tables: Any) -> None:
        _run(tables, tables_of.QUOTAS)

    @migrations(name="m021_rollouts")
    def m021_rollouts(tables: Any) -> None:
        _run(tables, deploying.TABLES)
        _keep(tables, *deploying.WRITE_ONCE)
        deploying.keep(tables, _trigger, deleting.UNLESS_ERASED_LINEAGE)

    @migrations(name="m022_alarms_of_boards")
    def m022_alarms_of_boards(tables: Any) -> None:
        _run(tables, tables_of.BOARD_ALARMS)
        tables.execute(_trigger("alarm", "no_delete", "DELETE", deleting.unless_erased("alarm")))


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
    """Run statements. Each begins a line; those within a trigger are indented, and its end is none."""
    for statement in re.split(r";\n(?!\s|END)", statements):
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
