"""Recipe rounds for tests of the agent: what a round on the exact trainer seals and adopts, on samples that the test names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeagent.state.lineage import Lineage
from edgeagent.state.outcome import Outcome
from modelwire.lattice.replay import kind_of, update_of
from modelwire.lattice.snap import Snapped, no_residual
from modelwire.output_head.recipe import Recipe
from modelwire.output_head.row_ids import KEY, encode_ids
from modelwire.update.sections import Kind
from tests.edgecloud.device import Base, recipe_on

from .boards import TINY

BASE = Base(TINY)


def learn(lineage: Lineage, ids: Sequence[int], **settings: Any) -> tuple[int, Recipe]:
    """Train all layers on these samples, adopt the version, queue its recipe; return both."""
    recipe = recipe_on(BASE, ids, **settings)
    head, state = lineage.head(), lineage.load().state
    sections = update_of(state, recipe)
    state.apply(kind_of(state), sections)
    residual = no_residual(lineage.manifest)
    at = 1_800_001_000
    sealed = lineage.seal(head, Kind.RECIPE, (), state, {"samples": len(ids), KEY: encode_ids(ids)}, recipe=recipe.encode())
    written = lineage.store.write(head.slot, state, residual)
    snapped = Snapped(Kind.RECIPE, sections, state, residual, None, (), moved=sections)
    version = lineage.adopt(head, snapped, written, sealed, Outcome(head.rounds + 1, None, None, len(ids), recipe.head.steps, 0, at))
    lineage.serve()
    return version, recipe
