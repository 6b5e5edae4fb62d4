"""What the log says of claims: who may still be let in by each, and who was. Each enrolment proves itself by statement and record.

The same questions are asked of a board that enrols now and of an entry that is replayed: so the ingester can't let in whom a reader of
the log would not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edgecloud.registry import claims
from edgecloud.registry.claims import Statement, Withdrawal
from modelwire.errors import ClaimRefused, Malformed, ModelWireError
from modelwire.wire.claims import claim_id
from modelwire.wire.records import Enrol


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A board that was let in by a claim."""

    device: str
    key: bytes
    serial: str
    at: int
    entry: int  # of the log


@dataclass
class Claim:
    """A claim and what became of it."""

    statement: Statement
    entry: int  # of the log, that gave it
    withdrawn: int = 0  # entry that took it back; 0: it stands
    erased: int = 0  # boards that it let in and of which nothing is held
    enrolled: dict[bytes, Enrolled] = field(default_factory=dict)  # by key
    serials: dict[str, Enrolled] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """How many boards it would still let in, whatever the time."""
        return 0 if self.withdrawn else self.statement.count - len(self.enrolled) - self.erased

    def ended(self, now: int) -> str:
        """Return why its time is over; empty while it is not."""
        if self.withdrawn:
            return "the operator has withdrawn it"
        return "it has expired" if now > self.statement.expiry else ""

    def used_up(self) -> str:
        """Return that as many boards are in as it is for; empty while there are fewer."""
        count = self.statement.count
        return "" if self.left > 0 else f"it was for {count} {'board' if count == 1 else 'boards'}, and all are in"

    def open(self, now: int) -> bool:
        """Return whether it lets anybody in now."""
        return self.left > 0 and now <= self.statement.expiry


class Claims:
    """All claims of a log, by their ids."""

    def __init__(self) -> None:
        self.by_id: dict[bytes, Claim] = {}

    def give(self, statement: Statement, entry: int) -> None:
        if statement.id in self.by_id:
            raise Malformed(what=f"entry {entry} of the log", reason=f"the claim {statement.id.hex()} was given before")
        self.by_id[statement.id] = Claim(statement, entry)

    def withdraw(self, withdrawal: Withdrawal, entry: int) -> None:
        claim = self.by_id.get(withdrawal.id)
        if claim is None:
            raise Malformed(what=f"entry {entry} of the log", reason=f"the claim {withdrawal.id.hex()} was never given")
        claim.withdrawn = claim.withdrawn or entry

    def erase(self, id: bytes, keys: bytes) -> None:
        """Count a board that it let in, and forget which one that was. keys: of the device that is erased, 32 bytes each."""
        claim = self.by_id.get(id)
        if claim is None:
            return
        claim.erased += 1
        for start in range(0, len(keys), 32):
            one = claim.enrolled.pop(keys[start : start + 32], None)
            if one is not None:
                claim.serials.pop(one.serial, None)

    def enrolled(self, said: Enrol) -> Enrolled | None:
        """Return how this very board was let in by this very claim before. Raises Malformed for what is no claim."""
        claim = self.by_id.get(claim_id(said.claim))
        before = claim.enrolled.get(said.key) if claim else None
        return before if before is not None and (before.device, before.serial) == (said.device, said.serial) else None

    def require(self, said: Enrol, fleet: bytes, at: int) -> Claim:
        """Return the claim that lets this board in at this time. fleet: its id. Raises ClaimRefused, or Malformed for what is no claim."""
        claim = self.by_id.get(claim_id(said.claim))
        if claim is None:
            raise self._refused(said, "the operator gave no such claim")
        statement = claim.statement
        if ended := claim.ended(at):
            raise self._refused(said, ended)
        try:
            claims.check(said.claim, statement, fleet, said.device, said.key, said.serial)
        except ModelWireError as error:
            raise self._refused(said, error.message) from None
        if said.serial and said.serial in claim.serials:
            raise self._refused(said, f"the board {said.serial} was let in before, as {claim.serials[said.serial].device}")
        if used_up := claim.used_up():
            raise self._refused(said, used_up)
        return claim

    def note(self, claim: Claim, said: Enrol, at: int, entry: int) -> None:
        """Count a board in."""
        one = Enrolled(said.device, said.key, said.serial, at, entry)
        claim.enrolled[said.key] = one
        if said.serial:
            claim.serials[said.serial] = one

    def _refused(self, said: Enrol, reason: str) -> ClaimRefused:
        return ClaimRefused(device=said.device, claim=claim_id(said.claim).hex(), reason=reason)
