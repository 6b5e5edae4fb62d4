"""A variant's file is laid down once it is proven, and whatever is not right with it leaves the board as it was."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from edgeagent.deploying import places, switching
from edgeagent.settings import reading
from edgeagent.state.beside.rows import Lies
from edgeagent.state.models import check_removable, known_models
from edgecommon import disk
from modelwire.errors import DigestMismatch, DiskUnwritable, LineageError, Malformed, ModelWireError, ShapeMismatch, StateDamaged
from modelwire.update.manifest import manifest_of
from tests.disks import small_disk
from tests.edgeagent.boards import TINY, Rig, centre, make, rig
from tests.edgeagent.centre import Centre, FakeClock
from tests.edgeagent.deploying.bases import FAR, NEAR, know, received, scaled, soaked, staged, train, variant_of, ways
from tests.edgeagent.deploying.whole import check_whole
from tests.edgeagent.state.test_models import added, removed

MODELS = Path(__file__).parents[2] / "models"
MOTION = (MODELS / "motion.tflite").read_bytes()


@pytest.fixture
def c() -> Centre:
    made = centre(FakeClock())
    know(made, NEAR, FAR)
    return made


def refused(r: Rig, file: bytes, variant: object, error: type[ModelWireError], match: str) -> None:
    """See that a file is not staged, by name, and that the board is as it was."""
    before, path = r.lineage.head(), received(r.lineage, file)
    with pytest.raises(error, match=match):
        places.stage(r.lineage, variant, path, number=1, now=1)  # type: ignore[arg-type]
    assert r.lineage.beside.all() == [] and r.lineage.head() == before and path.exists()
    assert not (r.lineage.store.folder / "bases").exists()
    check_whole(r)


def test_a_file_that_is_not_the_variants_is_refused_by_name(tmp_path: Path, c: Centre) -> None:
    with rig(tmp_path / "d", c) as r:
        train(r, 1)
        good = variant_of(NEAR)
        flipped = bytearray(NEAR)
        flipped[len(NEAR) // 2] ^= 1
        for bad in (bytes(flipped), NEAR[:-1], NEAR + b"\0", b"", b"x", FAR):
            refused(r, bad, good, DigestMismatch, "the file of the variant v: the digest does not match")
        for field, lie in (("commit", bytes(32)), ("tree", bytes(32)), ("schema", bytes(32)), ("exact", True)):
            refused(r, NEAR, replace(good, **{field: lie}), Malformed, "its file makes another manifest than it names")
        junk = b"TFL3" + os.urandom(2000)
        refused(r, junk, replace(good, file=_sha(junk), size=len(junk)), ModelWireError, ".")


def _sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def test_a_variant_that_the_samples_do_not_fit_is_refused(tmp_path: Path, c: Centre) -> None:
    with rig(tmp_path / "d", c) as r:
        refused(r, MOTION, variant_of(MOTION), ShapeMismatch, r"the samples of tiny: expected x \[4\], y \[3\], got x \[100, 6\]")


def test_the_base_that_a_model_is_on_is_not_staged(tmp_path: Path, c: Centre) -> None:
    with rig(tmp_path / "d", c) as r:
        refused(r, TINY, variant_of(TINY), LineageError, "tiny is on the base [0-9a-f]{12} already")


def test_it_is_done_once_and_a_newer_one_takes_its_place(tmp_path: Path, c: Centre) -> None:
    with rig(tmp_path / "d", c) as r:
        train(r, 1)
        first = staged(r.lineage, NEAR)
        assert first.place == f"bases/{first.commit.hex()[:12]}" and not (r.lineage.store.folder.parents[1] / "fetched-tiny").exists()
        again = places.stage(r.lineage, variant_of(NEAR), tmp_path / "nothing there", number=4, now=1)
        assert again == replace(first, number=4, at=1)
        assert places.found(r.lineage, first.commit) == again and places.found(r.lineage, manifest_of(TINY).commit) is None
        second = staged(r.lineage, FAR, 5)
        assert [p.name for p in (r.lineage.store.folder / "bases").iterdir()] == [second.commit.hex()[:12]]
        places.unstage(r.lineage)
        assert r.lineage.beside.all() == [] and not (r.lineage.store.folder / "bases").exists()
        places.unstage(r.lineage)
        check_whole(r)


def test_a_staged_base_whose_bytes_changed_is_laid_down_again(tmp_path: Path, c: Centre) -> None:
    with rig(tmp_path / "d", c) as r:
        placed = staged(r.lineage, NEAR)
        (r.lineage.store.folder / placed.place / "base.tflite").write_bytes(b"another")
        staged(r.lineage, NEAR)
        assert r.lineage.beside_store(placed).base() == NEAR


def test_two_bases_whose_names_begin_alike_lie_apart(tmp_path: Path, c: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_NAMED", 1)
    digit = manifest_of(NEAR).commit.hex()[0]
    other = next(f for n in range(1, 500) if manifest_of(f := scaled(1 + n / 256)).commit.hex()[0] == digit)
    with rig(tmp_path / "d", c) as r:
        train(r, 1)
        first = soaked(r.lineage, NEAR)
        switching.confirm(r.lineage, 1)
        second = staged(r.lineage, other)
        assert (first.place, second.place) == (f"bases/{digit}", f"bases/{second.commit.hex()}")
        check_whole(r)


def test_no_room_is_said_before_anything_is_laid_down(tmp_path: Path, c: Centre) -> None:
    with rig(tmp_path / "d", c) as r:
        free = disk.file_system_of(r.lineage.store.folder).free
        with pytest.raises(DiskUnwritable, match="free of") as e:
            places.require_room(r.lineage, free + (1 << 30))
        assert "make room on" in e.value.next_step
        places.require_room(r.lineage, places.room_for(len(NEAR), 1000))


def test_a_full_disk_leaves_the_board_as_it_was(tmp_path: Path, c: Centre) -> None:
    with small_disk(tmp_path / "disk") as small:
        make(small.path / "d")
        with rig(small.path / "d", c) as r:
            path = received(r.lineage, NEAR)
            small.fill(leave=8192)
            with pytest.raises(DiskUnwritable):
                places.stage(r.lineage, variant_of(NEAR), path, number=1, now=1)
            small.free()
            assert r.lineage.beside.all() == [] and path.exists()
            places.stage(r.lineage, variant_of(NEAR), path, number=1, now=1)
            small.fill()
            with pytest.raises(DiskUnwritable):
                soaked_as_staged(r)
            assert [p.lies for p in r.lineage.beside.all()] == [Lies.STAGED]
            small.free()
            soaked_as_staged(r)
        with rig(small.path / "d", c) as r:
            check_whole(r, fresh=True)


def soaked_as_staged(r: Rig) -> None:
    best = ways(r.lineage)[0]
    switching.soak(r.lineage, best.state, best.residual, best.word, now=1)


def test_a_removed_model_takes_its_bases_along(tmp_path: Path, c: Centre) -> None:
    loaded = make(tmp_path / "d")
    added(tmp_path / "d")
    with rig(tmp_path / "d", c) as r:
        lineage = r.device.lineages["b"]
        staged(lineage, NEAR)
        r.device.database.run(
            "INSERT INTO desired (model, number, record, state, since, time) VALUES ('b', 1, x'00', 'staged', 1, 1)"
        )
    assert check_removable(loaded, "b", drop_unsent=True, drop_samples=True).name == "b"
    removed(tmp_path / "d", drop_samples=True)
    assert not (tmp_path / "d" / "state" / "models" / "b").exists()
    with rig(tmp_path / "d", c) as r:
        assert r.device.database.number("SELECT count(*) FROM deployment") == r.device.database.number("SELECT count(*) FROM desired") == 0
    assert [m.name for m in known_models(reading.load(tmp_path / "d" / reading.FILE, environment={}, flags={}))] == ["tiny"]


def test_another_thing_in_the_place_of_a_base_is_named(tmp_path: Path, c: Centre) -> None:
    with rig(tmp_path / "d", c) as r:
        placed = staged(r.lineage, NEAR)
        folder = r.lineage.store.folder / placed.place
    (folder / "a").rmdir()
    (folder / "a").write_bytes(b"")
    with pytest.raises(StateDamaged, match="it is no folder") as e, rig(tmp_path / "d", c):
        pass
    assert e.value.facts["trouble"] == "place-taken"


def test_a_large_base_is_never_held_whole(tmp_path: Path, c: Centre) -> None:
    large = NEAR + bytes(48 << 20)
    with rig(tmp_path / "d", c) as r:
        train(r, 1)
        variant, path = variant_of(large), received(r.lineage, large)
        tracemalloc.start()
        try:
            placed = places.stage(r.lineage, variant, path, number=1, now=1)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 8 << 20 and (r.lineage.store.folder / placed.place / "base.tflite").stat().st_size == len(large)
        places.unstage(r.lineage)
