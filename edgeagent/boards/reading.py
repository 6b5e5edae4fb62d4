"""Reads board profiles, strictly: every key is known and there, every figure says where it comes from, every setting is one of ours."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

from edgeagent.settings.reading import parse, parse_value
from edgeagent.settings.template import say
from edgeagent.settings.tree import SECTIONS
from modelwire.errors import BadArgument, ConfigError
from modelwire.text import is_plain

FOLDER = Path(__file__).parent / "profiles"
PROFILE_MAX = 64 * 1024  # bytes
STORAGES = ("sd", "emmc", "nvme", "ssd")
ARCHES = ("aarch64", "armv7l", "x86_64")  # as `uname -m` says, of the programs that run
GENERIC = {"aarch64": "generic-arm64", "armv7l": "generic-armhf", "x86_64": "x86-64-gateway"}  # for boards that no profile knows
WATCHED = (  # what every profile sets
    "budget.max_ram", "budget.max_cpu", "budget.max_seconds", "budget.max_celsius", "budget.flash_bytes_a_day", "board.thermal_zones",
    "link.profile", "link.keepalive", "link.monthly_bytes", "update.wait_most",
)  # fmt: skip
UNIT = {"MemoryMax": r"[1-9][0-9]*[MG]", "CPUQuota": r"[1-9][0-9]*%", "CPUWeight": r"[1-9][0-9]{0,3}", "IOWeight": r"[1-9][0-9]{0,3}"}
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_SIZES = {"M": 2**20, "G": 2**30}


@dataclass(frozen=True, slots=True)
class BoardFigure:
    """One figure of a profile, with where it comes from: a data sheet, an emulator, or that nobody has measured it."""

    value: int | str
    source: str


@dataclass(frozen=True, slots=True)
class BoardSystem:
    """A system that a board runs, and the TFLite runtime that there is for it."""

    name: str
    arch: str
    python: str  # its own, such as 3.11
    glibc: str
    extra: str  # litert or tflite: of our distribution
    package: str  # that the extra brings
    version: str  # that was looked up
    numpy: str  # pip, or system where only the distribution has a build
    source: str


@dataclass(frozen=True, slots=True)
class BoardProfile:
    """One board."""

    name: str  # of its file, as --board takes it
    title: str
    compatible: tuple[str, ...]  # any of these in its device tree; none: no board is recognised as this one
    model: str  # with which its device tree's model begins; empty: likewise
    recognised_by: str  # where these come from
    ram_range: tuple[int, int]  # MiB that its kernels may say that there are, least and most
    cores: BoardFigure
    ram_mib: BoardFigure  # of the smallest one that is meant
    storage: BoardFigure  # one of STORAGES
    systems: tuple[BoardSystem, ...]  # the first is the one to take
    settings: Mapping[str, BoardFigure]  # "section.key": as text, as the settings file takes it
    unit: Mapping[str, BoardFigure]  # properties of its service: MemoryMax and others

    @property
    def generic(self) -> bool:
        """Whether it stands for boards that no other profile knows."""
        return self.name in GENERIC.values()

    @property
    def arches(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(system.arch for system in self.systems))

    @property
    def memory_max(self) -> int:
        """Bytes that its service may take."""
        text = str(self.unit["MemoryMax"].value)
        return int(text[:-1]) * _SIZES[text[-1]]


def names() -> tuple[str, ...]:
    """Return the names of all profiles, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def profile(name: str) -> BoardProfile:
    """Return the profile of this name. Raises BadArgument, which lists them, where there is none."""
    if not _NAME.match(name) or name not in names():
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.5)
        meant = f" (did you mean {near[0]}?)" if near else ""
        shown = name if name.isprintable() and len(name) <= 64 else "such"
        fix = f"take one of {', '.join(names())}, or auto; edgeagent board list says what each is"
        raise BadArgument(reason=f"there is no profile of a board {shown!r}{meant}", fix=fix)
    return parsed(name, (FOLDER / f"{name}.toml").read_bytes())


def parsed(name: str, data: bytes) -> BoardProfile:
    """Return the profile that a file's bytes hold. Raises ConfigError, which names the key, for anything else."""
    where = f"profile {name}"
    if not _NAME.match(name) or len(data) > PROFILE_MAX:
        raise ConfigError(reason=f"{where}: its name is no name of a profile, or it has more than {PROFILE_MAX} bytes")
    try:
        table = parse(data.decode())
    except ValueError as e:  # no UTF-8, or not TOML
        raise ConfigError(reason=f"{where}: {e}") from None
    _keys(table, ("name", "recognise", "has", "system", "settings", "unit"), where)
    recognise, has = _table(table["recognise"], where), _table(table["has"], where)
    _keys(recognise, ("compatible", "model", "ram_mib", "from"), f"{where}: recognise")
    _keys(has, ("cores", "ram_mib", "storage"), f"{where}: has")
    settings, unit = _table(table["settings"], where), _table(table["unit"], where)
    _keys(settings, WATCHED, f"{where}: settings")
    _keys(unit, tuple(UNIT), f"{where}: unit")
    systems = table["system"]
    if not isinstance(systems, list) or not systems:
        raise ConfigError(reason=f"{where}: there is no [[system]]")
    return BoardProfile(
        name, _text(table["name"], f"{where}: name"),
        tuple(_text(one, f"{where}: compatible") for one in _list(recognise["compatible"], where)),
        _text(recognise["model"], f"{where}: model", empty=True), _text(recognise["from"], f"{where}: recognise"),
        _range(recognise["ram_mib"], where),
        _whole(has["cores"], f"{where}: cores", 1, 1024), _whole(has["ram_mib"], f"{where}: ram_mib", 64, 1 << 24),
        _word(has["storage"], f"{where}: storage", STORAGES),
        tuple(_system(one, where) for one in systems),
        {key: _setting(key, value, where) for key, value in settings.items()},
        {key: _property(key, value, where) for key, value in unit.items()},
    )  # fmt: skip


def _system(table: Any, where: str) -> BoardSystem:
    keys = [f.name for f in fields(BoardSystem)][:-1]
    _keys(_table(table, where), (*keys, "from"), f"{where}: system")
    said = {key: _text(value, f"{where}: system: {key}") for key, value in table.items()}
    if said["arch"] not in ARCHES or said["numpy"] not in ("pip", "system") or said["extra"] not in ("litert", "tflite"):
        raise ConfigError(reason=f"{where}: system {said['name']}: arch, numpy or extra is another word than those that there are")
    for key in ("python", "glibc"):
        if not re.fullmatch(r"[0-9]+\.[0-9]+", said[key]):
            raise ConfigError(reason=f"{where}: system {said['name']}: {key} is no version, such as 3.11")
    return BoardSystem(*(said[key] for key in (*keys, "from")))


def _setting(key: str, value: Any, where: str) -> BoardFigure:
    """Return a setting as text, checked as the settings file would check it."""
    section, _, name = key.partition(".")
    field: Field[Any] = next(f for f in fields(SECTIONS[section]) if f.name == name)
    given, source = _figure(value, f"{where}: {key}")
    return BoardFigure(say(field, parse_value(field, given, f"{where}: {key}")), source)


def _property(key: str, value: Any, where: str) -> BoardFigure:
    given, source = _figure(value, f"{where}: {key}")
    if isinstance(given, bool) or not isinstance(given, (str, int)) or not re.fullmatch(UNIT[key], str(given)):
        raise ConfigError(reason=f"{where}: {key}: {given!r} is not of the form {UNIT[key]}")
    return BoardFigure(str(given), source)


def _figure(value: Any, where: str) -> tuple[Any, str]:
    _keys(_table(value, where), ("is", "from"), where)
    return value["is"], _text(value["from"], f"{where}: from")


def _whole(value: Any, where: str, least: int, most: int) -> BoardFigure:
    given, source = _figure(value, where)
    if type(given) is not int or not least <= given <= most:
        raise ConfigError(reason=f"{where}: {given!r} is no whole number from {least} to {most}")
    return BoardFigure(given, source)


def _word(value: Any, where: str, words: tuple[str, ...]) -> BoardFigure:
    given, source = _figure(value, where)
    if given not in words:
        raise ConfigError(reason=f"{where}: {given!r} is not one of {', '.join(words)}")
    return BoardFigure(given, source)


def _range(value: Any, where: str) -> tuple[int, int]:
    said = _list(value, where)
    if len(said) != 2 or not all(type(one) is int for one in said) or not 0 < said[0] <= said[1] <= 1 << 24:
        raise ConfigError(reason=f"{where}: recognise: ram_mib is no range of MiB, such as [700, 1024]")
    return said[0], said[1]


def _text(value: Any, where: str, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not is_plain(value) or not (value or empty):
        raise ConfigError(reason=f"{where}: {value!r} is no line of text")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigError(reason=f"{where}: {value!r} is no list")
    return value


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(reason=f"{where}: {value!r} is no table")
    return value


def _keys(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    if missing := [key for key in keys if key not in table]:
        raise ConfigError(reason=f"{where}: {missing[0]} is not there")
    if unknown := [key for key in table if key not in keys]:
        raise ConfigError(reason=f"{where}: {unknown[0]} is no key of it")
