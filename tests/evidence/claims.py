"""How many boards a claim of 100 lets in when 101 come, some of them twice and two with one serial number."""

from __future__ import annotations

from pathlib import Path

from edgecloud.audit import entries, tampering
from edgecloud.registry import claims
from edgecloud.registry.claims import Statement, prove
from modelwire.wire import topics
from modelwire.wire.claims import read_token, write_token
from modelwire.wire.records import Enrol, encode
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import FLEET, key_of
from tests.keys import COMMAND, FLEET_ID


def claim_admitted(folder: Path) -> int:
    """Return how many boards were let in, by a registry that is whole afterwards. folder: an empty one, to work in."""
    token = read_token(write_token(bytes(16), bytes(32)), "the token")
    store = make_registry(folder / "fleet.db", None)
    centre = Centre(store)
    serials = tuple(f"s{n:03}" for n in range(101))
    statement = Statement(token.id, token.key.public, 100, 1 << 40, serials, 1)
    store.log.append(entries.CLAIM, record=claims.seal(statement, COMMAND, FLEET_ID))
    boards = [(f"pi-{n:03}", serial) for n, serial in enumerate(serials)]
    for name, serial in [*boards[:50], *boards[:10], ("pi-999", serials[0]), *boards[50:], *boards]:
        key = key_of(name)
        said = Enrol(FLEET, name, "all", 1, key.public, prove(token, FLEET_ID, name, key.public, serial), serial, "0.1.0")
        centre.take((topics.up(FLEET, name, "all", "enrol"), encode(said, key, FLEET_ID)))
    admitted, faults = store.devices.names(), tampering.look(store)
    store.close()
    if faults:
        raise RuntimeError(f"the registry is not whole: {faults[0]}")
    return len(admitted)
