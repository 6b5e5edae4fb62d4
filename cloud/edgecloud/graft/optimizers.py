"""Writes one step of an optimizer: the new weights from gradients, learning rate, and slots that the file keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .writing.build import GraphBuilder, Shape

OPTIMIZERS = ("sgd", "momentum", "adam")
MOMENTUM, BETA1, BETA2, EPSILON = 0.9, 0.9, 0.999, 1e-7  # Keras's defaults


@dataclass(frozen=True, slots=True)
class Slot:
    """A variable of the optimizer: what it starts as, and the weights whose steps move it."""

    name: str
    initial: NDArray[np.float32]
    moves: frozenset[str]


def moments(modes: Sequence[frozenset[str]]) -> tuple[frozenset[str], ...]:
    """Return the weights in groups that are always moved together. modes: the weights of each, cheapest first.

    Adam counts the steps of each group by powers of its own: what a cheap mode leaves alone starts its count when it first moves.
    """
    groups: dict[tuple[bool, ...], set[str]] = {}
    for mode in modes:
        for name in sorted(mode):
            groups.setdefault(tuple(name in other for other in modes), set()).add(name)
    return tuple(frozenset(group) for group in groups.values())


def slots(optimizer: str, weights: Mapping[str, Shape], groups: Sequence[frozenset[str]]) -> tuple[Slot, ...]:
    """Return the slots that an optimizer keeps for these weights. groups: as `moments` gives them."""
    parts = {"sgd": (), "momentum": ("momentum",), "adam": ("mean", "variance")}[optimizer]
    out = [Slot(f"{n}_{part}", np.zeros(shape, np.float32), frozenset((n,))) for part in parts for n, shape in weights.items()]
    if optimizer == "adam":
        # Not of shape []: tflite-runtime 2.14 leaves its delegate out of every signature behind a variable of that shape.
        out += [Slot(name, np.ones(1, np.float32), group) for i, group in enumerate(groups) for name in _powers(i)]
    return tuple(out)


def step(
    graph: GraphBuilder,
    optimizer: str,
    weights: Mapping[str, int],
    gradients: Mapping[str, int],
    state: Mapping[str, int],
    rate: int,
    groups: Sequence[frozenset[str]],
) -> dict[str, int]:
    """Return the new value of each weight and of each slot that they have. All are computed before any is assigned."""
    if optimizer == "sgd":
        return {n: graph.sub(w, graph.mul(gradients[n], rate)) for n, w in weights.items()}
    out: dict[str, int] = {}
    if optimizer == "momentum":
        for n, w in weights.items():
            moved = graph.add(graph.scale(state[f"{n}_momentum"], MOMENTUM), gradients[n])
            out |= {n: graph.sub(w, graph.mul(moved, rate)), f"{n}_momentum": moved}
        return out
    one = graph.constant_of(1.0)
    for i, group in enumerate(groups):
        if not group & weights.keys():
            continue
        first, second = _powers(i)
        power1, power2 = graph.scale(state[first], BETA1), graph.scale(state[second], BETA2)
        corrected = graph.div(graph.mul(rate, graph.sqrt(graph.sub(one, power2))), graph.sub(one, power1))
        out |= {first: power1, second: power2}
        for n in sorted(group):
            g = gradients[n]
            mean = graph.add(graph.scale(state[f"{n}_mean"], BETA1), graph.scale(g, 1 - BETA1))
            variance = graph.add(graph.scale(state[f"{n}_variance"], BETA2), graph.scale(graph.mul(g, g), 1 - BETA2))
            change = graph.div(graph.mul(mean, corrected), graph.add(graph.sqrt(variance), graph.constant_of(EPSILON)))
            out |= {n: graph.sub(weights[n], change), f"{n}_mean": mean, f"{n}_variance": variance}
    return out


def _powers(group: int) -> tuple[str, str]:
    """Return the names of the powers of Adam's two factors, by which a group's steps are counted."""
    number = f"_{group + 1}" if group else ""
    return f"adam_beta1_power{number}", f"adam_beta2_power{number}"
