"""Rounds that a device learns, and what the same training without some of their samples comes to."""

from __future__ import annotations

from collections.abc import Sequence

from modelwire.lattice.replay import kind_of, update_of
from modelwire.lattice.state import ModelState
from tests.edgecloud.device import Base, recipe_on

Round = tuple[Sequence[int], dict[str, object]]
ROUNDS: list[Round] = [
    (range(100, 120), {"seed": 1}), (range(108, 140), {"seed": 2, "optimizer": 2}), (range(130, 150), {"seed": 3, "optimizer": 3}),
    (range(110, 145), {"seed": 4}),
]  # fmt: skip


def never_seen(base: Base, rounds: Sequence[Round], gone: Sequence[int]) -> ModelState:
    """Return what a fresh training by modelwire alone comes to, of a device that never had these samples."""
    state = ModelState.of_base(base.manifest, base.weights)
    for ids, settings in rounds:
        rest = [i for i in ids if i not in gone]
        if rest:
            state.apply(kind_of(state), update_of(state, recipe_on(base, rest, **settings)))
    return state
