"""What a board does with a desired variant: killed at its writes it ends whole, and nothing that is not the director's word is taken.

    python -m tests.evidence.deploy.device     some of the writes; FULL=1 each of them, and ten times as many forgeries
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.deploying.desired_store import DesiredStore
from modelwire.deploying import variants
from modelwire.deploying.terms import DeployTerms
from modelwire.wire import records
from modelwire.wire.records import Desired
from tests import keys
from tests.edgeagent.boards import Rig, centre
from tests.edgeagent.centre import FakeClock
from tests.edgeagent.deploying.deployed import bring, deployed, other_base, seen, variant_of
from tests.edgeagent.deploying.killed import killed_at_each_write
from tests.evidence.parts import Figures, alone

WAYS = ("auto", "anew", "veto", "back")
EVERY = 23  # writes between two kills, where not each one is tried
FORGED = 400
B = other_base()
TOPIC = "e1/home/pi-7/tiny/dn/desired"


def measure(full: bool) -> Figures:
    """Return how often a device was killed in a state and how often it ended wrong, and how many forged desireds it took."""
    killed, wrong = 0, list[str]()
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            tried, found = killed_at_each_write(Path(folder) / way, way, every=1 if full else EVERY)
            print(f"{way}: killed {tried} times, {len(found)} wrong", file=sys.stderr)
            killed, wrong = killed + tried, wrong + found
        tried, accepted = forged(Path(folder) / "forged", FORGED * (10 if full else 1))
    for line in wrong:
        print(line, file=sys.stderr)
    return {"states_killed": killed, "states_wrong": len(wrong), "forged_desired_tried": tried, "forged_desired_accepted": accepted}


def forged(folder: Path, altered: int) -> tuple[int, int]:
    """Return how many desireds that are not the director's word were said to a device, and how many of them changed anything."""
    tried = accepted = 0
    with deployed(folder, centre(FakeClock()), B, train__min_samples="9999") as r:
        r.serve(5)  # it has the trust record
        before = _stands(r)
        for topic, data in _forgeries(altered):
            r.centre.deliver(topic, data)
            r.serve(2)
            tried, accepted = tried + 1, accepted + (_stands(r) != before or bool(r.centre.reports))
        accepted += _mixed(r)
    return tried + len(_STATEMENTS), accepted


def _stands(r: Rig) -> tuple[object, ...]:
    return seen(r), r.lineage.base_commit, r.lineage.head(), DesiredStore(r.device.database, "tiny").current(), r.lineage.reported()


def _forgeries(altered: int) -> Iterator[tuple[str, bytes]]:
    """Yield records that were altered, unsigned, of another role, key, fleet, device or model, on another topic, or expired."""
    good = records.encode(bring(B), keys.DIRECTOR, keys.FLEET_ID)
    rng = np.random.default_rng(17)
    for _ in range(altered):
        wrong = bytearray(good)
        wrong[int(rng.integers(len(wrong)))] ^= 1 << int(rng.integers(8))
        yield TOPIC, bytes(wrong)
    for cut in (0, 1, 50, len(good) - 1):
        yield TOPIC, good[:cut]
    yield TOPIC, good[:-64] + bytes(64)
    for key in (keys.ROOT, keys.RECEIPT, keys.COMMAND):
        yield TOPIC, records.encode(bring(B), key, keys.FLEET_ID)
    yield TOPIC, records.encode(bring(B), keys.DIRECTOR, bytes(16))
    for who in ({"fleet": "farm"}, {"device": "pi-8"}, {"model": "other"}):
        yield TOPIC, records.encode(replace(bring(B), **who), keys.DIRECTOR, keys.FLEET_ID)
    for topic in (TOPIC.replace("pi-7", "pi-8"), TOPIC.replace("tiny", "other"), TOPIC.replace("desired", "cmd")):
        yield topic, good
    yield TOPIC, records.encode(bring(B, expiry=1), keys.DIRECTOR, keys.FLEET_ID)


_OF_B = variant_of(B)
_STATEMENTS: tuple[dict[str, Any], ...] = (
    {"of": replace(_OF_B, model="other")}, {"of": replace(_OF_B, fleet="farm")}, {"of": replace(_OF_B, commit=bytes(32))},
    {"of": replace(_OF_B, size=_OF_B.size + 1)}, {"key": keys.DIRECTOR}, {"key": keys.COMMAND}, {"fleet": bytes(16)}, {"cut": 10},
)  # fmt: skip


def _mixed(r: Rig) -> int:
    """Return how many desireds were not refused that the director sealed around a statement that is not the root's, or another's."""
    served, accepted = seen(r), 0
    for number, said in enumerate(_STATEMENTS, 1):
        statement = variants.statement(said.get("of", _OF_B), said.get("key", keys.ROOT), said.get("fleet", keys.FLEET_ID))
        terms = DeployTerms(b"r" * 16, statement[said.get("cut", 0) :], soak=1)
        desired = Desired("home", "pi-7", "tiny", 0, number, 1 << 40, _OF_B.commit, _OF_B.size, 1, more=terms.as_map())
        r.centre.push(desired, "desired")
        r.serve(10)
        row = DesiredStore(r.device.database, "tiny").current()
        refused = row is not None and (row.number, row.state.value, row.code) == (number, "refused", "variant")
        accepted += not refused or seen(r) != served
    return accepted


if __name__ == "__main__":
    alone("deploy", "device", measure)
