"""Downloads over sources that answer anything, with restarts between: they end, within their budget, with the file or with a reason."""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeagent.fetching.download import Download
from edgeagent.fetching.ranges import Crossed, Got, Miss, Missed, RangeAsk
from edgeagent.fetching.tasks import LEAF, FetchTask
from edgeagent.system.backoff import Backoff
from modelwire.deploying.reports import Code
from modelwire.errors import DiskUnwritable, LinkError, WireError
from modelwire.wire import parts
from modelwire.wire.records import Transfer

from .files import Wanted

WANTED = Wanted(4 * LEAF + 9)
EXTRA = 300  # bytes of each answer's head
WORST = 150 * 1024  # that one answer may cost more than was thought
WORDS = st.sampled_from(["good", "good", "good", "wrong", "again", "gone", "other", "unranged", "dear", "short"])


class Scripted:
    """A source that answers as it was told to, and honestly at the end of its script."""

    def __init__(self, script: list[str], asked: list[RangeAsk]) -> None:
        self._script, self.asked = script, asked
        self._next: Got | Missed | None = None

    @property
    def ready(self) -> bool:
        return self._next is not None

    def ask(self, ask: RangeAsk) -> None:
        self.asked.append(ask)
        word = self._script.pop(0) if self._script else "good"
        size = ask.stop - ask.start
        data = (WANTED.leaves if ask.url.endswith(".leaves") else WANTED.data)[ask.start : ask.stop]
        honest = Got(data, Crossed(EXTRA, size))
        misses = {"again": Miss.AGAIN, "gone": Miss.GONE, "other": Miss.WRONG, "unranged": Miss.UNRANGED}
        if word in misses:
            self._next = Missed(misses[word], word, Crossed(EXTRA, EXTRA))
        elif word == "dear":
            self._next = Missed(Miss.AGAIN, word, Crossed(EXTRA, size + WORST))
        elif word == "short":
            self._next = Got(data[:-1], Crossed(EXTRA, size))
        else:
            self._next = Got(bytes(size), honest.crossed) if word == "wrong" else honest

    def answer(self) -> Got | Missed | None:
        said, self._next = self._next, None
        return said

    def close(self) -> None:
        self._next = None


def opened(folder: Path, task: FetchTask, source: Callable[[], Scripted] = lambda: pytest.fail("no address"), **more: object) -> Download:
    backoff = Backoff(10, 100, random.Random(1))
    d = Download(folder, task, source=source, ask=lambda have: None, backoff=backoff, **more)  # type: ignore[arg-type]
    d.connected(0.0)
    return d


@given(
    st.lists(WORDS, max_size=60), st.integers(1, 3), st.integers(1, 6), st.sampled_from([0, 3 * WANTED.size, WANTED.size + 20_000, 100]),
    st.sets(st.integers(0, 80)),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
@example(["gone", "unranged", "good", "again", "good"], 1, 3, 0, set())
@example(["gone", "wrong", "good", "good", "good", "good"], 1, 5, 3 * WANTED.size, {3, 5})
@example(["dear"] * 60, 2, 6, 0, set(range(80)))
def test_any_script_of_answers_and_restarts_comes_to_an_end(
    script: list[str], addresses: int, tries: int, most: int, restarts: set[int]
) -> None:
    asked: list[RangeAsk] = []
    task = WANTED.task(*(f"http://s{n}/m.tflite" for n in range(addresses)), tries=tries, most=most)
    with tempfile.TemporaryDirectory() as name:
        now, d = 0.0, opened(Path(name), task, lambda: Scripted(script, asked))
        for turn in range(400):
            if d.settled:
                break
            if turn in restarts:
                d.cancel()
                d = opened(Path(name), task, lambda: Scripted(script, asked))
            assert d.due < float("inf"), "it waits for nothing"
            now = max(now, d.due)
            d.tick(now)
        assert d.settled, "it has no end"
        assert (d.file is None) != (d.failure is None)
        assert d.file is None or d.file.read_bytes() == WANTED.data
        assert d.failure is None or (d.failure.code in (Code.GONE, Code.BUDGET, Code.FILE) and d.failure.reason)
        # What was asked for and whose answer a restart has cost is counted as well.
        assert d.progress.spent <= d.progress.allowed + WORST + LEAF
        assert d.progress.failed <= max(tries, addresses) + addresses
        d.cancel()
        again = opened(Path(name), task, lambda: pytest.fail("it is settled"))
        assert d.failure is None or (again.failure is not None and again.failure.code == d.failure.code), "and stays so"


def test_nothing_is_asked_for_that_the_budget_can_not_bring_to_its_end(tmp_path: Path) -> None:
    asked: list[RangeAsk] = []
    d = opened(tmp_path / "a", WANTED.task("http://s/m.tflite", most=WANTED.size - 1), lambda: Scripted([], asked))
    while not d.settled:
        d.tick(0)
    assert d.failure is not None and d.failure.code == Code.BUDGET and not asked
    script = ["good"] + ["dear", "good"] * 9
    now, d = 0.0, opened(tmp_path / "b", WANTED.task("http://s/m.tflite", tries=9, most=2 * WANTED.size), lambda: Scripted(script, asked))
    while not d.settled:
        now = max(now, d.due)
        d.tick(now)
    assert d.failure is not None and d.failure.code == Code.BUDGET
    assert 2 * WANTED.size - 2 * WORST < d.progress.spent <= d.progress.allowed + WORST and d.progress.failed < 9


def test_an_answer_that_the_disk_does_not_take_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[RangeAsk] = []
    d = opened(tmp_path, WANTED.task("http://s/m.tflite"), lambda: Scripted([], asked))
    now = 0.0
    while len(asked) < 3:
        d.tick(now)
    keep = d._incoming.keep

    def full(index: int, data: bytes) -> None:
        raise DiskUnwritable(path="x", reason="full", disk="it", fix="make room")

    monkeypatch.setattr(d._incoming, "keep", full)
    for _ in range(5):
        with pytest.raises(DiskUnwritable):
            d.tick(now)
        assert d.due > now, "not over and over"
        now = d.due
    monkeypatch.setattr(d._incoming, "keep", keep)
    while not d.settled:
        d.tick(now)
    assert d.file is not None and len(asked) == len({(a.url, a.start) for a in asked})


def test_a_board_that_is_off_line_asks_for_nothing_and_spends_no_tries(tmp_path: Path) -> None:
    asked: list[RangeAsk] = []
    script = ["good", "good", "again"]
    d = Download(
        tmp_path, WANTED.task("http://s/m.tflite", tries=1), source=lambda: Scripted(script, asked), ask=lambda have: None,
        backoff=Backoff(10, 100, random.Random(1)),
    )  # fmt: skip
    for now in range(5):
        d.tick(now)
    assert (d.due, asked, d.progress.waits) == (float("inf"), [], "the link")
    d.connected(10.0)
    for _ in range(2):
        d.tick(10.0)
    assert len(asked) == 2 and d.due < 10
    d.lost()
    d.tick(10.0)
    assert d.progress.here == LEAF and len(asked) == 2, "what was asked for has come"
    assert (d.due, d.progress.waits) == (float("inf"), "the link")
    d.connected(20.0)
    d.tick(20.0)
    d.lost()
    d.tick(21.0)
    assert d.progress.failed == 0 and not d.settled, "a server that is silent while nothing is"
    d.connected(30.0)
    while not d.settled:
        d.tick(max(30.0, d.due))
    assert d.file is not None


# In parts.


def part_of(index: int, data: bytes = WANTED.data) -> bytes:
    return parts.describe(data, fleet="orchard", device="pi-7", model="digits", at=1, part=96 * 1024, what="base").cut(index)


def take(d: Download, message: bytes, now: float = 0.0) -> bool:
    return d.arrived(parts.parse(message), len(message), now)


def looked(folder: Path, task: FetchTask, ask: Callable[[bytes], None]) -> Download:
    d = Download(folder, task, source=lambda: pytest.fail("no address"), ask=ask, backoff=Backoff(10, 100, random.Random(1)))
    d.tick(0)
    assert d.due == float("inf"), "there is no link"
    d.connected(0)
    return d


def test_parts_are_asked_for_again_when_none_come_and_at_once_when_all_have(tmp_path: Path) -> None:
    asked: list[bytes] = []
    d = looked(tmp_path, WANTED.task(), asked.append)
    for now in (0.0, 1.0, 15.0):
        if now >= d.due:
            d.tick(now)
    assert asked == [b"\0", b"\0"]
    assert not take(d, part_of(0, b"another file" * 9000))
    for index in (4, 2, 1):  # that were on their way from before
        assert take(d, part_of(index), 20.0)
    assert d.due > 20
    assert take(d, part_of(0), 20.0) and d.due == 20, "the one that was asked for"
    d.lost()
    assert d.due == float("inf") and take(d, part_of(3), 21.0)
    while not d.settled:
        d.tick(22.0)
    assert d.file is not None and d.file.read_bytes() == WANTED.data


def test_a_slow_link_is_not_asked_for_a_part_that_is_on_its_way(tmp_path: Path) -> None:
    asked: list[bytes] = []
    d, now = looked(tmp_path, WANTED.task(), asked.append), 0.0
    for index in range(5):  # 70 s each: 7 kbit/s
        end = now + 70.0
        while d.due < end:
            now = max(now, d.due)
            d.tick(now)
        now = end
        take(d, part_of(index), now)
    assert len(asked) <= 3 + 4, "the first one more than once, and the others once each"


def test_a_part_that_is_not_proven_is_refused_and_nothing_of_it_stays(tmp_path: Path) -> None:
    d = looked(tmp_path, WANTED.task(), lambda have: None)
    good = part_of(1)
    for at in (40, len(good) - 1, 46):
        wrong = bytearray(good)
        wrong[at] ^= 1
        with contextlib.suppress(WireError):
            assert not take(d, bytes(wrong))
    assert d.progress.here == 0
    assert take(d, good) and d.progress.here == LEAF


def test_a_transfer_that_can_not_be_the_base_s_is_refused(tmp_path: Path) -> None:
    d = looked(tmp_path, WANTED.task(), lambda have: None)
    task = WANTED.task()
    about = ("orchard", "pi-7", "digits", 1)
    assert not d.described(Transfer(*about, bytes(32), task.size, LEAF, "base", task.tree, b""), 0)
    right = Transfer(*about, task.file, task.size, LEAF, "base", task.tree, b"")
    for other in ({"size": task.size + 1}, {"tree": bytes(32)}, {"what": "update"}, {"part_size": 1000}):
        with pytest.raises(WireError):
            d.described(replace(right, **other), 0)
    take(d, part_of(0))
    assert d.described(right, 0) and d.progress.here == LEAF


def test_another_cut_whose_whole_is_another_file_ends_it(tmp_path: Path) -> None:
    wrong, task = bytes(WANTED.size), WANTED.task()
    out = parts.describe(wrong, fleet="orchard", device="pi-7", model="digits", at=1, part=40_000, what="base")
    d = looked(tmp_path, task, lambda have: None)
    said = Transfer("orchard", "pi-7", "digits", 1, task.file, task.size, out.transfer.part_size, "base", out.transfer.tree, b"")
    assert d.described(said, 0)
    for index in range(out.count):
        message = bytearray(out.cut(index))
        message[8:40] = task.file
        assert take(d, bytes(message))
    while not d.settled:
        d.tick(0)
    assert d.failure is not None and d.failure.code == Code.FILE and d.file is None


def test_parts_that_come_over_and_over_end_at_the_budget(tmp_path: Path) -> None:
    d = looked(tmp_path, WANTED.task(most=2 * WANTED.size), lambda have: None)
    while not d.settled:
        take(d, part_of(0))
        d.tick(d.due)
    assert d.failure is not None and d.failure.code == Code.BUDGET


def test_a_word_that_can_not_be_sent_is_said_again(tmp_path: Path) -> None:
    def broken(have: bytes) -> None:
        raise LinkError(broker="b", reason="down")

    d = looked(tmp_path, WANTED.task(), broken)
    with pytest.raises(LinkError):
        d.tick(0)
    assert 0 < d.due < 20


def test_the_host_of_no_address_is_never_asked_and_the_link_never_where_there_is_one(tmp_path: Path) -> None:
    d = opened(tmp_path, WANTED.task("http://s/m.tflite"), lambda: Scripted(["gone"] * 9, []))
    d.connected(0)
    assert not take(d, part_of(0))
    while not d.settled:
        d.tick(max(0.0, d.due))
    assert d.failure is not None and d.failure.code == Code.GONE and not take(d, part_of(0))
