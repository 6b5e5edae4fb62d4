"""Of deployments the log takes what the right key sealed, each number once; whoever replays it finds a forged or repeated word."""

from __future__ import annotations

import pytest

from modelwire.deploying.plans import RolloutVerb
from modelwire.errors import RegistryDamaged
from tests.edgecloud import rollouts
from tests.edgecloud.centre import Centre
from tests.edgecloud.device import Base, ScriptedDevice
from tests.keys import COMMAND, DIRECTOR, RECEIPT, ROOT


@pytest.fixture
def deployed(centre: Centre, base: Base) -> Centre:
    centre.meet(ScriptedDevice(base))
    rollouts.deploy(centre.store, base)
    centre.tick()
    return centre


def test_a_centre_goes_on_with_what_was_sealed(deployed: Centre) -> None:
    known = deployed.ingest.admissions.deployments
    assert known.variants == {"digits": 1} and known.decisions == {rollouts.ID: 1} and known.desired == {("pi-7", "digits"): 1}


@pytest.mark.parametrize("kind", ["variant", "plan", "decision", "desired"])
@pytest.mark.parametrize("wrong", ["key", "number", "bytes"])
def test_a_word_that_is_forged_or_comes_again_stops_the_ingester_by_name(deployed: Centre, base: Base, kind: str, wrong: str) -> None:
    again, commit = wrong == "number", base.manifest.commit
    id = rollouts.ID if again else b"n" * 16
    record = {
        "variant": lambda: rollouts.variant(base.manifest, number=1 if again else 2, key=COMMAND if wrong == "key" else ROOT),
        "plan": lambda: rollouts.sealed_plan(rollouts.plan(rollout=id, variant=commit), DIRECTOR if wrong == "key" else COMMAND),
        "decision": lambda: rollouts.decision(RolloutVerb.RESUME, 1 if again else 2, key=RECEIPT if wrong == "key" else COMMAND),
        "desired": lambda: rollouts.desired(commit, 1 if again else 2, key=COMMAND if wrong == "key" else DIRECTOR),
    }[kind]() if wrong != "bytes" else b"x" * 200  # fmt: skip
    deployed.store.log.append(kind, record=record)
    with pytest.raises(RegistryDamaged, match="its log was changed"):
        deployed.tick()


def test_the_next_words_are_taken(deployed: Centre, base: Base) -> None:
    rollouts.deploy(deployed.store, base, rollout=b"n" * 16, name="next")
    deployed.store.rollouts.decide(1, 2, rollouts.decision(RolloutVerb.HALT, 2), 9)
    deployed.tick()
    assert deployed.ingest.admissions.deployments.desired == {("pi-7", "digits"): 2}
