"""What befalls a simulated fleet, as data: made from a seed, and small enough to be cut down to what makes a run fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from tests.simulator.broker import Weather
from tests.simulator.light import Habits

KINDS = {
    "kill centre": 6, "tear centre": 2, "restart centre": 1, "kill board": 6, "cut centre": 2, "cut device": 8, "restart broker": 2,
    "reflash": 2, "ask snapshot": 3, "purge": 2, "erase": 1, "audit": 1, "policy": 0, "rot": 0,
}  # fmt: skip
MOST_WRITES = 600  # until a planned crash: the statements of a batch


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that happens once so many updates were made."""

    at: int
    kind: str
    number: int  # which device, how many writes, how many seconds: as its kind takes it


@dataclass(frozen=True)
class Script:
    """One run: a fleet, the network's weather, and all faults in their order."""

    seed: int
    updates: int
    devices: int
    boards: int  # real ones, of the devices
    weather: Weather = field(default_factory=Weather)
    habits: Habits = field(default_factory=Habits)
    faults: tuple[Fault, ...] = ()

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.updates} updates of {self.devices} devices, {self.boards} of them real, {len(self.faults)} faults"


def scripted(
    seed: int, updates: int, *, devices: int = 0, boards: int | None = None, faults: int | None = None, rots: int = 0
) -> Script:
    """Return the script of a seed. devices: 0 takes a fleet that fits; faults: None likewise; rots: so many flipped bits among them."""
    rng = Random(f"script {seed}")
    devices = devices or max(8, min(1000, updates // 50))
    boards = min(devices, 4 if boards is None else boards)
    # A start replays the log from its first entry, so more of them come while it is short.
    count = faults if faults is not None else min(120, 20 + updates // 100)
    kinds = [kind for kind, weight in KINDS.items() for _ in range(weight)]
    made = [Fault(int(updates * rng.random() ** 2), rng.choice(kinds), rng.randrange(1 << 30)) for _ in range(count)]
    if count:
        half = updates // 2
        made += [Fault(half, "audit", 0), Fault(half, "policy", rng.randrange(4)), Fault(half, "erase", rng.randrange(1 << 30))]
    made += [Fault(rng.randrange(updates // 2, updates), "rot", rng.randrange(1 << 30)) for _ in range(rots)]
    return Script(seed, updates, devices, boards, faults=tuple(sorted(made, key=lambda f: f.at)))


def smaller(script: Script) -> list[Script]:
    """Return scripts with less in them, the most hopeful first."""
    out = []
    n = len(script.faults)
    if n:
        out.append(replace(script, faults=()))
    size = n // 2
    while size:
        out += [replace(script, faults=script.faults[:i] + script.faults[i + size :]) for i in range(0, n, size)]
        size //= 2
    calm = Weather(late=0, twice=0, breaks=0, lost=0, flipped=0, old=0)
    if script.weather != calm:
        out.insert(0, replace(script, weather=calm))
    if script.updates > 50:
        out.insert(0, replace(script, updates=script.updates // 2, faults=tuple(f for f in script.faults if f.at < script.updates // 2)))
    return out


def shrunk(script: Script, fails: Callable[[Script], bool], tries: int = 60) -> Script:
    """Return the smallest script that was found to fail as this one does. tries: runs that may be made."""
    candidates = smaller(script)
    while candidates and tries > 0:
        candidate, tries = candidates.pop(0), tries - 1
        if fails(candidate):
            script, candidates = candidate, smaller(candidate)
    return script
