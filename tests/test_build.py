"""What a change of a source costs: its own object and the link, no install. And what make says of itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of all that the kernels are made from, built once."""
    copied = tmp_path_factory.mktemp("tree")
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copied)
    for room in ("csrc", "modelwire/_core"):
        shutil.copytree(ROOT / room, copied / room, ignore=shutil.ignore_patterns("*.so", "kernel.c", "fuzz", "__pycache__"))
    (copied / "modelwire" / "__init__.py").touch()
    (copied / "cloud").mkdir()
    compiler = copied / "unoptimised"
    compiler.write_text('#!/bin/sh\nexec cc "$@" -O0\n')  # a tenth of the time; what is compiled again does not hang on it
    compiler.chmod(0o755)
    build(copied)
    return copied


def build(tree: Path) -> None:
    line = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--parallel", "2"]
    compilers = {"CC": str(tree / "unoptimised"), "LDSHARED": "cc -shared"}
    done = subprocess.run(line, cwd=tree, env={**os.environ, **compilers}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def built_again(tree: Path, *touched: str) -> set[str]:
    """Return the objects, by their names, that a build makes anew after files were touched."""
    before = {path: path.stat().st_mtime_ns for path in objects(tree)}
    linked = module(tree).stat().st_mtime_ns
    for name in touched:
        (tree / name).touch()
    time.sleep(0.05)  # a file system's clock ticks
    build(tree)
    assert module(tree).stat().st_mtime_ns > linked
    return {path.stem for path, then in before.items() if path.stat().st_mtime_ns != then}


def objects(tree: Path) -> list[Path]:
    return sorted((tree / "build" / "kernels").rglob("*.o"))


def module(tree: Path) -> Path:
    (one,) = (tree / "modelwire" / "_core").glob("kernel.*.so")
    return one


def readers(header: str) -> set[str]:
    """Return the objects that read a header, themselves or through another."""
    texts = {path.name: path.read_text() for path in CSRC.glob("mw*.[ch]")}
    texts["kernel.c"] = (ROOT / "modelwire" / "_core" / "csrc.pxd").read_text()
    direct = {name for name, text in texts.items() if re.search(rf'^(#include|cdef extern from) "{re.escape(header)}"', text, re.M)}
    return {Path(name).stem for name in direct if name.endswith(".c")}.union(*(readers(name) for name in direct if name.endswith(".h")))


@pytest.mark.slow("compiles the kernels anew")
def test_a_build_makes_what_a_change_touches_and_nothing_else(tree: Path) -> None:
    every = {path.stem for path in CSRC.glob("mw_*.c")} | {"kernel"}
    assert sorted(path.stem for path in objects(tree)) == sorted(every)
    assert built_again(tree) == set()
    assert built_again(tree, "csrc/mw_head.c") == {"mw_head"}
    for header in ("mw_head_lanes.h", "mw_range.h"):
        assert built_again(tree, f"csrc/{header}") == readers(header) != set()
    for door in ("kernel.pyx", "planes.pxi", "csrc.pxd"):
        assert built_again(tree, f"modelwire/_core/{door}") == {"kernel"}
    assert built_again(tree, "setup.py") == every  # which holds the flags


@pytest.mark.slow("compiles the kernels anew")
def test_a_header_that_goes_and_a_source_that_does_not_compile_leave_nothing_stale(tree: Path) -> None:
    source, header = tree / "csrc" / "mw_crc32c.c", tree / "csrc" / "mw_extra.h"
    text = source.read_text()
    header.touch()
    source.write_text(f'#include "mw_extra.h"\n{text}')
    assert built_again(tree) == {"mw_crc32c"}
    header.unlink()
    with pytest.raises(AssertionError, match=r"mw_extra\.h"):
        build(tree)
    assert "mw_crc32c" not in {path.stem for path in objects(tree)}
    source.write_text(text)
    build(tree)
    assert "mw_crc32c" in {path.stem for path in objects(tree)}
    assert built_again(tree) == set()


# What make does


@pytest.mark.parametrize("environment", [".venv", ".venv-tflite"])
@pytest.mark.parametrize(
    ("touched", "installs"),
    [("csrc/mw_head.c", False), ("csrc/mw.h", False), ("modelwire/_core/planes.pxi", False), ("pyproject.toml", True), ("setup.py", True)],
)
def test_make_installs_when_what_is_asked_for_changes_and_else_builds_alone(
    tmp_path: Path, environment: str, touched: str, installs: bool
) -> None:
    for stamp in (".installed", ".ready"):
        (tmp_path / stamp).touch()
    name = "VENV" if environment == ".venv" else "VENV_TFLITE"
    line = ["make", "--no-print-directory", f"{name}={tmp_path}", f"{tmp_path}/.ready", "--dry-run"]
    assert "up to date" in said(*line)
    planned = said(*line, f"--what-if={touched}")
    assert ("--editable" in planned) == installs
    assert "setup.py --quiet build_ext --inplace" in planned


def test_the_list_of_verbs_fits_one_screen() -> None:
    lines = said("make", "--no-print-directory", "help", "PYTHON=/usr/bin/python3.11").splitlines()
    assert len(lines) <= 24 and all(len(line) <= 80 for line in lines)
    verbs = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    assert [line.split()[0] for line in lines if line.startswith("  ")] == verbs


def said(*line: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    return subprocess.run(line, cwd=ROOT, env=clean, capture_output=True, text=True, check=True).stdout


def test_the_environments_hold_what_the_build_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["optional-dependencies"]["build"] == project["build-system"]["requires"]
