"""What a board remembers of what is desired: one row, over restarts, whose numbers only rise."""

from __future__ import annotations

from pathlib import Path

from edgeagent.deploying.desired_store import DesiredStore, TakenDesired
from modelwire.deploying.reports import Code, DeviceFigures
from modelwire.deploying.states import State
from tests.edgeagent.boards import centre, rig
from tests.edgeagent.centre import FakeClock


def test_all_of_it_is_there_after_a_restart(tmp_path: Path) -> None:
    figures = DeviceFigures(True, 40, 3, 2, 900, 800, "", "kept", bytes(32), b"")
    with rig(tmp_path / "d", centre(FakeClock())) as r:
        store = DesiredStore(r.device.database, "tiny")
        assert store.current() is None and store.newest() == 0
        store.take(7, b"as it came", now=10, time=1_800_000_000)
        assert store.current() == TakenDesired(7, b"as it came", State.OFFERED, 10, 1_800_000_000)
        store.holds(b"transfer", b"\x03")
        store.fetched(2, 70_000)
        store.move(State.FETCHING, 11)
        store.probes(1)
        store.consent("yes")
        store.measured("kept", 0.5, 0.75, figures)
        store.soaked(61.5)
        store.move(State.REVERTED, 12, code=Code.WORSE, reason="it is worse")
        row = TakenDesired(
            7, b"as it came", State.REVERTED, 12, 1_800_000_000, 2, 70_000, b"transfer", b"\x03", 1, "yes", 61.5, "kept", "worse",
            "it is worse", 0.5, 0.75, figures, False,
        )  # fmt: skip
        assert store.current() == row
    with rig(tmp_path / "d", centre(FakeClock())) as r:
        store = DesiredStore(r.device.database, "tiny")
        assert store.current() == row and store.newest() == 7
        store.reported(7, State.SOAKING)  # of a state that is over
        assert not store.current().reported  # type: ignore[union-attr]
        store.reported(7, State.REVERTED)
        assert store.current().reported  # type: ignore[union-attr]
        store.move(State.REVERTED, 13)
        assert (store.current().reported, store.current().code) == (False, "worse")  # type: ignore[union-attr]


def test_a_newer_one_takes_its_place_and_a_number_that_was_passed_by_counts(tmp_path: Path) -> None:
    with rig(tmp_path / "d", centre(FakeClock())) as r:
        store = DesiredStore(r.device.database, "tiny")
        store.pass_by(3)
        assert store.newest() == r.lineage.reported() == 3
        store.take(5, b"a", now=1, time=2)
        store.fetched(1, 2)
        store.pass_by(4)
        assert store.newest() == 5
        store.take(9, b"b", now=3, time=4)
        assert store.current() == TakenDesired(9, b"b", State.OFFERED, 3, 4) and store.newest() == 9


def test_it_joins_the_transaction_around_it(tmp_path: Path) -> None:
    with rig(tmp_path / "d", centre(FakeClock())) as r:
        store = DesiredStore(r.device.database, "tiny")
        store.take(5, b"a", now=1, time=2)
        try:
            with r.device.database.transaction():
                store.move(State.FETCHING, 2)
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        assert store.current().state is State.OFFERED  # type: ignore[union-attr]
