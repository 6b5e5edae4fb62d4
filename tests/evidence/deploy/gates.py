"""The gates of rollouts: equal variants halted without need, worse ones held up, and what a director's step costs in a large fleet.

    python -m tests.evidence.deploy.gates              FULL=1: ten thousand rollouts of each kind, and 100,000 devices
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np

from edgecloud.rollouts.gates import Ruling
from modelwire.deploying.states import State
from tests.edgecloud.directing import fleets
from tests.edgecloud.directing.desk import BY_STEPS, EQUAL, MODEL, NEW, OLD, Rolling
from tests.evidence.parts import Figures, alone

HUNDRED, MANY = 100, 10_000


def measure(full: bool) -> Figures:
    """Return how rollouts of simulated phases end, and what steps of a large rollout take."""
    of = MANY if full else 1_000
    equal = judged("equal", 0.0, of)
    worse = judged("5 points worse", 0.05, of)
    differing = judged("equal, and devices differ by 2 points", 0.0, of, spread=0.02)
    hundred = fleets.counted(fleets.phase(np.random.default_rng([17, n]), 0.0) for n in range(HUNDRED))
    return {
        "false_halts": hundred[Ruling.HALT], "false_halts_of": HUNDRED,
        "false_halts_many": equal[Ruling.HALT], "false_halts_many_of": of, "equal_paused_share": equal[Ruling.PAUSE] / of,
        "worse_halted_share": worse[Ruling.HALT] / of, "worse_paused_share": worse[Ruling.PAUSE] / of,
        "worse_passed_share": worse[Ruling.PASS] / of, "false_halts_differing": differing[Ruling.HALT],
        **of_steps(100_000 if full else 2_000),
    }  # fmt: skip


def judged(what: str, loss: float, of: int, *, spread: float = 0.0) -> Counter[Ruling]:
    rng = np.random.default_rng([int(loss * 1000), int(spread * 1000)])
    found = fleets.counted(fleets.phase(rng, loss, spread=spread) for _ in range(of))
    say(f"{what}: {', '.join(f'{ruling.value} {n}' for ruling, n in found.items())} of {of}")
    return found


def of_steps(devices: int) -> Figures:
    """Return what the steps of a rollout to so many devices take: to take a phase in, to offer it to 500, to judge, to find nothing due.

    In seconds of the processor: how busy the machine is otherwise is not asked.
    """
    with tempfile.TemporaryDirectory() as folder:
        rolling = Rolling(Path(folder) / "fleet.db", devices=0)
        rows = rolling.store.database
        with rolling.store.transaction():
            for n in range(1, devices + 1):
                name, key = f"pi-{n}", hashlib.sha256(b"%d" % n).digest()
                rows.run("INSERT INTO device VALUES (?, 10)", name)
                rows.run("INSERT INTO device_key (device, key, added_at) VALUES (?, ?, 10)", name, key)
                rows.run("INSERT INTO lineage (id, device, model) VALUES (?, ?, ?)", n, name, MODEL)
                rows.run("INSERT INTO epoch VALUES (?, 1, ?, ?, 0, 10)", n, key[:16], OLD)
        say(f"{devices} devices are there")
        rolling.plan(phases=BY_STEPS[:1] + BY_STEPS[2:])
        rolling.settle()
        rolling.all_say(State.SOAKING, EQUAL)  # two canaries
        rolling.settle()
        rolling.now += 61
        rolling.all_say(State.CONFIRMED, EQUAL)
        taking_in = longest(rolling)
        say(f"the phase was taken in: {taking_in:.2f} s the longest step")
        offering = median(rolling, 5)
        tracemalloc.start()
        rolling.step()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        with rolling.store.transaction():
            rows.run("UPDATE assignment SET state = ?, number = 1, rows = 200, better = 1, worse = 1", State.SOAKING.value)
        judging = median(rolling, 1)
        idle = median(rolling, 5)
        assert rolling.row.state == "soaking" and EQUAL.serves == NEW
        rolling.store.close()
    return {
        "step_devices": devices, "step_taking_in_seconds": round(taking_in, 3), "step_offering_500_seconds": round(offering, 3),
        "step_judging_seconds": round(judging, 3), "step_idle_seconds": round(idle, 3), "step_peak_mib": round(peak / (1 << 20), 1),
    }  # fmt: skip


def longest(rolling: Rolling) -> float:
    """Step until the large phase is taken in, and return what the longest of these steps took."""
    out = 0.0
    for _ in range(100):
        began = time.process_time()
        done = rolling.step()
        out = max(out, time.process_time() - began)
        if done.assigned:
            return out
    raise AssertionError("it was never taken in")


def median(rolling: Rolling, times: int) -> float:
    took = []
    for _ in range(times):
        began = time.process_time()
        rolling.step()
        took.append(time.process_time() - began)
    return float(np.median(took))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    alone("deploy", "gates", measure)
