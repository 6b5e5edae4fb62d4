"""The fuzz harnesses hold for a few thousand runs from their corpus, which are enough to find again what they ever found.

`make fuzz` runs them for a million. Without clang or atheris, their half is skipped; with REQUIRE_FUZZ=1 it fails then.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

from tests.once import once_a_run

from . import fuzz_door

FOLDER = Path(__file__).parents[2] / "csrc" / "fuzz"
RUNS = 3000
SEED = 1


def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_runner", FOLDER / "run.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RUNNER = runner()


def lacking(what: str) -> None:
    """Skip, or fail where the environment promises that everything is there."""
    if os.environ.get("REQUIRE_FUZZ") == "1":
        pytest.fail(f"{what}, and REQUIRE_FUZZ=1 asks for it")
    pytest.skip(what)


def test_every_harness_has_a_corpus_and_every_corpus_a_harness() -> None:
    assert {f.name for f in (FOLDER / "corpus").iterdir()} == set(RUNNER.HARNESSES) >= {"apply", "decode", "encode"}
    for folder in (FOLDER / "corpus").iterdir():
        sizes = [f.stat().st_size for f in folder.iterdir()]
        assert sizes and max(sizes) <= RUNNER.LONGEST


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core's objects under the sanitisers, built once a run."""
    missing = RUNNER.missing()
    if missing:
        lacking(missing)
    with once_a_run(tmp_path_factory, "fuzz-core") as (folder, made):
        if not made:
            RUNNER.build_core(folder)
    return folder


@pytest.mark.slow("builds a fuzz harness and runs it some thousand times")
@pytest.mark.parametrize("harness", RUNNER.HARNESSES)
def test_a_harness_reports_nothing(harness: str, core: Path, tmp_path: Path) -> None:
    executed, reports, said = RUNNER.run(harness, tmp_path, core, RUNS, SEED)
    assert not reports, said[-4000:]
    assert executed >= RUNS


@pytest.mark.slow("opens some thousand damaged files")
@pytest.mark.parametrize("door", fuzz_door.DOORS)
def test_a_door_lets_nothing_through_but_named_errors(door: str) -> None:
    """Without atheris: its seeds, whole, cut and with single bytes changed, in a fixed order."""
    target = fuzz_door.DOORS[door].target
    for data in fuzz_door.DOORS[door].seeds():
        target(data)
        for at in range(0, len(data), max(1, len(data) // 60)):
            target(data[:at])
            for value in (0x00, 0x7F, 0xFF):
                target(data[:at] + bytes([data[at] ^ 1 if data[at] == value else value]) + data[at + 1 :])


@pytest.mark.slow("runs a fuzz harness some thousand times")
@pytest.mark.parametrize("door", ("container", "records", "parts", "proof", "manifest"))
def test_atheris_reports_nothing_at_a_door(door: str) -> None:
    if importlib.util.find_spec("atheris") is None:
        lacking("atheris is not installed")
    executed, reports, said = fuzz_door.run(door, RUNS, SEED)
    assert not reports, said[-4000:]
    assert executed >= RUNS
