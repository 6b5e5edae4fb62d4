"""Measures what a round of each mode takes on this board, each in a process of its own, so that the peak of memory is the mode's."""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeagent.board.budget import Cost, Plan, mib
from edgeagent.board.sensors import Sensors
from edgeagent.features.base_file import modes_of
from edgeagent.features.exact_course import FEATURES
from edgeagent.rounds import round as rounds
from edgeagent.rounds.resuming import trial_of
from edgeagent.rounds.standing import Standing
from edgeagent.rounds.starts import Trial
from edgeagent.samples.spool import Samples
from edgeagent.state.lineage import Lineage
from edgeagent.system.clock import Clock
from edgeagent.system.deferred import defer
from modelwire.errors import ModelError
from modelwire.tflite import file as tflite_file

defer("subprocess")  # a board measures once
import subprocess  # noqa: E402

SECONDS = 4.0  # of steps, at most
STEPS = 12  # at least, unless they take longer than that
SHORT_STEPS = 8192  # in mode features: several slices of them
_LOOK = 0.005  # seconds between two looks at a child's memory
_log = logging.getLogger("edgeagent")


@dataclass(frozen=True, slots=True)
class Measured:
    """What one mode takes; `trouble` says why it could not be measured."""

    mode: str
    cost: Cost | None
    trouble: str = ""


def modes(lineage: Lineage) -> list[str]:
    """Return the modes of the model's base, cheapest first."""
    return modes_of(lineage.store.base_file, lineage.name)[0]


def unknown(lineage: Lineage, runtime: str, max_ram: int) -> list[str]:
    """Return the modes that must be measured before a plan can be made, cheapest first. runtime: its key."""
    known = lineage.costs.of(runtime)
    return [m for m in modes(lineage) if m not in known or (known[m].partial and not 0 < max_ram <= known[m].memory)]


def here(standing: Standing, mode: str) -> Cost:
    """Return what a round in this mode takes, by trying one in this process: it has done nothing else before."""
    lineage, spool, settings, memory = standing.lineage, standing.spool, standing.settings, standing.memory
    count, _ = sides = spool.sides(lineage.name, settings.train.held_out)
    made_up = None
    if 0 in sides:
        made_up = (_made_up(lineage), _made_up(lineage))
        count = len(made_up[0])
    contract = tflite_file.contract(lineage.store.base(), model=lineage.name)
    taken = []
    wanted = SHORT_STEPS if mode == FEATURES else STEPS
    trial = Trial(Plan(mode, -(-wanted // max(1, count // contract.batch)), seconds=SECONDS), made_up)
    steps = rounds.run(standing, trial_of(standing, trial))
    done = 0
    while True:
        began = standing.clock.monotonic()
        try:
            progress = next(steps)
        except StopIteration:
            break
        if progress.done > done:  # a slice of mode features is many steps, and preparing it is none
            taken.append((standing.clock.monotonic() - began) / (progress.done - done))
            done = progress.done
    if not taken:
        raise ModelError(model=lineage.name, reason=f"the mode {mode} took no step")
    shape = spool.shape(lineage.name)
    loaded = (count if made_up else sum(sides)) * 4 * (math.prod(shape.x) + math.prod(shape.y))
    steady = taken[1:] or taken  # the first one opens the model and scores it
    peak = memory.sensors.peak() - memory.floors[lineage.name]
    return Cost(float(np.median(steady)), max(0, peak), loaded)


def _made_up(lineage: Lineage) -> Samples:
    """Return a batch of samples of the right shape, for a device that has not seen any yet."""
    c = tflite_file.contract(lineage.store.base(), model=lineage.name)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((c.batch, *c.x_shape), np.float32)
    if len(c.y_shape) == 1:
        return Samples(x, np.eye(c.classes, dtype=np.float32)[rng.integers(c.classes, size=c.batch)], True)
    return Samples(x, rng.standard_normal((c.batch, *c.y_shape), np.float32), False)


class Measuring:
    """Children that measure modes of one model, cheapest first, while the agent does other things."""

    def __init__(
        self, settings: Path, model: str, modes: Sequence[str], *, limit: int, said: Callable[[str], None] = _log.info,
        clock: Clock | None = None,
    ) -> None:  # fmt: skip
        """settings: the path of edgeagent.toml; limit: bytes of a child's memory at which it is stopped, 0 for none."""
        self.model, self._clock = model, clock or Clock()
        self.measured: list[Measured] = []
        self._settings, self._modes, self._limit, self._said = settings, list(modes), limit, said
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"measuring {model}", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> None:
        self._thread.join()

    def note(self, lineage: Lineage, runtime: str, now: int) -> dict[str, str]:
        """Write down what was measured, and return why modes could not be. runtime: its key; now: Unix seconds."""
        for one in self.measured:
            if one.cost is not None:
                lineage.costs.note(runtime, one.mode, one.cost, now)
        return {one.mode: one.trouble for one in self.measured if one.cost is None}

    def close(self) -> None:
        """Stop measuring; what was measured so far stays."""
        self._closed = True
        child = self._child
        if child is not None:
            child.kill()
        self._thread.join()

    def _stopped(self) -> bool:
        return self._closed

    def _work(self) -> None:
        for mode in self._modes:
            if self._stopped():
                return
            self._said(f"{self.model}: measuring what the mode {mode} takes on this board")
            one = self._measure(mode)
            if self._stopped():
                return
            self.measured.append(one)
            if one.cost is None:
                self._said(f"{self.model}: {mode} could not be measured: {one.trouble}")
            elif one.cost.partial:
                self._said(f"{self.model}: {mode} takes more than {mib(self._limit)} MiB; deeper modes take more")
                return
            else:
                self._said(f"{self.model}: {mode} takes {1000 * one.cost.seconds:.3g} ms a step and {mib(one.cost.memory)} MiB")

    def _measure(self, mode: str) -> Measured:
        command = [sys.executable, "-m", "edgeagent", "measure", self.model, "--config", str(self._settings)]
        command += ["--mode", mode, "--here", "--json"]
        try:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as e:
            return Measured(mode, None, e.strerror or str(e))
        self._child = child
        sensors, over = Sensors(), False
        while child.poll() is None:
            if self._limit and sensors.resident(child.pid) > self._limit:
                over = True
                child.kill()
            self._clock.sleep(_LOOK)
        out, said = child.communicate()
        self._child = None
        if over:
            return Measured(mode, Cost(0.0, self._limit, 0, partial=True))
        try:
            r = json.loads(out)["models"][0]["modes"][0]
            return Measured(mode, Cost(float(r["seconds"]), int(r["memory"]), int(r["samples"])))
        except (ValueError, KeyError, IndexError, TypeError):
            lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.startswith("{")]
            try:
                return Measured(mode, None, str(json.loads(lines[-1])["message"]))
            except (ValueError, KeyError, IndexError):
                return Measured(mode, None, f"its process ended with {child.returncode}")
