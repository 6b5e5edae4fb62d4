"""`edgecloud why`: what a board weighed, from the few bytes beside its update; and nothing that those bytes say can break it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecloud.commands.models.why import _text, explain
from edgecloud.registry import open_registry
from edgecloud.versions import naming, plans
from modelwire.planning import Candidate, Choice, Conditions, Figure, Forecast, Prices, decide, encode, profile_of
from modelwire.wire import cbor
from tests.edgecloud.centre import Centre
from tests.edgecloud.desk import LINE, Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice
from tests.edgecloud.keeping.thinned import history, keep, thinner

SLEEPING = Conditions(profile_of("lte-sleeping"), forecast=Forecast(Figure(600.0), 3, 1200.0))
FORMS = [Candidate(Choice.DELTA, 600, 0.0075, alone=300, full=4000), Candidate(Choice.SNAPSHOT, 4000)]
HOSTILE = [
    b"", b"\xff" * 48, bytes(500), cbor.encode([1, 2, 3]), cbor.encode([1, 1, 1, 10**6, 1, 0, [0, 0, 0, 0, -99]]), cbor.encode({"a": 1}),
    cbor.encode([9, 1, 1, 7500, 1, 0, [0] * 5]), cbor.encode([1, 1, 4, 7500, 1, 0, [0] * 5]), "text", 7, [], {"plan": b""}, None,
]  # fmt: skip


def beside(plan: object) -> dict[str, object]:
    return {"samples": 32, "steps": 4, "plan": plan}


@pytest.fixture
def desk_of(desk: Desk, base: Base) -> tuple[Desk, Centre, ScriptedDevice]:
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    desk.ok("devices", "add", "pi-7", LINE)
    centre = Centre(open_registry(desk.folder / "fleet.db", synchronous="OFF"), now=1_700_000_000)
    return desk, centre, centre.meet(ScriptedDevice(base))


def test_it_says_what_was_chosen_against_what_and_how_it_is_stored(desk_of: tuple[Desk, Centre, ScriptedDevice]) -> None:
    desk, centre, device = desk_of
    now, waits = decide(FORMS, Conditions(), Prices()), decide(FORMS, SLEEPING, Prices())
    assert (now.choice, waits.choice) == (Choice.DELTA, Choice.WAIT), "one of each"
    centre.deliver(device, device.train(extension=beside(encode(now.note))), device.train(extension=beside(encode(waits.note))))
    centre.deliver(device, device.train())
    centre.rebuild()
    centre.store.close()
    text = desk.ok("why", "pi-7@1")
    assert "its board chose a delta, for " in text and "a snapshot would have come to " in text and "nothing waits" in text
    assert "stored as it came, on its base" in text and "within 2 states" in text
    assert max(map(len, text.splitlines())) <= 80 and len(text.splitlines()) <= 24
    document = desk.json("why", "pi-7@1")
    kinds = {row["kind"]: row for row in document["plan"]["kinds"]}  # type: ignore[index, call-overload]
    assert kinds["delta"]["total"] == pytest.approx(now.rows[0].total, rel=0.01) and kinds["snapshot"]["total"] > kinds["delta"]["total"]
    assert kinds["recipe"]["total"] is None and kinds["wait"]["why_not"]
    assert "its board let it wait for others" in desk.ok("why", "pi-7@2") and "3 updates waited then" in desk.ok("why", "pi-7@2")
    assert "on @1" in desk.ok("why", "pi-7@2")
    assert "its board was told: delta" in desk.ok("why", "pi-7@3")
    assert desk.json("why", "pi-7@3")["plan"] is None


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_bytes_that_are_no_plan_are_a_note_and_the_version_stands(desk_of: tuple[Desk, Centre, ScriptedDevice], number: int) -> None:
    desk, centre, device = desk_of
    centre.deliver(device, device.train(extension=beside(HOSTILE[number])))
    centre.rebuild()
    assert centre.statuses(device) == {1: "verified"}
    centre.store.close()
    document = desk.json("why", "pi-7@1")
    if HOSTILE[number] is None:
        assert document["reason"] == "its board was told: delta"
    else:
        assert document["plan"] is None and document["trouble"] and "can't be read" in str(document["reason"])
    assert "stored as it came" in desk.ok("why", "pi-7@1") and "\x1b" not in desk.ok("why", "pi-7@1")


def test_a_name_that_is_no_version_says_which_there_are(desk_of: tuple[Desk, Centre, ScriptedDevice]) -> None:
    desk, centre, _ = desk_of
    centre.store.close()
    assert desk.error("why", "pi-7@base")["error"] == "BadArgument"
    assert desk.error("why", "pi-7@4")["error"] == "UnknownVersion"
    assert desk.error("why", "pi-8@4")["error"] == "UnknownVersion"


def test_of_a_thinned_version_it_says_what_is_left(centre: Centre, device: ScriptedDevice) -> None:
    store = centre.store
    history(centre, device, "dddddddd")
    keep(store, "last 3")
    thinner(store).run()

    def stored(number: int) -> tuple[Any, str]:
        place = naming.find(store, naming.parse(f"pi-7@{number}"))
        assert place.version is not None
        document = explain(store, str(place), place.version)
        return document["stored"], " ".join(_text(document).split())

    gone, said = stored(1)
    assert gone["gone"] and gone["nearest"] == [6] and "no longer recoverable" in said and "nearest are @6" in said
    assert stored(6)[0]["squash"]["bytes"] > 0 and "a squash leads to it" in stored(6)[1]
    assert "stored as it came, on @7" in stored(8)[1]


def test_it_looks_nothing_up_without_an_index(desk_of: tuple[Desk, Centre, ScriptedDevice], monkeypatch: pytest.MonkeyPatch) -> None:
    _, centre, device = desk_of
    centre.deliver(device, *(device.train() for _ in range(3)))
    centre.rebuild()
    store, asked = centre.store, list[tuple[str, tuple[object, ...]]]()
    database = store.database
    for way in ("all", "maybe", "one"):
        plain = getattr(type(database), way)

        def told(self: object, sql: str, *values: object, plain: object = plain) -> object:
            asked.append((sql, values))
            return plain(self, sql, *values)  # type: ignore[operator]

        monkeypatch.setattr(type(database), way, told)
    place = naming.find(store, naming.parse("pi-7@2"))
    assert place.version is not None and explain(store, str(place), place.version)["kind"] == "delta"
    monkeypatch.undo()
    assert len(asked) >= 5
    for sql, values in asked:
        steps = [row[3] for row in database.all(f"EXPLAIN QUERY PLAN {sql}", *values)]
        big = [s for s in steps if s.startswith("SCAN") and any(t in s for t in ("version", "log", "blob", "skipped", "state"))]
        assert not big, (sql, steps)


@given(data=st.binary(max_size=64))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_a_plan_or_a_trouble(data: bytes) -> None:
    class Row:
        extension = cbor.encode({"plan": data})

    told = plans.plan_of(Row())  # type: ignore[arg-type]
    assert (told.note is None) == bool(told.trouble)
    if told.note is not None:
        assert plans.reason_of(told.note, "delta")


def test_rows_that_were_changed_are_no_crash() -> None:
    class Row:
        extension = b"\xff\x00"

    assert plans.plan_of(Row()).trouble  # type: ignore[arg-type]
