"""Tells which board this is, by what firmware and kernel say: device tree, architecture, memory. Any of it may be anything."""

from __future__ import annotations

import os
import sys as interpreter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgeagent.board.sensors import Sensors
from modelwire.errors import BadArgument

from .reading import ARCHES, GENERIC, BoardProfile, names, profile

_READ_MAX = 4096  # bytes of one property of a device tree; those of real boards have some 200
_WORDS = 64  # of `compatible`
_WORD = 128  # characters of one, and of the model
_TREES = ("device-tree", "firmware/devicetree/base")  # in /proc, in /sys
_SMALL = {"aarch64": "armv7l", "x86_64": "i686"}  # programs of 32 bit on a kernel of 64, as many a Raspberry Pi OS has it
_ALIKE = {"arm64": "aarch64", "amd64": "x86_64", "armv8l": "armv7l", "armhf": "armv7l"}


@dataclass(frozen=True, slots=True)
class HereBoard:
    """What this board says of itself. Empty and 0 stand for what it does not say."""

    compatible: tuple[str, ...]
    model: str
    arch: str  # of the programs that run, which need not be the kernel's
    cores: int
    memory: int  # bytes


@dataclass(frozen=True, slots=True)
class Recognised:
    """The profile that fits a board best, and why."""

    profile: BoardProfile
    how: str
    here: HereBoard

    @property
    def known(self) -> bool:
        """Whether it is this board's own, and not the one for all others of its architecture."""
        return not self.profile.generic


def detect(sys: Path = Path("/sys"), proc: Path = Path("/proc"), *, machine: str = "") -> Recognised:
    """Return the profile of this board; of one that no profile knows that of its architecture. Nothing is taken on trust but the words.

    machine: as `uname -m` says, where it is not to be asked. Raises BadArgument for an architecture that there is no profile for.
    """
    here = look(sys, proc, machine=machine)
    known = [profile(name) for name in names()]
    for word in here.compatible:  # the most special one stands first
        for one in known:
            if word in one.compatible:
                return Recognised(one, f"its device tree says {word}", here)
    by_text = [one for one in known if one.model and (here.model == one.model or here.model.startswith(f"{one.model} "))]
    if by_text:
        return Recognised(max(by_text, key=lambda one: len(one.model)), f"its device tree calls it {here.model}", here)
    if here.arch not in GENERIC:
        arch = here.arch or "that it does not tell"
        raise BadArgument(reason=f"there is no profile for boards of the architecture {arch}", fix="edgeagent init without --board")
    name = here.model or next(iter(here.compatible), "")
    said = f"no profile knows {name}" if name else "it does not say which board it is"
    return Recognised(profile(GENERIC[here.arch]), f"{said}; this one is for any of {here.arch}", here)


def look(sys: Path = Path("/sys"), proc: Path = Path("/proc"), *, machine: str = "") -> HereBoard:
    """Return what a board says of itself. sys, proc: where its kernel's files are."""
    trees = (proc / _TREES[0], sys / _TREES[1])
    compatible = next((said for tree in trees if (said := _words(tree / "compatible"))), ())
    model = next((said[0] for tree in trees if (said := _words(tree / "model"))), "")
    return HereBoard(compatible, model, arch_of(machine or own_machine()), _cores(sys), Sensors(sys=sys, proc=proc).memory())


def arch_of(machine: str) -> str:
    """Return one of ARCHES for the name that a kernel or a distribution has for it; the name itself where it is none."""
    arch = _ALIKE.get(machine, machine)
    return arch if arch in ARCHES or (len(arch) <= 32 and arch.isprintable()) else ""


@cache
def own_machine() -> str:
    """Return the architecture of this very program: a Python of 32 bit on a kernel of 64 is of 32."""
    machine = os.uname().machine
    return machine if interpreter.maxsize > 2**32 else _SMALL.get(machine, machine)


def _words(path: Path) -> tuple[str, ...]:
    """Return the texts of a property, each ended by a zero byte; what is no plain ASCII, or too long, is left out."""
    try:
        with path.open("rb") as file:
            data = file.read(_READ_MAX)
    except OSError:
        return ()
    words = (part.decode("ascii", "replace") for part in data.split(b"\0")[:_WORDS])
    return tuple(word for word in words if 0 < len(word) <= _WORD and word.isascii() and word.isprintable())


def _cores(sys: Path) -> int:
    """Return how many processors the kernel says that there are; 0 when it does not say."""
    try:
        text = (sys / "devices" / "system" / "cpu" / "present").read_bytes()[:_READ_MAX].decode("ascii", "replace").strip()
        count = 0
        for part in text.split(","):
            first, _, last = part.partition("-")
            if not (first.isdigit() and (last or first).isdigit() and len(part) <= 16):
                return 0
            count += int(last or first) - int(first) + 1
    except OSError:
        return 0
    return count if 0 < count <= 1 << 16 else 0
