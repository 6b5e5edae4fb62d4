"""What a worse variant reaches, and what going back costs: by real processes over a real broker, and by the director over simulated agents.

    python -m tests.evidence.deploy.worse      FULL=1: 100 rollouts of equal variants, 50 agents each

The processes are agents that have trained, an ingester and a director; payloads are counted by who listens at the broker. The agents of
the 100 rollouts are simulated: a real director steps over a real registry, and what they report are answers of real models, base and
variant, to samples of 50 worlds.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecloud.registry.rollout_rows import DONE, HALTED, PAUSED
from edgecommon import runtime
from modelwire.deploying.plans import RolloutPhase
from modelwire.deploying.reports import DeviceFigures
from modelwire.deploying.states import State
from tests import broker
from tests.edgecloud.directing.desk import NEW, OLD, Rolling
from tests.evidence.parts import Figures, alone
from tests.system import rolling
from tests.system.rolling import MODEL, RollingFleet, listening
from tests.worlds import model_file, world

NAMES = tuple(f"pi-{n}" for n in range(1, 9))
CANARIES = NAMES[:2]
OF_A_ROLLBACK = ("desired", "report", "update")
AGENTS, ROLLOUTS, ROLLOUTS_FULL = 50, 10, 100
HELD_OUT = 300  # samples of a simulated agent
LIKE, NOISE = 0.005, 0.2  # accuracy by which an equal variant may differ over all worlds; of its weights
PHASES = (RolloutPhase(count=5), RolloutPhase(share=2_500), RolloutPhase(share=5_000), RolloutPhase(share=10_000))
Right: TypeAlias = NDArray[np.bool_]  # by world and sample


def measure(full: bool) -> Figures:
    """Return whom a worse variant reached, false halts of equal ones, and the bytes of a rollback."""
    with tempfile.TemporaryDirectory() as name, broker.mosquitto(Path(name)) as hub:
        fleet = RollingFleet(Path(name) / "fleet", hub.url)
        try:
            fleet.settle(NAMES)
            real = of_processes(fleet, hub.port)
        finally:
            fleet.close()
    return {
        "worse_reached": real.reached, "worse_reached_of": len(NAMES), "worse_halted_in_phase": real.phase,
        "worse_points": round(100 * real.change, 1), "rollback_bytes_per_device": real.bytes,
        "rollback_bytes_after_confirmed": real.bytes_confirmed, "rollback_files_wrong": real.wrong,
        **of_simulated(ROLLOUTS_FULL if full else ROLLOUTS),
    }  # fmt: skip


@dataclass
class OfProcesses:
    """What real agents did with a worse variant, and with an equal one that was taken back."""

    reached: int  # devices that ever served the worse one
    phase: int  # in which it was halted, from 1
    change: float  # of accuracy, on the canaries' held-out samples
    bytes: int  # of the device that took most, back from a variant that was not confirmed
    bytes_confirmed: int  # likewise, from one that was
    wrong: int  # devices whose file was another than before, after going back


def of_processes(fleet: RollingFleet, port: int) -> OfProcesses:
    """Roll out a worse variant and take it back, then an equal one to all and take that back."""
    before = {name: fleet.served(name) for name in NAMES}
    fleet.add_variant("worse", rolling.worse())
    name = fleet.deploy("worse", "--canary", ",".join(CANARIES), "--soak", "1h")
    ended = fleet.until_state(name, HALTED, PAUSED, DONE)
    say(f"the worse variant: {ended['state']} in phase {ended['phase']}: {ended['reason']}")
    assert ended["state"] == HALTED, ended
    took = went_back(fleet, port, name)
    wrong = sum(fleet.served(device) != before[device] for device in NAMES)
    reached = len(fleet.ever_served("worse"))
    fleet.add_variant("equal", rolling.equal())
    name = fleet.deploy("equal", "--canary", ",".join(CANARIES), "--soak", "1s")
    done = fleet.until_state(name, HALTED, PAUSED, DONE)
    say(f"the equal variant: {done['state']}: {done['reason']}")
    assert (done["state"], done["served"]) == (DONE, len(NAMES)), done
    wrong += sum(fleet.served(device) == before[device] for device in NAMES)
    took_confirmed = went_back(fleet, port, name)
    wrong += sum(fleet.served(device) != before[device] for device in NAMES)
    change = float(ended["phases"][0]["change"])
    return OfProcesses(reached, ended["phase"], change, max(took.values()), max(took_confirmed.values()), wrong)


def went_back(fleet: RollingFleet, port: int, name: str) -> dict[str, int]:
    """Take a rollout back, and return the bytes by device."""
    heads = [one for one in fleet.devices if fleet.rollout(name)["counts"]]
    with listening(port) as counts:
        fleet.cloud("rollout", "rollback", name)
        fleet.until_state(name, "rolled back")
        fleet.until("every version verified", lambda: fleet.look_up("verify", "--all")["waiting"] == 0)
    took = {device: sum(counts[device, kind] for kind in OF_A_ROLLBACK) for device in heads}
    say(f"{name} is rolled back: {took} bytes")
    return took


def of_simulated(rollouts: int) -> Figures:
    """Return how rollouts of equal variants to simulated agents ended, and as many of a worse one."""
    answers = Answers()
    equal = [rolled_out(answers.base, answers.equal(n), n) for n in range(rollouts)]
    ended = Counter(state for state, _, _ in equal)
    say(f"equal variants: {dict(ended)} of {rollouts}")
    bad = answers.of(rolling.worse())
    worse = [rolled_out(answers.base, bad, n) for n in range(rollouts)]
    points = 100 * float(bad.mean() - answers.base.mean())
    say(f"{points:.1f} points worse: {dict(Counter(state for state, _, _ in worse))} of {rollouts}")
    return {
        "false_halts": ended[HALTED], "false_halts_of": rollouts, "equal_done": ended[DONE], "equal_paused": ended[PAUSED],
        "agents_of_a_rollout": AGENTS, "worse_points_simulated": round(points, 1),
        "worse_halted_simulated": sum(state == HALTED for state, _, _ in worse),
        "worse_reached_simulated": max(reached for _, reached, _ in worse),
        "worse_phase_simulated": 1 + max(phase for _, _, phase in worse),
    }  # fmt: skip


class Answers:
    """Which samples of 50 worlds a model gets right."""

    def __init__(self) -> None:
        worlds = [world(MODEL, seed) for seed in range(AGENTS)]
        self._x, self._y = np.concatenate([w.test_x for w in worlds]), np.concatenate([w.test_y for w in worlds])
        self.base = self.of(model_file(MODEL))
        self._equal = self._equals()

    def of(self, file: bytes) -> Right:
        model = runtime.load().open(file, model=MODEL, signature="")
        try:
            return (model.evaluate(self._x).argmax(1) == self._y).reshape(AGENTS, -1)  # type: ignore[no-any-return]
        finally:
            model.close()

    def equal(self, n: int) -> Right:
        """Return the n-th variant that is as good as the base over all worlds, and answers otherwise where it does."""
        while True:
            right = next(self._equal)
            if abs(right.mean() - self.base.mean()) <= LIKE:
                return right

    def _equals(self) -> Iterator[Right]:
        rng = np.random.default_rng(17)
        while True:
            yield self.of(rolling.changed(lambda name, w: w + rng.normal(0, NOISE * np.abs(w).mean(), w.shape)))


def rolled_out(before: Right, after: Right, seed: int) -> tuple[str, int, int]:
    """Return how a rollout ended, how many agents ever served it, and in which phase. The director looks after each report."""
    rng, reached = np.random.default_rng([3, seed]), set[str]()
    with tempfile.TemporaryDirectory() as folder:
        rolled = Rolling(Path(folder) / "fleet.db", devices=AGENTS)
        rolled.plan(phases=PHASES)
        for _ in PHASES:
            rolled.settle()
            waiting = [one for one in rolled.assigned() if one.state == State.OFFERED.value]
            said = {one.device: reported(before[n := int(one.device[3:]) - 1], after[n], rng) for one in waiting}
            for state in (State.SOAKING, State.CONFIRMED):
                for device, figures in said.items():
                    if rolled.row.state == HALTED and state is State.SOAKING and device not in reached:
                        continue
                    reached.add(device)
                    rolled.say(device, state, figures)
                    rolled.step()
                rolled.now += 61
            rolled.settle()
            if rolled.row.state in (HALTED, PAUSED, DONE):
                break
        state, phase = rolled.standing
        rolled.store.close()
    return state, len(reached), phase


def reported(before: Right, after: Right, rng: np.random.Generator) -> DeviceFigures:
    """Return what an agent reports on as many of its world's samples as it holds out."""
    rows = rng.choice(len(before), HELD_OUT, replace=False)
    was, now = before[rows], after[rows]
    return DeviceFigures(rows=HELD_OUT, better=int((now & ~was).sum()), worse=int((was & ~now).sum()), serves=NEW, passive=OLD)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    alone("deploy", "worse", measure)
