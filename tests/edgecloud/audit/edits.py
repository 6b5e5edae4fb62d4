"""Edits of a registry by somebody who writes to its file and has no key: each with what must be told of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelwire.wire.log import Link, next_link
from tests.edgecloud.device import key_of

MALLORY = key_of("mallory").public
KEY_ADDING = (
    "CREATE TRIGGER helpful AFTER UPDATE ON lineage BEGIN"
    f" INSERT INTO device_key (device, key, added_at) VALUES ('pi-7', x'{MALLORY.hex()}', 1); END"
)


@dataclass(frozen=True)
class Edit:
    """One edit, and words of what is told."""

    name: str
    run: Callable[[sqlite3.Connection], None]
    told: str


def rows(*statements: str) -> Callable[[sqlite3.Connection], None]:
    """Return an edit by statements, with the triggers out of the way and put back as they were."""

    def run(database: sqlite3.Connection) -> None:
        with _no_rules(database):
            for statement in statements:
                database.execute(statement)

    return run


def schema(*statements: str) -> Callable[[sqlite3.Connection], None]:
    """Return an edit of what the file is made of."""

    def run(database: sqlite3.Connection) -> None:
        for statement in statements:
            database.execute(statement)

    return run


def relinked(*statements: str) -> Callable[[sqlite3.Connection], None]:
    """Return an edit that computes every link of the log anew after it: all but the signature."""

    def run(database: sqlite3.Connection) -> None:
        with _no_rules(database):
            for statement in statements:
                database.execute(statement)
            before: Link | None = None
            kept = database.execute("SELECT subject, entry FROM log ORDER BY number").fetchall()
            database.execute("DELETE FROM log")
            for subject, entry in kept:
                before = next_link(before, entry)
                database.execute("INSERT INTO log VALUES (?, ?, ?, ?)", (before.number, subject, entry, before.digest))
            if before is not None:
                database.execute("UPDATE log_end SET number = ?, link = ?", (before.number, before.digest))

    return run


@contextmanager
def _no_rules(database: sqlite3.Connection) -> Iterator[None]:
    """Let a block write what the registry's triggers and checks forbid; the triggers stand again afterwards."""
    triggers = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        database.execute(f"DROP TRIGGER {name}")
    database.execute("PRAGMA ignore_check_constraints = ON")
    database.execute("PRAGMA foreign_keys = OFF")
    yield
    for _, made in triggers:
        database.execute(made)


# Versions 1 to 12 of pi-7/digits, 9 refused; pi-8 admitted and revoked.
EDITS = (
    Edit("a trigger that adds a key", schema(KEY_ADDING), "trigger helpful that this release does not make"),
    Edit("a trigger gone", schema("DROP TRIGGER version_no_delete"), "trigger version_no_delete is gone"),
    Edit("a trigger weakened", schema(
        "DROP TRIGGER device_key_no_delete",
        "CREATE TRIGGER device_key_no_delete BEFORE DELETE ON device_key WHEN 0 BEGIN SELECT RAISE(ABORT, 'no'); END",
    ), "trigger device_key_no_delete is another"),
    Edit("a view in the place of nothing", schema("CREATE VIEW extra AS SELECT 1"), "view extra that this release does not make"),
    Edit("a view gone", schema("DROP VIEW v_versions"), "view v_versions is gone"),
    Edit("a view that hides who is silent", schema(
        "DROP VIEW v_stale", "CREATE VIEW v_stale AS SELECT * FROM v_fleet WHERE 0",
    ), "view v_stale is another"),
    Edit("better figures", rows("UPDATE score SET loss_after = 0.01 WHERE version_id = 3"), "figures of pi-7/digits@3 are not those"),
    Edit("no figures", rows("DELETE FROM score WHERE version_id = 4"), "figures of pi-7/digits@4 are not those"),
    Edit("figures of nothing", rows("INSERT INTO score (version_id, loss_after) VALUES (99, 0.5)"), "score row 99 names a missing version"),
    Edit("an index that lies", schema("DROP INDEX device_key_speaks"), "index device_key_speaks is gone"),
    Edit("a key added", rows(
        f"INSERT INTO device_key (device, key, added_at) VALUES ('pi-7', x'{MALLORY.hex()}', 1)"
    ), "no act of the operator's let it in"),
    Edit("a key exchanged", rows(
        f"UPDATE device_key SET key = x'{MALLORY.hex()}' WHERE device = 'pi-7'"
    ), "no act of the operator's let it in"),
    Edit("a revocation undone", rows("UPDATE device_key SET revoked_at = NULL WHERE device = 'pi-8'"), "speaks for pi-8 again"),
    Edit("a revocation undone with its act", rows(
        "UPDATE device_key SET revoked_at = NULL WHERE device = 'pi-8'", "DELETE FROM act WHERE verb = 'revoke'"
    ), "of the operator is gone"),
    Edit("a revocation undone with act and entry", relinked(
        "UPDATE device_key SET revoked_at = NULL WHERE device = 'pi-8'", "DELETE FROM act WHERE verb = 'revoke'",
        "DELETE FROM log WHERE instr(entry, 'revoke') > 0",
    ), "is signed by no receipt key"),
    Edit("a device put out", rows("UPDATE device_key SET revoked_at = 5 WHERE device = 'pi-7'"), "no act of the operator's revoked it"),
    Edit("the last versions cut off", rows(
        "DELETE FROM version WHERE version > 9", "UPDATE head SET version_id = 8, version = 8,"
        " \"commit\" = (SELECT \"commit\" FROM version WHERE version = 8)",
    ), "is @8, and @"),
    Edit("the last versions cut off with their entries", rows(
        "DELETE FROM version WHERE version > 9", "UPDATE head SET version_id = 8, version = 8,"
        " \"commit\" = (SELECT \"commit\" FROM version WHERE version = 8)",
        "DELETE FROM log WHERE number > 12",
    ), "the log was cut off"),
    Edit("the log emptied", rows("DELETE FROM log"), "the log was cut off"),
    Edit("the log and its signature emptied", rows("DELETE FROM log", "DELETE FROM log_end"), "the trust records are others"),
    Edit("an entry taken out", rows("DELETE FROM log WHERE number = 5"), "it has a hole: entry 5"),
    Edit("an entry taken out and relinked", relinked("DELETE FROM log WHERE number = 5"), "is signed by no receipt key"),
    Edit("an entry changed", rows("UPDATE log SET entry = zeroblob(length(entry)) WHERE number = 4"), "its link does not follow"),
    Edit("two entries exchanged", relinked(
        "UPDATE log SET number = -1 WHERE number = 4", "UPDATE log SET number = 4 WHERE number = 5",
        "UPDATE log SET number = 5 WHERE number = -1",
    ), "is signed by no receipt key"),
    Edit("the signature taken away", rows("DELETE FROM log_end"), "is signed by no receipt key"),
    Edit("the signature of another end", rows("UPDATE log_end SET signature = zeroblob(64)"), "is signed by no receipt key"),
    Edit("a refused version served", rows(
        "UPDATE version SET status = 'verified', reason = '' WHERE status = 'refused'"
    ), "log says otherwise"),
    Edit("a good version refused", rows("UPDATE version SET status = 'refused', reason = 'no' WHERE version = 12"), "log says otherwise"),
    Edit("a head moved back", rows(
        "UPDATE head SET version_id = 3, version = 3, \"commit\" = (SELECT \"commit\" FROM version WHERE version = 3)"
    ), "is @3, and @"),
    Edit("an epoch of another state", rows("UPDATE epoch SET state = zeroblob(16)"), "is not what the log granted"),
    Edit("an epoch gone", rows("DELETE FROM epoch", "DELETE FROM head", "DELETE FROM version"), "is gone"),
    Edit("a trust record more", rows("INSERT INTO trust VALUES (7, x'00')"), "the trust records are others"),
    Edit("a command that nobody sealed", rows(
        "INSERT INTO command (lineage, number, verb, record, expiry, created_at) VALUES (1, 99, 'adopt', x'00', 9999999999, 1)"
    ), "not among those that the operator sealed"),
    Edit("another name for a device", rows(
        "UPDATE device SET name = 'pi-9' WHERE name = 'pi-7'", "UPDATE device_key SET device = 'pi-9' WHERE device = 'pi-7'"
    ), "names a missing device"),
    Edit("another name for a model", rows("UPDATE lineage SET model = 'other'"), "is not what the log granted"),
    Edit("a version filed elsewhere", rows("UPDATE version SET version = 20 WHERE version = 12"), "was linked by no ingester"),
    Edit("a variant of another base", rows("UPDATE variant SET name = 'day'"), "says something else than its statement"),
    Edit("another statement", rows("UPDATE variant SET statement = x'00'"), "variant 1 of digits is not what the log holds"),
    Edit("a variant more", rows(
        "INSERT INTO variant SELECT model, 2, \"commit\", 'day', statement, at FROM variant"
    ), "variant 2 of digits is not what the log holds"),
    Edit("a variant gone", rows("DELETE FROM variant"), "variant 1 of digits is gone"),
    Edit("another plan", rows("UPDATE rollout SET plan = x'00'"), "the plan of the rollout spring is not what the log holds"),
    Edit("a plan gone", rows("UPDATE rollout SET plan = x''"), "the plan of the rollout spring is gone"),
    Edit("a rollout under another name", rows("UPDATE rollout SET name = 'fall'"), "says something else than its plan"),
    Edit("a rollout that nobody planned", rows(
        "INSERT INTO rollout SELECT 9, zeroblob(16), 'x', model, variant, plan, state, phase, reason, 1, 1, 1 FROM rollout"
    ), "the plan of the rollout x is not what the log holds"),
    Edit("a decision that nobody took", rows("INSERT INTO decision VALUES (1, 2, x'00', 9)"), "decision 2 about the rollout spring is not"),
    Edit("a decision gone", rows("DELETE FROM decision"), "decision 1 about the rollout 00010203 is gone"),
    Edit("a rollout gone", rows("DELETE FROM rollout"), "names a missing rollout"),
    Edit("a desired that nobody sealed", rows("UPDATE desired SET record = x'00'"), "is not among those that the director sealed"),
    Edit("a desired that lasts", rows("UPDATE desired SET expiry = expiry + 1"), "says something else than its record"),
    Edit("a desired of another base", rows("UPDATE desired SET variant = zeroblob(32)"), "says something else than its record"),
    Edit("a desired that was newer", rows("UPDATE desired SET number = 9", "DELETE FROM report"), "is not among those"),
    Edit("a desired gone", rows("DELETE FROM desired", "DELETE FROM report"), "desired 1 for pi-7/digits is gone"),
    Edit("a decision gone with its entry", relinked("DELETE FROM decision", "DELETE FROM log WHERE instr(entry, 'decision') > 0"),
         "is signed by no receipt key"),
    Edit("a rejection as an entry", rows(
        "INSERT INTO log VALUES ((SELECT max(number) + 1 FROM log), x'', x'a0', zeroblob(32))"
    ), "its link does not follow"),
)  # fmt: skip


def edit(path: Path, one: Edit) -> None:
    """Change the registry's file as a program without any key would."""
    with closing(sqlite3.connect(path)) as database, database:
        one.run(database)
