"""The compactor over real containers: what it promises holds for every version, and nothing that interrupts it loses any."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from edgecloud.keeping import compacting as module
from edgecloud.keeping.beside import KeepingThread
from edgecloud.keeping.compacting import Compactor, compacting, drop_damaged
from edgecloud.registry import PolicyRow, SqliteStore, VersionRow, open_registry
from edgecloud.versions import materialise, route
from edgecloud.versions.route import Rates
from modelwire.errors import DiskUnwritable, StateBusy
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import ScriptedDevice
from tests.edgecloud.wide import WideDevice, enrol, grow, wide_base

WEIGHTS = 6000
SHARES = [0.02] * 120


@pytest.fixture
def wide(tmp_path: Path) -> Iterator[tuple[SqliteStore, list[VersionRow]]]:
    """A hundred and twenty versions of a small model."""
    base = wide_base(WEIGHTS, 100, 20)
    store = make_registry(tmp_path / "fleet.db", base)
    device = WideDevice(base)
    yield store, grow(store, enrol(store, device), device, SHARES)
    store.close()


def compact(store: SqliteStore, **options: int) -> list[module.Compacted]:
    compactor, out = Compactor(store, settle=0, behind=1, **options), []
    while (done := compactor.run()) is not None:
        out.append(done)
    return out


def sizes(store: SqliteStore) -> dict[int, int]:
    return {row.version_id: row.size for line in store.lineages.all() for row in store.states.of(line.id)}


def require_promise(store: SqliteStore, rows: list[VersionRow], states: float = 2.0) -> None:
    """See that every version comes back, exact, with no more bytes than promised, and the head from one state."""
    kept, bases = sizes(store), materialise.LoadedBases(store)
    one = max(kept.values())
    for row in rows:
        told: list[route.Route] = []
        materialise.rebuild(store, row, bases, told=told)
        assert told[0].size <= states * one + row.size
    assert told[0].hops == () and told[0].start == rows[-1].id


def test_every_version_is_within_two_states_and_the_head_is_one_read(wide: tuple[SqliteStore, list[VersionRow]]) -> None:
    store, rows = wide
    done = compact(store)
    assert not any(one.error for one in done) and sum(one.versions for one in done) == len(rows)
    require_promise(store, rows)
    kept = sizes(store)
    updates = sum(row.size for row in rows)
    assert updates + sum(kept.values()) <= 1.6 * (updates + kept[rows[-1].id])
    assert compact(store) == []  # nothing is left to do


def test_another_promise_is_kept_over_all_that_was_compacted_before(wide: tuple[SqliteStore, list[VersionRow]]) -> None:
    store, rows = wide
    compact(store)
    before = len(sizes(store))
    store.policies.add(PolicyRow(1, "1.2 states", "all", b"", 5))
    compact(store)
    assert len(sizes(store)) > 2 * before
    require_promise(store, rows, 1.2)
    store.policies.add(PolicyRow(2, "5 states", "all", b"", 6))
    compact(store)
    assert len(sizes(store)) < before
    require_promise(store, rows, 5)


def test_versions_that_come_one_by_one_end_with_as_many_states_as_all_at_once(tmp_path: Path) -> None:
    base, counts = wide_base(WEIGHTS, 100, 20), []
    for name, step in (("slow", 7), ("fast", 1000)):
        store = make_registry(tmp_path / f"{name}.db", base)
        device = WideDevice(base)
        lineage, rows = enrol(store, device), []
        for start in range(0, len(SHARES), step):
            rows += grow(store, lineage, device, SHARES[start : start + step])
            compact(store)
        require_promise(store, rows)
        counts.append(len(sizes(store)))
        store.close()
    assert counts[0] <= counts[1] + 3


def test_snapshots_recipes_refusals_and_epochs_are_all_within_the_promise(grown: Centre, device: ScriptedDevice) -> None:
    for n in range(6):
        grown.deliver(device, device.learn(range(n, n + 9)), device.train())
    device.reflash()
    grown.meet(device)
    grown.deliver(device, *(device.train() for _ in range(30)))
    grown.rebuild()
    store, bases = grown.store, materialise.LoadedBases(grown.store)
    assert not any(one.error for one in compact(store))
    lineage = store.lineages.of("pi-7")[0]
    for row in store.versions.of(lineage.id):
        if row.status.value == "verified":
            assert materialise.rebuild(store, row, bases).root == row.root
    assert all(one.error is None for one in materialise.check_lineage(store, lineage, bases))
    assert {row.version_id for row in store.states.of(lineage.id)} <= {row.id for row in store.versions.of(lineage.id)}


def test_a_damaged_state_is_named_gone_around_and_made_again(
    wide: tuple[SqliteStore, list[VersionRow]], caplog: pytest.LogCaptureFixture
) -> None:
    store, rows = wide
    compact(store)
    victim = sorted(sizes(store))[1]
    store.database.run("DROP TRIGGER state_no_update")
    store.database.run("UPDATE state SET bytes = CAST(zeroblob(size) AS BLOB) WHERE version_id = ?", victim)
    with caplog.at_level(logging.WARNING):
        state = materialise.rebuild(store, rows[victim - rows[0].id], materialise.LoadedBases(store))
    assert state.root == rows[victim - rows[0].id].root
    assert "the kept state of pi-7/wide@" in caplog.text and "damaged" in caplog.text
    assert drop_damaged(store) == [f"pi-7/wide@{victim - rows[0].id + 1}"] and victim not in sizes(store)
    compact(store)
    require_promise(store, rows)


def test_a_state_whose_bytes_are_another_versions_is_found_out(wide: tuple[SqliteStore, list[VersionRow]]) -> None:
    store, rows = wide
    compact(store)
    one, other = sorted(sizes(store))[:2]
    store.database.run("DROP TRIGGER state_no_update")
    store.database.run(
        "UPDATE state SET (digest, size, bytes) = (SELECT digest, size, bytes FROM state WHERE version_id = ?) WHERE version_id = ?",
        other, one,
    )  # fmt: skip
    assert materialise.rebuild(store, rows[one - rows[0].id], materialise.LoadedBases(store)).root == rows[one - rows[0].id].root


def test_a_lost_container_between_states_loses_its_own_step_alone(wide: tuple[SqliteStore, list[VersionRow]]) -> None:
    store, rows = wide
    compact(store)
    kept, bases = sorted(sizes(store)), materialise.LoadedBases(store)
    lost = rows[kept[1] - rows[0].id + 2]
    store.database.run("DROP TRIGGER blob_no_delete")
    store.database.run("DELETE FROM blob WHERE sha256 = ?", lost.blob)
    for row in rows:  # from both sides of it, and across from none: each is whole
        assert materialise.rebuild(store, row, bases).root == row.root


KILLED = """
import os, sys
from pathlib import Path
from edgecloud.keeping.compacting import Compactor, compacting
from edgecloud.registry import open_registry
from edgecommon.sqlite import Database
path, steps = Path(sys.argv[1]), int(sys.argv[2])
store = open_registry(path, synchronous="OFF")
real, done = Database.run, [0]
def run(self, sql, *values):
    if sql.startswith(("INSERT INTO state", "DELETE FROM state", "COMMIT", "INSERT INTO compacted")):
        done[0] += 1
        if done[0] > steps:
            os.kill(os.getpid(), 9)
    return real(self, sql, *values)
Database.run = run
with compacting(store, path):
    compactor = Compactor(store, settle=0, behind=1)
    while compactor.run() is not None:
        pass
"""


@pytest.mark.parametrize("files_from", [1, 1 << 22])
def test_killed_at_every_write_it_goes_on_where_it_was(tmp_path: Path, files_from: int) -> None:
    base, path = wide_base(1000, 100, 10), tmp_path / "fleet.db"
    store = make_registry(path, base, files_from=files_from)
    device = WideDevice(base)
    rows = grow(store, enrol(store, device), device, [0.1] * 40)
    bases = materialise.LoadedBases(store)
    for steps in range(40):
        killed = subprocess.run([sys.executable, "-c", KILLED, str(path), str(steps % 5)], capture_output=True, text=True)
        assert killed.returncode in (0, -9), killed.stderr
        for row in rows[:: 1 + steps % 7]:
            assert materialise.rebuild(store, row, bases).root == row.root
        if not killed.returncode:
            break
    with compacting(store, path):
        compact(store)
    require_promise(store, rows)
    assert len(list((tmp_path / "fleet.db.states").glob("??/*"))) == (len(sizes(store)) if files_from == 1 else 0)  # no strays
    store.close()


def test_a_full_disk_is_named_once_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    base, path = wide_base(1000, 100, 10), tmp_path / "fleet.db"
    store = make_registry(path, base, files_from=1)
    device = WideDevice(base)
    rows = grow(store, enrol(store, device), device, [0.1] * 20)
    real, turns = os.fsync, [0]

    def full(handle: int) -> None:
        if turns[0] < 4:
            turns[0] += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr("edgecommon.files.os.fsync", full)
    with pytest.raises(DiskUnwritable, match="No space left"):
        compact(store)
    assert sizes(store) == {} and list(tmp_path.glob("**/*.partial")) == []
    beside = KeepingThread(path, lambda: open_registry(path, synchronous="OFF"), lambda: _holds(path, rows[-1].id), rest=0.01)
    with caplog.at_level(logging.WARNING):
        beside.start()
        beside.join()
    assert caplog.text.count("no state is kept until there is room") == 1 and "there is room on the disk again" in caplog.text
    compact(store)
    require_promise(store, rows)
    store.close()


class Pieces:
    """Work without end, each piece of which takes ten seconds of a clock that nothing else moves."""

    def __init__(self) -> None:
        self.done, self.at = 0, 0.0

    def waiting(self) -> bool:
        return True

    def run(self) -> str:
        self.done, self.at = self.done + 1, self.at + 10
        return "a piece"


def test_while_messages_come_it_takes_a_tenth_of_the_time(tmp_path: Path) -> None:
    path, work, looks = tmp_path / "fleet.db", Pieces(), [0]
    store = make_registry(path, wide_base(1000, 100, 10))

    def busy() -> bool:
        looks[0] += 1
        work.at += 5.0
        return True

    beside = KeepingThread(
        path, lambda: open_registry(path, synchronous="OFF"), lambda: looks[0] >= 10, lambda _: work, busy=busy, timer=lambda: work.at
    )
    beside.start()
    beside.join()
    assert work.done == 1 and 10 < work.at < 100  # it was told to stop in the middle of its rest
    assert not store.policies.rates()  # nor is the machine measured meanwhile
    store.close()


def test_when_nothing_comes_any_more_it_goes_on_at_once(tmp_path: Path) -> None:
    path, work, looks = tmp_path / "fleet.db", Pieces(), [0]
    store = make_registry(path, wide_base(1000, 100, 10))
    store.policies.set_rates(asdict(Rates()), 0)

    def busy() -> bool:
        looks[0] += 1
        return looks[0] <= 5

    beside = KeepingThread(
        path, lambda: open_registry(path, synchronous="OFF"), lambda: work.done >= 3, lambda _: work, busy=busy, timer=lambda: work.at
    )
    beside.start()
    beside.join()
    assert work.done == 3 and work.at == 30  # not a second of the 90 that the first piece had cost
    store.close()


def _holds(path: Path, version_id: int) -> bool:
    store = open_registry(path, readonly=True)
    try:
        return version_id in sizes(store)
    finally:
        store.close()


def test_one_compactor_at_a_time(wide: tuple[SqliteStore, list[VersionRow]], tmp_path: Path) -> None:
    store, _ = wide
    with compacting(store, tmp_path / "fleet.db"), pytest.raises(StateBusy), compacting(store, tmp_path / "fleet.db"):
        pass


def test_it_stops_in_the_middle_and_goes_on(wide: tuple[SqliteStore, list[VersionRow]]) -> None:
    store, rows = wide
    left = [25]

    def stopping() -> bool:
        left[0] -= 1
        return left[0] < 0

    while not sizes(store).get(rows[-1].id):
        left[0] = 25
        Compactor(store, settle=0, behind=1, stopping=stopping, window=10).run()
    require_promise(store, rows)


def test_heads_that_move_fast_are_left_until_they_settle(wide: tuple[SqliteStore, list[VersionRow]]) -> None:
    store, rows = wide
    compactor = Compactor(store, clock=lambda: 30.0, settle=60, behind=1000)  # the versions came at 1
    assert not compactor.waiting() and compactor.run() is None
    assert Compactor(store, clock=lambda: 100.0, settle=60, behind=1000).waiting()
    assert Compactor(store, clock=lambda: 30.0, settle=60, behind=len(rows)).waiting()


@pytest.mark.parametrize("lie", [{"fingerprint": (1, 2)}, {"root": bytes(32)}])
def test_a_liar_behind_a_kept_state_is_refused_as_ever(centre: Centre, device: ScriptedDevice, lie: dict[str, object]) -> None:
    centre.deliver(device, *(device.train() for _ in range(12)))
    centre.rebuild()
    compact(centre.store)
    kept = sizes(centre.store)
    centre.deliver(device, device.train(**lie))
    fresh = Centre(centre.store)  # it holds no state in memory: its way begins at the kept one
    (judged,) = fresh.rebuild()
    assert not judged.ok and "pi-7/digits@13" in judged.reason and ("fingerprint" if "fingerprint" in lie else "root") in judged.reason
    assert sizes(centre.store) == kept and compact(centre.store) == []
    head = centre.store.lineages.head(centre.store.lineages.of("pi-7")[0].id, 1)
    assert head is not None and head.version == 12
