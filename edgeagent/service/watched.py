"""The agent's loop as systemd watches it: signs of life while it comes round, or trains; and one line about what it does."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edgeagent.board.sensors import Sensors
from edgeagent.link.link_state import LinkState
from edgeagent.state.folder import DeviceFolder
from edgeagent.state.history import OK
from edgeagent.state.lineage import Lineage
from edgeagent.system.clock import Clock
from edgecommon.systemd import Pulse, Systemd
from modelwire.errors import DiskUnwritable

from .running import Running

PATIENCE = 3600.0  # seconds; under a small budget.max_cpu such a process rests long between two samples
SAID = 5.0  # seconds between two looks at what is to be said: they read the database


class WatchedLoop:
    """What the loop tells systemd. A round's step, which nobody can look into, counts as life while it takes the processor."""

    def __init__(self, systemd: Systemd, clock: Clock, *, patience: float = PATIENCE) -> None:
        """patience: seconds for which a process that this one waits for may do nothing."""
        self._systemd, self._clock, self._patience = systemd, clock, patience
        self._said = float("-inf")
        self._step: Pulse | None = None  # a step of training is under way
        self._children: dict[int, Pulse] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def turn(self, doing: Callable[[], str]) -> None:
        """Called by the loop each time round: it serves, it lives, and what it does."""
        if not self._systemd.listens:
            return
        self._systemd.ready()
        if self._children_get_on():
            self._systemd.alive()
        now = self._clock.monotonic()
        if now - self._said >= SAID:
            self._said = now
            self._systemd.status(doing())

    def news(self) -> None:
        """Let the next turn say what is done, without waiting."""
        self._said = float("-inf")

    @contextmanager
    def training(self) -> Iterator[None]:
        """Within it, life is that the thread of the loop takes the processor, or a process that runs the model for it.

        One step may take longer than systemd waits.
        """
        if not self._systemd.every:
            yield
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._look_on, name="edgeagent-watched", daemon=True)
            self._thread.start()
        self._step = Pulse.of_this_thread(patience=self._systemd.every)
        try:
            yield
        finally:
            self._step = None

    def close(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _look_on(self) -> None:
        every, of, beside = self._systemd.every, None, dict[int, Pulse]()
        while not self._over.wait(every / 4):
            step = self._step
            if step is not of:
                of, beside = step, {}
            if step is None:
                continue
            beside = {
                pid: beside.get(pid) or Pulse(Path(f"/proc/{pid}/stat"), patience=every, monotonic=self._clock.monotonic)
                for pid in Sensors().children()
            }  # fmt: skip
            if sum(pulse.beats() for pulse in (step, *beside.values())):  # each is looked at every time
                self._systemd.alive()

    def _children_get_on(self) -> bool:
        """Return whether none of the processes that measure or compute features is stuck."""
        if not self._systemd.every:
            return True
        running = Sensors().children()
        self._children = {pid: pulse for pid, pulse in self._children.items() if pid in running}
        for pid in running - self._children.keys():
            self._children[pid] = Pulse(Path(f"/proc/{pid}/stat"), patience=self._patience, longest=math.inf)  # it may work for hours
        return sum(not pulse.beats() for pulse in self._children.values()) == 0  # each is looked at every time


def told(
    device: DeviceFolder, of_link: LinkState | None, full: DiskUnwritable | None, said: Mapping[str, str], running: Running | None
) -> str:
    """Return one line about what an agent does, and waits for. said: by model, why it does not train."""
    broker, of_rounds = device.settings.link.broker, dict(said)
    lost = f": {of_link.reason}" if of_link is not None and not of_link.up else ""
    link = f"connected to {broker}" if of_link is not None and of_link.up else f"waits for {broker}{lost}"
    if full is not None:
        return f"waits for room on its disk: {full.message}; {link}"
    if running is not None:
        step = f", step {p.done} of {p.steps}" if (p := running.progress) is not None and p.steps else ""
        of_rounds[running.lineage.name] = f"round {running.lineage.head().rounds + 1} under way{step}"
    return "; ".join([link, *(_of_model(lineage, of_rounds.get(name, "")) for name, lineage in device.lineages.items())])


def _of_model(lineage: Lineage, training: str) -> str:
    head, waiting, wait = lineage.head(), lineage.outbox.waiting("queued", "offered"), lineage.waiting()
    words = [f"{lineage.name}@{head.version}"]
    if head.blocked:
        words.append(f"BLOCKED, {head.blocked}")
    elif head.welcome not in ("", OK):
        words.append(f"the centre says {head.welcome}")
    if waiting:
        words.append(f"{len(waiting)} {'update waits' if len(waiting) == 1 else 'updates wait'} to be stored")
    if wait is not None:
        words.append(f"training waits: {wait.reason}")
    elif training:
        words.append(training.removeprefix(f"{lineage.name}: "))
    return ", ".join(words)
