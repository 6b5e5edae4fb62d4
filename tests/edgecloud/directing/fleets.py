"""Phases of simulated devices that judge a variant: equal to the model before it, or worse by so many points; alike or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from edgecloud.rollouts import gates
from edgecloud.rollouts.gates import Ruling
from edgecloud.rollouts.pairing import DeviceScore
from modelwire.deploying.plans import RolloutGates

GATES = RolloutGates()


def phase(rng: np.random.Generator, loss: float, *, devices: int = 0, spread: float = 0.0) -> list[DeviceScore]:
    """Return what 2 to 10 devices find on 60 to 400 held-out rows each, of which 1 to 10 % are discordant.

    loss: the share of rows that the variant loses in truth; spread: by how much (a standard deviation) devices differ in that.
    """
    devices = devices or int(rng.integers(2, 11))
    discordant = max(float(rng.uniform(0.01, 0.10)), loss)
    net = np.clip(rng.normal(loss, spread, devices), -discordant, discordant) if spread else np.full(devices, loss)
    rows = rng.integers(60, 401, devices)
    both = rng.binomial(rows, discordant)
    worse = rng.binomial(both, 0.5 + net / discordant / 2)
    return [DeviceScore(f"pi-{i}", int(n), int(b - w), int(w)) for i, (n, b, w) in enumerate(zip(rows, both, worse, strict=True))]


def ruled(scores: list[DeviceScore], plan: RolloutGates = GATES) -> Ruling:
    """Return how a phase ends that is looked at after each report."""
    for seen in range(1, len(scores) + 1):
        ruling = gates.quality(scores[:seen], len(scores), plan, ended=False).ruling
        if ruling is Ruling.HALT:
            return ruling
    return gates.quality(scores, len(scores), plan, ended=True).ruling


def counted(phases: Iterable[list[DeviceScore]], plan: RolloutGates = GATES) -> Counter[Ruling]:
    return Counter(ruled(scores, plan) for scores in phases)
