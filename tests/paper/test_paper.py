"""The pieces of the evaluation, at a size that a test has time for; and its page says what was measured."""

from __future__ import annotations

import json
from collections import Counter
from math import prod
from pathlib import Path

import numpy as np
import pytest

from edgecommon.runtime import load
from modelwire.planning import PROFILES

pytest.importorskip("ai_edge_litert", reason="the nets are written by its copy of the schema")
from tests.paper import fleet, floors, grid, nets, page, policies
from tests.paper.__main__ import grid_of

PER = grid.BytesPer(snapshot_weight=1.2, delta_weight=0.0053, exact_weight=1.7, recipe_row=540.0)


@pytest.mark.parametrize(("make", "weights"), [(nets.mobilenet_v2, 3_487_816), (nets.battery, 5_041)])
def test_a_net_has_the_weights_of_its_paper_and_runs(make: object, weights: int) -> None:
    file = make()  # type: ignore[operator]
    interpreter = load().interpreter.Interpreter(model_content=file)
    interpreter.allocate_tensors()
    told = interpreter.get_input_details()[0]
    interpreter.set_tensor(told["index"], np.zeros(told["shape"], np.float32))
    interpreter.invoke()
    assert np.isfinite(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])).all()
    found = sum(prod(d["shape"]) for d in interpreter.get_tensor_details() if d["name"].endswith(("kernel", "bias")))
    assert found == weights


@pytest.mark.slow("trains some models and recovers them from a registry")
@pytest.mark.parametrize("kind", fleet.KINDS)
def test_every_cell_of_a_fleet_is_recovered_exactly(kind: str, tmp_path: Path) -> None:
    came = fleet.run(kind, tmp_path, cells=40, cycles=2)
    assert (came.versions, came.exact > 3) == (8, True)
    assert came.loss_after < came.loss_before
    assert came.sent < came.whole


def test_the_floors_of_an_update_are_those_of_what_it_holds() -> None:
    rng = np.random.default_rng(5)
    bits = np.array([-2.0, -1.0, -1e-45, 0.0, 1e-45, 1.0, 2.0], np.float32)
    assert (np.diff(floors.ordered(bits)) > 0).all()
    symbols, half = np.arange(256).repeat(4), np.arange(1024) // 512
    assert floors.entropy(symbols, np.zeros(1024, np.int64)) == pytest.approx(8 * 1024)
    assert floors.entropy(symbols, half) == pytest.approx(7 * 1024)  # the context tells one bit
    parent = rng.standard_normal((120, 300)).astype(np.float32)
    few = rng.standard_normal((120, 4)) @ rng.standard_normal((4, 300)) * 1e-3  # an update of four samples
    planes, known, scales, factors = floors.of(parent, (parent + few).astype(np.float32))
    assert factors < scales < known < planes < 4 * parent.size
    noise = floors.of(parent, rng.standard_normal((120, 300)).astype(np.float32))
    assert noise[3] > 2 * factors  # nothing foretells what no training made


def test_two_ways_keep_the_promise_for_less_than_all_else() -> None:
    costs = {one.policy: one for one in policies.costs("delta", [20_000, 15_000, 30_000], 1_000_000, 1_000_000)}
    two = costs["recover_within = 2 states"]
    assert two.worst_states <= 2 + 0.03
    assert two.over_least <= 1.6
    assert costs["the bare chain"].worst_states > 2 * two.worst_states
    assert costs["every version whole (float32)"].stored > 20 * two.stored


def test_the_grid_waits_on_links_that_sleep_alone_and_never_chooses_what_can_not_be_had() -> None:
    cells = list(grid.cells(PER))
    waits = Counter(c.link for c in cells if c.waits)
    assert waits["lte-sleeping"] > 0
    assert not any(waits[name] for name, profile in PROFILES.items() if profile.always_on)
    for c in cells:
        assert c.choice == "none" or c.choice in c.sizes
        assert c.waits or c.choice == "none" or c.seconds <= grid.WINDOW


def test_the_page_says_what_was_measured() -> None:
    figures = json.loads(page.KEPT.read_text())
    text = page.PAGE.read_text()
    assert page.filled(text, {**figures, "grid": grid_of(figures)}) == text
    assert figures["figures"]["paper_exact"] == figures["figures"]["paper_versions"] > 0
