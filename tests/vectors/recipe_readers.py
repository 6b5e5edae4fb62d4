"""How the bytes of docs/format/recipe.md and trainer.md are read, for their negative vectors.

A recipe is read and replayed on the version that the vector's `with` names: after a container of a golden folder, or its base with null.
What stands beside a recipe is read as the whole extension of an update.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwire.lattice.replay import replay
from modelwire.lattice.state import ModelState
from modelwire.output_head.forgotten import Forgotten, forgotten_of
from modelwire.output_head.recipe import parse_recipe
from modelwire.output_head.row_ids import ids_of
from modelwire.wire import cbor
from tests.modelwire.golden import state_of

from .refused import Reader

Held = Mapping[str, Any]


def read_recipe(data: bytes, held: Held) -> ModelState:
    """A recipe. folder, container: the version that it is on."""
    return replay(state_of(held["folder"], held["container"]), parse_recipe(data))


def read_row_ids(data: bytes, held: Held) -> tuple[int, ...] | None:
    """The ids of a recipe's rows, in an extension. rows: how many the recipe has."""
    return ids_of(_extension(data), held["rows"])


def read_forgot(data: bytes, held: Held) -> Forgotten | None:
    """What a version has forgotten, in an extension."""
    return forgotten_of(_extension(data))


def _extension(data: bytes) -> dict[str, cbor.Value]:
    value = cbor.decode(data, "extension")
    assert isinstance(value, dict)
    return value


READERS: dict[str, Reader] = {"recipe": read_recipe, "row-ids": read_row_ids, "forgot": read_forgot}
