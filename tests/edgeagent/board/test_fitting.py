"""The budget of memory stays within what the board has, whatever the settings say."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.board import fitting
from edgeagent.board.sensors import Sensors
from edgeagent.settings.tree import BudgetSettings, ModelSettings, Settings, TrainSettings, UpdateSettings

MIB = 2**20


def here(folder: Path, memory: str = "", group: str = "", **files: str) -> Sensors:
    """Return a board with this MemTotal, whose process is in these control groups; files: of /sys/fs/cgroup, a slash as __."""
    (folder / "self").mkdir(parents=True, exist_ok=True)
    (folder / "meminfo").write_text(f"MemTotal: {memory} kB\n")
    (folder / "self" / "cgroup").write_text(group)
    for name, text in files.items():
        path = folder / "fs" / "cgroup" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Sensors(sys=folder, proc=folder)


def wanted(most: int, *of_models: int) -> Settings:
    models = tuple(
        ModelSettings(f"m{n}", TrainSettings(), UpdateSettings(), budget=BudgetSettings(max_ram=one)) for n, one in enumerate(of_models)
    )
    return Settings(budget=BudgetSettings(max_ram=most), models=models)


def test_a_profile_of_4_gb_on_a_board_of_512_mb_takes_half_of_what_is_there(tmp_path: Path) -> None:
    made, lowered = fitting.fitted(wanted(1024 * MIB, 1024 * MIB, 64 * MIB, 0), here(tmp_path, "498000"))
    assert made.budget.max_ram == 498_000 * 1024 // 2
    assert [m.budget.max_ram for m in made.models] == [498_000 * 1024 // 2, 64 * MIB, 0], "who sets no limit wants none"
    assert lowered == "budget.max_ram is 1024 MiB, and half of the 486 MiB of this board is 243 MiB"


def test_what_fits_is_as_the_settings_say(tmp_path: Path) -> None:
    settings = wanted(128 * MIB, 128 * MIB)
    assert fitting.fitted(settings, here(tmp_path, "498000")) == (settings, "")
    assert fitting.fitted(wanted(1 << 50), here(tmp_path / "silent", "garbage")) == (wanted(1 << 50), ""), "a kernel that says nothing"


@pytest.mark.parametrize(
    ("group", "files", "limit"),
    [
        ("0::/system.slice/edgeagent.service\n", {"system.slice__edgeagent.service__memory.max": "268435456\n"}, 256),
        ("0::/system.slice/edgeagent.service\n", {"system.slice__memory.max": "134217728", "memory.max": "max"}, 128),
        ("0::/a\n", {"a__memory.max": "max\n"}, 0),
        ("0::/a\n", {}, 0),
        ("0::/../../outside\n", {"memory.max": "67108864"}, 64),
        ("5:cpu,memory:/a\n4:pids:/b\n", {"memory__a__memory.limit_in_bytes": "67108864"}, 64),
        ("5:memory:/a\n", {"memory__a__memory.limit_in_bytes": "9223372036854771712"}, 0),
        ("5:memory:/a\n", {"memory__a__memory.limit_in_bytes": "-1"}, 0),
        ("0::/a\n", {"a__memory.max": "9" * 4000}, 0),
        ("nonsense", {"memory.max": "5"}, 0),
    ],
)
def test_the_limit_of_a_service_is_read_from_either_kind_of_control_groups(
    tmp_path: Path, group: str, files: dict[str, str], limit: int
) -> None:
    sensors = here(tmp_path, "8000000", group, **files)
    assert sensors.group_limit() == limit * MIB
    made, lowered = fitting.fitted(wanted(1024 * MIB), sensors)
    assert made.budget.max_ram == (limit * MIB * 4 // 5 if limit else 1024 * MIB)
    assert ("its service may take" in lowered) is bool(limit)


@given(st.binary(max_size=400), st.binary(max_size=40))
def test_control_groups_that_say_anything_bound_nothing_or_something(group: bytes, limit: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "self").mkdir()
        (folder / "self" / "cgroup").write_bytes(b"0::/" + group)
        (folder / "fs" / "cgroup").mkdir(parents=True)
        (folder / "fs" / "cgroup" / "memory.max").write_bytes(limit)
        assert 0 <= Sensors(sys=folder, proc=folder).group_limit() < 1 << 60


def test_the_limits_of_a_profile_s_own_unit_lower_nothing(tmp_path: Path) -> None:
    from edgeagent import boards

    for name in boards.names():
        board = boards.profile(name)
        files = {"a__memory.max": str(board.memory_max)}
        sensors = here(tmp_path / name, str(board.ram_range[0] * 1024), "0::/a\n", **files)
        settings = wanted(board.memory_max // 2)
        assert fitting.fitted(settings, sensors) == (settings, ""), name


@given(st.integers(0, 1 << 60), st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_no_budget_is_ever_above_half_of_the_board(most: int, memory: int, group: int) -> None:
    class Said(Sensors):
        def memory(self) -> int:
            return memory

        def group_limit(self) -> int:
            return group

    made, lowered = fitting.fitted(wanted(most, most), Said())
    held = made.budget.max_ram
    assert made.models[0].budget.max_ram == held <= most and bool(held) is bool(most), "0 would be no limit"
    assert not memory or held <= max(1, memory // 2)
    assert not group or held <= max(1, group)
    assert bool(lowered) is (held < most)
    assert replace(made, budget=wanted(most).budget, models=wanted(most, most).models) == wanted(most, most), "nothing else is changed"
