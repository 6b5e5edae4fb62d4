"""Which keys speak for the centre: the newest trust record that the root has signed, and for a while the one before it.

No clock here: `time` is the newest time of the centre that the reader has seen, 0 when it has seen none; then nothing has ended yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelwire.errors import BadSignature, Malformed, ModelWireError, WrongRole

from .records import Signed, Trust, expect
from .signing import KEY_BYTES, Fleet, Role

_KEYS = {Role.RECEIPT: "receipt", Role.COMMAND: "command", Role.ACT: "command", Role.DIRECTOR: "director"}


@dataclass(frozen=True, slots=True)
class Trusted:
    """What a reader goes by: the fleet that it was given, and the trust records that followed."""

    fleet: Fleet
    newest: Trust | None = None
    before: Trust | None = None

    @property
    def number(self) -> int:
        """Of the newest record; 0 when there is none yet."""
        return self.newest.number if self.newest else 0

    @property
    def root(self) -> bytes:
        """The public key that signs the next record."""
        return self.newest.root if self.newest else self.fleet.root

    def take(self, signed: Signed) -> Trusted:
        """Return what holds with this record too. Raises WrongFleet, BadSignature, or Malformed when it is not newer or can't hold."""
        record = expect(signed, Trust)
        signed.verify(self.root, self.fleet.id, "the fleet's root key", Role.ROOT)
        if record.number <= self.number:
            raise Malformed(what=record.KIND, reason=f"number {record.number} does not follow {self.number}")
        if record.until and record.until <= record.since:
            raise Malformed(what=record.KIND, reason="it ends before it begins")
        return Trusted(self.fleet, record, self.newest)

    def keys(self, role: Role, time: int) -> tuple[bytes, ...]:
        """Return the public keys that speak in a role at this time."""
        if role is Role.ROOT:
            return (self.root,)
        newest, before = self.newest, self.before
        out: list[bytes] = []
        if newest and not (newest.until and time > newest.until):
            out += _split(getattr(newest, _KEYS[role]))
        # Where records between the two never came, whoever kept them back may be the one whose key they took away.
        follows = newest is not None and before is not None and before.number + 1 == newest.number
        if newest and before and follows and time <= newest.since + newest.overlap and not (before.until and time > before.until):
            out += _split(getattr(before, _KEYS[role]))
        return tuple(out)

    def verify(self, signed: Signed, time: int) -> None:
        """Raise WrongRole, WrongFleet or BadSignature unless a key that speaks to devices in the record's role at this time signed it."""
        if signed.role in (Role.DEVICE, Role.ACT):
            said = signed.record.KIND or "of an unknown kind"
            raise WrongRole(what=f"the record {said}", got=signed.role.name.lower(), needed="centre's")
        signed.check(self.fleet.id, signed.role)
        signer = f"the fleet's {signed.role.name.lower()} key"
        refused: ModelWireError = BadSignature(what=signed.record.KIND or "record", signer=signer)
        for key in self.keys(signed.role, time):
            try:
                signed.verify(key, self.fleet.id, signer, signed.role)
                return
            except BadSignature as error:
                refused = error
        raise refused


def _split(keys: bytes) -> list[bytes]:
    return [keys[i : i + KEY_BYTES] for i in range(0, len(keys), KEY_BYTES)]
