"""What is found of a variant before it is served: it is judged on held-out samples, and its process may do anything."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from edgeagent.deploying import places
from edgeagent.deploying.means import Probed
from edgeagent.deploying.probing import FEW, ProbeRules, ProbeRun, held_out, probe
from edgeagent.samples.spool import Samples
from edgeagent.training.batches import Trainable
from modelwire.deploying.reports import Code
from modelwire.errors import NotTrainable
from modelwire.tensors import F32
from modelwire.tflite.file import write_weights
from tests.edgeagent.boards import TINY, ScriptedModel, centre, fill, rig
from tests.edgeagent.centre import FakeClock

from .deployed import other_base, variant_of

RULES = ProbeRules(slower=0, worse=0, margin=0.02)
RIGHT = np.eye(3, dtype=np.float32)


def samples(count: int = 60, *, labelled: bool = True) -> Samples:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(count, 4)).astype(np.float32)
    return Samples(x, RIGHT[x[:, :3].argmax(1)] if count else np.zeros((0, 3), np.float32), labelled and bool(count))


class Answering(ScriptedModel):
    """A model that is right on a share of the samples, as its file says."""

    def __init__(self, share: float, *, nan: bool = False, slow: float = 0.0) -> None:
        super().__init__(TINY)
        self._share, self._nan, self._slow = share, nan, slow

    def evaluate(self, x: F32) -> F32:
        time.sleep(self._slow)
        right = RIGHT[x[:, :3].argmax(1)]
        wrong = np.roll(right, 1, axis=1)
        out = np.where((np.arange(len(x)) < self._share * len(x))[:, None], right, wrong)
        return np.full_like(out, np.nan) if self._nan else (out * 0.9 + 0.1 / 3).astype(np.float32)


def tried(models: dict[bytes, Trainable | Exception], of: Samples, rules: ProbeRules = RULES, *, both: bool = True) -> Probed:
    """Probe what was learned (file b) and the variant as it is (file c) beside what is served (file a)."""

    def opened(file: bytes, name: str) -> Trainable:
        model = models[file]
        if isinstance(model, Exception):
            raise model
        return model

    ways = [("kept", lambda: b"b"), ("anew", lambda: b"c")] if both else [("anew", lambda: b"c")]
    return probe("tiny", lambda: b"a", ways, of, rules, opened)


def test_what_was_learned_goes_on_unless_the_variant_as_it_is_does_better_by_more_than_the_margin() -> None:
    better = tried({b"a": Answering(0.5), b"b": Answering(0.9), b"c": Answering(0.8)}, samples())
    assert (better.learned, better.before, better.after, better.stop) == ("kept", 0.5, 0.9, None)
    f = better.figures
    assert (f.rows, f.better, f.worse, f.accuracy, f.learned) == (60, 24, 0, True, "kept") and f.micros > 0 and f.micros_before > 0
    assert tried({b"a": Answering(0.5), b"b": Answering(0.2), b"c": Answering(0.8)}, samples()).learned == "anew"
    assert tried({b"a": Answering(0.5), b"b": Answering(0.2, nan=True), b"c": Answering(0.8)}, samples()).learned == "anew"


def test_it_is_held_against_what_is_served() -> None:
    strict = ProbeRules(slower=0, worse=500, margin=0.02)
    models: dict[bytes, Trainable | Exception] = {b"a": Answering(0.9), b"b": Answering(0.8), b"c": Answering(0.8)}
    worse = tried(models, samples(), strict)
    assert worse.stop is not None and worse.stop.code == Code.WORSE and "instead of 90.0%" in worse.stop.reason
    assert worse.figures.worse == 6 and tried(models, samples(), RULES).stop is None
    few = tried(models, samples(FEW - 1), strict)
    assert few.stop is None and f"only {FEW - 1} held-out samples" in few.note
    none = tried(models, samples(0), strict)
    assert none.stop is None and (none.before, none.after, none.figures.rows) == (None, None, 0)


def test_losses_are_told_where_there_are_no_classes() -> None:
    found = tried({b"a": Answering(0.9), b"b": Answering(0.8), b"c": Answering(0.5)}, samples(labelled=False))
    assert not found.figures.accuracy and found.figures.rows == 60 and found.before is not None and found.after is not None
    assert found.before < found.after and (found.figures.better, found.figures.worse) == (0, 0)


def test_one_that_does_not_run_or_gives_no_numbers_stops() -> None:
    bad: dict[bytes, Trainable | Exception]
    for error, code in (
        (NotTrainable(model="tiny", reason="an operator"), Code.LOAD), (RuntimeError("invoke"), Code.LOAD),
        (MemoryError(), Code.TOO_MUCH_MEMORY),
    ):  # fmt: skip
        bad = {b"a": Answering(0.9), b"b": error, b"c": error}
        found = tried(bad, samples())
        assert found.stop is not None and found.stop.code == code
    found = tried({b"a": Answering(0.9), b"c": Answering(0.9, nan=True)}, samples(), both=False)
    assert found.stop is not None and found.stop.code == Code.NOT_FINITE
    found = tried({b"a": RuntimeError("broken"), b"b": Answering(0.9), b"c": Answering(0.8)}, samples())
    assert found.stop is None and found.before is None and "can't be compared" in found.note


def test_a_slow_one_stops_only_where_it_was_slow_twice() -> None:
    rules = ProbeRules(slower=300, worse=0, margin=0.02)
    fast, slow = Answering(0.9), Answering(0.9, slow=0.02)
    found = tried({b"a": fast, b"c": slow}, samples(), rules, both=False)
    assert found.stop is not None and found.stop.code == Code.SLOW and found.figures.micros > 3 * found.figures.micros_before
    assert tried({b"a": slow, b"c": fast}, samples(), rules, both=False).stop is None


# The other process.


def run(way: str, *, limit: int = 0, seconds: int = 60) -> Probed:
    commit = way.encode().ljust(32, b".")
    started = ProbeRun(
        Path("none.toml"), "tiny", commit, RULES, limit=limit, module="tests.edgeagent.deploying.bad_child", seconds=seconds
    )
    try:
        return polled(started)
    finally:
        started.close()


def polled(started: ProbeRun) -> Probed:
    while (found := started.poll()) is None:
        time.sleep(0.01)
    return found


@pytest.mark.parametrize(("way", "code", "says"), [
    ("crashes", Code.CRASH, "signal SIGSEGV"), ("raises", Code.CRASH, "exit code 1"), ("babbles", Code.CRASH, "exit code 0"),
    ("quiet", Code.CRASH, "exit code 0"),
])  # fmt: skip
def test_a_process_that_goes_wrong_is_a_crash(way: str, code: str, says: str) -> None:
    found = run(way)
    assert found.stop is not None and found.stop.code == code and says in found.stop.reason and not found.lost


def test_one_that_is_killed_from_outside_is_lost() -> None:
    assert run("killed").lost


def test_one_that_eats_the_memory_is_ended() -> None:
    found = run("eats", limit=200 << 20)
    assert found.stop is not None and found.stop.code == Code.TOO_MUCH_MEMORY


@pytest.mark.slow("a process that takes a second of the processor, on a machine that may be a busy one")
@pytest.mark.parametrize("way", ["spins", "hangs"])
def test_one_that_never_ends_is_ended(way: str) -> None:
    found = run(way, seconds=1)
    assert found.stop is not None and found.stop.code == Code.SLOW


def test_closing_ends_it_at_once() -> None:
    started = ProbeRun(Path("none.toml"), "tiny", b"hangs".ljust(32, b"."), RULES, limit=0, module="tests.edgeagent.deploying.bad_child")
    assert started.poll() is None
    started.close()
    assert started._child is not None and started._child.poll() is not None


def test_the_real_one_opens_both_with_the_runtime_of_the_board(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock), train__held_out="0.5") as r:
        fill(r.device, 80)
        good, bad = other_base(), write_weights(TINY, {n: w * np.float32(0) for n, w in r.lineage.load().state.named().items()})
        for number, file in enumerate((good, bad)):
            variant, received = variant_of(file), tmp_path / f"{number}.tflite"
            received.write_bytes(file)
            places.stage(r.lineage, variant, received, number=number + 1, now=0)
            started = ProbeRun(r.device.path, "tiny", variant.commit, RULES, limit=0)
            found = polled(started)
            started.close()
            assert found.stop is None, found
            assert found.learned == "anew" and found.figures.rows == len(held_out(r.device.spool, "tiny", 0.5, 512)) > FEW
            assert found.figures.micros > 0 and found.before is not None and found.after is not None
