"""Is yesterday forgotten? A device sees one world on the first day and another on the second, and its spool holds a third of a day.

    python -m tests.edgeagent.two_days [--seeds 5]

Prints the accuracy on held-out images of both worlds after each day, with four ways to make room in a full spool: the oldest sample of
the most frequent class goes first (the rule of release 1), the oldest of all, the reservoir of each class, and the reservoir of each
class and context, where the application says which world it is in.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from edgeagent.samples import reservoir
from edgeagent.samples.spool import Samples
from edgeagent.service.goal import Goal
from edgeagent.training.batches import Trainable
from edgeagent.training.guard import measure
from edgecommon import runtime
from edgecommon.sqlite import Database, Row
from tests.worlds import World, digits_world, model_file

from .boards import centre, make, rig
from .centre import FakeClock

KEPT, ROUND, ROUNDS = 300, 150, 6  # samples of the spool, of a round, rounds of a day
SETTINGS = {
    "train__learning_rate": "0.1", "train__epochs": "8", "train__margin": "100", "train__min_new_samples": "0", "update__density": "0.05",
    "spool__max_samples": str(KEPT),
}  # fmt: skip


@dataclass(frozen=True)
class Days:
    """Accuracy on the first and on the second day's world."""

    after_first: tuple[float, float]
    after_second: tuple[float, float]


def oldest(of: str) -> Callable[[Database, str], Row | None]:
    """Return a rule that drops the oldest sample, of the most frequent class or of all."""

    def surplus(database: Database, model: str) -> Row | None:
        bound = database.one("SELECT max_samples FROM model WHERE name=?", model)["max_samples"]
        counts = database.all("SELECT class, sum(samples) n FROM cell WHERE model=? GROUP BY class ORDER BY n DESC, class", model)
        if sum(row["n"] for row in counts) <= bound:
            return None
        where, values = ("model=? AND class=?", (model, counts[0]["class"])) if of == "class" else ("model=?", (model,))
        return database.one(f"SELECT id, cell, bytes FROM sample WHERE {where} ORDER BY id LIMIT 1", *values)

    return surplus


RULES: dict[str, tuple[Callable[[Database, str], Row | None], bool]] = {
    "oldest of the most frequent class": (oldest("class"), False),
    "oldest of all": (oldest("all"), False),
    "reservoir of each class": (reservoir.surplus, False),
    "reservoir of each class and context": (reservoir.surplus, True),
}


def live(rule: str, seed: int, package: runtime.Runtime) -> Days:
    """Return how a device does that lives through both days."""
    surplus, told = RULES[rule]
    first, second, base = digits_world(seed), digits_world(seed + 100), model_file("digits")

    def open_model(file: bytes, name: str) -> Trainable:
        return package.open(file, model=name)

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(reservoir, "surplus", surplus):
        make(Path(folder) / "d", models={"digits": base}, **SETTINGS)
        with rig(Path(folder) / "d", centre(FakeClock(), file=base), open_model) as r:
            out, n = [], 0
            for day, here in enumerate((first, second)):
                for _ in range(ROUNDS):
                    x, y = here.stream(n, ROUND)
                    r.device.spool.extend("digits", x, y, contexts={"day": "AB"[day]} if told else None)
                    n += 1
                    r.run(Goal(rounds=n, timeout=300))
                model = open_model(r.lineage.store.served.read_bytes(), "digits")
                out.append((accuracy(model, first), accuracy(model, second)))
    return Days(*out)


def accuracy(model: Trainable, of: World) -> float:
    right = measure(model, Samples(of.test_x, np.eye(10, dtype=np.float32)[of.test_y], True)).accuracy
    assert right is not None
    return right


@contextmanager
def quiet() -> Iterator[None]:
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def main() -> None:
    parser = argparse.ArgumentParser(prog="two_days", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="devices (default 5)")
    seeds = range(parser.parse_args().seeds)
    package = runtime.load()
    print(f"{'room is made by':36} {'A after day 1':>14} {'A after day 2':>14} {'B after day 2':>14}")
    with quiet():
        for rule in RULES:
            days = [live(rule, seed, package) for seed in seeds]
            means = [float(np.mean(v)) for v in zip(*((d.after_first[0], *d.after_second) for d in days), strict=True)]
            print(f"{rule:36} " + " ".join(f"{100 * mean:13.1f}%" for mean in means), flush=True)


if __name__ == "__main__":
    main()
