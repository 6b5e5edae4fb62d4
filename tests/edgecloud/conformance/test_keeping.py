"""What every Store passes that keeps states and policies: derived rows that may go, and policies that stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecloud.registry import CompactedRow, HeadRow, PolicyRow, SqliteStore, Status, create_registry, open_registry, state_folder
from modelwire.errors import LineageError, RegistryDamaged
from tests.edgecloud.conformance.test_store import BASE, IDENTITY, KEY, STATE, TRUST, chain

POLICY = PolicyRow(1, "2 states", "all", b"", 5)


@pytest.fixture(params=[1, 1 << 20], ids=["in files", "in the database"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[SqliteStore, int, list[int]]]:
    """A store, a lineage, and the ids of six verified versions."""
    path = tmp_path / "fleet.db"
    create_registry(path, fleet="orchard", identity=IDENTITY, trust=TRUST, now=1, files_from=request.param)
    store = open_registry(path, synchronous="OFF")
    store.bases.add(BASE)
    store.devices.add("pi-7", KEY, 10)
    lineage = store.lineages.ensure("pi-7", "digits").id
    store.lineages.grant(lineage, STATE, BASE.commit, 11)
    ids = chain(store, lineage, 6, snapshots=(4,))
    for one in ids:
        store.versions.verify(one)
    yield store, lineage, ids
    store.close()


def test_a_state_is_kept_once_given_back_and_dropped(kept: tuple[SqliteStore, int, list[int]]) -> None:
    store, lineage, ids = kept
    assert store.states.get(ids[0]) is None and store.states.totals() == (0, 0)
    with store.transaction():
        row = store.states.put(ids[0], lineage, b"a state", 7)
    assert store.states.put(ids[0], lineage, b"another", 8) == row == store.states.row(ids[0])
    store.states.put(ids[2], lineage, b"a longer state", 8)
    assert store.states.get(ids[0]) == b"a state" and store.states.totals() == (2, 21)
    assert [one.version_id for one in store.states.of(lineage)] == [ids[0], ids[2]]
    assert store.states.sizes(ids) == {ids[0]: 7, ids[2]: 14} and store.states.largest() == {BASE.commit: 14}
    store.states.drop([ids[0], ids[1]])
    assert store.states.get(ids[0]) is None and store.states.row(ids[0]) is None and store.states.totals() == (1, 14)
    with pytest.raises(LineageError):
        store.states.put(10_000, lineage, b"of no version", 8)


def test_files_that_no_row_knows_are_swept_and_others_stay(kept: tuple[SqliteStore, int, list[int]]) -> None:
    store, lineage, ids = kept
    folder = state_folder(store.database.path)
    store.states.put(ids[0], lineage, b"stays", 7)
    store.states.put(ids[1], lineage, b"goes", 7)
    in_files = folder.exists()
    store.states.drop([ids[1]])
    if in_files:
        (folder / "00").mkdir(exist_ok=True)
        (folder / "00" / "half.partial").write_bytes(b"cut off")
    assert store.states.sweep() == (2 if in_files else 0)
    assert store.states.get(ids[0]) == b"stays" and len(list(folder.glob("??/*"))) == in_files
    try:
        with store.transaction():
            store.states.put(ids[2], lineage, b"taken back", 7)
            raise InterruptedError
    except InterruptedError:
        pass
    assert store.states.get(ids[2]) is None and store.states.sweep() == in_files


def test_bytes_that_have_changed_are_never_given_back(kept: tuple[SqliteStore, int, list[int]]) -> None:
    store, lineage, ids = kept
    store.states.put(ids[0], lineage, b"a state", 7)
    for path in state_folder(store.database.path).glob("??/*"):
        path.write_bytes(b"A state")
    store.database.run("DROP TRIGGER state_no_update")
    store.database.run("UPDATE state SET bytes = ? WHERE bytes IS NOT NULL", b"A state")
    with pytest.raises(RegistryDamaged, match="kept state"):
        store.states.get(ids[0])


def test_ways_are_read_upward_and_downward_the_nearest_first(kept: tuple[SqliteStore, int, list[int]]) -> None:
    store, lineage, ids = kept
    store.states.put(ids[1], lineage, b"a state", 7)
    up = store.states.above(ids[4], 10)
    assert [one.id for one in up] == ids[4::-1] and [one.state_size for one in up] == [0, 0, 0, 7, 0]
    assert up[-1].parent_id is None and up[1].kind == "snapshot" and all(one.status is Status.VERIFIED for one in up)
    assert [one.id for one in store.states.above(ids[4], 2)] == [ids[4], ids[3]]
    assert [one.id for one in store.states.below(ids[0], 10)] == [ids[1], ids[2]]  # 4 is a snapshot: nothing leads back over it
    assert [one.id for one in store.states.below(ids[3], 1)] == [ids[4]] and store.states.below(ids[5], 9) == []


def test_what_is_due_is_what_moved_since_or_was_for_another_policy(kept: tuple[SqliteStore, int, list[int]]) -> None:
    store, lineage, ids = kept
    head = store.lineages.head(lineage, 1)
    assert head is not None
    assert store.states.due(0, 9, 100, 1) == []  # its head is the base still
    row = store.versions.by_id(ids[5])
    assert row is not None
    assert store.lineages.move_head(lineage, 1, head.commit, HeadRow(row.id, row.commit, row.version))
    assert store.states.due(0, 9, 100, 1) == [CompactedRow(lineage, 1, 0, 0)]
    assert store.states.due(0, 9, 5, 6) == [CompactedRow(lineage, 1, 0, 0)]  # it came later, and is that far ahead
    assert store.states.due(0, 9, 5, 7) == [] == store.states.due(0, 9, 100, 1, (lineage, 1))
    assert [one.id for one in store.states.following(lineage, 1, ids[1], 3)] == ids[2:5]
    done = CompactedRow(lineage, 1, 0, ids[5])
    store.states.set_compacted(done)
    assert store.states.compacted(lineage, 1) == done and store.states.due(0, 9, 100, 1) == []
    assert store.states.due(1, 9, 100, 1) == [done]


def test_policies_are_kept_for_ever_and_the_newest_is_in_force(kept: tuple[SqliteStore, int, list[int]]) -> None:
    store, _, _ = kept
    assert store.policies.current() == PolicyRow(0, "2 states", "all", b"", 0) and store.policies.all() == []
    later = PolicyRow(2, "200 ms", "all", b"sealed", 6)
    store.policies.add(POLICY)
    store.policies.add(later)
    assert store.policies.current() == later and store.policies.all() == [POLICY, later]
    for wrong in ("UPDATE policy SET keep = 'daily'", "DELETE FROM policy"):
        with pytest.raises(LineageError):
            store.database.run(wrong)
    with pytest.raises(LineageError):
        store.policies.add(POLICY)


def test_rates_are_those_measured_last(kept: tuple[SqliteStore, int, list[int]]) -> None:
    store, _, _ = kept
    store.policies.set_rates({"weight": 0.5, "update": 0.25}, 7)
    store.policies.set_rates({"weight": 0.125}, 8)
    assert store.policies.rates() == {"weight": (0.125, 8), "update": (0.25, 7)}
