"""The sample spool: bounded, safe under several writers, split for good."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeagent
from edgeagent.samples.spool import Spool, is_held_out
from edgeagent.system.database import create_database
from modelwire.errors import BadArgument, ConfigError, MissingFile, ModelError, ShapeMismatch
from modelwire.tensors import Codes
from tests.edgeagent.boards import make
from tests.edgeagent.samples.spools import kept_ids, small


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


def test_a_spool_used_on_another_thread_or_after_its_end_is_not_called_damaged(spool: Spool) -> None:
    """What StateDamaged advises is to put the state aside: nobody is told so for a slip in an application."""
    uses = (lambda: spool.append("m", np.zeros(4), 1), lambda: spool.count("m"), lambda: spool.classes("m"), lambda: spool.drop("m", [1]))
    found: list[BaseException] = []

    def elsewhere() -> None:
        for use in uses:
            with pytest.raises(BadArgument, match="thread") as caught:
                use()
            found.append(caught.value)

    with pytest.raises(ModelError, match="the numbers that append and extend return"):
        spool.drop("m", ["seven"])  # type: ignore[list-item]
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(found) == len(uses)
    spool.close()
    for use in uses:
        with pytest.raises(BadArgument, match="closed") as caught:
            use()
        assert "once on each thread" in caught.value.next_step


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


def test_room_is_made_in_the_largest_class(tmp_path: Path) -> None:
    s = small(tmp_path, max_samples=10)
    s.extend("m", np.arange(32, dtype=np.float32).reshape(8, 4), [0, 1, 0, 0, 0, 2, 0, 0])
    s.extend("m", np.arange(32, 52, dtype=np.float32).reshape(5, 4), [0, 1, 2, 1, 2])
    assert {c.cls: c.samples for c in s.classes("m")} == {0: 4, 1: 3, 2: 3}


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
    with pytest.raises(ModelError, match="neither label nor target"):
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


@pytest.mark.slow("starts and kills processes that append")
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


@pytest.mark.slow("starts and kills processes that append")
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


def test_samples_are_forgotten_by_their_ids(spool: Spool) -> None:
    ids = spool.extend("m", np.zeros((6, 4)), [0, 0, 1, 1, 2, 2], contexts={"region": "north"})
    assert spool.drop("m", [ids[0], ids[1], ids[0], 999]) == 2
    assert kept_ids(spool) == ids[2:]
    assert [(c.cls, c.samples) for c in spool.cells("m")] == [(1, 2), (2, 2)]
    assert spool.cards.coming("m", 99).labels == {1: 2, 2: 2}, "no card tells of what was forgotten"
    assert spool.append("m", np.zeros(4), 0) == ids[-1] + 1, "an id is never used again"


# Context, and samples without an answer.


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({"Weather": "rain"}, "1 to 64 of a-z"),
        ({"weather": ""}, "word of 1 to 40"),
        ({"weather": "x" * 41}, "word of 1 to 40"),
        ({"weather": "a\nb"}, "word of 1 to 40"),
        ({"temperature": 21.5}, "word of 1 to 40"),
        ({"board": "pi"}, "the agent tells that itself"),
        ({f"n{i}": "a" for i in range(9)}, "at most 8 names"),
        ([{"weather": "rain"}], "2 samples and 1 contexts"),
    ],
)
def test_a_context_that_no_card_could_tell_is_refused_and_nothing_kept(spool: Spool, context: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        spool.extend("m", np.zeros((2, 4)), [0, 1], contexts=context)
    assert spool.count("m") == 0


def test_equal_contexts_are_one_cell_however_they_are_given(spool: Spool) -> None:
    spool.append("m", np.zeros(4), 0, context={"region": "north", "floor": 3})
    spool.append("m", np.zeros(4), 0, context={"floor": "3", "region": "north"})
    spool.append("m", np.zeros(4), 0, context={"floor": np.int64(3), "region": "north"})
    assert [(c.context, c.samples) for c in spool.cells("m")] == [({"floor": "3", "region": "north"}, 3)]


def test_a_stream_without_answers_is_its_own_target_and_is_stored_once(tmp_path: Path) -> None:
    Spool.create(tmp_path)
    with Spool(tmp_path) as s:
        s.register("waves", (8,), (8,), max_samples=100, max_bytes=1 << 20)
        x = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
        s.extend("waves", x[:29])
        s.append("waves", x[29], context={"site": "a"})
        assert sum(c.bytes for c in s.classes("waves")) == x.nbytes
        training, judging = s.split("waves", 0.2, until=30)
        for side in (training, judging):
            assert np.array_equal(side.x, x[side.ids - 1]) and np.array_equal(side.y, side.x) and not side.labelled
        s.append("waves", x[0], target=x[1])  # the same kind: an answer is an answer


# Releases, counts, and samples that are held.


RELEASE_1 = """
CREATE TABLE model (name TEXT PRIMARY KEY, x_shape TEXT NOT NULL, y_shape TEXT NOT NULL, max_samples INTEGER NOT NULL,
    max_bytes INTEGER NOT NULL);
CREATE TABLE sample (id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL REFERENCES model(name), class INTEGER NOT NULL,
    x BLOB NOT NULL, target BLOB, bytes INTEGER NOT NULL, at INTEGER NOT NULL);
CREATE INDEX sample_by_class ON sample (model, class, id);
CREATE TABLE held (model TEXT NOT NULL, class INTEGER NOT NULL, samples INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (model, class)) WITHOUT ROWID;
"""


def test_a_spool_of_release_1_opens_with_every_sample_and_goes_on_as_a_new_one_would(tmp_path: Path) -> None:
    old = create_database(tmp_path / "samples.db", RELEASE_1, 1)
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    with old.transaction():
        old.run("INSERT INTO model VALUES ('m', '[4]', '[3]', 60, 1048576)")
        for i in range(50):
            old.insert("sample", model="m", **{"class": i % 3}, x=x[i].tobytes(), target=None, bytes=16, at=1_700_000_000 + i)
        old.run("INSERT INTO held SELECT model, class, count(*), sum(bytes) FROM sample GROUP BY model, class")
    old.close()
    (tmp_path / "new").mkdir()
    with small(tmp_path / "new", max_samples=60) as fresh, Spool(tmp_path) as s:
        fresh.extend("m", x, [i % 3 for i in range(50)])
        training, judging = s.split("m", 0.2, until=50)
        assert np.array_equal(training.x, x[training.ids - 1]) and len(training) + len(judging) == s.count("m") == 50
        for one in (s, fresh):
            one.extend("m", x, [0] * 50)
        assert kept_ids(s) == kept_ids(fresh) and s.cells("m") == fresh.cells("m")
        s._db.check()
    with Spool(tmp_path) as s:  # once more: nothing to do
        assert s.count("m") == 60


def test_no_count_reads_the_samples_themselves(spool: Spool) -> None:
    asked: list[str] = []
    spool.extend("m", np.zeros((9, 4)), np.zeros(9, np.int64))
    spool.database.connection.set_trace_callback(asked.append)
    spool.hold("m")
    assert (spool.count("m", after=3), spool.last_id("m"), sum(spool.sides("m", 0.2))) == (6, 9, 9)
    assert spool.cards.begin("m", 2).samples == 2
    spool.database.connection.set_trace_callback(None)
    looked = [sql for sql in asked if "NOT IN" in sql]
    assert len(looked) >= 4
    for sql in looked:
        plan = [row["detail"] for row in spool.database.all(f"EXPLAIN QUERY PLAN {sql}")]
        assert all("COVERING INDEX" in step or "LIST SUBQUERY" in step for step in plan), plan


@settings(max_examples=25, deadline=None)
@given(runs=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30), st.booleans()), min_size=1, max_size=8))
def test_held_samples_stay_and_are_neither_counted_nor_told_twice(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[int, int, bool]]
) -> None:
    with small(tmp_path_factory.mktemp("s"), max_samples=20) as spool:
        spool.extend("m", np.zeros((25, 4)), np.arange(25) % 3)
        until = spool.hold("m")
        held, told = set(spool.ids("m", until=until).tolist()), 25
        assert spool.cards.begin("m", until).samples == 25
        for cls, count, forget in runs:
            spool.extend("m", np.zeros((count, 4)), np.full(count, cls))
            told += count
            if forget and held:
                spool.drop("m", [gone := min(held)])
                held.remove(gone)
            there = {i for side in spool.split("m", 0.2, until=until) for i in side.ids.tolist()}
            assert there == held == set(spool.ids("m", until=until).tolist())
            assert spool.count("m") == sum(spool.sides("m", 0.2)) == sum(c.samples for c in spool.cells("m")) <= 20
        forgotten = sum(forget for *_, forget in runs)
        assert told - forgotten <= spool.cards.coming("m", spool.last_id("m")).samples <= told
        before = spool.count("m")
        spool.release("m")
        assert spool.count("m") == spool.database.one("SELECT count(*) FROM sample")[0] == before


def test_a_spool_that_was_closed_is_no_damaged_one(tmp_path: Path) -> None:
    Spool.create(tmp_path)
    spool = Spool(tmp_path)
    spool.close()
    with pytest.raises(BadArgument, match="it was closed") as raised:
        spool.count("m")
    assert "after it was closed" in raised.value.next_step


@pytest.mark.parametrize(
    ("model", "x", "labels", "said", "way"),
    [
        ("int8", np.zeros((2, 8, 8, 1)), [0, 1], r"rows of 32 codes, .* not from samples of shape \[8, 8, 1\]", "expose"),
        ("int8", np.zeros((2, 31)), [0, 1], r"not from samples of shape \[31\]", "expose"),
        ("int8", np.full((2, 32), 0.5), [0, 1], "int8 codes, whole numbers from -128 to 127", "expose"),
        ("int8", np.full((2, 32), 128), [0, 1], "int8 codes, whole numbers from -128 to 127", "expose"),
        ("int8", np.zeros((2, 32)), [1, 10], "a label is outside 0 to 9", "from 0"),
        ("float", np.zeros((2, 32)), [0, 1], r"expected \[8, 8, 1\], got \[32\]", r"\[samples, 8, 8, 1\].* 64 numbers"),
        ("float", np.zeros((2, 8, 8, 1)), [1, 10], "a label is outside 0 to 9", "from 0"),
    ],
)
def test_whoever_adds_samples_of_another_kind_is_told_of_the_right_one(
    tmp_path: Path, model: str, x: np.ndarray[tuple[int, ...], np.dtype[np.float64]], labels: list[int], said: str, way: str
) -> None:
    Spool.create(tmp_path)
    with Spool(tmp_path) as s:
        s.register("float", (8, 8, 1), (10,), max_samples=100, max_bytes=1 << 20)
        s.register("int8", (32,), (10,), max_samples=100, max_bytes=1 << 20, codes=Codes.CODES)
        with pytest.raises(ModelError, match=said) as found:
            s.extend(model, x, labels)
        assert s.count(model) == 0
        s.extend("float", np.zeros((2, 8, 8)), [0, 1])  # the last axis may be left out: the numbers are in order
    assert re.search(way, found.value.next_step), found.value.next_step
