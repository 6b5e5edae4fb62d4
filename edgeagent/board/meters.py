"""What this board draws, as a meter of its own says it: a counter of joules, or a reading of watts. None is never guessed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .sensors import Sensors

_READ_MAX = 64  # bytes of one number under /sys
_LOOK = 0.02  # seconds between two readings of watts
_MOST_WATTS = 2000.0  # more is a broken meter, not a board
_MICRO = 1e-6  # the kernel counts in microjoules and microwatts


@dataclass(frozen=True, slots=True)
class Meter:
    """One meter. counts: it counts joules, and begins anew after `wraps` of them; else it says watts."""

    name: str  # for people, with the kernel's own name of it
    files: tuple[Path, ...]  # whose numbers add up
    counts: bool
    wraps: tuple[float, ...] = ()  # joules, one for each file; 0: it never does

    def read(self) -> tuple[float, ...] | None:
        """Return joules or watts of each file; None when one can't be read."""
        values = [_number(file) for file in self.files]
        return None if None in values else tuple(_MICRO * v for v in values if v is not None)


@dataclass
class Drawn:
    """What was drawn in a block; None while it runs, and when the meter failed."""

    joules: float | None = None
    seconds: float = 0.0

    @property
    def watts(self) -> float | None:
        """The mean power; None when it is not known."""
        return None if self.joules is None or self.seconds <= 0 else self.joules / self.seconds


def find(sensors: Sensors | None = None) -> Meter | None:
    """Return the meter that sees most of the board: of its supply, of its rails, else of its processor. None when there is none."""
    sys = (sensors or Sensors()).sys
    return _supply(sys) or _rails(sys) or _processor(sys)


@contextmanager
def metering(meter: Meter, monotonic: Callable[[], float]) -> Iterator[Drawn]:
    """Measure what is drawn in the block. monotonic: seconds."""
    drawn, began = Drawn(), monotonic()
    watch = _Counting(meter) if meter.counts else _Watching(meter, monotonic)
    try:
        yield drawn
    finally:
        joules = watch.end()
        drawn.seconds = monotonic() - began
        if joules is not None and 0 <= joules <= _MOST_WATTS * max(drawn.seconds, _LOOK):
            drawn.joules = joules


class _Counting:
    def __init__(self, meter: Meter) -> None:
        self._meter, self._first = meter, meter.read()

    def end(self) -> float | None:
        last = self._meter.read()
        if self._first is None or last is None:
            return None
        return sum(b - a if b >= a else b - a + wrap for a, b, wrap in zip(self._first, last, self._meter.wraps, strict=True))


@dataclass
class _Watching:
    """Reads watts over and over, and adds them up."""

    meter: Meter
    monotonic: Callable[[], float]
    _joules: float = 0.0
    _failed: bool = False
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._at, self._watts = self.monotonic(), self._look()
        self._thread = threading.Thread(target=self._work, name="meter", daemon=True)
        self._thread.start()

    def end(self) -> float | None:
        self._over.set()
        self._thread.join()
        self._add()
        return None if self._failed else self._joules

    def _work(self) -> None:
        while not self._over.wait(_LOOK):
            self._add()

    def _add(self) -> None:
        now, watts = self.monotonic(), self._look()
        self._joules += (now - self._at) * (watts + self._watts) / 2
        self._at, self._watts = now, watts

    def _look(self) -> float:
        said = self.meter.read()
        self._failed = self._failed or said is None
        return sum(said or ())


def _supply(sys: Path) -> Meter | None:
    """The battery, while the board runs on it: it sees all that the board draws."""
    for supply in _entries(sys / "class" / "power_supply", ""):
        if _text(supply / "type") == "Battery" and _text(supply / "status") == "Discharging" and _text(supply / "scope") != "Device":
            file = supply / "power_now"
            if _number(file):
                return Meter(f"battery {supply.name}", (file,), counts=False)
    return None


def _rails(sys: Path) -> Meter | None:
    """The first sensor of power in hwmon: an INA on the board's rails."""
    for chip in _entries(sys / "class" / "hwmon", "hwmon"):
        name = _text(chip / "name")
        for file, counts in (("energy1_input", True), ("power1_input", False), ("power1_average", False)):
            if _number(chip / file) is not None:
                return Meter(f"{name or chip.name} (hwmon)", (chip / file,), counts, (0.0,) if counts else ())
    return None


def _processor(sys: Path) -> Meter | None:
    """The counters of the processor's packages; of the whole platform where it has one."""
    zones = [z for z in _entries(sys / "class" / "powercap", "intel-rapl:") if z.name.count(":") == 1]
    named = {z: _text(z / "name") for z in zones if _number(z / "energy_uj") is not None}
    platform = [z for z, name in named.items() if name == "psys"]
    chosen = platform[:1] or [z for z, name in named.items() if name.startswith("package")]
    if not chosen:
        return None
    wraps = tuple(_MICRO * (_number(z / "max_energy_range_uj") or 0) for z in chosen)
    return Meter(f"{'platform' if platform else 'processor'} (RAPL)", tuple(z / "energy_uj" for z in chosen), True, wraps)


def _entries(folder: Path, prefix: str) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.name.startswith(prefix))
    except OSError:
        return []


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isascii() and text.isdigit() else None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as f:
            return f.read(_READ_MAX).decode("ascii", "replace").strip()
    except OSError:
        return ""
