"""The registry in words: each version, each device, and who is silent, as any SQLite tool sees them."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgecloud.registry import open_registry
from edgecloud.registry.sqlite import schema, views
from tests.edgecloud.centre import Centre, admit, revoke
from tests.edgecloud.device import ScriptedDevice, key_of

HOUR = 3600
OF_COUNTERS = (  # what the migration after the views makes
    *(f"TRIGGER version_{name}" for name in ("counted", "judged", "uncounted", "thinned", "unthinned")),
    "TABLE tally", "TABLE measured", "INDEX log_claims",
)  # fmt: skip


def look(path: Path, sql: str) -> list[dict[str, Any]]:
    """Return the rows of a query, by a connection that knows nothing of this project."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(sql)]


def test_a_version_is_a_row_in_words(grown: Centre, device: ScriptedDevice) -> None:
    rows = look(grown.store.database.path, "SELECT * FROM v_versions ORDER BY version")
    assert [row["name"] for row in rows] == [f"pi-7/digits@{n}" for n in range(1, 14)]
    third, ninth = rows[2], rows[8]
    assert (third["device"], third["model"], third["epoch"], third["kind"], third["status"]) == ("pi-7", "digits", 1, "delta", "verified")
    assert third["received"] == "1970-01-01T00:16:40Z" and third["bytes"] == len(device.made[3].data) and third["base"] == "digits"
    assert (third["commit"], third["parent"]) == (device.made[3].commit.hex(), device.made[2].commit.hex())
    assert (third["loss_before"], third["loss_after"], third["accuracy_after"]) == (1.0, 0.5, None)
    assert ninth["status"] == "refused" and ninth["reason"]


def test_a_device_is_a_row_with_its_totals_and_the_last_that_was_heard_of_it(grown: Centre, device: ScriptedDevice) -> None:
    admit(grown.store, "pi-8", key_of("pi-8").public, 70)
    admit(grown.store, "pi-9", key_of("pi-9").public, 80)
    revoke(grown.store, "pi-9", 90)
    path = grown.store.database.path
    seven, eight, nine = look(path, "SELECT * FROM v_fleet ORDER BY device")
    assert (seven["versions"], seven["verified"], seven["refused"], seven["waiting"]) == (13, 12, 1, 0)
    assert seven["bytes"] == sum(row["bytes"] for row in look(path, "SELECT bytes FROM v_versions"))
    assert seven["last_verified"] == "digits@13" and seven["last_update"] == seven["last_message"] == "1970-01-01T00:16:40Z"
    assert (eight["models"], eight["versions"], eight["last_message"], eight["key"]) == (0, 0, None, "admitted")
    assert nine["key"] == "revoked"
    grown.now = 5000
    grown.take(device.presence(True, 1))
    (seven, *_) = look(path, "SELECT * FROM v_fleet ORDER BY device")
    assert seven["online"] == 1 and seven["last_message"] == "1970-01-01T01:23:20Z" > seven["last_update"]


def test_who_is_silent_stands_first_and_who_was_revoked_not_at_all(grown: Centre, device: ScriptedDevice) -> None:
    now = int(time.time())
    grown.now = now - 2 * HOUR
    grown.take(device.presence(True, 1))
    admit(grown.store, "never", key_of("never").public, now - 30 * HOUR)
    admit(grown.store, "gone", key_of("gone").public, now - 50 * HOUR)
    revoke(grown.store, "gone", now)
    never, seven = look(grown.store.database.path, "SELECT * FROM v_stale")
    assert (never["device"], never["last_message"], seven["device"]) == ("never", None, "pi-7")
    assert 29.9 <= never["silent_hours"] < 40 and 1.9 <= seven["silent_hours"] < 12  # a busy machine's hours pass, too
    assert [row["device"] for row in look(grown.store.database.path, "SELECT * FROM v_stale WHERE silent_hours > 24")] == ["never"]


def test_figures_of_another_kind_are_none() -> None:
    from modelwire.wire import cbor

    said = cbor.encode({"accuracy_after": 1, "accuracy_before": "0.5", "loss_after": 0.25, "loss_before": [0.5]})
    assert views.figures_of(said) == (None, 0.25, None, None)
    far = cbor.encode({"accuracy_before": -0.5, "accuracy_after": 99.0, "loss_after": -3.0})
    assert views.figures_of(far) == (None, -3.0, None, None)  # no accuracy: what can't be one is judged by nobody, and shown to nobody
    assert views.figures_of(b"") == views.figures_of(b"\xff") == views.figures_of(cbor.encode([])) == (None,) * 4


def test_a_registry_from_before_the_views_gets_them_with_the_figures_of_all_its_versions(
    tmp_path: Path, grown: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = grown.store.database.path
    before = look(path, "SELECT * FROM v_versions"), look(path, "SELECT * FROM score ORDER BY version_id")
    grown.store.close()
    with closing(sqlite3.connect(path)) as database:
        for name in views.NAMES:
            database.execute(f"DROP VIEW {name}")
        database.execute("DROP TABLE score")
        for name in OF_COUNTERS:
            database.execute(f"DROP {name}")
        for name in ("squash", "thinned", "discard", "erasure"):
            database.execute(f"DROP TABLE {name}")
        database.execute("DELETE FROM _sqlite_migrations WHERE name IN ('m011_views', 'm014_thinning', 'm015_tallies')")
        database.execute("PRAGMA user_version = 10")
        database.commit()
    monkeypatch.setattr(views, "AT_ONCE", 5)
    store = open_registry(path)
    assert (look(path, "SELECT * FROM v_versions"), look(path, "SELECT * FROM score ORDER BY version_id")) == before
    assert store.problems() == [] and store.database.number("PRAGMA user_version") == schema.SCHEMA
    store.close()
