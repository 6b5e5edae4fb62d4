"""Writes one step of an optimiser: the new weights from gradients, learning rate, and slots that the file keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .build import Graph, Shape

OPTIMIZERS = ("sgd", "momentum", "adam")
MOMENTUM, BETA1, BETA2, EPSILON = 0.9, 0.9, 0.999, 1e-7  # Keras's defaults
_BETAS = ("adam_beta1_power", "adam_beta2_power")


@dataclass(frozen=True, slots=True)
class Slot:
    """A variable of the optimiser: what it starts as."""

    name: str
    initial: NDArray[np.float32]


def slots(optimizer: str, weights: Mapping[str, Shape]) -> tuple[Slot, ...]:
    """Return the slots that an optimiser keeps for these weights."""
    parts = {"sgd": (), "momentum": ("momentum",), "adam": ("mean", "variance")}[optimizer]
    out = [Slot(f"{name}_{part}", np.zeros(shape, np.float32)) for part in parts for name, shape in weights.items()]
    if optimizer == "adam":
        out += [Slot(name, np.ones((), np.float32)) for name in _BETAS]
    return tuple(out)


def step(
    graph: Graph, optimizer: str, weights: Mapping[str, int], gradients: Mapping[str, int], state: Mapping[str, int], rate: int
) -> dict[str, int]:
    """Return the new value of each weight and slot. All are computed before any is assigned."""
    if optimizer == "sgd":
        return {n: graph.sub(w, graph.mul(gradients[n], rate)) for n, w in weights.items()}
    out: dict[str, int] = {}
    if optimizer == "momentum":
        for n, w in weights.items():
            moved = graph.add(graph.scale(state[f"{n}_momentum"], MOMENTUM), gradients[n])
            out |= {n: graph.sub(w, graph.mul(moved, rate)), f"{n}_momentum": moved}
        return out
    power1, power2 = graph.scale(state[_BETAS[0]], BETA1), graph.scale(state[_BETAS[1]], BETA2)
    one = graph.constant_of(1.0)
    rate = graph.div(graph.mul(rate, graph.sqrt(graph.sub(one, power2))), graph.sub(one, power1))
    out |= {_BETAS[0]: power1, _BETAS[1]: power2}
    for n, w in weights.items():
        g = gradients[n]
        mean = graph.add(graph.scale(state[f"{n}_mean"], BETA1), graph.scale(g, 1 - BETA1))
        variance = graph.add(graph.scale(state[f"{n}_variance"], BETA2), graph.scale(graph.mul(g, g), 1 - BETA2))
        change = graph.div(graph.mul(mean, rate), graph.add(graph.sqrt(variance), graph.constant_of(EPSILON)))
        out |= {n: graph.sub(w, change), f"{n}_mean": mean, f"{n}_variance": variance}
    return out
