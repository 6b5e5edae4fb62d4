"""What the operator hands out is what anybody can check; and what a sample says, it says with its seed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from modelwire.wire.keys import write_fleet
from tests.edgecloud.centre import Centre, damage
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import ScriptedDevice


def verified(desk: Desk, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program that the operator writes, as somebody else does."""
    words = [sys.executable, "-I", "verify_proof.py", *arguments, "--fleet", "fleet.pub"]
    return subprocess.run(words, cwd=desk.folder, capture_output=True, text=True, check=False)


def test_a_version_a_tensor_and_the_evidence_are_taken_by_the_program_that_comes_with_them(
    desk: Desk, grown: Centre, device: ScriptedDevice
) -> None:
    (desk.folder / "fleet.pub").write_text(write_fleet(grown.store.identity) + "\n")
    desk.ok("prove", "--verifier", "verify_proof.py")
    said = desk.json("prove", "pi-7", "-o", "proof.zip")
    assert (said["name"], said["holds"], said["bytes"]) == ("pi-7/digits@13", "file", (desk.folder / "proof.zip").stat().st_size)
    out = verified(desk, "proof.zip", "--name", "pi-7/digits@13", "--out", "model.tflite")
    assert (out.returncode, out.stdout.splitlines()[1:], out.stderr) == (0, said["says"], "")
    assert (desk.folder / "model.tflite").read_bytes() == device.served()
    out = verified(desk, "proof.zip", "--out", "nowhere/model.tflite")
    assert out.returncode == 2 and out.stderr.startswith("nowhere/model.tflite can't be written, though the proof is good")
    assert "tensor-5.bin is the tensor 'output_kernel'" in desk.ok("prove", "pi-7@4", "-o", "tensor.zip", "--tensor", "output_kernel")
    assert verified(desk, "tensor.zip").returncode == 0
    told = desk.json("evidence", "pi-7", "-o", "pi-7.evidence")
    assert told["versions"] == 13 and verified(desk, "pi-7.evidence", "--name", "pi-7").returncode == 0
    assert verified(desk, "pi-7.evidence", "--name", "pi-8").returncode == 1
    assert verified(desk, "pi-7.evidence", "--out", "x").returncode == 2


def test_what_can_t_be_proven_is_named_and_leaves_no_file(desk: Desk, grown: Centre) -> None:
    for words, error in (
        (["pi-7@9", "-o", "proof.zip"], "NotServed"), (["pi-7@base", "-o", "proof.zip"], "BadArgument"), (["pi-7@99", "-o", "proof.zip"],
        "UnknownVersion"), (["pi-7"], "BadArgument"), (["-o", "proof.zip"], "BadArgument"), ([], "BadArgument"),
        (["pi-7", "-o", "proof.zip", "--tensor", "x"], "BadArgument"), (["pi-7", "-o", "nowhere/proof.zip"], "BadArgument"),
    ):  # fmt: skip
        assert desk.error("prove", *words)["error"] == error, words
    assert desk.error("evidence", "pi-8", "-o", "pi-8.evidence")["error"] == "UnknownVersion"
    row = grown.store.versions.of(1)[2]
    damage(grown.store, "UPDATE blob SET bytes = zeroblob(length(bytes)) WHERE sha256 = ?", row.blob)
    assert desk.error("prove", "pi-7@4", "-o", "proof.zip")["error"] == "RegistryDamaged"
    assert [path.name for path in desk.folder.iterdir() if "proof" in path.name or "evidence" in path.name] == []
    assert desk.json("evidence", "pi-7", "-o", "pi-7.evidence")["versions"] == 13, "the other headers are there"


def test_a_sample_says_its_seed_and_draws_the_same_again(desk: Desk, grown: Centre) -> None:
    said = desk.json("verify", "--sample", "5", "--seed", "3")
    assert (said["checked"], said["exact"], said["of"], said["seed"], said["most_damaged"]) == (5, 5, 12, 3, 5)
    text = desk.ok("verify", "--sample", "5", "--seed", "3")
    assert "99% sure that at most 5 of 12 versions (42 %) are damaged: 5 were drawn and none was" in text
    assert "drawn of 12: --seed 3 draws the same again" in text
    assert "all 12 versions were looked at" in desk.ok("verify", "--sample", "100%", "pi-7")
    assert desk.error("verify", "--sample", "0")["error"] == "BadArgument"
    assert "is one" in str(desk.error("verify", "pi-7@3", "--sample", "1")["message"])
    assert desk.run("verify", "pi-7@3", "--file", "x", "--sample", "1")[0] == 2


@pytest.mark.parametrize("seed", [1, 2])
def test_a_damaged_version_in_the_sample_is_named_and_nothing_is_said_of_the_others(desk: Desk, grown: Centre, seed: int) -> None:
    row = grown.store.versions.of(1)[-1]
    damage(grown.store, "UPDATE blob SET bytes = zeroblob(length(bytes)) WHERE sha256 = ?", row.blob)
    code, out, _ = desk.run("verify", "--sample", "100%", f"--seed={seed}", "--json")
    said = json.loads(out)
    assert code == 56 and said["most_damaged"] is None and [w["name"] for w in said["wrong"]] == ["pi-7/digits@13"]
