"""Plans a round within what the board can spare, and says when training has to wait."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgeagent.settings import units
from edgeagent.settings.tree import BudgetSettings
from modelwire.errors import NoModeFits

from .sensors import Sensors

COOLER = 5.0  # degrees below the limit at which training goes on
LOOK = 1.0  # seconds between two looks at the sensors
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one mode takes on this board, as measured."""

    seconds: float  # of one step; the median
    memory: int  # bytes that a round adds at its most to what is the agent's own, in all of its processes
    samples: int = 0  # bytes of samples that were loaded then
    partial: bool = False  # it was stopped at this much memory: it takes more, and no step was measured


@dataclass(frozen=True, slots=True)
class Work:
    """What a round would do."""

    epochs: int
    steps: int  # of one epoch
    samples: int  # bytes of the samples that are loaded
    resident: int  # bytes that are the agent's own without a round


@dataclass(frozen=True, slots=True)
class Plan:
    """How a round is done."""

    mode: str
    epochs: int
    why: str = ""  # why this mode and so many epochs; empty when nothing stood against what the settings ask for
    seconds: float = 0.0  # of steps after which the course ends; 0: when it is done


def limited(budget: BudgetSettings) -> bool:
    """Return whether a plan needs to know what the modes cost."""
    return bool(budget.max_ram or budget.max_seconds)


def plan(modes: Sequence[str], costs: Mapping[str, Cost], *, model: str, wish: str, budget: BudgetSettings, work: Work) -> Plan:
    """Return the deepest mode that fits, or the one that is wished for; with fewer epochs where all would take too long.

    modes: cheapest first. costs: of those that were measured; one that was not is tried only when none was.
    Raises NoModeFits, which says what the cheapest takes.
    """
    if wish != AUTO and wish not in modes:
        raise NoModeFits(model=model, reason=f"its file has no mode {wish!r}; it has {', '.join(modes)}")
    candidates = list(reversed(modes)) if wish == AUTO else [wish]
    seconds = budget.max_seconds * budget.max_cpu
    if not limited(budget):
        return Plan(candidates[0], work.epochs)
    if not any(mode in costs for mode in candidates):
        return Plan(candidates[-1], work.epochs, f"nothing was measured; {candidates[-1]} is the cheapest", seconds)
    reasons = []
    for mode in candidates:
        why = against(mode, costs.get(mode), budget, work)
        if why:
            reasons.append(why)
            continue
        epochs = work.epochs
        if seconds and (step := costs[mode].seconds):
            epochs = min(epochs, max(1, int(seconds / (step * work.steps))))
        if epochs < work.epochs:
            reasons.append(f"{epochs} of {work.epochs} epochs fit in {units.say_seconds(budget.max_seconds)}")
        return Plan(mode, epochs, "; ".join(reasons), seconds)
    raise NoModeFits(model=model, reason="; ".join(reasons))


def against(mode: str, cost: Cost | None, budget: BudgetSettings, work: Work) -> str:
    """Return why a round in this mode does not fit, empty when it does."""
    if cost is None:
        return f"{mode} could not be measured"
    # Rows of the spool and the arrays made of them are both there for a moment.
    memory = work.resident + cost.memory + 2 * max(0, work.samples - cost.samples)
    if budget.max_ram and memory > budget.max_ram:
        return f"{mode} would take {'more than ' if cost.partial else ''}{mib(memory)} MiB of {mib(budget.max_ram)}"
    if cost.partial:
        return f"{mode} takes more memory than could be measured; edgeagent measure tries again"
    epoch = cost.seconds * work.steps / budget.max_cpu
    if budget.max_seconds and epoch > budget.max_seconds:
        return f"one epoch of {mode} would take {epoch:.3g} s of {budget.max_seconds:g}"
    return ""


def mib(size: int) -> str:
    """Return bytes in MiB, as people read them."""
    return f"{size / 2**20:.0f}" if size >= 100 * 2**20 else f"{size / 2**20:.1f}"


@dataclass(frozen=True, slots=True)
class TrainingWait:
    """Why training waits, and until when."""

    reason: str
    until: str


@dataclass
class Pauses:
    """Whether one model's training has to wait for the board."""

    budget: BudgetSettings
    sensors: Sensors
    _hot: bool = False
    _looked: float = float("-inf")  # monotonic seconds
    _last: TrainingWait | None = field(default=None)

    def look(self, now: float, wall: float) -> TrainingWait | None:
        """Return why training has to wait, None when it may go on. now: monotonic seconds; wall: Unix seconds."""
        if now - self._looked >= LOOK:
            self._looked = now
            self._last = self._window(wall) or self._power() or self._heat()
        return self._last

    def _window(self, wall: float) -> TrainingWait | None:
        windows = units.windows(self.budget.window)
        if not windows:
            return None
        here = time.localtime(wall)
        minute = 60 * here.tm_hour + here.tm_min
        if any(begins <= minute < ends if begins < ends else minute >= begins or minute < ends for begins, ends in windows):
            return None
        opens = min((begins for begins, _ in windows), key=lambda begins: (begins - minute) % (24 * 60))
        return TrainingWait(f"it is outside {self.budget.window}", f"{opens // 60:02}:{opens % 60:02}")

    def _power(self) -> TrainingWait | None:
        if self.budget.on_battery == "pause" and self.sensors.on_battery():
            return TrainingWait("the board runs on its battery", "mains power is back")
        return None

    def _heat(self) -> TrainingWait | None:
        if not self.budget.max_celsius:
            return None
        degrees, limit = self.sensors.celsius(), self.budget.max_celsius
        if degrees is None:
            self._hot = False
            return None
        self._hot = degrees >= limit or (self._hot and degrees > limit - COOLER)
        return TrainingWait(f"the board is at {degrees:.0f} °C of {limit:g}", f"it is at {limit - COOLER:g} °C") if self._hot else None
