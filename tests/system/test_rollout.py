"""Eight real agents, an ingester and a director over a real broker: what is worse, crashes or is slow stays with the canaries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import broker
from tests.broker import Mosquitto
from tests.evidence.deploy import kills, worse
from tests.evidence.deploy.worse import CANARIES, NAMES, Answers

from . import rolling
from .rolling import RollingFleet

pytestmark = [
    pytest.mark.slow("lets eight agents train, and rolls out several variants", seconds=90),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]
STOPPED = {  # variant: how it is made, what `variants add` and `deploy` are told, the state of its rollout, the word of its devices
    "crashing": (rolling.crashing, (), (), "halted", "crash"),
    "not-finite": (rolling.not_finite, (), (), "halted", "not-finite"),
    "large": (rolling.equal, ("--ram", "4096GiB"), (), "paused", "memory"),
    "slow": (rolling.slow, (), ("--learned", "anew"), "halted", "slow"),
}


@pytest.fixture
def rolled(tmp_path: Path, hub: Mosquitto) -> Iterator[RollingFleet]:
    made = RollingFleet(tmp_path / "fleet", hub.url)
    try:
        made.settle(NAMES)
        yield made
    finally:
        made.close()


def test_a_worse_variant_stays_with_the_canaries_and_an_equal_one_reaches_all_and_goes_back(rolled: RollingFleet, hub: Mosquitto) -> None:
    real = worse.of_processes(rolled, hub.port)
    assert real.change <= -0.05 and real.phase == 1, "clearly worse, and halted before the second phase"
    assert real.reached <= len(CANARIES) and real.wrong == 0
    assert 0 < real.bytes < 2048
    assert real.bytes_confirmed < 2560, "likewise with the update that says so, and with one report more where a state took its time"
    proof = rolled.cloud("verify", "--all")
    assert proof["wrong"] == [] and proof["exact"] == proof["checked"] == 3 * len(NAMES), "trained, went over, went back"


def test_what_crashes_gives_no_numbers_is_too_large_or_slow_goes_no_further_than_the_canaries(rolled: RollingFleet) -> None:
    before = {name: rolled.served(name) for name in NAMES}
    for variant, (make, of_variant, of_plan, state, code) in STOPPED.items():
        rolled.add_variant(variant, make(), *of_variant)
        name = rolled.deploy(variant, "--canary", ",".join(CANARIES), "--soak", "1h", *of_plan)
        ended = rolled.until_state(name, "halted", "paused", "done")
        assert (ended["state"], ended["phase"]) == (state, 1), ended["reason"]
        assert code in {one["code"] for one in ended["codes"]}, ended
        assert ended["troubled"][0]["reason"], "and says why"
        rolled.cloud("rollout", "abort" if state == "paused" else "rollback", name)
        rolled.until_state(name, "rolled back", "aborted")
        assert rolled.ever_served(variant) == [] and {n: rolled.served(n) for n in NAMES} == before
        assert {n for n in NAMES if rolled.devices[n].ever_said(f"the variant {variant} is desired")} <= set(CANARIES)
    assert all(rolled.devices[n].starts == 1 and rolled.devices[n].running for n in NAMES), "no agent ended with what it tried"


def test_an_equal_variant_that_answers_otherwise_is_halted_in_no_rollout_to_fifty_simulated_agents() -> None:
    figures = worse.of_simulated(4)
    assert figures["false_halts"] == 0
    assert figures["worse_halted_simulated"] == 4 and figures["worse_phase_simulated"] == 1
    assert int(figures["worse_reached_simulated"]) <= 5 and float(figures["worse_points_simulated"]) < -5
    answers = Answers()
    assert 0.02 < (answers.equal(0) != answers.base).mean() < 0.1, "it is no copy: some of its answers are others"


def test_whichever_process_is_killed_while_a_variant_comes_each_agent_ends_whole() -> None:
    figures = kills.measure(False)
    assert (figures["processes_killed"], figures["processes_killed_wrong"]) == (len(kills.SOME), 0)
