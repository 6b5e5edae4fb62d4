"""Feasibility: how much faster many heads on one backbone are scored than by an open interpreter, that the scores are the same, and
whether the intervals hold and a night camera's model is named for a new night camera.

    python -m tests.evidence.compare.feasibility       smaller; FULL=1 in the environment for 1,000 heads x 1,000 rows and 50 cameras
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edgecloud.feasibility import ranking, scoring
from edgecloud.probes import running, sets
from tests.edgecloud.centre import Centre
from tests.edgecloud.device import Base, ScriptedDevice
from tests.edgecloud.feasibility import backbones
from tests.planted import WORLDS, Plan, PlantedFleet, fleet, probes, seen
from tests.planted.fleet import MODEL, _Car, _round
from tests.stock import runtime
from tests.worlds import MODELS

BACKBONES = ("mobilenet", "har", "digits")
ALONE = {"mobilenet": 5, "har": 1000, "digits": 1000}  # heads that the open interpreter is given: of a large backbone some, and the rest
AGAIN = 10  # further questions that are measured together
PROBES, FRESH = 1500, 20_000  # rows of a probe set; of a camera's own world, by which its true accuracy is measured
SEEDS, CAMERAS = 5, 15  # fleets; cameras whose rows a probe set holds


def measure(full: bool) -> dict[str, float]:
    """Return the figures of both questions."""
    return {**speed(full), **trials(50 if full else 10, SEEDS if full else 1)}


def speed(full: bool) -> dict[str, float]:
    """Return the ratio of processor times of an open interpreter and a shared pass, and the share of scores that are equal.

    Both are given the weights in memory. The shared one's time is all that it takes, its process to begin with; the interpreter is open
    before its time begins. `again` is the ratio of a further question in a notebook, whose process is open as the interpreter is. Scores
    are compared on every row of the heads that the interpreter was given.
    """
    out: dict[str, float] = {}
    equal: list[float] = []
    for name in BACKBONES:
        heads, rows = (1000, 1000) if full else (200, 200)
        of = backbones.backbone(name, rows)
        candidates = backbones.heads(of, heads, backbones.features_of(of))
        found = scoring.empty(heads, of.y)
        before = processor_time()
        scoring.Judge(of.base, of.x, of.y).judge(candidates, found)
        shared = processor_time() - before
        again = _again(of, candidates, shared)
        some = candidates[: min(heads, ALONE[name])]
        model = backbones.opened(of)
        before = processor_time()
        wanted = backbones.whole(of, model, some)
        alone = (processor_time() - before) * heads / len(some)
        assert found.right is not None and wanted.right is not None and not found.failed
        equal.append(float((found.right[: len(some)] == wanted.right).mean()))
        apart = float(np.abs(found.loss[: len(some)] - wanted.loss).max())
        _say(
            f"{name}: {heads} heads x {rows} rows: shared {shared:.2f} s, again {again:.2f} s, one open interpreter {alone:.1f} s"
            f"{f' (of {len(some)} heads)' if len(some) < heads else ''}; {found.shared} shared, {found.near} rows run whole,"
            f" right or wrong alike {equal[-1]:.6f}, losses apart {apart:.2g} at most, accuracies {found.right.mean():.3f}"
        )
        out[f"feasibility_speedup_{name}"] = round(alone / shared, 1)
        out[f"feasibility_speedup_{name}_again"] = round(alone / again, 1)
    return {"feasibility_speedup": out["feasibility_speedup_mobilenet"], "feasibility_equal": min(equal), **out}


def _again(of: backbones.Backbone, candidates: list[scoring.Contender], first: float) -> float:
    """Return the processor time of a further question of the same base. first: that of one alone, with its process."""
    times = AGAIN if first < 2 else 1  # a process tells its time when it has ended
    before = processor_time()
    with running.Spare() as spare:
        for _ in range(1 + times):
            scoring.Judge(of.base, of.x, of.y, spare).judge(candidates, scoring.empty(len(candidates), of.y))
    return (processor_time() - before - first) / times


def processor_time() -> float:
    """Return the seconds that this process and those that it has waited for have computed: other work on the machine is not in it."""
    return sum(os.times()[:4])


def trials(count: int, seeds: int) -> dict[str, float]:
    """Return in which share of trials a night camera's model is named for a new night camera, and its true accuracy is in the interval."""
    named, covered, names, truth = 0, 0, list[str](), list[str]()
    for trial in range(count):
        with tempfile.TemporaryDirectory() as folder:
            planted = fleet(Path(folder), Plan(seed=trial % seeds))
            best, world, accuracy = ask(planted, trial)
        named += world == "night"
        covered += best.score.low <= accuracy <= best.score.high
        names.append(world)
        truth.append(f"{accuracy:.3f} in {best.score.low:.3f}..{best.score.high:.3f}")
        _say(f"trial {trial}: {best.name} of {world}, {truth[-1]}")
    return {"interval_coverage": covered / count, "night_named": named / count, "feasible_trials": count}


def ask(planted: PlantedFleet, trial: int) -> tuple[ranking.RankedModel, str, float]:
    """Let a new night camera join, train one round and ask. Return the model that is named, its world, and its accuracy in the camera's."""
    rng = np.random.default_rng([21, trial])
    store = planted.open()
    try:
        base = Base.of(MODELS / f"{MODEL}.tflite")
        model = runtime().open(base.file, model=MODEL)
        centre = Centre(store, now=1 << 20)
        device = centre.meet(ScriptedDevice(base, name="new-camera", seed=trial))
        car = _Car(1000 + trial, planted.plan, WORLDS["night"], float(rng.normal(0, 2.0)))
        _round(centre, device, car, model, 0)
        centre.rebuild()
        probe = sets.add(store, "roads", probes_of_cameras(trial), now=1)
        lineage = store.lineages.of("new-camera")[0]
        found = ranking.rank(store, MODEL, probe, device=lineage)
        best = found.best
        assert best is not None and best.version is not None
        fresh = seen(car.world, np.random.default_rng([22, trial]), FRESH, side="test", jitter=car.jitter)
        asked = sets.probe_set(fresh.x, fresh.y)
        scores = scoring.score(store, [best.version], asked)
        assert scores.right is not None
        return best, planted.worlds[best.device], float(scores.right[0].mean())
    finally:
        store.close()


def probes_of_cameras(trial: int) -> sets.ProbeSet:
    """Return held-out rows of several cameras in all conditions, each mounted a little otherwise, as those of the fleet are."""
    turns = np.random.default_rng([23, trial]).normal(0, 2.0, CAMERAS)
    parts = [probes("plain", PROBES // CAMERAS, seed=1000 * trial + k, jitter=float(turn)) for k, turn in enumerate(turns)]
    tags = {name: [str(value) for part in parts for value in part.tags[name]] for name in parts[0].tags}
    return sets.probe_set(np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts]), tags)


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def main() -> int:
    started = time.monotonic()
    print(json.dumps(measure(os.environ.get("FULL") == "1"), indent=1))
    _say(f"{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
