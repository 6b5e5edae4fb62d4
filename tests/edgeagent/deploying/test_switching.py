"""A base is served on trial, taken over and taken back: what is served, what the head is, and what the centre rebuilds."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from edgeagent.board.costs import Cost
from edgeagent.board.sensors import Sensors
from edgeagent.deploying import places, switching
from edgeagent.deploying.board_means import BoardMeans
from edgeagent.service import allowance
from edgeagent.settings import reading
from edgeagent.state.beside.rows import Lies
from edgeagent.state.folder import open_folder
from edgeagent.state.lineage import Lineage
from edgeagent.system.clock import Clock
from edgeagent.troubles.noted import all_noted
from modelwire.errors import LineageError, NotWelcome, WrongBase
from modelwire.tflite.file import read_weights
from modelwire.update.manifest import manifest_of
from modelwire.update.sections import Kind
from modelwire.wire.records import Level
from tests.edgeagent.boards import TINY, Rig, centre, fill, rig
from tests.edgeagent.by_hand import train as by_hand
from tests.edgeagent.centre import Centre, FakeClock
from tests.edgeagent.deploying.bases import FAR, NEAR, gone_back, know, soaked, staged, state_of, train, variant_of, ways
from tests.edgeagent.deploying.whole import check_whole
from tests.edgeagent.invariants import check_invariants


@pytest.fixture
def c() -> Centre:
    made = centre(FakeClock())
    know(made, NEAR, FAR)
    return made


def served(r: Rig) -> bytes:
    return r.lineage.store.served.read_bytes()


@pytest.mark.parametrize(("file", "word"), [(NEAR, "kept"), (FAR, "carried")])
def test_a_base_is_served_on_trial_while_the_head_stays(tmp_path: Path, c: Centre, file: bytes, word: str) -> None:
    with rig(tmp_path / "d", c) as r:
        train(r, 3)
        before = r.lineage.head()
        placed = soaked(r.lineage, file)
        assert (placed.lies, placed.learned, placed.learned_of) == (Lies.SOAKING, word, before.file_sha256)
        assert hashlib.sha256(served(r)).digest() == placed.file_sha256 and r.lineage.head() == before
        assert r.lineage.base_commit == manifest_of(TINY).commit, "the head is on the base that it was on"
        r.serve(100)
        r.device.make_good()
        assert hashlib.sha256(served(r)).digest() == placed.file_sha256, "the link's turns leave what soaks served"
        check_whole(r)
    with rig(tmp_path / "d", c) as r:
        assert r.lineage.beside.soaking() == placed and hashlib.sha256(served(r)).digest() == placed.file_sha256
        check_whole(r, fresh=True)


def test_taken_back_before_it_was_taken_over_it_costs_no_update(tmp_path: Path, c: Centre) -> None:
    with rig(tmp_path / "d", c) as r:
        train(r, 3)
        before, file = r.lineage.head(), served(r)
        soaked(r.lineage, NEAR)
        switching.revert(r.lineage, "worse")
        assert (r.lineage.head(), served(r), r.lineage.beside.all()) == (before, file, [])
        assert not (r.lineage.store.folder / "bases").exists() and r.lineage.outbox.waiting() == []
        check_whole(r)
        switching.revert(r.lineage, "again")  # nothing is there any more
        train(r, 1)
        check_invariants(r)


@pytest.mark.parametrize("file", [NEAR, FAR])
def test_taken_over_and_back_the_centre_rebuilds_each_version(tmp_path: Path, c: Centre, file: bytes) -> None:
    with rig(tmp_path / "d", c) as r:
        train(r, 3)
        old = r.lineage.load().state
        soaked(r.lineage, file)
        version = switching.confirm(r.lineage, 20)
        passive = r.lineage.beside.passive()
        assert version == 4 and passive is not None and (passive.place, passive.commit) == ("", manifest_of(TINY).commit)
        assert r.lineage.manifest == manifest_of(file) and r.lineage.store.place == r.lineage.head().place != ""
        train(r, 2)
        check_whole(r)
        check_invariants_of_two(r)
        gone_back(r.lineage, TINY)
        assert r.lineage.load_beside(r.lineage.beside.soaking() or passive).state == old
        assert switching.confirm(r.lineage, 30) == 7
        assert r.lineage.store.place == "" and r.lineage.load().state == old, "what was left is what is gone back to, bit for bit"
        train(r, 1)
        check_whole(r)
        held = c.held("pi-7", "tiny")
        assert {v.level for v in held.values()} == {Level.VERIFIED} and sorted(held) == list(range(1, 9))
        assert [held[n].header.base for n in (4, 7)] == [manifest_of(file).commit, manifest_of(TINY).commit]
        assert all(held[n].kind is not Kind.SNAPSHOT for n in (5, 6, 8)), "what follows is a difference on the base that it is on"
        newest = held[8].state
        assert newest is not None and newest.root == r.lineage.load().state.root
    with rig(tmp_path / "d", c) as r:
        check_whole(r, fresh=True)


def check_invariants_of_two(r: Rig) -> None:
    """The chain of commits is unbroken across the change of base."""
    parent = manifest_of(TINY).commit
    for row in reversed(r.lineage.versions()):
        assert row["parent"] == parent
        parent = row["commit_id"]
    assert parent == r.lineage.head().commit


def test_what_was_queued_goes_first_in_its_order_and_nothing_is_summed_across(tmp_path: Path, c: Centre) -> None:
    with rig(tmp_path / "d", c, update__coalesce_after="1") as r:
        train(r, 1)
        c.cut()
        by_hand(r, 2)
        soaked(r.lineage, NEAR)
        version = switching.confirm(r.lineage, 20)
        by_hand(r, 2)
        r.lineage.coalesce()
        queued = [(w.version, w.kind) for w in r.lineage.outbox.waiting("queued")]
        assert queued[-1] == (6, "snapshot") and [kind for _, kind in queued[:-1]] == ["delta"] * (len(queued) - 1) and version == 4
        assert all(number < 4 for number, _ in queued[:-1])
        c.mend()
        r.serve(300)
        held = c.held("pi-7", "tiny")
        assert {v.level for v in held.values()} == {Level.VERIFIED} and max(held) == 6
        state = held[6].state
        assert state is not None and state.root == r.lineage.load().state.root and state.manifest == manifest_of(NEAR)


def test_a_third_base_takes_the_place_of_the_way_back(tmp_path: Path, c: Centre) -> None:
    with rig(tmp_path / "d", c) as r:
        train(r, 1)
        soaked(r.lineage, NEAR)
        switching.confirm(r.lineage, 20)
        soaked(r.lineage, FAR, 2)
        assert len(r.lineage.named()) == 3, "the way back stays until another one is taken over"
        check_whole(r)
        switching.revert(r.lineage, "worse")
        assert [p.commit for p in r.lineage.beside.all()] == [manifest_of(TINY).commit]
        soaked(r.lineage, FAR, 3)
        switching.confirm(r.lineage, 21)
        assert [p.commit for p in r.lineage.beside.all()] == [manifest_of(NEAR).commit]
        assert not (r.lineage.store.folder / "base.tflite").exists()
        check_whole(r)
        train(r, 1)
    with rig(tmp_path / "d", c) as r:
        check_whole(r, fresh=True)
        gone_back(r.lineage, NEAR, 4)
        switching.confirm(r.lineage, 22)
        train(r, 1)
        check_whole(r)
        newest = max(c.held("pi-7", "tiny").items())[1]
        assert newest.state is not None and newest.state.root == r.lineage.load().state.root


def test_the_base_of_the_way_back_may_come_as_a_variant_again(tmp_path: Path, c: Centre) -> None:
    """It is not fetched then; and taken back, the way back is what it was."""
    with rig(tmp_path / "d", c) as r:
        train(r, 2)
        soaked(r.lineage, NEAR)
        switching.confirm(r.lineage, 20)
        way_back = r.lineage.beside.passive()
        placed = places.stage(r.lineage, variant_of(TINY), tmp_path / "was never fetched", number=5, now=30)
        assert (placed.place, placed.slot) == ("", "")
        best = ways(r.lineage)[0]
        switching.soak(r.lineage, best.state, best.residual, best.word, now=31)
        check_rows(r)
        switching.revert(r.lineage, "worse")
        assert r.lineage.beside.all() == [way_back]
        places.stage(r.lineage, variant_of(TINY), tmp_path / "was never fetched", number=6, now=32)
        best = ways(r.lineage)[0]
        switching.soak(r.lineage, best.state, best.residual, best.word, now=33)
        switching.confirm(r.lineage, 34)
        assert r.lineage.store.place == "" and r.lineage.load().state == best.state
    with rig(tmp_path / "d", c) as r:
        check_whole(r, fresh=True)
        train(r, 1)


def check_rows(r: Rig) -> None:
    for placed in r.lineage.beside.all():
        r.lineage.load_beside(placed)


def test_a_model_that_moved_meanwhile_is_not_overwritten(tmp_path: Path, c: Centre) -> None:
    with rig(tmp_path / "d", c) as r:
        train(r, 1)
        placed = soaked(r.lineage, NEAR)
        by_hand(r, 1)
        assert hashlib.sha256(served(r)).digest() == placed.file_sha256
        head = r.lineage.head()
        with pytest.raises(LineageError, match="was moved to @2 while the base"):
            switching.confirm(r.lineage, 20)
        assert r.lineage.head() == head
        switching.revert(r.lineage, "it was moved")
        check_whole(r)


def test_what_is_not_there_is_refused_by_name(tmp_path: Path, c: Centre) -> None:
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        stored = r.lineage.load()
        with pytest.raises(LineageError, match="no base is staged"):
            switching.soak(r.lineage, stored.state, stored.residual, "anew", now=1)
        with pytest.raises(LineageError, match="no base of tiny is served on trial"):
            switching.confirm(r.lineage, 1)
        assert places.back(r.lineage, manifest_of(NEAR).commit, number=1, now=1) is None
        staged(r.lineage, NEAR)
        with pytest.raises(WrongBase, match="what is to soak"):
            switching.soak(r.lineage, stored.state, stored.residual, "anew", now=1)
        best = ways(r.lineage)[0]
        assert best.word == "anew", "nothing was learned yet"
        switching.soak(r.lineage, best.state, best.residual, best.word, now=1)
        with pytest.raises(NotWelcome):
            switching.confirm(r.lineage, 1)
        with pytest.raises(LineageError, match="it is taken back first"):
            staged(r.lineage, FAR)
        assert r.lineage.head().version == 0 and read_weights(served(r)).keys() == read_weights(NEAR).keys()


def test_a_reader_beside_the_agent_follows_to_the_other_base(tmp_path: Path, c: Centre) -> None:
    with rig(tmp_path / "d", c) as r:
        train(r, 1)
        with open_folder(reading.load(tmp_path / "d" / reading.FILE, environment={}, flags={}), alone=False) as reader:
            beside = reader.lineages["tiny"]
            assert beside.load().state.manifest == manifest_of(TINY)
            soaked(r.lineage, NEAR)
            assert beside.load().state.manifest == manifest_of(TINY)
            switching.confirm(r.lineage, 20)
            assert beside.load().state == r.lineage.load().state
            assert beside.base_commit == manifest_of(NEAR).commit and beside.reload() is False


@pytest.mark.parametrize("part", ["base.tflite", "model.tflite", "private"])
@pytest.mark.parametrize("lies", ["soaking", "passive"])
def test_a_damaged_base_beside_is_named_and_only_let_go_of(tmp_path: Path, c: Centre, part: str, lies: str) -> None:
    with rig(tmp_path / "d", c) as r:
        train(r, 2)
        placed = soaked(r.lineage, NEAR)
        if lies == "passive":
            switching.confirm(r.lineage, 20)
            placed = r.lineage.beside.passive() or placed
        head, folder = r.lineage.head(), r.lineage.store.folder / placed.place
        path = folder / part if part == "base.tflite" else folder / placed.slot / part
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with rig(tmp_path / "d", c) as r:
        (noted,) = all_noted(r.device.database)
        assert noted.id == ("passive-damaged" if lies == "passive" else "variant-damaged") and str(path) in noted.text
        assert r.lineage.head() == head and r.lineage.beside.all() == []
        assert hashlib.sha256(served(r)).digest() == head.file_sha256
        assert os.readlink(r.lineage.store.served) == os.path.join(head.place, head.slot, "model.tflite")
        assert not path.exists()
        train(r, 1)


def test_the_way_back_that_lies_damaged_is_dropped_when_it_is_wanted(tmp_path: Path, c: Centre) -> None:
    with rig(tmp_path / "d", c) as r:
        train(r, 1)
        soaked(r.lineage, NEAR)
        switching.confirm(r.lineage, 20)
        (r.lineage.store.folder / "base.tflite").write_bytes(b"another")
        assert places.back(r.lineage, manifest_of(TINY).commit, number=2, now=1) is None
        assert r.lineage.beside.all() == []
        check_whole(r)


def test_what_was_brought_over_is_of_the_other_base(tmp_path: Path, c: Centre) -> None:
    with rig(tmp_path / "d", c) as r:
        train(r, 2)
        placed = staged(r.lineage, NEAR)
        kept, anew = ways(r.lineage)
        assert [q.tobytes() for q in kept.state.integers] == [q.tobytes() for q in r.lineage.load().state.integers]
        assert anew.state == state_of(placed.parsed(), NEAR)


def test_a_round_that_began_before_seals_nothing_afterwards(tmp_path: Path, c: Centre) -> None:
    """Its state is of the base before: written to the slots of the other one it would be no model at all."""
    with rig(tmp_path / "d", c) as r:
        train(r, 1)
        old = r.lineage.load().state
        soaked(r.lineage, NEAR)
        switching.confirm(r.lineage, 20)
        head = r.lineage.head()
        with pytest.raises(WrongBase, match="an update of tiny was made for another base"):
            r.lineage.seal(head, Kind.SNAPSHOT, old.snapshot(), old, {})
        assert r.lineage.head() == head


def test_a_way_back_that_a_kill_cut_in_two_leads_to_the_model_that_was_left(tmp_path: Path, c: Centre) -> None:
    with rig(tmp_path / "d", c) as r:
        train(r, 3)
        old = r.lineage.load().state
        soaked(r.lineage, NEAR)
        switching.confirm(r.lineage, 20)
        train(r, 2)
        base = manifest_of(TINY).commit
        assert places.back(r.lineage, base, number=2, now=12) is not None  # and here the process ends
    with rig(tmp_path / "d", c) as r:
        BoardMeans(r.device, r.lineage, lambda file, have: None, lambda: None, Clock(), None).soak(base, "kept")
        soaking = r.lineage.beside.soaking()
        assert soaking is not None and r.lineage.load_beside(soaking).state == old
        check_whole(r)


class Measured:
    """What measures modes, and is done at once."""

    done = True

    def __init__(self, settings: Path, model: str, modes: list[str], **more: object) -> None:
        self.model = model

    def note(self, lineage: Lineage, runtime: str, now: int) -> None:
        lineage.costs.note(runtime, "all", Cost(0.1, 1 << 20, 0), now)

    def close(self) -> None:
        pass


def test_modes_are_measured_once_in_a_run_for_each_base(tmp_path: Path, c: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "Measuring", Measured)
    with rig(tmp_path / "d", c, budget__max_ram="200MiB") as r:
        settings, lineage = r.device.settings.model("tiny"), r.lineage
        train(r, 1)
        runtime = lineage.head().runtime
        looks = allowance.Allowance(r.device, Sensors(), Clock())
        monkeypatch.setattr(allowance.measuring, "unknown", lambda lineage, *_: [] if lineage.costs.of(runtime) else ["all"])
        assert looks.measures_first(lineage, settings)
        assert not looks.measuring() and lineage.costs.of(runtime) and not looks.measures_first(lineage, settings)
        soaked(lineage, NEAR)
        switching.confirm(lineage, 20)
        assert looks.measures_first(lineage, settings), "what the modes of the other base take is not known yet"
        gone_back(lineage, TINY)
        switching.confirm(lineage, 30)
        assert not looks.measuring()
        assert soaked(lineage, NEAR).commit and switching.confirm(lineage, 40)
        assert not lineage.costs.of(runtime), "what was measured was of the base before"
