"""What the board says of itself: resident memory, temperature, power. What it does not say is None, never a guess."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_READ_MAX = 4096  # bytes of one file of /sys or /proc
_NO_LIMIT = 1 << 60  # bytes: the first kind of control groups says some such number where nothing is bounded
_DIGITS = 18  # of a number that counts bytes, or kilobytes
_COLDEST, _HOTTEST = -60.0, 200.0  # degrees Celsius: a zone that says more is broken


@dataclass(frozen=True, slots=True)
class Sensors:
    """Where the kernel's files are; tests give folders of their own."""

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    zones: tuple[str, ...] = ()  # types of the thermal zones that count, as the kernel names them; none: all

    def celsius(self) -> float | None:
        """Return the temperature of the hottest zone that counts; of all zones where none of those says one; None when no zone does."""
        found = self.heat()
        return max((degrees for kind, degrees in found if kind in self.zones), default=max((degrees for _, degrees in found), default=None))

    def heat(self) -> list[tuple[str, float]]:
        """Return the type and the temperature of each zone that says one, in degrees Celsius."""
        zones = []
        for zone in self._entries(self.sys / "class" / "thermal", "thermal_zone"):
            try:
                degrees = int(_text(zone / "temp")) / 1000
            except (ValueError, OverflowError):  # no number, or one of thousands of digits
                continue
            if _COLDEST <= degrees <= _HOTTEST:
                zones.append((_text(zone / "type"), degrees))
        return zones

    def on_battery(self) -> bool | None:
        """Return whether the board runs on a battery; None when it has no supply that says so, as boards without a battery.

        On mains when any mains or USB supply is online, or a battery charges or is full. Batteries of devices (a mouse) don't count.
        """
        supplies = [
            (_text(s / "type"), _text(s / "online"), _text(s / "status"))
            for s in self._entries(self.sys / "class" / "power_supply", "")
            if _text(s / "scope") != "Device"
        ]
        if any(kind != "Battery" and online == "1" for kind, online, _ in supplies):
            return False
        states = [status for kind, _, status in supplies if kind == "Battery"]
        if "Discharging" in states:
            return True
        if any(status in ("Charging", "Full", "Not charging") for status in states):
            return False
        return True if any(online == "0" for _, online, _ in supplies) and states else None

    def resident(self, process: int | None = None) -> int:
        """Return the bytes of memory that this process, or another one, holds now; 0 when the kernel does not say."""
        fields = _text(self._of(process) / "statm").split()
        return int(fields[1]) * _PAGE if len(fields) > 1 and fields[1].isdigit() else 0

    def private(self, process: int | None = None) -> int:
        """Return the bytes of memory that are this process's own, or another one's; 0 when the kernel does not say.

        Pages of files are not among them: the kernel takes them back whenever it likes, so that they say little of what a process needs.
        """
        fields = _text(self._of(process) / "statm").split()
        return (int(fields[1]) - int(fields[2])) * _PAGE if len(fields) > 2 and fields[1].isdigit() and fields[2].isdigit() else 0

    def together(self, process: int | None = None) -> int:
        """Return the bytes of memory that a process holds now with all that it started, and they: each counts in full."""
        size, left = self.resident(process), self.children(process)
        while left:
            one = left.pop()
            size += self.resident(one)
            left |= self.children(one)
        return size

    def children(self, process: int | None = None) -> set[int]:
        """Return the ids of the children of a process, whichever of its threads started them; none where it has ended."""
        found: set[int] = set()
        for task in self._entries(self._of(process) / "task", ""):
            try:
                found |= {int(word) for word in (task / "children").read_text().split()}
            except FileNotFoundError:
                if task.exists():  # a kernel that was built without these files
                    return self._by_parent(os.getpid() if process is None else process)
            except (OSError, ValueError):  # the thread has just ended
                continue
        return found

    def _by_parent(self, process: int) -> set[int]:
        found = set()
        for entry in self._entries(self.proc, ""):
            if entry.name.isdigit():
                words = _text(entry / "stat").rpartition(")")[2].split()  # its name, in brackets before, may hold anything
                if words[1:2] == [str(process)]:
                    found.add(int(entry.name))
        return found

    def peak(self, process: int | None = None) -> int:
        """Return the most bytes of memory that this process, or another one, ever held; 0 when the kernel does not say."""
        for line in _text(self._of(process) / "status").splitlines():
            words = line.split()
            if words[:1] == ["VmHWM:"] and len(words) > 1 and words[1].isdigit():
                return int(words[1]) * 1024
        return 0

    def available(self) -> int:
        """Return the bytes of memory that can be had without swapping; 0 when the kernel does not say."""
        return self._meminfo("MemAvailable:")

    def memory(self) -> int:
        """Return the bytes of memory that the kernel has of the board; 0 when it does not say."""
        return self._meminfo("MemTotal:")

    def group_limit(self) -> int:
        """Return the bytes of memory that this process and those beside it in its control groups may take; 0 where nothing bounds them."""
        limits = []
        for line in _text(self.proc / "self" / "cgroup").splitlines():
            number, _, rest = line.partition(":")
            kinds, _, path = rest.partition(":")
            if (number, kinds) == ("0", ""):
                root, file = self.sys / "fs" / "cgroup", "memory.max"
            elif "memory" in kinds.split(","):
                root, file = self.sys / "fs" / "cgroup" / "memory", "memory.limit_in_bytes"
            else:
                continue
            parts = [part for part in path.split("/") if part]
            if ".." in parts or "\0" in path:
                parts = []  # of another namespace: what is above it can't be seen
            limits += [_whole(root.joinpath(*parts[:depth], file)) for depth in range(len(parts) + 1)]
        return min((limit for limit in limits if 0 < limit < _NO_LIMIT), default=0)

    def _meminfo(self, key: str) -> int:
        for line in _text(self.proc / "meminfo").splitlines():
            words = line.split()
            if words[:1] == [key] and len(words) > 1 and words[1].isascii() and words[1].isdigit() and len(words[1]) <= _DIGITS:
                return int(words[1]) * 1024
        return 0

    def _of(self, process: int | None) -> Path:
        return self.proc / ("self" if process is None else str(process))

    def _entries(self, folder: Path, prefix: str) -> list[Path]:
        try:
            return sorted(p for p in folder.iterdir() if p.name.startswith(prefix))
        except OSError:
            return []


@dataclass
class Memory:
    """This process's own memory, and the least that it held of it with each model opened before a round."""

    sensors: Sensors = field(default_factory=Sensors)
    floors: dict[str, int] = field(default_factory=dict)

    def idle(self, model: str) -> int:
        """Return the bytes that are its own without a round of `model`; what a round before left in the heap is used again."""
        now = self.sensors.private()
        self.floors[model] = min(now, self.floors.get(model, now))
        return self.floors[model]


def _text(path: Path) -> str:
    """Return what the file says, without the white space around it; empty when it can't be read."""
    try:
        with path.open("rb") as f:
            return f.read(_READ_MAX).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _whole(path: Path) -> int:
    """Return the whole number that a file says; 0 where it says none, or another thing."""
    text = _text(path)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS + 1 else 0
