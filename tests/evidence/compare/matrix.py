"""The fleet's matrix: how long 60 models in 8 contexts take, how many liars are found, and how many honest versions are called unfit.

    python -m tests.evidence.compare.matrix            FULL=1 in the environment: three fleets of 102 cars instead of one of 18
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgecloud.feasibility import evaluating, fitness, matrix
from edgecloud.probes import sets
from edgecloud.probes.sets import ProbeSet
from edgecloud.registry import ProbeRow, SqliteStore
from modelwire.tensors import F32
from tests.edgecloud.feasibility.liars import Car
from tests.planted import WORLDS, Plan, cards, fleet, probes

LIARS = ("classes one too far", "an output layer of noise", "always one class", "a hidden layer of zeros")


def measure(full: bool) -> dict[str, float]:
    """Return seconds and shares. full: fleets of the size that is promised."""
    out = {"matrix_seconds_60x8": _seconds()}
    honest = flagged = liars = found = 0
    for seed in (101, 102, 103) if full else (101,):
        with tempfile.TemporaryDirectory() as folder:
            plan = Plan(seed=seed, per_world=17 if full else 3)
            store = fleet(Path(folder), plan).open()
            probe = sets.add(store, "roads", _rows(200), now=1)
            wrong = list(_plant(store, plan))
            every = [row for _, row in evaluating.everything(store, "digits")]
            evaluating.evaluate(store, probe, every)
            unfit = fitness.unfit(store, [row.id for row in every])
            honest, flagged = honest + len(every) - len(wrong), flagged + len(unfit.keys() - set(wrong))
            liars, found = liars + len(wrong), found + len(unfit.keys() & set(wrong))
            store.close()
        print(f"fleet {seed}: {found} of {liars} liars found; {flagged} of {honest} honest versions called unfit", file=sys.stderr)
    return {
        **out, "unfit_found": found / liars, "unfit_false_alarms": flagged / honest, "unfit_honest_versions": honest,
        "unfit_stated_rate": fitness.ALPHA,
    }  # fmt: skip


def _rows(of_each: int) -> ProbeSet:
    """Return held-out rows of all worlds with their tags."""
    seen = [probes(world, of_each, seed=9) for world in WORLDS]
    tags = {name: np.concatenate([one.tags[name] for one in seen]).tolist() for name in seen[0].tags}
    return sets.probe_set(np.concatenate([one.x for one in seen]), np.concatenate([one.y for one in seen]), tags)


def _plant(store: SqliteStore, plan: Plan) -> Iterator[int]:
    """Add liars, each in the world of another car by its card, and yield the ids of their versions."""
    told = cards(plan)
    for number, device in enumerate(sorted(told)[:: max(1, len(told) // 12)]):
        car = Car(store, f"liar-{number:02}")
        card = told[device][0].encode()
        car.send(_weights(car, LIARS[number % len(LIARS)], number), accuracy_after=0.99, card=card)
        yield store.versions.of(store.lineages.of(car.device.name)[0].id)[0].id


def _weights(car: Car, kind: str, seed: int) -> list[F32]:
    if kind == LIARS[0]:
        return car.wrong()
    rng, flat = np.random.default_rng([13, seed]), [weights.copy() for weights in car.base.weights]
    by_name = {spec.name: weights for spec, weights in zip(car.base.manifest.schema.tensors, flat, strict=True)}
    if kind == LIARS[1]:
        by_name["output_kernel"][:] = rng.permutation(by_name["output_kernel"])
    elif kind == LIARS[2]:
        by_name["output_bias"][seed % 10] += 30
    else:
        by_name["hidden2_kernel"][:], by_name["hidden2_bias"][:] = 0, 0
    return flat


def _seconds() -> float:
    """Return the seconds in which 60 models are scored on 1,200 rows in 8 contexts and shown as a matrix."""
    with tempfile.TemporaryDirectory() as folder:
        store = fleet(Path(folder), Plan(seed=0)).open()
        whole = _rows(200)
        tags = {**whole.tags, "region": tuple(value if value == "alps" else "" for value in whole.tags["region"])}
        probe: ProbeRow = sets.add(store, "roads", sets.probe_set(whole.x, whole.y, tags), now=1)
        began = time.perf_counter()
        found = matrix.build(store, "digits", probe)
        evaluating.evaluate(store, probe, found.missing)
        found = matrix.build(store, "digits", probe)
        seconds = time.perf_counter() - began
        assert (len(found.rows), len(found.contexts), found.missing) == (60, 8, [])
        store.close()
    return round(seconds, 3)


if __name__ == "__main__":
    for name, value in measure(bool(os.environ.get("FULL"))).items():
        print(f"{name}  {value}")
