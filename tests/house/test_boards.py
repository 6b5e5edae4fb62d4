"""Each promised board has a profile that is whole and could work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.house.pages import PROJECT, ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BOARDS = sorted((ROOT / "hw" / "boards").glob("*.toml"))


def test_there_is_a_profile_for_each_board_that_is_promised() -> None:
    names = {"pi-zero-2w", "pi-3b", "pi-4", "pi-5", "jetson-nano", "jetson-orin-nano", "x86-64-gateway"}
    assert {p.stem for p in BOARDS} == names


@pytest.mark.parametrize("file", BOARDS, ids=lambda p: p.stem)
def test_a_board_profile_is_complete_and_could_work(file: Path) -> None:
    board = tomllib.loads(file.read_text())
    shape = {
        "name": str, "system": str, "arch": str, "cores": int, "ram_mib": int, "python": str, "glibc": str,
        "runtime": {"extra": str, "package": str, "version": str, "numpy": str},
        "training": {"max_ram_mib": int, "max_cpu_percent": int, "max_seconds": int, "max_celsius": int},
    }  # fmt: skip
    check_shape(board, shape)
    python, glibc = version(board["python"]), version(board["glibc"])
    runtime, training = board["runtime"], board["training"]
    assert board["arch"] in ("armv7l", "aarch64", "x86_64") and python >= (3, 10)
    assert any(spec.startswith(runtime["package"]) for spec in PROJECT["project"]["optional-dependencies"][runtime["extra"]])
    # Where wheels exist: see docs/board-setup.md.
    if runtime["package"] == "tflite-runtime":
        assert python <= (3, 11) and (board["arch"] == "x86_64" or glibc >= (2, 34))
    else:
        assert board["arch"] != "armv7l" and glibc >= (2, 27)
    assert runtime["numpy"] == ("system" if board["arch"] == "armv7l" else "pip")
    assert 64 <= training["max_ram_mib"] <= board["ram_mib"] // 4
    assert 0 < training["max_cpu_percent"] <= 100 and 0 < training["max_seconds"] <= 3600
    assert 50 <= training["max_celsius"] <= 95


def check_shape(value: dict[str, Any], shape: dict[str, Any]) -> None:
    assert list(value) == list(shape)
    for key, want in shape.items():
        if isinstance(want, dict):
            check_shape(value[key], want)
        else:
            assert type(value[key]) is want and value[key], key


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
