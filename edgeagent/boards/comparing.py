"""Compares a board with the profile that its settings name: what is another thing than the profile means, and what to do about it."""

from __future__ import annotations

import os
import sys as interpreter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from edgeagent.board import fitting
from edgeagent.board.budget import mib
from edgeagent.board.sensors import Sensors
from edgeagent.settings.tree import Settings

from . import parts
from .choosing import AUTO
from .reading import BoardProfile, BoardSystem, profile
from .recognising import HereBoard, Recognised, detect, look

MODULES = {"litert": "ai_edge_litert", "tflite": "tflite_runtime"}
SMALLER = "board-smaller"  # the trouble of a board that has less memory than its settings want of it
ENABLE = "add cgroup_enable=memory to the kernel's command line (/boot/firmware/cmdline.txt on a Raspberry Pi), and start the board anew"
SHOW = "edgeagent board show auto says which it is"


@dataclass(frozen=True, slots=True)
class ComparedFact:
    """One thing of a board beside what its profile says of it."""

    what: str
    ok: bool | None  # None: it can't be told, or is no fault
    text: str
    hint: str = ""  # what to do about it
    trouble: str = ""  # which one of a board's


@dataclass(frozen=True, slots=True)
class BoardAsIs:
    """The board at hand; tests give one of their own."""

    sensors: Sensors = field(default_factory=Sensors)
    machine: str = ""  # as `uname -m` says; empty: it is asked
    python: tuple[int, int] = interpreter.version_info[:2]
    glibc: str = ""  # such as 2.36; empty: it is asked
    installed: Callable[[str], bool] = lambda module: find_spec(module) is not None


def compare(settings: Settings, state: Path, board: BoardAsIs | None = None) -> Iterator[ComparedFact]:
    """Yield what the board is beside its profile; of a board whose settings name none, whether its budget fits alone.

    state: the state folder, or any place on its disk. Raises BadArgument for the name of no profile.
    """
    board = board or BoardAsIs()
    sensors = board.sensors
    if not settings.board.name:
        yield from _budget(settings, sensors)
        return
    here = look(sensors.sys, sensors.proc, machine=board.machine)
    said = detect(sensors.sys, sensors.proc, machine=board.machine) if here.arch else None
    meant = profile(settings.board.name) if settings.board.name != AUTO or said is None else said.profile
    yield _which(meant, here, said)
    yield _arch(meant, here)
    yield _cores(meant, here)
    yield _memory(meant, here)
    yield from _budget(settings, sensors)
    system = next((one for one in meant.systems if one.arch == here.arch and _numbers(one.python) == board.python), None)
    yield _system(meant, here, system, board)
    yield from _heat(settings, sensors)
    yield _bounds(meant, sensors)
    yield _storage(meant, sensors, state)
    yield _watchdog(sensors)


def _which(meant: BoardProfile, here: HereBoard, said: Recognised | None) -> ComparedFact:
    name = here.model or (here.compatible[0] if here.compatible else "this board does not say what it is")
    if said is not None and said.known and said.profile.name != meant.name:
        other = said.profile.name
        text = f"its settings are of the profile {meant.name}, and {said.how}: {other}"
        return ComparedFact("board", False, text, f"set board.name to {other}, and the rest by edgeagent board show {other}")
    if said is not None and said.profile.name == meant.name:
        return ComparedFact("board", True, f"{meant.title}, profile {meant.name}: {said.how}")
    return ComparedFact("board", None, f"{name}; nothing of it says that the profile {meant.name} is its own")


def _arch(meant: BoardProfile, here: HereBoard) -> ComparedFact:
    arches = " or ".join(meant.arches)
    if here.arch in meant.arches:
        return ComparedFact("board arch", True, here.arch)
    return ComparedFact("board arch", False, f"this is {here.arch or 'not told'}, and the profile {meant.name} is for {arches}", SHOW)


def _cores(meant: BoardProfile, here: HereBoard) -> ComparedFact:
    if not here.cores:
        return ComparedFact("board cores", None, "the kernel does not say how many there are")
    fewer = here.cores < int(meant.cores.value)
    return ComparedFact("board cores", None if fewer else True, f"{here.cores}; the profile says {meant.cores.value}")


def _memory(meant: BoardProfile, here: HereBoard) -> ComparedFact:
    least, most = meant.ram_range
    if not here.memory:
        return ComparedFact("board memory", None, "the kernel does not say how much there is")
    text = f"{mib(here.memory)} MiB; the profile {meant.name} is for boards of {meant.ram_mib.value} MiB and up"
    if here.memory < least * 2**20:
        fix = f"take the board's own profile, or a smaller budget.max_ram: {SHOW}"
        return ComparedFact("board memory", False, text, fix, SMALLER)
    return ComparedFact("board memory", None if here.memory > most * 2**20 else True, text)


def _budget(settings: Settings, sensors: Sensors) -> Iterator[ComparedFact]:
    """Yield whether the budget of memory fits the board, where one is set."""
    _, lowered = fitting.fitted(settings, sensors)
    if lowered:
        fix = "lower budget.max_ram; the agent keeps to what fits meanwhile"
        yield ComparedFact("board budget", False, lowered, fix, SMALLER)


def _system(meant: BoardProfile, here: HereBoard, system: BoardSystem | None, board: BoardAsIs) -> ComparedFact:
    python, glibc = ".".join(map(str, board.python)), board.glibc or _own_glibc()
    text = f"Python {python}, {f'glibc {glibc}' if glibc else 'another C library than glibc'}"
    if system is None:
        known = ", ".join(dict.fromkeys(one.python for one in meant.systems if one.arch == here.arch)) or "none here"
        return ComparedFact("board system", None, f"{text}; the profile knows Python {known}")
    if glibc and _numbers(glibc) < _numbers(system.glibc):
        return ComparedFact("board system", None, f"{text}; the profile's system, {system.name}, has glibc {system.glibc}")
    if not board.installed(MODULES[system.extra]):
        other = next((extra for extra, module in MODULES.items() if board.installed(module)), "")
        has = f"it has {other}" if other else "there is none"
        return ComparedFact("board system", None, f"{text}; the profile takes {system.package}, and {has}")
    return ComparedFact("board system", True, f"{text}, {system.package}: as {system.name} has it")


def _heat(settings: Settings, sensors: Sensors) -> Iterator[ComparedFact]:
    """Yield whether the zones that the budget goes by are there; one of a limit without any zone is said beside the budget."""
    wanted, found = settings.board.thermal_zones, sensors.heat()
    if not wanted or not found:
        return
    there = [kind for kind, _ in found if kind in wanted]
    if there:
        yield ComparedFact("board heat", True, f"budget.max_celsius goes by {', '.join(dict.fromkeys(there))}")
        return
    others = ", ".join(dict.fromkeys(kind for kind, _ in found if kind)) or "without names"
    text = f"no thermal zone is called {' or '.join(wanted)}; there are {others}, and the hottest counts"
    yield ComparedFact("board heat", False, text, "set board.thermal_zones to those that count")


def _bounds(meant: BoardProfile, sensors: Sensors) -> ComparedFact:
    enforced = parts.bounds_memory(sensors.sys, sensors.proc)
    limit = f"MemoryMax={meant.unit['MemoryMax'].value}"
    if enforced is None:
        return ComparedFact("board limits", None, f"the kernel does not say whether it bounds memory; {limit} may do nothing")
    if not enforced:
        text = f"limits are not enforced: the kernel's memory control group is off, so {limit} does nothing"
        return ComparedFact("board limits", False, text, ENABLE)
    group = sensors.group_limit()
    return ComparedFact("board limits", True, f"the kernel bounds memory; here {f'to {mib(group)} MiB' if group else 'nothing bounds it'}")


def _storage(meant: BoardProfile, sensors: Sensors, state: Path) -> ComparedFact:
    try:
        kind = parts.storage_kind(sensors.sys, os.stat(state).st_dev)
    except OSError:
        kind = ""
    if not kind:
        return ComparedFact("board disk", None, "the kernel does not say what kind of storage the state folder is on")
    if kind == meant.storage.value:
        return ComparedFact("board disk", True, kind)
    limit = f"budget.flash_bytes_a_day is that of {meant.storage.value}"
    return ComparedFact("board disk", None, f"the state folder is on {kind}; {limit}")


def _watchdog(sensors: Sensors) -> ComparedFact:
    name = parts.watchdog(sensors.sys)
    if name is None:
        return ComparedFact("board watchdog", None, "there is none, or its driver is not loaded: a kernel that hangs is not started anew")
    return ComparedFact("board watchdog", True, name or "there is one")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _own_glibc() -> str:
    """Return the version of glibc that runs here; empty where it is another C library."""
    try:
        said = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return ""
    return said.removeprefix("glibc ") if said.startswith("glibc ") else ""
