"""Of the kinds of update that say one version, the one of the fewest bytes is sent, and `estimate` names it before."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeagent import cli
from edgeagent.commands.train import finish
from edgeagent.rounds import round as rounds
from edgeagent.service.goal import Goal
from edgecloud.graft.grafting import Wish, graft
from modelwire.tensors import F32
from modelwire.tflite import file as tflite_file
from modelwire.tflite.file import read_weights
from modelwire.wire.records import Level
from tests.edgeagent.boards import TINY, ScriptedModel, centre, fill, make_with, rig, standing
from tests.edgeagent.centre import FakeClock
from tests.edgeagent.heads import board, grafted, samples
from tests.stock import STOCK, runtime
from tests.worlds import MODELS

SETTINGS = {"train.epochs": "2", "train.margin": "100", "train.mode": "auto"}


def file_of(name: str) -> bytes:
    if name in ("int8_softmax", "int8_logistic"):
        return (STOCK / f"{name}.tflite").read_bytes()
    if name in ("tiny", "digits"):
        return (MODELS / f"{name}.tflite").read_bytes()
    return graft((STOCK / f"{name}.tflite").read_bytes(), Wish(train=("head",), batch=8)).file


def seen(file: bytes, count: int, seed: int) -> tuple[Any, Any]:
    """Return samples that suit a file: one class in each direction of noise."""
    contract = tflite_file.contract(file, model="m")
    rng = np.random.default_rng(seed)
    classes = contract.y_shape[0]
    labels = np.arange(count) % classes
    x = rng.standard_normal((count, *contract.x_shape)) + labels.reshape(-1, *[1] * len(contract.x_shape))
    return (np.clip(np.rint(20 * x), -128, 127) if contract.codes else x.astype(np.float32)), labels


def said(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    code = cli.main([*words, "--json"])
    out = capsys.readouterr()
    assert code == 0, out.err
    return json.loads(out.out)


def round_of(capsys: pytest.CaptureFixture[str], folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return what `estimate` says of the next round, and what the round was."""
    where = ("--dir", str(folder))
    row = said(capsys, "estimate", *where)["models"][0]["next"]
    return row, said(capsys, "train", *where)["rounds"][0]


@pytest.mark.slow("three rounds of each model, tried and done", seconds=3)
@pytest.mark.parametrize("density", ["0.0075", "1"])
@pytest.mark.parametrize("name", ["tiny", "digits", "har", "dense", "int8_softmax", "int8_logistic"])
def test_the_kind_that_estimate_names_is_sent_and_is_the_smallest(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, density: str
) -> None:
    if not name.startswith("int8"):
        runtime()
    file, held = file_of(name), centre(FakeClock(), file=file_of(name))
    make_with(tmp_path / "d", {**SETTINGS, "update.density": density, "update.kind": "delta"}, {"m": file})
    kinds = set()
    for number in range(1, 4):
        with rig(tmp_path / "d", held) as r:
            r.agent.run(Goal(publish=True, timeout=60))
            r.device.spool.extend("m", *seen(file, 64, number))
        estimated, done = round_of(capsys, tmp_path / "d")
        assert done["accepted"] and done["version"] == number
        assert (done["kind"], done["bytes"]) == (estimated["kind"], estimated["bytes"])
        assert estimated["bytes"] == min(estimated["forms"].values()) == estimated["forms"][estimated["kind"]]
        kinds.add(done["kind"])
    assert kinds <= {"delta", "snapshot"}, "nothing of a sample leaves unasked"


class Turning(ScriptedModel):
    """A model whose first round leads away from the base, and whose second one leads back."""

    def train(self, x: F32, y: F32, lr: float) -> float:
        if zlib.crc32(TINY) == self._seed or self._taken:
            return super().train(x, y, lr)
        self._taken += 1
        self.weights = read_weights(TINY)
        return 1.0


def test_a_round_that_leads_back_goes_as_a_snapshot_and_the_next_one_stands_on_it(tmp_path: Path) -> None:
    held = centre(FakeClock())
    with rig(tmp_path / "d", held, lambda file, _: Turning(file, scale=0.5), update__density="1", update__kind="delta") as r:
        fill(r.device, 16)  # one step a round
        r.run(Goal(rounds=3, timeout=6000))
        rows = {row["version"]: row for row in r.lineage.versions()}
        assert [rows[n]["kind"] for n in (1, 2, 3)][:2] == ["delta", "snapshot"]
        assert r.states() == {1: "verified", 2: "verified", 3: "verified"}, "the centre rebuilt each"
        forms = r.agent.reports[1].forms
        assert rows[2]["bytes"] == forms["snapshot"] < forms["delta"]
        assert rows[3]["parent"] == rows[2]["commit_id"] and rows[2]["parent"] == rows[1]["commit_id"]


def test_updates_that_become_one_go_as_a_snapshot_where_that_is_smaller(tmp_path: Path) -> None:
    held = centre(FakeClock())
    with rig(tmp_path / "d", held, lambda file, _: Turning(file, scale=0.5), update__density="1", update__kind="delta") as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device, 16)
        for _ in range(3):
            assert finish(rounds.run(standing(r.device, lambda file, _: Turning(file, scale=0.5)))).accepted
        r.lineage.outbox.offer(1)
        assert r.lineage.coalesce() == [2]
        assert [(w.version, w.kind) for w in r.lineage.outbox.waiting("queued")] == [(3, "snapshot")], "its sum would tell of both ways"
        r.run(Goal(publish=True, timeout=60))
        r.run(Goal(rounds=3, timeout=600))
        assert held.held("pi-7", "tiny")[3].level is Level.VERIFIED


def recipes(folder: Path, kind: str, count: int = 80, stock: str = "har") -> tuple[list[str], list[bytes], Mapping[str, int]]:
    """Do two rounds on features; return the kinds that went, the roots that they came to, and the last one's sizes in each kind."""
    file = grafted(stock)
    with board(folder, file, update__kind=kind) as b:
        b.spool.extend("m", *seen(file, count, 1))
        b.agent.run(Goal(rounds=2, timeout=6000))
        assert [b.centre.held("pi-7", "m")[n].level for n in (1, 2)] == [Level.VERIFIED] * 2
        rows = [r for r in reversed(b.lineage.versions()) if r["version"] is not None]
        return [r["kind"] for r in rows], [r["root"] for r in rows], b.agent.reports[-1].forms


@pytest.mark.slow("its rounds start processes that compute features", seconds=3)
@pytest.mark.parametrize(("stock", "count", "smallest"), [("har", 80, "delta"), ("mobilenet", 10, "recipe")])
def test_a_recipe_that_is_wanted_only_where_it_is_smaller_is_the_same_version_in_fewer_bytes(
    tmp_path: Path, stock: str, count: int, smallest: str
) -> None:
    always, roots, _ = recipes(tmp_path / "always", "recipe", count, stock)
    cheaper, same, forms = recipes(tmp_path / "cheaper", "recipe-if-smaller", count, stock)
    assert always == ["recipe", "recipe"] and roots == same
    assert cheaper[-1] == smallest == min(forms, key=lambda kind: forms[kind]) and set(forms) == {"delta", "snapshot", "recipe"}


@pytest.mark.slow("its round starts a process that computes features")
def test_estimate_says_what_a_recipe_costs_beside_the_smaller_kinds(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with board(tmp_path / "d", grafted(), update__kind="recipe") as b:
        b.agent.run(Goal(publish=True, timeout=60))
        b.spool.extend("m", *samples(80))
    capsys.readouterr()
    assert cli.main(["estimate", "--dir", str(tmp_path / "d")]) == 0
    text = capsys.readouterr().out
    assert "it would go as a recipe of " in text and " as a snapshot" in text and " as a delta" in text
    assert 'update.kind is "recipe": one is sent whatever it takes' in text
    assert cli.main(["estimate", "--dir", str(tmp_path / "d"), "--set", "update.kind=recipe-if-smaller"]) == 0
    text = capsys.readouterr().out
    assert "it would go as a delta of " in text and "whatever it takes" not in text
    assert cli.main(["train", "--dir", str(tmp_path / "d")]) == 0
    assert "recipe of " in (said := capsys.readouterr().out) and "as a delta it would take" in said
