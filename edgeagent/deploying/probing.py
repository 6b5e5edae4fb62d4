"""Tries a variant on the board's own held-out samples, in a process of its own with limits: what crashes or fills the memory is that one.

Both sides are here: `ProbeRun` in the agent, which never waits for it, and `main` in the other process, which says on its standard output
what it found. What is served meanwhile is what was served.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from edgeagent.board.budget import mib
from edgeagent.board.sensors import Sensors
from edgeagent.samples.spool import Samples, Spool, is_held_out
from edgeagent.system.children import go_first
from edgeagent.system.clock import Clock
from edgeagent.system.deferred import defer
from edgeagent.training import guard
from edgeagent.training.batches import Trainable
from edgeagent.training.guard import Score
from modelwire.deploying.reports import Code, DeviceFigures
from modelwire.errors import ModelError, ModelWireError
from modelwire.tensors import F32

from .means import Probed, Stop

defer("subprocess")  # loaded with the first variant that is probed
import subprocess  # noqa: E402

FEW = 8  # held-out samples: with fewer, nothing is held against a variant but that it does not run
MOST = 512  # held-out samples that are tried, the newest
CALLS, TIMED = 33, 2.0  # inferences whose time is taken, and seconds after which it is enough of them
NOISE = 200  # microseconds by which an inference differs for reasons of its own: below it none is slow
SECONDS = 900  # of processor time, and twice as many by the clock
_LOOK = 0.02  # seconds between two looks at the other process's memory
_MODULE = "edgeagent.deploying.probe_child"
OpenModel = Callable[[bytes, str], Trainable]


@dataclass(frozen=True, slots=True)
class ProbeRules:
    """What a variant must keep to on this board."""

    slower: int  # hundredths of the served model's time for an inference; 0: not judged
    worse: int  # ten-thousandths of accuracy that it may lose; 0: not judged here
    margin: float  # of the guard, by which what was learned may be worse than the variant as it is
    most: int = MOST


@dataclass(frozen=True, slots=True)
class _Tried:
    """What one file made of the samples."""

    score: Score | None  # None: there are no samples
    finite: bool
    micros: int  # of an inference, the median


class ProbeRun:
    """One run of the other process."""

    def __init__(
        self, settings: Path, model: str, commit: bytes, rules: ProbeRules, *, limit: int, anew: bool = False, module: str = _MODULE,
        seconds: int = SECONDS,
    ) -> None:  # fmt: skip
        """settings: the path of edgeagent.toml; limit: bytes of memory at which it is ended, 0 for none; anew: nothing learned is tried."""
        self._limit, self._seconds, self._clock = limit, seconds, Clock()
        self._ended_for: Stop | None = None
        self._closed = False
        words = [str(settings), model, commit.hex(), json.dumps({**asdict(rules), "anew": anew, "seconds": seconds, "parent": os.getpid()})]
        command = [sys.executable, "-m", module, *words]
        self._child: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        try:
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        except OSError as e:
            self._ended_for = Stop(Code.CRASH, f"no process could be started to try it: {e.strerror}")
            return
        self._thread = threading.Thread(target=self._watch, name=f"probing {model}", daemon=True)
        self._thread.start()

    def poll(self) -> Probed | None:
        """Return what was found; None while it works. Asked once more after that, it says the same."""
        child = self._child
        if child is None:
            return Probed(stop=self._ended_for)
        if child.poll() is None:
            return None
        assert self._thread is not None and child.stdout is not None
        self._thread.join()
        if self._ended_for is not None:
            return Probed(stop=self._ended_for)
        if not child.stdout.closed:
            with child.stdout:
                self._said = child.stdout.read(64 * 1024)
        return _read(self._said, child.returncode, self._seconds)

    def close(self) -> None:
        """End it."""
        self._closed = True
        if self._child is not None and self._thread is not None and self._child.stdout is not None:
            self._child.kill()
            self._child.wait()
            self._thread.join()
            self._child.stdout.close()

    def _watch(self) -> None:
        """End the other process where it takes more than it may. In a thread: a loop that serves a link looks too seldom."""
        sensors, began, child = Sensors(), self._clock.monotonic(), self._child
        assert child is not None
        while child.poll() is None and not self._closed:
            if self._limit and sensors.resident(child.pid) > self._limit:
                self._ended_for = Stop(Code.TOO_MUCH_MEMORY, f"it took more than {mib(self._limit)} MiB of memory while it was tried")
            elif self._clock.monotonic() - began > 2 * self._seconds:
                self._ended_for = Stop(Code.SLOW, f"it was not tried to the end in {2 * self._seconds} s")
            if self._ended_for is not None:
                child.kill()
                child.wait()
                return
            self._clock.sleep(_LOOK)


def _read(said: bytes, code: int, seconds: int) -> Probed:
    if code == -signal.SIGXCPU:
        return Probed(stop=Stop(Code.SLOW, f"it was not tried to the end in {seconds} s of processor time"))
    if code == -signal.SIGKILL:  # by the kernel for want of memory, or by a person
        return Probed(lost=True)
    try:
        found = json.loads(said.splitlines()[-1])
        stop = Stop(str(found["code"]), str(found["reason"])) if found["code"] else None
        figures = DeviceFigures(**{k: v for k, v in found["figures"].items() if k in DeviceFigures.__slots__})
        return Probed(str(found["learned"]), _number(found["before"]), _number(found["after"]), figures, stop, note=str(found["note"]))
    except (ValueError, LookupError, TypeError, AttributeError):
        how = f"signal {signal.Signals(-code).name}" if -64 < code < 0 else f"exit code {code}"
        return Probed(stop=Stop(Code.CRASH, f"the process that tried it ended with {how}"))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


# In the other process.


def said_of(probed: Probed) -> str:
    """Return what was found as the line that `ProbeRun` reads."""
    stop, f = probed.stop or Stop("", ""), probed.figures
    figures = {
        "accuracy": f.accuracy, "rows": f.rows, "better": f.better, "worse": f.worse, "micros": f.micros, "micros_before": f.micros_before,
        "learned": f.learned,
    }  # fmt: skip
    before, after = (v if v is not None and np.isfinite(v) else None for v in (probed.before, probed.after))
    return json.dumps({
        "learned": probed.learned, "before": before, "after": after, "figures": figures, "code": stop.code, "reason": stop.reason,
        "note": probed.note,
    })  # fmt: skip


def confine(seconds: int) -> None:
    """Let this process end after so much processor time; where memory is short it goes first, and leaves no core."""
    import resource

    go_first()
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds if hard == resource.RLIM_INFINITY else min(seconds, hard), hard))


def held_out(spool: Spool, model: str, share: float, most: int) -> Samples:
    """Return the newest samples of a model that judge and are never trained on, at most so many."""
    ids = [i for i in spool.ids(model, until=spool.last_id(model)).tolist() if is_held_out(i, share)]
    return spool.picked(model, ids[-most:])


def probe(
    model: str, served: Callable[[], bytes], candidates: Iterable[tuple[str, Callable[[], bytes]]], samples: Samples, rules: ProbeRules,
    open_model: OpenModel, clock: Clock | None = None,
) -> Probed:  # fmt: skip
    """Return what the samples say of a variant beside what is served.

    candidates: what may be served of it, (word, its file) each, what was learned before the variant as it is; at least one.
    """
    clock = clock or Clock()
    now_served = _try_variant(open_model, served(), model, samples, clock)
    before, note = (None, now_served.reason) if isinstance(now_served, Stop) else (now_served, "")
    note = f"what is served now can't be compared with: {note}" if note else ""
    word, after, file = "", None, b""
    for learned, make in candidates:
        found = _try_variant(open_model, make(), model, samples, clock)
        if isinstance(found, Stop):
            return Probed(learned, _of(before), None, _figures(before, None, learned, samples), found, note=note)
        if after is None or _beats(found, after, rules.margin):
            word, after, file = learned, found, make()
    assert after is not None, "no candidate was given"
    probed = Probed(word, _of(before), _of(after), _figures(before, after, word, samples), note=note or _note(samples))
    if not after.finite:
        return replace(probed, stop=Stop(Code.NOT_FINITE, "its output on held-out samples is not finite"))
    if before is not None and _is_slow(before.micros, after.micros, rules):
        again = _try(open_model, served(), model, samples, clock), _try(open_model, file, model, samples, clock)
        was, now = min(before.micros, again[0].micros), min(after.micros, again[1].micros)
        probed = replace(probed, figures=replace(probed.figures, micros=now, micros_before=was))
        if _is_slow(was, now, rules):
            why = f"an inference takes {now} microseconds instead of {was}, more than {rules.slower / 100:g} times as many"
            return replace(probed, stop=Stop(Code.SLOW, why))
    lost = _lost(before, after)
    if rules.worse and lost is not None and len(samples) >= FEW and lost > rules.worse / 10_000:
        why = f"it is right on {_of(after):.1%} of {len(samples)} held-out samples instead of {_of(before):.1%}"
        return replace(probed, stop=Stop(Code.WORSE, why))
    return probed


def _try_variant(open_model: OpenModel, file: bytes, model: str, samples: Samples, clock: Clock) -> _Tried | Stop:
    try:
        return _try(open_model, file, model, samples, clock)
    except MemoryError:
        return Stop(Code.TOO_MUCH_MEMORY, "there was not the memory to run it")
    except ModelError as e:
        return Stop(Code.LOAD, e.message)
    except (RuntimeError, ValueError, SystemError) as e:  # of a runtime: it could be opened, and does not run
        return Stop(Code.LOAD, f"the runtime does not run it: {' '.join(str(e).split())[:300]}")


def _try(open_model: OpenModel, file: bytes, model: str, samples: Samples, clock: Clock) -> _Tried:
    opened = open_model(file, model)
    try:
        x = samples.x if len(samples) else np.zeros((1, *samples.x.shape[1:]), np.float32)
        output = opened.evaluate(x)
        score = guard.score(output, samples) if len(samples) else None
        return _Tried(score, bool(np.isfinite(output).all()), _micros(opened, x[:1], clock))
    finally:
        opened.close()


def _micros(model: Trainable, x: F32, clock: Clock) -> int:
    """Return the median microseconds of one inference, the first of which is not counted."""
    call = getattr(model, "infer", model.evaluate)
    call(x)
    taken: list[float] = []
    began = clock.monotonic()
    while len(taken) < CALLS and (not taken or clock.monotonic() - began < TIMED):
        start = clock.monotonic()
        call(x)
        taken.append(clock.monotonic() - start)
    return max(1, round(sorted(taken)[len(taken) // 2] * 1e6))


def _beats(other: _Tried, first: _Tried, margin: float) -> bool:
    """Return whether the variant as it is goes before what was learned: that is worse by more than the guard's margin, or not finite."""
    if not first.finite:
        return True
    if first.score is None or other.score is None or not other.finite:
        return False
    return not guard.judge(other.score, first.score, margin=margin, size=0, budget=None).accepted


def _is_slow(before: int, after: int, rules: ProbeRules) -> bool:
    return bool(rules.slower) and after > before * rules.slower / 100 and after - before > NOISE


def _lost(before: _Tried | None, after: _Tried) -> float | None:
    was, now = (t.score.accuracy if t is not None and t.score is not None else None for t in (before, after))
    return None if was is None or now is None else was - now


def _of(tried: _Tried | None) -> float | None:
    if tried is None or tried.score is None:
        return None
    return tried.score.loss if tried.score.accuracy is None else tried.score.accuracy


def _figures(before: _Tried | None, after: _Tried | None, learned: str, samples: Samples) -> DeviceFigures:
    was, now = (t.score if t is not None else None for t in (before, after))
    scored = now or was
    rows = 0 if was is None or now is None else len(samples)
    better = worse = 0
    if was is not None and now is not None and was.right is not None and now.right is not None:
        better, worse = int((now.right & ~was.right).sum()), int((was.right & ~now.right).sum())
    return DeviceFigures(
        scored is None or scored.accuracy is not None, rows, better, worse, after.micros if after else 0, before.micros if before else 0,
        learned=learned,
    )  # fmt: skip


def _note(samples: Samples) -> str:
    return f"only {len(samples)} held-out samples say how it does here" if len(samples) < FEW else ""


def opened_by_runtime(file: bytes, name: str) -> Trainable:
    """Return an opened model; an int8 head needs no runtime. Raises RuntimeUnusable or NotTrainable."""
    from edgeagent.training import int8_head

    if int8_head.trains(file, model=name):
        return int8_head.Int8Model(file, model=name)
    from edgecommon import runtime

    return runtime.load().open(file, model=name, signature="")


def told(work: Callable[[], Probed]) -> Probed:
    """Return what the work finds, or the error that it ends with."""
    try:
        return work()
    except ModelWireError as e:
        return Probed(stop=Stop(Code.FILE, e.message))


