"""What every BlobStore passes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgecloud.registry.blobs import PARTIAL, BlobStore, DatabaseBlobs, FileBlobs, TieredBlobs
from edgecloud.registry.sqlite.database import open_database
from edgecommon.sqlite import Database
from modelwire.errors import RegistryDamaged
from tests.edgecloud.centre import make_registry

Damage = Callable[[bytes], None]


@pytest.fixture(params=["database", "files", "tiered"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[BlobStore, Callable[[], BlobStore], Damage]]:
    """A store of blobs, a way to open it again, and a way to damage one of its blobs behind its back."""
    registry = make_registry(tmp_path / "fleet.db", None)
    folder = tmp_path / "blobs"
    opened: list[Database] = []

    def again() -> BlobStore:
        database = open_database(tmp_path / "fleet.db", synchronous="OFF")
        opened.append(database)
        kinds = {
            "database": lambda: DatabaseBlobs(database),
            "files": lambda: FileBlobs(folder),
            "tiered": lambda: TieredBlobs(DatabaseBlobs(database), FileBlobs(folder), 1000),
        }
        made: BlobStore = kinds[request.param]()
        return made

    def damage(digest: bytes) -> None:
        registry.database.run("DROP TRIGGER blob_no_update")
        registry.database.run("UPDATE blob SET bytes = zeroblob(length(bytes)) WHERE sha256 = ?", digest)
        for path in folder.glob(f"*/{digest.hex()}"):
            path.write_bytes(b"\0" * path.stat().st_size)

    yield again(), again, damage
    for database in opened:
        database.close()
    registry.close()


SIZES = (0, 1, 999, 1000, 100_000)


def test_what_is_put_comes_back_by_its_digest_also_after_opening_anew(blobs: tuple[BlobStore, Callable[[], BlobStore], Damage]) -> None:
    store, again, _ = blobs
    data = [bytes([n % 251]) * n for n in SIZES]
    digests = [store.put(d) for d in data]
    assert digests == [hashlib.sha256(d).digest() for d in data]
    for reader in (store, again()):
        assert [reader.get(d) for d in digests] == data
        assert all(reader.has(d) for d in digests)
        assert sorted(reader.digests()) == sorted(digests)


def test_a_piece_of_it_comes_back_and_no_more_than_is_there(blobs: tuple[BlobStore, Callable[[], BlobStore], Damage]) -> None:
    store, _, _ = blobs
    for size in (10, 5000):
        data = bytes(n % 251 for n in range(size))
        digest = store.put(data)
        for start, length in ((0, size), (3, 4), (size - 1, 100), (size, 5), (0, 0)):
            assert store.piece(digest, start, length) == data[start : start + length]
    with pytest.raises(RegistryDamaged, match="gone"):
        store.piece(bytes(32), 0, 1)


def test_putting_the_same_bytes_again_changes_nothing(blobs: tuple[BlobStore, Callable[[], BlobStore], Damage]) -> None:
    store, _, _ = blobs
    assert store.put(b"abc" * 1000) == store.put(b"abc" * 1000)
    assert len(list(store.digests())) == 1


def test_missing_bytes_are_an_error_by_name(blobs: tuple[BlobStore, Callable[[], BlobStore], Damage]) -> None:
    store, _, _ = blobs
    assert not store.has(bytes(32))
    with pytest.raises(RegistryDamaged, match="gone"):
        store.get(bytes(32))


@pytest.mark.parametrize("size", [10, 5000])
def test_changed_bytes_are_an_error_by_name(blobs: tuple[BlobStore, Callable[[], BlobStore], Damage], size: int) -> None:
    store, _, damage = blobs
    digest = store.put(b"x" * size)
    damage(digest)
    with pytest.raises(RegistryDamaged, match="changed"):
        store.get(digest)


@pytest.mark.parametrize("left", [b"", b"x" * 4000, b"ab" * 2000 + b"more", b"ab" * 1999])
def test_a_file_whose_bytes_a_disk_has_changed_is_written_anew_by_who_has_them(tmp_path: Path, left: bytes) -> None:
    store, data = FileBlobs(tmp_path / "blobs"), b"ab" * 2000
    digest = store.put(data)
    path = store._path(digest)
    before = path.stat().st_ino
    assert store.put(data) == digest and path.stat().st_ino == before, "what is right stays"
    path.chmod(0o600)
    path.write_bytes(left)
    assert store.put(data) == digest and store.get(digest) == data
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileBlobs(tmp_path / "blobs")
    digest = hashlib.sha256(b"y" * 5000).digest()

    class PowerCut(BaseException):
        pass

    def power_cut(_handle: int) -> None:
        raise PowerCut

    monkeypatch.setattr("os.fsync", power_cut)
    with pytest.raises(PowerCut):
        store.put(b"y" * 5000)
    monkeypatch.undo()
    assert not store.has(digest)
    assert [p.name.endswith(PARTIAL) for p in (tmp_path / "blobs").glob("*/*")] == [True]
    assert store.sweep(before=0) == 0  # not while it may be somebody's
    assert store.sweep(before=1e12) == 1
    assert store.put(b"y" * 5000) == digest
    assert store.get(digest) == b"y" * 5000


def test_large_bytes_lie_in_files_and_small_ones_in_the_database(tmp_path: Path) -> None:
    registry = make_registry(tmp_path / "fleet.db", None, files_from=1000)
    small, large = registry.blobs.put(b"s" * 999), registry.blobs.put(b"l" * 1000)
    assert [p.name for p in (tmp_path / "fleet.db.blobs").glob("*/*")] == [large.hex()]
    assert [tuple(row) for row in registry.database.all("SELECT sha256 FROM blob")] == [(small,)]
    registry.close()


def test_a_file_that_was_there_already_is_made_durable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = FileBlobs(tmp_path / "blobs")
    blobs.put(b"x" * 100)
    synced: list[Path] = []
    monkeypatch.setattr("edgecloud.registry.blobs.flush_folder", synced.append)
    blobs.put(b"x" * 100)  # whoever wrote it may have been killed before it was
    assert set(synced) >= {tmp_path / "blobs", next((tmp_path / "blobs").iterdir())}
