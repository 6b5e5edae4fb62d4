"""The sample spool: bounded, safe under several writers, split for good."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeagent
from edgeagent.sample_files import read
from edgeagent.spool import Spool, is_held_out
from modelwire.errors import ConfigError, MissingFile, ModelError, ShapeMismatch

from .boards import make


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return small(tmp_path)


def small(folder: Path, *, max_samples: int = 100, max_bytes: int = 1 << 20) -> Spool:
    Spool.create(folder)
    made = Spool(folder)
    made.register("m", (4,), (3,), max_samples=max_samples, max_bytes=max_bytes)
    return made


def test_what_was_appended_comes_back_in_order(spool: Spool) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 4)).astype(np.float32), rng.integers(0, 3, 50)
    ids = [spool.append("m", x[i], int(y[i])) for i in range(50)]
    training, judging = spool.split("m", 0.2, until=ids[-1])
    held = [is_held_out(i, 0.2) for i in ids]
    assert np.array_equal(judging.x, x[held]) and np.array_equal(training.x, x[~np.array(held)])
    assert np.array_equal(judging.y, np.eye(3, dtype=np.float32)[y[held]]) and judging.labelled
    assert spool.sides("m", 0.2) == (len(training), len(judging))
    assert sum(c.samples for c in spool.classes("m")) == spool.count("m") == 50


@given(start=st.integers(1, 10**9), share=st.sampled_from([0.05, 0.1, 0.2, 0.25, 0.5]), stride=st.integers(1, 12))
def test_the_held_out_share_is_even_whatever_the_order_of_the_classes(start: int, share: float, stride: int) -> None:
    ids = range(start, start + 400 * stride, stride)
    kept = sum(is_held_out(i, share) for i in ids)
    assert abs(kept - 400 * share) < 25


def test_a_sample_stays_on_its_side_when_others_come_and_go(tmp_path: Path) -> None:
    s = small(tmp_path, max_samples=60)
    rng = np.random.default_rng(1)
    s.extend("m", rng.normal(size=(60, 4)), rng.integers(0, 3, 60))
    _, before = s.split("m", 0.3, until=10**9)
    s.extend("m", rng.normal(size=(30, 4)), rng.integers(0, 3, 30))
    _, after = s.split("m", 0.3, until=60)
    old = {row.tobytes() for row in before.x}
    assert {row.tobytes() for row in after.x} <= old


def test_the_oldest_of_the_most_frequent_class_goes_first(tmp_path: Path) -> None:
    s = small(tmp_path, max_samples=10)
    s.extend("m", np.arange(32, dtype=np.float32).reshape(8, 4), [0, 1, 0, 0, 0, 2, 0, 0])
    s.extend("m", np.arange(32, 52, dtype=np.float32).reshape(5, 4), [0, 1, 2, 1, 2])
    assert {c.cls: c.samples for c in s.classes("m")} == {0: 4, 1: 3, 2: 3}
    training, judging = s.split("m", 0.01, until=10**9)
    kept = sorted(int(v) for v in np.concatenate([training.x, judging.x])[:, 0])
    assert kept == [4, 16, 20, 24, 28, 32, 36, 40, 44, 48]


def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    s = small(tmp_path, max_samples=1000, max_bytes=16 * 7)
    s.extend("m", np.zeros((50, 4)), [0, 1] * 25)
    assert s.count("m") == 7 and sum(c.bytes for c in s.classes("m")) == 16 * 7


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), max_size=30))
def test_the_kept_counts_are_those_of_the_table(tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[int, int]]) -> None:
    s = small(tmp_path_factory.mktemp("s"), max_samples=12)
    for cls, n in runs:
        s.extend("m", np.ones((n, 4)), [cls] * n)
        counted = {r["class"]: r["n"] for r in s._db.all("SELECT class, count(*) n FROM sample GROUP BY class")}
        assert {c.cls: c.samples for c in s.classes("m")} == counted
        assert s.count("m") <= 12
    s.close()


@pytest.mark.parametrize(
    ("x", "labels", "error", "said"),
    [
        (np.zeros((2, 5)), [0, 0], ShapeMismatch, "expected"),
        (np.full((2, 4), np.nan), [0, 0], ModelError, "not a finite"),
        (np.full((2, 4), 1e300), [0, 0], ModelError, "not a finite"),
        (np.zeros((2, 4)), [0, 3], ModelError, "outside 0 to 2"),
        (np.zeros((2, 4)), [0, -1], ModelError, "outside 0 to 2"),
        (np.zeros((2, 4)), [0.5, 1], ModelError, "whole class numbers"),
        (np.zeros((2, 4)), [0], ModelError, "2 samples and 1 labels"),
        (np.array([["a"] * 4] * 2), [0, 0], ModelError, "not numbers"),
    ],
)
def test_a_sample_that_does_not_suit_the_model_is_refused_and_nothing_kept(
    spool: Spool, x: np.ndarray[tuple[int, int], np.dtype[np.float64]], labels: list[float], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        spool.extend("m", x, np.array(labels))
    assert spool.count("m") == 0


def test_targets_and_labels_do_not_mix(spool: Spool) -> None:
    spool.append("m", np.zeros(4), target=np.array([0.2, 0.3, 0.5]))
    with pytest.raises(ModelError, match="don't mix"):
        spool.append("m", np.zeros(4), 1)
    with pytest.raises(ModelError, match="one of the two"):
        spool.append("m", np.zeros(4))
    training, judging = spool.split("m", 0.5, until=10)
    assert not training.labelled and len(training) + len(judging) == 1


def test_an_unknown_model_is_named_with_those_that_there_are(spool: Spool) -> None:
    with pytest.raises(ConfigError, match="no model 'x' on this device; it has m"):
        spool.append("x", np.zeros(4), 0)


def test_the_spool_opens_by_settings_file_by_folder_and_by_state(tmp_path: Path) -> None:
    make(tmp_path / "d", device__dir="kept")
    for place in (tmp_path / "d" / "edgeagent.toml", tmp_path / "d", tmp_path / "d" / "kept"):
        with edgeagent.Spool(place) as s:
            s.append("tiny", np.zeros(4), 2)
    with edgeagent.Spool(str(tmp_path / "d")) as s:
        assert s.count("tiny") == 3
    with pytest.raises(MissingFile):
        edgeagent.Spool(tmp_path)


WRITER = """
import sys, numpy as np
from edgeagent import Spool
s = Spool(sys.argv[1])
for i in range(int(sys.argv[2])):
    s.append("m", np.full(4, i), i % 3)
    print(i, flush=True)
"""


def test_several_processes_append_at_once_and_none_is_lost(tmp_path: Path) -> None:
    with small(tmp_path, max_samples=1000) as s:
        writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), "40"], stdout=subprocess.DEVNULL) for _ in range(3)]
        while any(w.poll() is None for w in writers):
            s.count("m")
            s.append("m", np.zeros(4), 0)
            time.sleep(0.01)
        assert [w.wait() for w in writers] == [0, 0, 0]
        assert s.count("m") >= 120
        assert {c.cls for c in s.classes("m")} == {0, 1, 2}


def test_a_killed_writer_leaves_every_sample_whose_append_returned(tmp_path: Path) -> None:
    with small(tmp_path, max_samples=100_000) as s:
        told = 0
        for _ in range(3):
            w = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), "100000"], stdout=subprocess.PIPE, text=True)
            assert w.stdout is not None
            said = [w.stdout.readline() for _ in range(30)]
            w.kill()
            said += w.stdout.readlines()
            w.wait()
            told += len([line for line in said if line.endswith("\n")])
        assert told <= s.count("m") <= told + 3, "at most the one that was under way more"
        s._db.check()


def test_sample_files_are_read_as_written(tmp_path: Path) -> None:
    x, y = np.arange(12, dtype=np.float32).reshape(3, 4), np.array([0, 1, 2])
    np.savez(tmp_path / "a.npz", x=x, y=y)
    np.save(tmp_path / "b.npy", np.column_stack([x, y]))
    (tmp_path / "c.csv").write_text("p,q,r,s,class\n" + "\n".join(",".join(map(str, [*r, c])) for r, c in zip(x, y, strict=True)) + "\n")
    for name in ("a.npz", "b.npy", "c.csv"):
        gx, gy, targets = read(tmp_path / name, label=None, model="m")
        assert np.array_equal(gx, x) and gy is not None and np.array_equal(gy, y) and targets is None
    np.save(tmp_path / "d.npy", x)
    _, ones, _ = read(tmp_path / "d.npy", label=1, model="m")
    assert ones is not None and ones.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.npz", b"PK\x03\x04rubbish"),
        ("b.npy", b"\x93NUMPY rubbish"),
        ("c.csv", b"1,2\n3\n"),
        ("d.csv", b"1,2\n3,x\n"),
        ("e.txt", b"1"),
        ("f.csv", b""),
    ],
)
def test_a_file_that_holds_no_samples_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError):
        read(tmp_path / name, label=None, model="m")


def test_a_pickle_in_a_file_of_samples_is_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "evil.npz", x=np.array([{"a": 1}], dtype=object), y=np.zeros(1))
    for name in ("evil.npy", "evil.npz"):
        with pytest.raises(ConfigError, match=r"pickle|[Oo]bject"):
            read(tmp_path / name, label=None, model="m")
