"""Devices whose model has a front that no batch passes, or that keeps state: their rounds are versions like any others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeagent.features.exact_course import FEATURES
from edgeagent.features.extraction import Extraction
from edgeagent.service.goal import Goal
from edgecloud.graft.grafting import Wish, graft
from edgecommon.runtime import interpreter_for
from modelwire.errors import NotTrainable
from modelwire.tensors import F32
from modelwire.tflite.file import write_weights
from modelwire.wire.records import Level
from tests.edgeagent.heads import board
from tests.stock import ROOT, runtime

FRONTS = ROOT / "tests" / "models" / "fronts"
SHAPES = {"branch": (12,), "loop": (12,), "stream": (4, 3), "mask": (10,), "spectrum": (400,), "lstm": (6, 4), "cell": (4,)}


def samples(count: int, shape: tuple[int, ...], classes: int, seed: int = 0) -> tuple[F32, NDArray[np.int64]]:
    """Return noise around a pattern for each class."""
    patterns = np.random.default_rng(5).standard_normal((classes, *shape))
    y = np.arange(count) % classes
    x = patterns[y] + 0.3 * np.random.default_rng(seed).standard_normal((count, *shape))
    return x.astype(np.float32), y


def grafted(name: str) -> bytes:
    return graft((FRONTS / f"{name}.tflite").read_bytes(), Wish(batch=8, optimizer="adam", model=name)).file


@pytest.mark.slow("four rounds of a device, each with a process that computes features")
@pytest.mark.parametrize("mode", ["features", "head"])
@pytest.mark.parametrize("name", sorted(SHAPES))
def test_four_rounds_on_such_a_front_are_versions_that_the_centre_proves(tmp_path: Path, name: str, mode: str) -> None:
    runtime()
    file = grafted(name)
    with board(tmp_path / "d", file, train__mode=mode) as b:
        classes = 4 if name in ("lstm", "cell") else 3
        b.spool.extend("m", *samples(90, shape=SHAPES[name], classes=classes))
        b.agent.run(Goal(rounds=4, timeout=6000))
        held = b.centre.held("pi-7", "m")
        proved = [n for n in held if n and held[n].level is Level.VERIFIED]
        reports = b.agent.reports
        assert len(proved) == sum(r.accepted for r in reports) >= 1
        assert all(r.outcome.mode == (FEATURES if mode == "features" else "head") for r in reports)
        last = b.lineage.load().state
        assert held[max(proved)].state is not None and held[max(proved)].state.root == last.root  # type: ignore[union-attr]
        accepted = [r.outcome for r in reports if r.accepted]
        assert accepted[-1].after.loss < accepted[0].before.loss
        # What is served answers one sample by one, whichever came before it.
        served = write_weights(file, last.named())
        infer = interpreter_for(runtime().interpreter, served, delegates=False).get_signature_runner("infer")
        x = samples(6, seed=9, shape=SHAPES[name], classes=classes)[0]
        there = [infer(x=one[None])["output"].tobytes() for one in x]
        assert there[::-1] == [infer(x=one[None])["output"].tobytes() for one in x[::-1]]


@pytest.mark.slow("starts a process that computes for a second or two")
def test_a_front_that_never_ends_is_ended(tmp_path: Path) -> None:
    runtime()
    x, y = samples(20, shape=(12,), classes=3)
    x[7, 0] = 101
    with board(tmp_path / "d", grafted("endless")) as b:
        b.spool.extend("m", x, y)
        state, base, file = b.device.database.path.parent, b.lineage.base_commit, b.lineage.store.base_file
        running = Extraction(state, "m", base=base, file=file, until=300, seconds=1)
        with pytest.raises(NotTrainable, match="may never end"):
            for _ in running.result():
                pass
