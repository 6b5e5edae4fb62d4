"""A round whose settings give no learning rate takes the one that its file suggests for the mode that is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.features.base_file import rate_of
from edgeagent.features.exact_course import FEATURES
from edgeagent.service.goal import Goal
from edgecloud.graft.writing.noted import with_rehearsal
from modelwire.errors import RuntimeUnusable
from modelwire.update import container
from modelwire.wire.records import Level
from tests.edgeagent.heads import board, grafted, samples
from tests.worlds import MODELS

try:
    from edgecommon.runtime import load

    load()
except RuntimeUnusable:
    pytest.skip("no TFLite runtime is installed", allow_module_level=True)


def suggesting() -> bytes:
    return with_rehearsal(grafted("har", "all", ("head",), optimizer="momentum"), "a-runtime 1.0", {"all": 0.0625, "head": 0.0078125})


@pytest.mark.parametrize(
    ("mode", "optimizer", "rate"),
    [
        ("head", "", 0.0078125), ("all", "", 0.0625), (FEATURES, "", 0.0078125), (FEATURES, "momentum", 0.0078125),
        (FEATURES, "adam", 0.001), (FEATURES, "sgd", 0.05), ("head", "adam", 0.0078125),
    ],
)  # fmt: skip
def test_a_mode_without_a_rate_takes_the_one_that_its_file_suggests(tmp_path: Path, mode: str, optimizer: str, rate: float) -> None:
    file = tmp_path / "base.tflite"
    file.write_bytes(suggesting())
    assert rate_of(file, "m", mode, optimizer) == rate
    file.write_bytes(grafted("har", "all", ("head",), optimizer="momentum"))
    assert rate_of(file, "m", mode) == 0.02, "nothing was found: the customary one"
    file.write_bytes((MODELS / "stock" / "int8_softmax.tflite").read_bytes())
    assert rate_of(file, "m", "head") == 0.05


@pytest.mark.slow("trains a real net")
@pytest.mark.parametrize(("mode", "rate"), [("head", "0.0078125"), ("all", "0.0625")])
def test_a_round_without_a_rate_is_the_round_at_the_suggested_one(tmp_path: Path, mode: str, rate: str) -> None:
    roots = {}
    for said in ("0", rate, "0.02"):
        with board(tmp_path / said, suggesting(), train__mode=mode, train__optimizer="", train__learning_rate=said) as b:
            b.spool.extend("m", *samples(40))
            b.agent.run(Goal(rounds=1, timeout=6000))
            assert b.agent.reports[0].accepted
            roots[said] = b.lineage.load().state.root
    assert roots["0"] == roots[rate] != roots["0.02"]


@pytest.mark.slow("its round starts a process that computes features")
def test_a_recipe_tells_the_rate_that_was_suggested_and_used(tmp_path: Path) -> None:
    with board(tmp_path / "d", suggesting(), update__kind="recipe", train__learning_rate="0", train__optimizer="") as b:
        b.spool.extend("m", *samples(80))
        b.agent.run(Goal(rounds=1, timeout=6000))
        (report,) = b.agent.reports
        assert report.kind == "recipe"
        sent = next(said for _, said in b.centre.up if isinstance(said, container.Container))
        assert sent.recipe().head.rate == 0.0078125
        assert b.centre.held("pi-7", "m")[1].level is Level.VERIFIED
