"""The process that measures one mode: it tries a round, has done nothing else before, and says on its standard output what that took."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgeagent.board.budget import Cost, Plan
from edgeagent.features.exact_course import FEATURES
from edgeagent.rounds.resuming import trial_of
from edgeagent.rounds.round import run
from edgeagent.rounds.standing import Standing
from edgeagent.rounds.starts import Trial
from edgeagent.samples.spool import Samples
from edgeagent.settings import reading
from edgeagent.state.folder import open_folder
from edgeagent.state.lineage import Lineage
from edgeagent.system.children import end_with, go_first
from modelwire.errors import DiskUnwritable, ModelError, ModelWireError
from modelwire.tflite import file as tflite_file

from .opener import opener, standing_of

SECONDS = 4.0  # of steps, at most
STEPS = 12  # at least, unless they take longer than that
SHORT_STEPS = 8192  # in mode features: several slices of them


def main(words: Sequence[str]) -> int:
    """Measure a mode. words: the path of the settings, a model, one of its modes, the id of who asks.

    The exit code is 0, also of trouble that was told.
    """
    path, model, mode, parent = words
    end_with(int(parent))
    go_first()
    try:
        with open_folder(reading.load(Path(path), environment=os.environ, flags={}), alone=False) as device:
            models = opener(device, eager=False)
            cost = cost_of(standing_of(device, device.lineages[model], models), mode, lambda: max(models.most, models.extractors.most))
        print(json.dumps({"seconds": cost.seconds, "memory": cost.memory, "samples": cost.samples}), flush=True)
    except DiskUnwritable as e:
        print(json.dumps({"trouble": e.message, "disk": {key: str(value) for key, value in e.facts.items()}}), flush=True)
    except ModelWireError as e:
        print(json.dumps({"trouble": e.message}), flush=True)
    return 0


def cost_of(standing: Standing, mode: str, together: Callable[[], int] = lambda: 0) -> Cost:
    """Return what a round in this mode takes, by trying one in this process: it has done nothing else before.

    together: the most bytes that it ever held with a process that worked for it, as far as was seen.
    """
    lineage, spool, settings, memory = standing.lineage, standing.spool, standing.settings, standing.memory
    count, _ = sides = spool.sides(lineage.name, settings.train.held_out)
    made_up = None
    if 0 in sides:
        made_up = (_made_up(lineage), _made_up(lineage))
        count = len(made_up[0])
    contract = tflite_file.contract(lineage.store.base(), model=lineage.name)
    taken = []
    wanted = SHORT_STEPS if mode == FEATURES else STEPS
    trial = Trial(Plan(mode, -(-wanted // max(1, count // contract.batch)), seconds=SECONDS), made_up)
    steps = run(standing, trial_of(standing, trial))
    done = 0
    while True:
        began = standing.clock.monotonic()
        try:
            progress = next(steps)
        except StopIteration:
            break
        if progress.done > done:  # a slice of mode features is many steps, and preparing it is none
            taken.append((standing.clock.monotonic() - began) / (progress.done - done))
            done = progress.done
    if not taken:
        raise ModelError(model=lineage.name, reason=f"the mode {mode} took no step")
    shape = spool.shape(lineage.name)
    loaded = (count if made_up else sum(sides)) * 4 * (math.prod(shape.x) + math.prod(shape.y))
    steady = taken[1:] or taken  # the first one opens the model and scores it
    peak = max(memory.sensors.peak(), together()) - memory.floors[lineage.name]
    return Cost(float(np.median(steady)), max(0, peak), loaded)


def _made_up(lineage: Lineage) -> Samples:
    """Return a batch of samples of the right shape, for a device that has not seen any yet."""
    c = tflite_file.contract(lineage.store.base(), model=lineage.name)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((c.batch, *c.x_shape), np.float32)
    if len(c.y_shape) == 1:
        return Samples(x, np.eye(c.classes, dtype=np.float32)[rng.integers(c.classes, size=c.batch)], True)
    return Samples(x, rng.standard_normal((c.batch, *c.y_shape), np.float32), False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
