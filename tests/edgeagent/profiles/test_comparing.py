"""A board beside the profile that its settings name: what is well, what is wrong, what can't be told."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from edgeagent import boards
from edgeagent.board.sensors import Sensors
from edgeagent.boards import BoardAsIs, ComparedFact
from edgeagent.settings.tree import BoardSettings, BudgetSettings, Settings
from modelwire.errors import BadArgument
from tests.edgeagent.profiles.trees import BOARDS, RealBoard, tree

PI4 = next(board for board in BOARDS if board.profile == "pi-4")
ZERO = next(board for board in BOARDS if board.profile == "pi-zero-2w")


def set_up(profile: str, **budget: int) -> Settings:
    """Return the settings of a board that was set up with this profile."""
    given = boards.profile(profile).settings
    zones = tuple(str(given["board.thermal_zones"].value).replace(",", " ").split())
    return Settings(board=BoardSettings(name=profile, thermal_zones=zones), budget=BudgetSettings(**budget))


def facts(settings: Settings, folder: Path, board: RealBoard, *, extra: str = "litert", python: tuple[int, int] = (3, 11),
          glibc: str = "2.36", sensors: Sensors | None = None) -> dict[str, ComparedFact]:  # fmt: skip
    there = {"litert": "ai_edge_litert", "tflite": "tflite_runtime"}[extra] if extra else ""
    as_is = BoardAsIs(sensors or tree(folder, board), board.machine, python, glibc, lambda module: module == there)
    return {fact.what: fact for fact in boards.compare(settings, folder, as_is)}


@pytest.mark.parametrize("board", BOARDS, ids=[f"{board.profile}-{number}" for number, board in enumerate(BOARDS)])
def test_nothing_is_wrong_with_a_real_board_that_was_set_up_with_its_own_profile(tmp_path: Path, board: RealBoard) -> None:
    system = next(one for one in boards.profile(board.profile).systems if one.arch == board.machine)
    numbers = tuple(int(part) for part in system.python.split("."))
    found = facts(set_up(board.profile), tmp_path, board, extra=system.extra, python=(numbers[0], numbers[1]), glibc=system.glibc)
    assert [fact for fact in found.values() if fact.ok is False] == []
    assert all(found[what].ok for what in ("board", "board arch", "board cores", "board memory", "board system"))
    assert not board.zones or "board heat" not in found or found["board heat"].ok
    assert all(fact.text.isprintable() for fact in found.values())


def test_a_profile_of_4_gb_on_a_board_of_512_mb_is_wrong_in_three_ways_each_with_what_to_do(tmp_path: Path) -> None:
    found = facts(set_up("jetson-orin-nano", max_ram=1 << 30), tmp_path, ZERO)
    wrong = {what for what, fact in found.items() if fact.ok is False}
    assert wrong == {"board", "board memory", "board budget"}
    assert all(found[what].hint for what in wrong)
    assert found["board memory"].trouble == found["board budget"].trouble == "board-smaller"
    assert "pi-zero-2w" in found["board"].text and "417 MiB" in found["board memory"].text
    assert "half of the 417 MiB" in found["board budget"].text


def test_the_same_board_with_less_memory_is_said_although_its_name_is_right(tmp_path: Path) -> None:
    found = facts(set_up("pi-4"), tmp_path, replace(PI4, memory_kib=440_000))
    assert found["board"].ok and found["board memory"].ok is False
    found = facts(set_up("pi-4"), tmp_path / "more", replace(PI4, memory_kib=33_000_000))
    assert found["board memory"].ok is None, "more is no fault"


def test_another_architecture_is_wrong_and_fewer_cores_are_not(tmp_path: Path) -> None:
    found = facts(set_up("pi-5"), tmp_path, replace(PI4, compatible=(), machine="armv7l", cores=1))
    assert found["board arch"].ok is False and "armv7l" in found["board arch"].text
    assert found["board cores"].ok is None and found["board"].ok is None
    found = facts(set_up("pi-5"), tmp_path / "odd", replace(PI4, compatible=(), machine="\x1b[2J"), sensors=Sensors(tmp_path, tmp_path))
    assert found["board arch"].ok is False and found["board"].ok is None


def test_without_a_profile_only_the_budget_is_looked_at(tmp_path: Path) -> None:
    assert facts(Settings(), tmp_path, ZERO) == {}
    found = facts(Settings(budget=BudgetSettings(max_ram=1 << 30)), tmp_path / "b", ZERO)
    assert list(found) == ["board budget"] and found["board budget"].ok is False


def test_auto_is_compared_with_the_profile_that_fits(tmp_path: Path) -> None:
    found = facts(Settings(board=BoardSettings(name="auto")), tmp_path, ZERO)
    assert found["board"].ok and "pi-zero-2w" in found["board"].text


def test_a_name_of_no_profile_is_an_error_that_lists_them(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="no profile of a board 'pi-9'"):
        facts(Settings(board=BoardSettings(name="pi-9")), tmp_path, ZERO)


@pytest.mark.parametrize(
    ("python", "glibc", "extra", "ok", "says"),
    [
        ((3, 11), "2.36", "litert", True, "ai-edge-litert"),
        ((3, 11), "2.31", "litert", None, "has glibc 2.36"),
        ((3, 9), "2.36", "litert", None, "knows Python 3.11"),
        ((3, 11), "2.36", "tflite", None, "it has tflite"),
        ((3, 11), "2.36", "", None, "there is none"),
    ],
)
def test_python_glibc_and_runtime_are_said(
    tmp_path: Path, python: tuple[int, int], glibc: str, extra: str, ok: bool | None, says: str
) -> None:
    fact = facts(set_up("pi-4"), tmp_path, PI4, python=python, glibc=glibc, extra=extra)["board system"]
    assert fact.ok is ok and says in fact.text


def test_a_zone_that_is_not_there_is_said_with_those_that_are(tmp_path: Path) -> None:
    fact = facts(set_up("pi-4"), tmp_path, replace(PI4, zones=("soc-thermal", "gpu-thermal")))["board heat"]
    assert fact.ok is False and "soc-thermal, gpu-thermal" in fact.text and "board.thermal_zones" in fact.hint
    assert "board heat" not in facts(set_up("pi-4"), tmp_path / "none", replace(PI4, zones=())), "said beside the budget"


@pytest.mark.parametrize(
    ("files", "ok"),
    [
        ({"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n"}, True),
        ({"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n"}, False),
        ({"proc/cgroups": "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t90\t1\nmemory\t0\t90\t0\n"}, False),
        ({"proc/cgroups": "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t5\t90\t1\n"}, True),
        ({"sys/fs/cgroup/cgroup.controllers": "cpu pids\n", "proc/cgroups": "memory\t0\t90\t1\n"}, True),
        ({"sys/fs/cgroup/cgroup.controllers": "cpu pids\n", "proc/cgroups": "memory\t0\t90\t0\n"}, False),
        ({"proc/cgroups": "memory\t\xff\n"}, None),
        ({}, None),
    ],
)
def test_limits_that_the_kernel_does_not_enforce_are_named(tmp_path: Path, files: dict[str, str], ok: bool | None) -> None:
    sensors = tree(tmp_path, PI4)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    fact = facts(set_up("pi-4"), tmp_path, PI4, sensors=sensors)["board limits"]
    assert fact.ok is ok
    assert ("cgroup_enable=memory" in fact.hint and "not enforced" in fact.text) is (ok is False)


@pytest.mark.parametrize(
    ("disk", "files", "kind"),
    [
        ("mmcblk0/mmcblk0p4", {"mmcblk0/device/type": "SD\n"}, "sd"),
        ("mmcblk1/mmcblk1p2", {"mmcblk1/device/type": "MMC\n"}, "emmc"),
        ("mmcblk1/mmcblk1p2", {"mmcblk1/device/type": "?\n"}, ""),
        ("nvme0n1/nvme0n1p1", {}, "nvme"),
        ("sda/sda1", {"sda/removable": "1"}, "usb"),
        ("sda", {"sda/removable": "0", "sda/queue/rotational": "0"}, "ssd"),
        ("sda/sda1", {"sda/removable": "0", "sda/queue/rotational": "1"}, "disk"),
        ("vda/vda4", {}, "virtual"),
        ("dm-0", {}, ""),
    ],
)
def test_the_kind_of_storage_is_what_the_disk_s_driver_says(tmp_path: Path, disk: str, files: dict[str, str], kind: str) -> None:
    sensors = tree(tmp_path, PI4)
    place = sensors.sys / "devices" / "block"
    (place / disk).mkdir(parents=True)
    (place / disk.partition("/")[0] / "queue").mkdir()
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    device = os.stat(tmp_path).st_dev
    entry = sensors.sys / "dev" / "block" / f"{os.major(device)}:{os.minor(device)}"
    entry.parent.mkdir(parents=True)
    entry.symlink_to(place / disk)
    fact = facts(set_up("pi-4"), tmp_path, PI4, sensors=sensors)["board disk"]
    assert fact.ok is (True if kind == "sd" else None)
    assert (f"is on {kind};" in fact.text or fact.text == kind) if kind else "does not say" in fact.text


def test_a_watchdog_is_named_or_missed(tmp_path: Path) -> None:
    sensors = tree(tmp_path, PI4)
    assert facts(set_up("pi-4"), tmp_path, PI4, sensors=sensors)["board watchdog"].ok is None
    dog = sensors.sys / "class" / "watchdog" / "watchdog0"
    dog.mkdir(parents=True)
    (dog / "identity").write_text("Broadcom BCM2835 Watchdog timer\n")
    fact = facts(set_up("pi-4"), tmp_path, PI4, sensors=sensors)["board watchdog"]
    assert fact.ok and "BCM2835" in fact.text


def test_auto_leaves_out_a_limit_of_heat_where_no_zone_says_one_and_a_name_does_not(tmp_path: Path) -> None:
    bare = tree(tmp_path / "bare", replace(ZERO, zones=()))
    assert "budget.max_celsius" not in boards.choose("auto", bare).given
    assert any("left out" in line for line in boards.choose("auto", bare).says)
    assert boards.choose("pi-zero-2w", bare).given["budget.max_celsius"] == "75"
    warm = boards.choose("auto", tree(tmp_path / "warm", ZERO))
    assert warm.given["budget.max_celsius"] == "75" and warm.profile.name == "pi-zero-2w"
    assert all(note.startswith("from the profile pi-zero-2w") for note in warm.notes.values()) and set(warm.notes) == set(warm.given)


def test_a_profile_of_another_board_is_said_when_it_is_chosen(tmp_path: Path) -> None:
    says = boards.choose("jetson-orin-nano", tree(tmp_path, ZERO)).says
    assert any("417 MiB of memory" in line and "smaller budget" in line for line in says)


def test_the_hottest_of_the_zones_that_count_is_the_board_s_heat_and_the_hottest_of_all_where_none_does(tmp_path: Path) -> None:
    sensors = tree(tmp_path, replace(PI4, zones=("cpu-thermal", "gpu-thermal", "cpu-thermal", "battery")))
    assert sensors.celsius() == 48.0
    assert replace(sensors, zones=("cpu-thermal",)).celsius() == 47.0
    assert replace(sensors, zones=("cpu-thermal", "none")).celsius() == 47.0
    assert replace(sensors, zones=("none",)).celsius() == 48.0
