"""What every Store passes of thinning and erasing: what may go, what may not, and what is left."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edgecloud.registry import (
    Base,
    ErasureRow,
    HeadRow,
    NewVersion,
    SquashRow,
    Store,
    ThinnedRow,
    TrustRow,
    VersionRow,
    create_registry,
    open_registry,
)
from modelwire.errors import LineageError
from modelwire.wire.signing import Fleet

KEY, STATE = b"k" * 32, b"s" * 16


def digest(n: int) -> bytes:
    return n.to_bytes(32, "big")


BASE = Base(digest(1), "digits", b"manifest", digest(2), 3, 10)


@pytest.fixture(params=["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A registry with the device pi-7, whose four versions are verified."""
    path = tmp_path / f"{request.param}.db"
    create_registry(path, fleet="orchard", identity=Fleet(b"r" * 32, b"i" * 16), trust=TrustRow(1, b"signed"), now=1)
    made = open_registry(path, synchronous="OFF")
    made.bases.add(BASE)
    made.devices.add("pi-7", KEY, 1)
    lineage = made.lineages.ensure("pi-7", "digits")
    made.lineages.grant(lineage.id, STATE, BASE.commit, 1)
    before: VersionRow | None = None
    for n in range(1, 5):
        parent = before.commit if before is not None else BASE.commit
        fresh = NewVersion(
            lineage.id, 1, n, "delta", digest(10 + n), parent, before.id if before is not None else None, BASE.commit, digest(20 + n),
            bytes(16), made.blobs.put(bytes([n])), 1, 100, b"",
        )  # fmt: skip
        before = made.versions.add(fresh)
        assert made.lineages.move_head(lineage.id, 1, parent, HeadRow(before.id, before.commit, n))
        made.versions.verify(before.id)
    return made


def test_what_is_thinned_stays_so_and_its_first_proof_too(store: Store) -> None:
    one, two, three, four = store.versions.of(1)
    assert store.thinnings.of(1) == {} and store.thinnings.get(one.id) is None and store.thinnings.squash(two.id) is None
    squash = SquashRow(three.id, None, "delta", store.blobs.put(b"squash"), 6)
    store.thinnings.put(squash)
    store.thinnings.drop(ThinnedRow(three.id, False, 5, b"proof"))
    for row in (one, two):
        store.thinnings.drop(ThinnedRow(row.id, True, 5, b"proof"))
    store.thinnings.drop(ThinnedRow(two.id, False, 6, b"another"))
    assert store.thinnings.of(1) == {one.id: True, two.id: True, three.id: False}
    assert store.thinnings.get(two.id) == ThinnedRow(two.id, True, 5, b"proof")
    assert store.thinnings.squashes(1) == {three.id: squash} and store.thinnings.squash(three.id) == squash
    assert store.thinnings.nearest(1, 2) == (None, 3) and store.thinnings.nearest(1, 4) == (3, None)
    assert [link.id for link in store.versions.chain(four)] == [three.id, four.id]
    better = SquashRow(three.id, None, "snapshot", store.blobs.put(b"better"), 6)
    store.thinnings.put(better)
    assert store.thinnings.squash(three.id) == better
    store.thinnings.drop(ThinnedRow(three.id, True, 7, b"later"))
    assert store.thinnings.squash(three.id) is None and store.thinnings.get(three.id) == ThinnedRow(three.id, True, 7, b"proof")


def test_no_bytes_go_that_somebody_needs(store: Store) -> None:
    one, *_, four = store.versions.of(1)
    with pytest.raises(LineageError):
        store.blobs.drop(one.blob)
    for needed in (four.blob, BASE.file):
        assert store.thinnings.needed(needed)
        with pytest.raises(LineageError):
            store.thinnings.discard(needed)
    store.thinnings.drop(ThinnedRow(one.id, True, 5, b"proof"))
    assert not store.thinnings.needed(one.blob)
    store.thinnings.discard(one.blob)
    store.thinnings.discard(one.blob)
    assert store.thinnings.discards(10) == [one.blob]
    store.blobs.drop(one.blob)
    store.blobs.drop(one.blob)
    store.thinnings.discarded(one.blob)
    assert not store.blobs.has(one.blob) and store.thinnings.discards(10) == []


def test_of_a_device_under_erasure_all_rows_go_in_pieces_and_of_others_none(store: Store) -> None:
    store.devices.add("pi-8", b"o" * 32, 1)
    store.annotations.add("device", "pi-70", "another one's", 1)
    with pytest.raises(LineageError):
        store.erasures.delete_some("pi-7", 2)
    store.erasures.begin(ErasureRow(5, "pi-7", b"sealed"))
    assert store.erasures.under_way() == ["pi-7"] and store.erasures.all() == [ErasureRow(5, "pi-7", b"sealed")]
    pieces = 0
    while store.erasures.delete_some("pi-7", 2):
        pieces += 1
    assert pieces > 4 and store.devices.names() == ["pi-8"] and store.lineages.all() == []
    assert len(store.annotations.of("device", "pi-70")) == 1
    assert sorted(store.thinnings.discards(10)) == sorted(hashlib.sha256(bytes([n])).digest() for n in range(1, 5))
    with pytest.raises(LineageError):
        store.erasures.delete_some("pi-8", 2)
    store.erasures.finish(5)
    assert store.erasures.under_way() == [] and store.erasures.all() == [ErasureRow(5, None, b"sealed")]


def test_an_entry_changes_only_while_a_device_is_erased_and_keeps_its_place(store: Store) -> None:
    (first, *_), end = list(store.log.after(0)), store.log.end()
    with pytest.raises(LineageError):
        store.erasures.replace_entry(first.number, b"left")
    store.erasures.begin(ErasureRow(5, "pi-7", b"sealed"))
    head = next(row for row in store.log.after(0) if row.subject == digest(14))
    assert next(row.number for row in store.log.about(digest(14))) == head.number
    store.erasures.replace_entry(head.number, b"left")
    assert next(row.entry for row in store.log.after(head.number - 1)) == b"left" and store.log.link(head.number) == head.link
    assert head.number not in [row.number for row in store.log.about(digest(14))] and end is not None
    store.erasures.finish(5)
    with pytest.raises(LineageError):
        store.erasures.replace_entry(first.number, b"left")
