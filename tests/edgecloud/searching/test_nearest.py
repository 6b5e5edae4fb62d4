"""The nearest versions: shortlisted by sketches, ordered by exact distance; what can't be compared is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecloud.commands.comparing.nearest import said_of
from edgecloud.keeping.sketching import SketchMaker
from edgecloud.registry import SqliteStore
from edgecloud.searching import gathering, nearest
from edgecloud.sketches import counting, measuring
from edgecloud.versions import materialise, naming
from modelwire.errors import BadArgument, UnknownVersion
from modelwire.lattice.state import ModelState
from modelwire.update.manifest import manifest_of
from tests.edgecloud.centre import Centre, add_base, fleet_of, make_registry
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice

from .fleet import planted


def names(found: nearest.Search) -> list[str]:
    return [str(one) for one in found.neighbours]


def place(store: SqliteStore, name: str) -> naming.Place:
    return naming.find(store, naming.parse(name))


def test_the_nearest_device_comes_first_with_its_exact_distance(tmp_path: Path) -> None:
    centre, devices = planted(tmp_path / "fleet.db")
    store = centre.store
    found = nearest.nearest(store, place(store, "pi-1"))
    assert names(found) == ["pi-2/digits@3", "pi-3/digits@3"]
    for one in found.neighbours:
        apart = measuring.apart(devices["pi-1"].state, devices[one.lineage.device].state)
        assert one.apart == apart and one.guessed > 0
    assert found.elsewhere == {"tall": 1} and (found.compared, found.measured, found.unsketched) == (3, 2, 0)
    assert found.from_base == measuring.apart(devices["pi-1"].state, devices["pi-1"].state.at_base()).distance
    everywhere = nearest.nearest(store, place(store, "pi-1@2"), every=True, count=4)
    assert names(everywhere)[0] in ("pi-1/digits@3", "pi-2/digits@2") and len(everywhere.neighbours) == 4
    exact = nearest.nearest(store, place(store, "pi-1@2"), every=True, count=4, exact=True)
    assert exact.measured == 8 and names(exact) == names(everywhere)
    assert [one.apart.squared for one in exact.neighbours] == sorted(one.apart.squared for one in exact.neighbours)


def test_versions_that_were_measured_lately_are_not_rebuilt_and_tell_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    centre, _ = planted(tmp_path / "fleet.db")
    store, recent = centre.store, nearest.Recent()
    asked = [(place(store, name), every) for name in ("pi-1", "pi-2@2", "pi-3", "pi-1@base") for every in (False, True)]
    fresh = [nearest.nearest(store, at, every=every) for at, every in asked]
    assert [nearest.nearest(store, at, every=every, recent=recent) for at, every in asked] == fresh

    def never(*args: object, **named: object) -> ModelState:
        raise AssertionError("it was rebuilt")

    with monkeypatch.context() as patched:
        patched.setattr(materialise, "rebuild", never)
        assert [nearest.nearest(store, at, every=every, recent=recent) for at, every in asked] == fresh
    small, row = nearest.Recent(room=1), place(store, "pi-1").version
    assert row is not None
    assert [nearest.nearest(store, at, every=every, recent=small) for at, every in asked] == fresh and small.get(row) is None


def test_the_base_itself_has_neighbours(tmp_path: Path) -> None:
    centre, _ = planted(tmp_path / "fleet.db")
    found = nearest.nearest(centre.store, place(centre.store, "pi-1@base"), every=True, count=1)
    assert found.from_base == 0 and names(found)[0].endswith("@1")


def test_sketches_that_were_lost_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    centre, _ = planted(tmp_path / "fleet.db")
    store = centre.store
    right = dict(store.sketches.every(place(store, "pi-1").base))
    found = names(nearest.nearest(store, place(store, "pi-1")))
    store.sketches.drop()
    said: list[tuple[int, int]] = []
    assert names(nearest.nearest(store, place(store, "pi-1"), progress=lambda *n: said.append(n))) == found
    assert said[:3] == [(1, 3), (2, 3), (3, 3)] and store.sketches.missing(0, 99)
    gathered = gathering.gather(store, place(store, "pi-1").base, every=True)
    assert {id: counting.encode(s) for id, s in zip(gathered.ids, gathered.sketches, strict=True)} == right
    monkeypatch.setattr(gathering, "AT_ONCE", 4)  # in pieces as at once, the last one full
    one = gathered.sketches[3]
    estimated = gathering.estimate(store, place(store, "pi-1").base, one, every=True)
    assert tuple(estimated.ids.tolist()) == gathered.ids and not estimated.left_out
    assert np.array_equal(estimated.distances, counting.distances(gathered.sketches, one))
    maker = SketchMaker(store)
    assert maker.waiting() and maker.run() == 12 and maker.run() is None and not maker.waiting()
    assert dict(store.sketches.every(place(store, "pi-1").base)) == right


def test_sketches_of_snapshots_recipes_and_roll_backs_are_made_of_what_they_say(tmp_path: Path) -> None:
    centre = Centre(make_registry(tmp_path / "fleet.db", Base.of()))
    device = centre.meet(ScriptedDevice(Base.of()))
    sent = [device.train(), device.snapshot(), device.learn(range(20)), device.train(), device.snapshot(), device.train()]
    centre.deliver(device, *sent)
    assert all(one.ok for one in centre.rebuild())
    store = centre.store
    right = store.sketches.of(list(range(1, 7)))
    assert len(right) == 6 and store.sketches.drop() == 6
    maker = SketchMaker(store)
    while maker.run() is not None:
        pass
    assert store.sketches.of(list(range(1, 7))) == right


def test_a_maker_that_is_stopped_keeps_what_it_made(tmp_path: Path) -> None:
    centre, _ = planted(tmp_path / "fleet.db")
    centre.store.sketches.drop()
    asked = iter([False, False, False, True])
    maker = SketchMaker(centre.store, stopping=lambda: next(asked, True))
    assert maker.run() == 2 and maker.run() is None and len(centre.store.sketches.missing(0, 99)) == 10


def test_a_version_that_cant_be_rebuilt_is_named_and_the_others_are_measured(tmp_path: Path) -> None:
    centre, _ = planted(tmp_path / "fleet.db")
    store = centre.store
    row = place(store, "pi-2@1").version
    assert row is not None
    for name, _ in (triggers := store.database.all("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")):
        store.database.run(f"DROP TRIGGER {name}")
    store.database.run("UPDATE blob SET bytes = x'00' WHERE sha256 = ?", row.blob)
    for _, made in triggers:
        store.database.run(made)
    found = nearest.nearest(store, place(store, "pi-1"))
    assert names(found) == ["pi-3/digits@3"] and found.unmeasured[0][0] == "pi-2/digits@3" and found.unmeasured[0][1]


def test_a_base_without_a_lattice_has_no_neighbours(tmp_path: Path) -> None:
    base = Base.of()
    base.manifest = manifest_of(TINY.read_bytes(), exact=True)
    store = make_registry(tmp_path / "fleet.db", None)
    add_base(store, base)
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    with pytest.raises(BadArgument, match="on a lattice"):
        nearest.nearest(store, naming.find(store, naming.parse(f"{device.name}@base")))
    assert SketchMaker(store).run() is None


def test_the_command_says_what_was_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    planted(tmp_path / "fleet.db")[0].store.close()
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path, capsys)
    text = desk.ok("nearest", "pi-1", "--db", "fleet.db")
    assert "pi-2/digits@3" in text and "were measured exactly" in text and "1 on 'tall'" in text
    assert max(len(line) for line in text.split("\n\n")[0].splitlines()) <= 80
    document = desk.json("nearest", "pi-1@2", "--all-versions", "--count", "2", "--exact", "--db", "fleet.db")
    assert document["of"] == "pi-1/digits@2" and len(document["nearest"]) == 2 and document["measured"] == 8  # type: ignore[arg-type]
    assert desk.error("nearest", "pi-9", "--db", "fleet.db")["error"] == UnknownVersion.__name__
    assert desk.run("nearest", "pi-1", "--count", "0", "--db", "fleet.db")[0] == 2
    assert "sketches of" not in desk.ok("compact", "--db", "fleet.db")


def test_rows_are_counted_from_one_on(tmp_path: Path) -> None:
    centre, devices = planted(tmp_path / "fleet.db")
    (tmp_path / "pi-1.tflite").write_bytes(devices["pi-1"].served())
    fleet = fleet_of(centre.store)
    assert [row["version"] for row in fleet.nearest("pi-1", 1)] == ["pi-2/digits@3"]
    for count in (0, -1):
        for ask in (lambda n: fleet.nearest("pi-1", n), lambda n: fleet.identify(tmp_path / "pi-1.tflite", n)):
            with pytest.raises(BadArgument, match="counted from 1 on"):
                ask(count)


def test_it_is_said_whether_all_were_measured(tmp_path: Path) -> None:
    def said(compared: int, measured: int, lost: int = 0, most: int | None = 10) -> str:
        unmeasured = tuple((f"pi-{n}/digits@3", "gone") for n in range(lost))
        return said_of(nearest.Search("b", 39, 1.0, (), compared, measured, unmeasured, 0, {}), most=most, every=False)

    assert said(10, 9).startswith("All 9 newest versions") and said(10, 10).startswith("All 10 newest versions")
    assert said(11, 10).startswith("Of 11 newest versions on the base 'b' sketches chose 10, which were")  # of a base: one was left out
    assert said(6, 3, lost=2).startswith("3 of 5 newest versions") and "--exact" not in said(6, 3, lost=2)
    assert "sketches chose 10, of which 7 were measured" in said(90, 7, lost=3)
    assert said(90, 89, most=None).startswith("All 89") and said(90, 80, lost=9, most=None).startswith("80 of 89")
    assert said(1, 0) == "No other of the newest versions is on the base 'b'."
