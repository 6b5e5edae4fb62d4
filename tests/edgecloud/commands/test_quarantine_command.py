"""`edgecloud quarantine`: what waits and what was refused is listed, shown and dropped, and nothing else goes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from edgecloud.registry import open_registry
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import Base, ScriptedDevice, key_of

NOW = int(time.time())


@pytest.fixture
def held(desk: Desk, base: Base) -> Desk:
    """A registry in which a stranger's hello waits and two messages were refused, one of them three times."""
    store = make_registry(desk.folder / "fleet.db", base)
    centre = Centre(store, now=NOW - 3600)
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, device.train())
    centre.take(ScriptedDevice(base, name="pi-9", key=key_of("pi-9")).hello())
    for _ in range(3):
        centre.take((device.topic("update"), b"no update"))
    centre.now = NOW - 10
    wrong = device.train(epoch=7)
    centre.deliver(device, wrong)
    store.close()
    return desk


def listed(desk: Desk, *words: str) -> list[dict[str, Any]]:
    rows = desk.json("quarantine", "list", *words)["messages"]
    assert isinstance(rows, list)
    return rows


def test_it_lists_what_waits_and_what_was_refused_the_last_first(held: Desk) -> None:
    rows = listed(held)
    assert (rows[0]["kind"], rows[0]["device"], rows[0]["times"]) == ("refused", "pi-7", 1)
    assert sorted((r["kind"], r["device"], r["times"]) for r in rows[1:]) == [("refused", "pi-7", 3), ("waits", "pi-9", 1)]
    assert [r["device"] for r in listed(held, "pi-9")] == ["pi-9"] and len(listed(held, "--kind", "refused")) == 2
    text = held.ok("quarantine")
    assert "1 wait" in text and "unknown-key" in text


def test_each_is_shown_with_what_to_do_next(held: Desk) -> None:
    for row in listed(held):
        assert held.json("quarantine", "show", row["id"]) == row
        assert row["first_at"] <= row["last_at"]
    (hello,) = listed(held, "--kind", "waits")
    assert hello["fingerprint"] in held.ok("quarantine", "show", hello["id"]) and "edgecloud devices add pi-9" in hello["next"]
    assert held.error("quarantine", "show", "4711")["error"] == "BadArgument"
    assert held.error("quarantine", "show", "ffffffff")["error"] == "BadArgument"


def test_some_are_dropped_by_name_all_or_none(held: Desk) -> None:
    rows = listed(held)
    assert held.error("quarantine", "drop", rows[0]["id"], "4711")["error"] == "BadArgument"
    assert listed(held) == rows
    said = held.json("quarantine", "drop", rows[0]["id"], rows[0]["id"], rows[1]["id"])
    assert said["dropped"] == [rows[0]["id"], rows[1]["id"]]
    assert listed(held) == rows[2:]


def test_old_ones_are_purged_and_what_is_newer_stays(held: Desk) -> None:
    rows = listed(held)
    assert held.error("quarantine", "purge")["error"] == "BadArgument"
    asked = held.error("quarantine", "purge", "--older-than", "30m")
    assert "1 messages that wait" in str(asked["message"]) and "--yes" in str(asked["hint"]) and listed(held) == rows
    assert held.json("quarantine", "purge", "--older-than", "30m", "--yes")["waited"] == 1
    assert listed(held) == rows[:1]
    assert held.json("quarantine", "purge", "--older-than", "30m", "--yes")["dropped"] == []
    held.ok("quarantine", "purge", "pi-7", "--yes")
    assert listed(held) == []
    store = open_registry(held.folder / "fleet.db", readonly=True)
    assert store.versions.by_id(1) is not None
    store.close()


def test_an_update_whose_refusal_was_dropped_is_looked_at_anew(desk: Desk, base: Base) -> None:
    store = make_registry(desk.folder / "fleet.db", base)
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    wrong = device.train(epoch=7)
    centre.deliver(device, wrong, wrong)
    (row,) = store.refusals.last(9)
    store.refusals.drop(row.digest)
    assert store.refusals.last(9) == []
    centre.now += 5
    centre.deliver(device, wrong)
    (again,) = store.refusals.last(9)
    assert (again.repeats, again.first_at, again.digest) == (0, centre.now, row.digest)
    store.close()
