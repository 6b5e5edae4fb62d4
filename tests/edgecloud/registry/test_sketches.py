"""Sketches in the registry: kept, found by base, missed where there are none, and gone with their device."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecloud.registry import ErasureRow
from modelwire.errors import LineageError, ModelWireError
from tests.edgecloud.bulk import Mix, make


def test_sketches_are_kept_and_found_by_base(tmp_path: Path) -> None:
    store = make(tmp_path / "fleet.db", 3, 4, mix=Mix(refused=0.0, stored=1))
    base = store.bases.all()[0].commit
    verified = store.sketches.missing(0, 100)
    assert len(verified) == 9 and store.sketches.missing(verified[3], 2) == verified[4:6]
    with store.transaction():
        for n, id in enumerate(verified[:-1]):
            store.sketches.put(id, bytes([n]) * 1024)
        store.sketches.put(verified[0], b"\x99" * 1024)  # another value takes its place
    assert store.sketches.get(verified[0]) == b"\x99" * 1024 and store.sketches.get(verified[-1]) is None
    assert store.sketches.of(verified) == {id: store.sketches.get(id) for id in verified[:-1]}
    assert store.sketches.missing(0, 100) == verified[-1:]
    newest = {v.lineage: v.id for v in map(store.versions.by_id, verified) if v is not None}
    assert store.sketches.heads(base) == [(id, store.sketches.get(id)) for id in sorted(newest.values())]
    assert [id for id, _ in store.sketches.every(base)] == verified and store.sketches.every(bytes(32)) == []
    assert [id for id, _ in store.sketches.every(base, verified[1], 3)] == verified[2:5]
    root = store.versions.by_id(verified[2]).root  # type: ignore[union-attr]
    assert store.sketches.with_root(root) == [verified[2]] and store.sketches.with_root(root[:8] + bytes(24)) == []
    assert store.sketches.drop() == 8 and store.sketches.get(verified[0]) is None


def test_a_sketch_of_another_size_or_of_no_version_is_refused(tmp_path: Path) -> None:
    store = make(tmp_path / "fleet.db", 1, 2, mix=Mix(refused=0.0))
    for id, counts in ((1, bytes(1023)), (1, bytes(1025)), (77, bytes(1024))):
        with pytest.raises((ModelWireError, LineageError)), store.transaction():
            store.sketches.put(id, counts)
    assert store.sketches.get(1) is None


def test_sketches_go_with_their_device(tmp_path: Path) -> None:
    store = make(tmp_path / "fleet.db", 2, 3, mix=Mix(refused=0.0))
    ids = store.sketches.missing(0, 100)
    for id in ids:
        store.sketches.put(id, bytes(1024))
    device = store.devices.names()[0]
    lineages = {lineage.id for lineage in store.lineages.of(device)}
    mine = [id for id in ids if (row := store.versions.by_id(id)) is not None and row.lineage in lineages]
    store.erasures.begin(ErasureRow(1, device, b"sealed"))
    while store.erasures.delete_some(device, 100):
        pass
    assert mine and store.sketches.of(mine) == {} and len(store.sketches.of(ids)) == len(ids) - len(mine)
