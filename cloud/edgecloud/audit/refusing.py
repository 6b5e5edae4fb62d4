"""Why a claim lets a board not in that says hello by it: in full for the operator, and as much of it as the board itself may be told.

A hello carries the proof and the serial number that its board enrols by, and is held as it came while it waits: so nothing more is kept of
a refusal, and what is said of it is what holds now.
"""

from __future__ import annotations

from modelwire.errors import ClaimRefused, ModelWireError
from modelwire.names import ALL
from modelwire.wire.claims import claim_id, serial_in, verify
from modelwire.wire.records import Enrol, Hello

from .admissions import Admissions
from .claiming import Claim

NO_SERIAL = "it is not for a board with this serial number, or one with it is in already"
DECIDED = "it replaces no key, and the operator decided about this name or key before"


def why_not(held: Admissions, said: Hello, at: int) -> str:
    """Return why the claim of a hello does not let its board in at this time, for the operator; empty when it would, or there is none."""
    if not said.claim:
        return ""
    serial = serial_in(said.more)
    try:
        claim = held.claims.by_id.get(claim_id(said.claim))
        if serial is None and claim is not None:  # an agent of before: its enrolment alone could be judged
            return _of_all(claim, at)
        enrol = Enrol(said.fleet, said.device, ALL, said.at, said.key, said.claim, serial or "", said.agent)
        held.require_enrollable(enrol, at)
    except ClaimRefused as refused:
        return str(refused.facts["reason"])
    except ModelWireError as error:
        return error.message
    return ""


def told(held: Admissions, said: Hello, at: int) -> str:
    """Return as much of that as is said to the board; empty for nothing.

    Who can ask: anybody who reaches the broker, by any number of hellos in any names, with keys and serial numbers of his choice. So
    nothing is said before the proof holds, which the claim's token alone makes: to a stranger a claim that does not exist, one that is
    used up and one that is open look the same. A token is on every board of its claim, and one that was taken from a board must not tell
    of the others. So its holder is told of the claim as a whole first, and of the serial number and the name, which he can choose freely,
    only that this pair is refused, which he sees by staying in quarantine anyway: not whether the number is listed or taken, nor which
    device has it, nor whose the name is. A hello of a rejected or erased key is told nothing.
    """
    serial = serial_in(said.more)
    if not said.claim or serial is None:
        return ""
    try:
        claim = held.claims.by_id.get(claim_id(said.claim))
        if claim is None:
            return ""
        verify(said.claim, claim.statement.public, held.fleet.id, said.device, said.key, serial)
    except ModelWireError:
        return ""
    if why := _of_all(claim, at):
        return why
    listed = claim.statement.serials
    if (listed and serial not in listed) or (serial and serial in claim.serials):
        return NO_SERIAL
    return DECIDED if held.decided(said.device, said.key) else ""


def _of_all(claim: Claim, at: int) -> str:
    """Return why a claim lets nobody in at this time, whoever asks; empty while it is open."""
    return claim.ended(at) or claim.used_up()
