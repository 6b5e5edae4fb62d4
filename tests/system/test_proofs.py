"""What a fleet published is proven to somebody who has nothing of ours, and what the centre lost its board gives back, leaf by leaf."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgecloud.registry import open_registry
from tests import broker
from tests.edgecloud.centre import damage
from tests.system.fleet import Fleet
from tests.system.test_end_to_end import QUICK, RUN, files, fill, served, wait_for

pytestmark = [
    pytest.mark.slow("starts a fleet of processes", seconds=10),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]


def answered(fleet: Fleet, verb: str) -> bool:
    """Whether the board has answered all that it was asked by this verb."""
    (model,) = fleet.cloud("show", "pi-7")["models"]
    return all(one["answered_at"] is not None for one in model["requests"] if one["verb"] == verb)


def repaired(fleet: Fleet) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "edgecloud", "--db", str(fleet.db), "--json", "repair", "pi-7"], capture_output=True, text=True, check=False
    )
    return json.loads(done.stdout)


def test_a_version_is_proven_and_one_that_is_lost_comes_back_from_its_board(fleet: Fleet, tmp_path: Path) -> None:
    fleet.add_base("digits")
    device = fleet.add_device("pi-7", files("digits"), QUICK)
    fill(fleet, "pi-7", "digits")
    fleet.agent("pi-7", *RUN, "--rounds", "3")

    program, proof, evidence = tmp_path / "verify_proof.py", tmp_path / "proof.zip", tmp_path / "pi-7.evidence"
    fleet.cloud("prove", "pi-7@3", "-o", str(proof), "--verifier", str(program))
    fleet.cloud("evidence", "pi-7", "-o", str(evidence))
    public = ["--fleet", str(fleet.db.parent / "fleet.pub")]
    for file, name in ((proof, "pi-7/digits@3"), (evidence, "pi-7")):
        words = [sys.executable, "-I", str(program), str(file), *public, "--name", name, "--json"]
        out = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (out.returncode, out.stderr) == (0, ""), out.stderr
    words = [sys.executable, "-I", str(program), str(proof), *public, "--out", str(tmp_path / "proven.tflite")]
    subprocess.run(words, check=True, capture_output=True)
    assert (tmp_path / "proven.tflite").read_bytes() == served(fleet, "pi-7", "digits", 3)

    store = open_registry(fleet.db)
    row = store.versions.of(1)[1]
    damage(store, "UPDATE blob SET bytes = zeroblob(length(bytes)) WHERE sha256 = ?", row.blob)
    damage(store, "DELETE FROM state")
    store.close()
    (head,) = repaired(fleet)["heads"]
    assert head["next"] == "edgecloud leaves request pi-7/digits --all"
    fleet.cloud("leaves", "request", "pi-7", "--all")
    device.start()
    wait_for(lambda: answered(fleet, "leaves"))
    fleet.cloud("leaves", "fetch", "pi-7")
    wait_for(lambda: answered(fleet, "leaf"))
    assert device.stop() == 0
    (head,) = repaired(fleet)["heads"]
    assert head["mended"] and head["leaves"] >= 1
    for version in (1, 2, 3):
        out_file = tmp_path / f"{version}.tflite"
        fleet.cloud("materialise", f"pi-7@{version}", "-o", str(out_file))
        assert out_file.read_bytes() == served(fleet, "pi-7", "digits", version)
