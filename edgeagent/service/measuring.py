"""Measures what a round of each mode takes on this board, each in a process of its own, so that the peak of memory is the mode's."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeagent.board.budget import Cost, mib
from edgeagent.board.sensors import Sensors
from edgeagent.features.base_file import modes_of
from edgeagent.state.lineage import Lineage
from edgeagent.system.clock import Clock
from edgeagent.system.deferred import defer
from modelwire.errors import DiskUnwritable

defer("subprocess")  # a board measures once
import subprocess  # noqa: E402

_LOOK = 0.005  # seconds between two looks at a child's memory
_log = logging.getLogger("edgeagent")


@dataclass(frozen=True, slots=True)
class Measured:
    """What one mode takes; `trouble` says why it could not be measured."""

    mode: str
    cost: Cost | None
    trouble: str = ""
    full: DiskUnwritable | None = None  # where the disk was the trouble: it may be measured yet


def modes(lineage: Lineage) -> list[str]:
    """Return the modes of the model's base, cheapest first."""
    return modes_of(lineage.store.base_file, lineage.name)[0]


def unknown(lineage: Lineage, runtime: str, max_ram: int) -> list[str]:
    """Return the modes that must be measured before a plan can be made, cheapest first. runtime: its key."""
    known = lineage.costs.of(runtime)
    return [m for m in modes(lineage) if m not in known or (known[m].partial and not 0 < max_ram <= known[m].memory)]


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
        """Write down what was measured, and return why modes could not be. runtime: its key; now: Unix seconds. Raises DiskUnwritable."""
        for one in self.measured:
            if one.cost is not None:
                lineage.costs.note(runtime, one.mode, one.cost, now)
        for one in self.measured:
            if one.full is not None:
                raise one.full
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
        command = [sys.executable, "-m", "edgeagent.service.one_mode", str(self._settings), self.model, mode, str(os.getpid())]
        try:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        except OSError as e:
            return Measured(mode, None, e.strerror or str(e))
        self._child = child
        sensors, over = Sensors(), False
        while child.poll() is None:
            if self._limit and sensors.together(child.pid) > self._limit:
                over = True
                child.kill()
            self._clock.sleep(_LOOK)
        out, _ = child.communicate()
        self._child = None
        if over:
            return Measured(mode, Cost(0.0, self._limit, 0, partial=True))
        try:
            said = json.loads(out.splitlines()[-1])
            if "trouble" in said:
                full = DiskUnwritable(**{str(k): str(v) for k, v in said["disk"].items()}) if "disk" in said else None
                return Measured(mode, None, str(said["trouble"]), full)
            return Measured(mode, Cost(float(said["seconds"]), int(said["memory"]), int(said["samples"])))
        except (ValueError, KeyError, IndexError, TypeError):
            return Measured(mode, None, f"its process ended with {child.returncode}")
