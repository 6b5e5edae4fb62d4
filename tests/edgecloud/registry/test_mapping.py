"""Containers are read from files where they lie: bounded memory, and the errors of a file that is not one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgecloud.registry.mapping import open_container
from modelwire.errors import DigestMismatch, Malformed, MissingFile, TooLarge
from modelwire.lattice.state import ModelState
from modelwire.limits import LARGE, MIB, Limits
from modelwire.update.container import parse
from modelwire.update.sections import Kind, Section
from tests.modelwire.models import model, sealed

ROOT = Path(__file__).parents[3]
WEIGHTS = 20 * MIB


def helper(verb: str, file: Path) -> str:
    return subprocess.run(
        [sys.executable, "-m", "tests.edgecloud.mapped_apply", verb, str(file), str(WEIGHTS)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True, timeout=500,
    ).stdout  # fmt: skip


@pytest.mark.slow("applies a snapshot of twenty million weights")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell a process its peak")
@pytest.mark.skipif(os.environ.get("MODELWIRE_KERNEL") == "reference", reason="the twin reads everything at once")
def test_a_snapshot_of_twenty_million_weights_takes_the_model_s_state_and_eight_mebibytes(tmp_path: Path) -> None:
    file = tmp_path / "snapshot.bin"
    helper("make", file)
    grown, state, size = map(int, helper("apply", file).split())
    assert size > 6 * MIB  # and it is read twice: for its digest, and to be applied
    assert grown < state + 8 * MIB


def small(tmp_path: Path) -> tuple[ModelState, Path]:
    manifest, base = model(0)
    state = ModelState.of_base(manifest, base)
    section = Section(2, np.array([3, 70], np.uint32), np.array([1, -2], np.int32), 96, manifest.exponents[2])
    state.apply(Kind.DELTA, (section,))
    file = tmp_path / "update.bin"
    file.write_bytes(sealed(state, (section,)))
    return state, file


def test_a_mapped_container_is_the_parsed_one_and_outlives_its_name(tmp_path: Path) -> None:
    after, file = small(tmp_path)
    found, expected = open_container(file), parse(file.read_bytes())
    file.unlink()
    assert (found.header, found.table, bytes(found.stream), found.commit) == (
        expected.header, expected.table, bytes(expected.stream), expected.commit,
    )  # fmt: skip
    state = after.at_base()
    state.apply_container(found)
    assert state.root == after.root == found.header.root


def test_files_that_are_no_containers_are_refused(tmp_path: Path) -> None:
    _, file = small(tmp_path)
    with pytest.raises(MissingFile):
        open_container(tmp_path / "none")
    (tmp_path / "empty").touch()
    with pytest.raises(Malformed, match="empty"):
        open_container(tmp_path / "empty")
    with pytest.raises(TooLarge):
        open_container(file, Limits(container=100))
    data = bytearray(file.read_bytes())
    data[150] ^= 1
    file.write_bytes(data)
    with pytest.raises(DigestMismatch):
        open_container(file)
    assert LARGE.container >= 500_000_000
