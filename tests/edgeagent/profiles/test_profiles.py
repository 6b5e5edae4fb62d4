"""Each board that is promised has a profile that is whole, could work, and says of every figure where it comes from."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent import boards
from edgeagent.boards import BoardProfile
from edgeagent.settings import reading, units
from modelwire.errors import BadArgument, ConfigError
from tests.house.pages import PROJECT, ROOT

PROMISED = (
    "beagleplay", "generic-arm64", "generic-armhf", "jetson-nano", "jetson-orin-nano", "pi-3b", "pi-4", "pi-5", "pi-zero-2w",
    "x86-64-gateway",
)  # fmt: skip
FILES = Path(boards.__file__).parent / "profiles"
ALL = [boards.profile(name) for name in PROMISED]
every = pytest.mark.parametrize("board", ALL, ids=lambda board: board.name)


def test_there_is_a_profile_for_each_board_that_is_promised() -> None:
    assert boards.names() == PROMISED


@every
def test_a_profile_takes_a_runtime_that_exists_for_each_of_its_systems(board: BoardProfile) -> None:
    for system in board.systems:
        python, glibc = numbers(system.python), numbers(system.glibc)
        assert python >= (3, 10)
        assert any(spec.startswith(system.package) for spec in PROJECT["project"]["optional-dependencies"][system.extra])
        # Where wheels exist: see docs/board-setup.md.
        if system.package == "tflite-runtime":
            assert python <= (3, 11) and (system.arch == "x86_64" or glibc >= (2, 34))
        else:
            assert system.arch != "armv7l" and glibc >= (2, 27)
        assert system.numpy == ("system" if system.arch == "armv7l" else "pip")


@every
def test_what_training_may_take_fits_the_smallest_board_that_a_profile_is_for(board: BoardProfile) -> None:
    ram, most = int(board.ram_mib.value), units.size(str(board.settings["budget.max_ram"].value))
    assert 64 * 2**20 <= most <= ram * 2**20 // 4
    assert 2 * most <= board.memory_max <= ram * 2**20 // 2, "a process that measures stands beside it; the rest is others'"
    least, largest = board.ram_range
    assert 0.55 * ram <= least <= ram <= largest, "firmware and kernel keep some of what is sold"
    assert most <= least * 2**20 // 2, "an agent keeps to half of what its kernel says that there is"
    given = {key: str(figure.value) for key, figure in board.settings.items()}
    least_settings = {"device": {"name": "a", "fleet": "b"}, "model": [{"name": "m"}]}
    loaded = reading.build(least_settings, where="", path=Path("x"), environment={}, flags=given)
    budget = loaded.settings.budget
    assert 0 < budget.max_cpu <= 1 and 0 < budget.max_seconds <= 3600 and 50 <= budget.max_celsius <= 95
    assert budget.flash_bytes_a_day >= 40_000_000, "twice what a day of four trainings may write"


@every
def test_every_figure_says_where_it_comes_from_and_none_that_nobody_measured_says_otherwise(board: BoardProfile) -> None:
    figures = {"cores": board.cores, "ram": board.ram_mib, "storage": board.storage, **board.settings, **board.unit}
    for key, figure in figures.items():
        assert len(figure.source) > 8, key
        if key.startswith(("budget.", "Memory", "CPU", "IO")):
            assert re.search(r"not (measured|known)|twice budget|documentation|measured on x86-64", figure.source), key
    assert not board.compatible or "kernel source" in board.recognised_by


def test_no_two_profiles_claim_the_same_board() -> None:
    words = [word for board in ALL for word in board.compatible]
    assert len(set(words)) == len(words) and all(word.isascii() and "," in word for word in words)
    assert all(bool(board.compatible) != board.generic for board in ALL)
    assert {arch for board in ALL if board.generic for arch in board.arches} == {"aarch64", "armv7l", "x86_64"}


@every
def test_the_drop_in_says_the_limits_and_where_they_come_from(board: BoardProfile) -> None:
    text = boards.unit_drop_in(board)
    section, *lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert section == "[Service]"
    assert dict(line.split("=") for line in lines) == {key: figure.value for key, figure in board.unit.items()}
    assert list(board.unit) == ["MemoryMax", "CPUQuota", "CPUWeight", "IOWeight"]


def test_a_name_that_is_none_is_refused_with_those_that_there_are() -> None:
    for name in ("pi-zero-2", "", "../pi-4", "pi-4.toml", "PI-4", "\x1b[2J", "x" * 5000, "/etc/passwd"):
        with pytest.raises(BadArgument, match="no profile of a board") as refused:
            boards.profile(name)
        assert "pi-zero-2w" in str(refused.value.facts["fix"]) and len(str(refused.value)) < 500
    with pytest.raises(BadArgument, match="did you mean pi-zero-2w"):
        boards.profile("pi-zero2w")


BAD: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("is not there", lambda text: text.replace('name = "Raspberry Pi 4 Model B"\n', "", 1)),
    ("colour is no key", lambda text: 'colour = "green"\n' + text),
    ("is not there", lambda text: re.sub(r'"budget.max_ram".*\n', "", text)),
    ("is no key", lambda text: text.replace('"budget.max_ram"', '"budget.max_rum"').replace("[unit]", '"budget.max_ram" = 1\n[unit]')),
    ("out of range", lambda text: text.replace('"budget.max_cpu" = { is = 0.5', '"budget.max_cpu" = { is = 50')),
    ("not a unit of size", lambda text: text.replace('"256MiB"', '"256 apples"')),
    ("MemoryMax", lambda text: text.replace('is = "512M"', 'is = "512M\\nExecStart=/bin/sh"')),
    ("from is not there", lambda text: text.replace(', from = "not measured: chosen" }', " }", 1)),
    ("no whole number", lambda text: text.replace("cores = { is = 4", "cores = { is = 0")),
    ("no range", lambda text: text.replace("[700, 8192]", "[8192, 700]")),
    ("not one of", lambda text: text.replace('storage = { is = "sd"', 'storage = { is = "floppy"')),
    ("no version", lambda text: text.replace('python = "3.11"', 'python = "new"', 1)),
    ("another word", lambda text: text.replace('arch = "aarch64"', 'arch = "m68k"', 1)),
)


@pytest.mark.parametrize(("why", "change"), BAD)
def test_a_profile_that_is_not_whole_is_refused_by_the_key(why: str, change: Callable[[str], str]) -> None:
    text = (FILES / "pi-4.toml").read_text()
    assert change(text) != text
    with pytest.raises(ConfigError, match=why):
        boards.parsed("pi-4", change(text).encode())


@given(st.binary(max_size=300))
def test_bytes_that_are_no_profile_are_refused(data: bytes) -> None:
    with pytest.raises(ConfigError):
        boards.parsed("mine", data)


@given(st.recursive(st.one_of(st.integers(), st.text(max_size=5), st.booleans()), lambda inner: st.lists(inner, max_size=3), max_leaves=4))
def test_a_figure_of_any_form_is_taken_whole_or_refused(value: Any) -> None:
    line = f'cores = {{ is = {toml(value)}, from = "a test" }}'
    text = re.sub(r"cores = .*", lambda _: line, (FILES / "pi-4.toml").read_text(), count=1)
    try:
        made = boards.parsed("pi-4", text.encode())
    except ConfigError:
        return
    assert made.cores.value == value and type(value) is int


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return "'" + re.sub(r"[^ -&(-~]", "", value) + "'" if isinstance(value, str) else str(value)


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


@pytest.mark.slow("copies the sources of all packages as an installation does", seconds=3)
@pytest.mark.one_environment("it asks setuptools alone")
def test_an_installed_package_has_the_profiles(tmp_path: Path) -> None:
    line = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.stem for path in (tmp_path / "edgeagent" / "boards" / "profiles").iterdir()) == list(PROMISED)
