"""Replays a version's recipe on its parent: whether it comes to the version, and to what it would have come with other settings."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecloud.registry import Store, VersionRow
from modelwire import limits
from modelwire.errors import BadArgument
from modelwire.lattice.replay import first_apart, kind_of, layers_before, update_of
from modelwire.lattice.state import ModelState
from modelwire.output_head.recipe import Recipe
from modelwire.output_head.trainer import Progress, outputs_of, start_of
from modelwire.output_head_settings import Loss, Optimizer, OutputHeadSettings, Schedule
from modelwire.update.container import Container

from . import materialise
from .naming import Place

RECIPE = "recipe"
OUTPUTS_AT_ONCE = 1 << 20  # numbers of some rows: a few bytes of rows may stand for gigabytes of outputs
ALIASES = {"lr": "rate", "optimizer": "optimizer"}
ENUMS: dict[str, type[Optimizer] | type[Schedule]] = {"optimizer": Optimizer, "schedule": Schedule}
WHOLE = ("steps", "batch", "every", "seed")
SETTINGS = (*WHOLE, *ENUMS, "rate", "rate_end", "factor", "decay", "beta1", "beta2", "epsilon")


@dataclass(frozen=True, slots=True)
class Replayed:
    """A recipe, and what became of it on its parent."""

    version: VersionRow
    recipe: Recipe
    parent: ModelState
    state: ModelState
    seconds: float
    apart: int  # step of the first checkpoint that came out otherwise; 0: all are equal, or there are none

    @property
    def checkpoints(self) -> int:
        """How many roots on the way the recipe carries."""
        return len(self.recipe.checkpoints.roots) if self.recipe.checkpoints is not None else 0

    @property
    def equal(self) -> bool:
        """Whether it is the version that the device had, bit for bit."""
        return self.state.root == self.version.root

    def loss(self, state: ModelState) -> float:
        """Return the mean loss of the recipe's own rows under the head of a state."""
        return mean_loss(self.recipe, state)


def recipe_of(store: Store, place: Place) -> tuple[VersionRow, Container, Recipe]:
    """Return the recipe of a version. Raises BadArgument, which names the nearest ones, when it came as something else."""
    version = place.version
    if version is None or version.kind != RECIPE:
        raise BadArgument(
            reason=f"{place} is {'the base' if version is None else f'a {version.kind}'}, not a recipe",
            fix=_nearest(store, place),
        )
    container = materialise.open_container(store, place.lineage, version)
    return version, container, container.recipe(limits.LARGE)


def parent_of(store: Store, version: VersionRow, bases: materialise.LoadedBases) -> ModelState:
    """Return the state that a version was trained on, proven, to be changed by the caller alone."""
    if version.parent_id is None:
        return bases[version.base].state()
    parent = store.versions.by_id(version.parent_id)
    assert parent is not None  # the row refers to it
    return materialise.rebuild(store, parent, bases)


def replay(store: Store, place: Place, bases: materialise.LoadedBases, progress: Progress | None = None) -> Replayed:
    """Return what a version's recipe comes to on its parent. A refused version can be replayed too: to see what is wrong with it."""
    version, _, recipe = recipe_of(store, place)
    parent = parent_of(store, version, bases)
    started = time.monotonic()
    state = _after(parent, recipe, progress)
    took = time.monotonic() - started
    return Replayed(version, recipe, parent, state, took, first_apart(parent, recipe))


def what_if(replayed: Replayed, settings: Mapping[str, Any], progress: Progress | None = None) -> ModelState:
    """Return what the parent would have become under other settings, on the same rows. Raises Malformed for one out of range."""
    return _after(replayed.parent, replayed.recipe.with_settings(**settings), progress)


def parse_settings(given: list[str]) -> dict[str, Any]:
    """Return settings of a head from NAME=VALUE. Raises BadArgument."""
    out: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        name = ALIASES.get(name, name)
        if not sign or name not in SETTINGS or name in out:
            raise BadArgument(
                reason=f"--set {text!r} is no setting of a recipe, or it is set twice", fix=f"NAME=VALUE with one of {', '.join(SETTINGS)}"
            )
        try:
            out[name] = ENUMS[name][value.upper()] if name in ENUMS else int(value, 0) if name in WHOLE else float(value)
        except (KeyError, ValueError):
            kinds = ", ".join(m.name.lower() for m in ENUMS[name]) if name in ENUMS else "a whole number" if name in WHOLE else "a number"
            raise BadArgument(reason=f"--set {text}: {value!r} is not {kinds}", fix=f"--set {name}=VALUE, one of: {kinds}") from None
    return out


def settings_of(head: OutputHeadSettings) -> dict[str, Any]:
    """Return the settings of a recipe, as a person or a program reads them."""
    out = {name: getattr(head, name) for name in SETTINGS}
    for name, kind in ENUMS.items():
        out[name] = kind(out[name]).name.lower()
    return out


def mean_loss(recipe: Recipe, state: ModelState) -> float:
    """Return the mean loss of a recipe's rows under the head of a state, in float64 from the exact outputs."""
    weights, rows = start_of(recipe.head, layers_before(state, recipe)).weights, len(recipe.rows)
    piece, total = max(1, OUTPUTS_AT_ONCE // max(recipe.head.widths)), 0.0
    for start in range(0, rows, piece):
        some = recipe.rows.take(range(start, min(rows, start + piece)))
        total += _losses(recipe.head, outputs_of(recipe.head, weights, some).astype(np.float64), some.wanted_for(recipe.head))
    return total / rows


def _losses(head: OutputHeadSettings, z: NDArray[np.float64], wanted: NDArray[Any]) -> float:
    """Return the sum of the losses of some rows with the outputs z."""
    if head.loss is Loss.SOFTMAX:
        top = z.max(axis=1)
        return float(np.sum(np.log(np.exp(z - top[:, None]).sum(axis=1)) + top - z[np.arange(len(z)), wanted]))
    t = wanted.reshape(z.shape).astype(np.float64)
    if head.loss is Loss.MSE:
        return float(np.sum((z - t) ** 2) / head.outputs)
    return float(np.sum(np.maximum(z, 0) - z * t + np.log1p(np.exp(-np.abs(z)))) / head.outputs)


def _after(parent: ModelState, recipe: Recipe, progress: Progress | None) -> ModelState:
    after = parent.copy()
    after.apply(kind_of(after), update_of(parent, recipe, progress=progress))
    return after


def _nearest(store: Store, place: Place) -> str:
    numbers = sorted(v.version for v in store.versions.of(place.lineage.id) if v.kind == RECIPE)
    if not numbers:
        return f"no version of {place.lineage} is: a device sends recipes where its settings say so, [update] kind = \"recipe\""
    asked = place.version.version if place.version else 0
    near = sorted(sorted(numbers, key=lambda n: (abs(n - asked), n))[:4])
    return f"recipes near it: {', '.join(f'{place.lineage}@{n}' for n in near)}"
