"""Probe sets: one encoding each, strict bytes, hostile files refused by name, contexts, and the table that keeps them."""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecloud.probes import sets
from edgecloud.registry import SqliteStore
from modelwire.errors import BadArgument, LineageError, Malformed, MissingFile, ModelWireError, NonFinite, ShapeMismatch, TooLarge

RNG = np.random.default_rng(0)
X = RNG.random((12, 4))
Y = RNG.integers(0, 3, 12)
TAGS = {"light": ["night", "day", ""] * 4, "region": ["alps"] * 12}


def made() -> sets.ProbeSet:
    return sets.probe_set(X, Y, TAGS)


def test_a_set_comes_back_from_its_bytes_and_equal_sets_have_equal_ones() -> None:
    for one in (made(), sets.probe_set(X), sets.probe_set(X, X), sets.probe_set(X, X[:, 0]), sets.probe_set(X > 0.5, Y.astype(np.uint8))):
        again = sets.decode(one.encoded)
        assert (again.encoded, again.digest, again.kind, again.tags) == (one.encoded, one.digest, one.kind, one.tags)
        assert np.array_equal(again.x, one.x) and not again.x.flags.writeable
    assert sets.probe_set(X.astype(np.float32), Y.astype(np.int8), dict(reversed(TAGS.items()))).digest == made().digest  # type: ignore[arg-type]
    others = (sets.probe_set(X, Y), sets.probe_set(X, Y[::-1], TAGS), sets.probe_set(-X, Y, TAGS))
    assert len({one.digest for one in (made(), *others)}) == 4


def test_contexts_choose_rows_and_one_that_nobody_has_names_those_that_there_are() -> None:
    probes = made()
    assert probes.contexts() == ["light=day", "light=night", "region=alps"]
    assert probes.rows("region=alps,light=night").tolist() == [0, 3, 6, 9] and probes.rows().tolist() == [*range(12)]
    part = probes.part(probes.rows("light=day"))
    assert len(part) == 4 and set(part.tags["light"]) == {"day"} and np.array_equal(part.x, probes.x[1::3])
    for odd in ("light=fog", "snow=yes", "light=night,region=coast"):
        with pytest.raises(BadArgument, match="no row") as refused:
            probes.rows(odd)
        assert "light=day, light=night, region=alps" in refused.value.next_step
    for odd in ("light", "light=", "=night", "light=a,light=b"):
        with pytest.raises(BadArgument, match="no context"):
            probes.rows(odd)
    with pytest.raises(BadArgument, match="no row") as refused:
        sets.probe_set(X).rows("light=day")
    assert "no tags" in refused.value.next_step


@pytest.mark.parametrize(
    ("x", "y", "tags", "error"),
    [
        (np.full((3, 4), np.nan), None, {}, NonFinite),
        (np.full((3, 4), 1e300), None, {}, NonFinite),
        (X, np.full((12, 2), np.inf), {}, NonFinite),
        (np.zeros((0, 4)), None, {}, ShapeMismatch),
        (np.zeros((3, 0)), None, {}, ShapeMismatch),
        (np.zeros(3), None, {}, ShapeMismatch),
        (np.zeros((1,) * 7), None, {}, ShapeMismatch),
        (np.zeros((2, 2), complex), None, {}, ShapeMismatch),
        (np.array([["a", "b"]]), None, {}, ShapeMismatch),
        (X, Y[:5], {}, ShapeMismatch),
        (X, np.array(["a"] * 12), {}, ShapeMismatch),
        (X, Y > 1, {}, ShapeMismatch),
        (X, Y - 5, {}, BadArgument),
        (X, Y + 5000, {}, BadArgument),
        (X, np.full(12, 2**63, np.uint64), {}, BadArgument),
        (np.zeros((sets.ROWS_MAX + 1, 1), np.int8), None, {}, TooLarge),
        (np.broadcast_to(np.int8(0), (2, sets.BYTES_MAX // 8 + 1)), None, {}, TooLarge),
        (X, Y, {"light": ["night"]}, ShapeMismatch),
        (X, Y, {"Light!": ["night"] * 12}, Malformed),
        (X, Y, {"light": ["a\nb"] * 12}, Malformed),
        (X, Y, {"light": ["a=b"] * 12}, Malformed),
        (X, Y, {"light": ["a,b"] * 12}, Malformed),
        (X, Y, {"light": ["x" * 41] * 12}, Malformed),
        (X, Y, {f"t{i}": [""] * 12 for i in range(17)}, TooLarge),
        (np.zeros((65, 4)), None, {"n": [str(i) for i in range(65)]}, TooLarge),
    ],
)
def test_rows_that_are_none_are_refused_by_name(x: Any, y: Any, tags: Any, error: type[ModelWireError]) -> None:
    with pytest.raises(error) as refused:
        sets.probe_set(x, y, tags, what="night.npz")
    assert "night.npz" in refused.value.message or error is Malformed
    assert refused.value.next_step or "Light!" in tags
    assert len(tags) != 1 or error is not TooLarge or "rows" not in refused.value.next_step


def test_bytes_cut_or_changed_anywhere_are_refused_or_another_set() -> None:
    whole = made().encoded
    for end in range(len(whole)):
        with pytest.raises(ModelWireError):
            sets.decode(whole[:end])
    with pytest.raises(Malformed, match="1 bytes too many"):
        sets.decode(whole + b"\0")
    for place in range(len(whole)):
        for bit in (1, 128):
            bent = bytearray(whole)
            bent[place] ^= bit
            with contextlib.suppress(ModelWireError):
                assert sets.decode(bytes(bent)).encoded == bytes(bent)


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_a_file_of_arrays_is_read_with_its_tags_by_either_name(tmp_path: Path) -> None:
    words = np.array(TAGS["light"])
    one = sets.read_npz(npz(tmp_path / "a.npz", x=X, y=Y, **{"tag.light": words}))
    assert one.digest == sets.read_npz(npz(tmp_path / "b.npz", x=X, y=Y, **{"context.light": words})).digest
    assert sets.read_npz(npz(tmp_path / "c.npz", x=X, **{"tag.hour": np.arange(12)})).contexts()[0] == "hour=0"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_files_are_refused_and_nothing_in_them_is_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    trap = np.empty(1, object)
    trap[0] = Trap()
    bad = tmp_path / "bad.npz"
    np.savez(bad, x=trap)
    with pytest.raises(BadArgument, match=r"no \.npz"):
        sets.read_npz(bad)
    assert not (tmp_path / "sprung").exists()
    for data in (b"", b"PK\x03\x04", b"junk" * 100, npz(tmp_path / "c.npz", x=X).read_bytes()[:-30]):
        bad.write_bytes(data)
        with pytest.raises(BadArgument):
            sets.read_npz(bad)
    with zipfile.ZipFile(bad, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("x.npy", "w") as inside:  # unpacks to a GiB
        for _ in range(1024):
            inside.write(bytes(1 << 20))
    with pytest.raises(TooLarge):
        sets.read_npz(bad)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 1 << 20)})
    with zipfile.ZipFile(bad, "w") as packed:
        packed.writestr("x.npy", head.getvalue())
    with pytest.raises(BadArgument):
        sets.read_npz(bad)
    for second in ("x", "x.npy"):  # numpy would read one of them and say nothing
        with zipfile.ZipFile(npz(bad, x=X), "a") as packed:
            packed.writestr(second, packed.read("x.npy"))
        with pytest.raises(BadArgument, match="holds 'x' twice"):
            sets.read_npz(bad)
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(BadArgument):
        sets.read_npz(tmp_path / "pipe.npz")
    with pytest.raises(BadArgument):
        sets.read_npz(tmp_path)
    with pytest.raises(MissingFile):
        sets.read_npz(tmp_path / "none.npz")
    for arrays, error in (({"y": Y}, BadArgument), ({"x": X, "z": X}, BadArgument), ({"x": X, "tag.a": X}, ShapeMismatch),
                          ({"x": X, "tag.a": np.array(["n"] * 12), "context.a": np.array(["n"] * 12)}, BadArgument)):  # fmt: skip
        with pytest.raises(error):
            sets.read_npz(npz(bad, **arrays))


def test_a_set_is_kept_write_once_and_removing_it_deletes_its_bytes(store: SqliteStore) -> None:
    probes = made()
    row = sets.add(store, "night", probes, now=5)
    assert sets.add(store, "night", probes, now=6) == row and store.probes.all() == [row] and row.shape == (4,)
    assert sets.load(store, "night").digest == row.digest == probes.digest
    assert sets.of_model(store, "any", (4,)) == [row] and sets.of_model(store, "any", (5,)) == []
    with pytest.raises(BadArgument, match="already"):
        sets.add(store, "night", sets.probe_set(X, Y), now=7)
    twin = sets.add(store, "twin", probes, now=8)
    for sql in ("UPDATE probe SET rows = 1", "DELETE FROM probe", "DELETE FROM probe_bytes", "UPDATE probe_bytes SET bytes = x''"):
        with pytest.raises(LineageError):
            store.database.run(sql)
    store.probes.remove(twin, 9)
    assert store.probes.data(row.digest) is not None and [one.name for one in store.probes.all(removed=True)] == ["night", "twin"]
    store.probes.remove(row, 10)
    assert store.probes.data(row.digest) is None and store.database.number("SELECT count(*) FROM probe_bytes") == 0
    with pytest.raises(BadArgument, match="no probe set 'night'"):
        sets.load(store, "night")
    assert sets.add(store, "night", sets.probe_set(X, Y), now=11).digest != row.digest  # the name is free
    assert store.problems() == []


def test_rows_that_no_base_takes_are_refused_with_what_it_takes(store: SqliteStore) -> None:
    with pytest.raises(ShapeMismatch, match=r"expected \[4\] of digits, got \[5\]"):
        sets.add(store, "n", sets.probe_set(np.zeros((2, 5))), now=1)
    with pytest.raises(BadArgument, match="the label 3 is outside the 3 classes"):
        sets.add(store, "n", sets.probe_set(X, np.full(12, 3)), now=1)
    with pytest.raises(ShapeMismatch, match="a row of y"):
        sets.add(store, "n", sets.probe_set(X, np.zeros((12, 2))), now=1)
    with pytest.raises(ShapeMismatch, match="a row of y") as refused:
        sets.add(store, "n", sets.probe_set(X, Y.astype(float)), now=1)
    assert "astype(int)" in refused.value.next_step
    with pytest.raises(Malformed):
        sets.add(store, "../n", made(), now=1)
    with pytest.raises(BadArgument, match="no device has a model 'door'"):
        sets.add(store, "n", made(), model="door", now=1)
    assert sets.add(store, "n", sets.probe_set(X, np.zeros((12, 3))), now=1).rows == 12


def test_a_model_of_one_output_tells_two_classes() -> None:
    yes_or_no = [sets.ProbeInput("door", (4,), (1,))]
    assert sets.check_fits(sets.probe_set(X, np.arange(12) % 2), yes_or_no, "n") == yes_or_no
    with pytest.raises(BadArgument, match="the label 2 is outside the 2 classes"):
        sets.check_fits(sets.probe_set(X, np.arange(12) % 3), yes_or_no, "n")
