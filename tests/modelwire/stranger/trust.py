"""Trust: which keys are good (protocol page, Trust)."""

from __future__ import annotations

from .errors import BadSignature, Malformed
from .fields import check_trust, check_welcome
from .keys import Fleet
from .records import ACT, COMMAND, DIRECTOR, RECEIPT, ROLES, ROOT, Record

_NAMED = {RECEIPT: "receipt", COMMAND: "command", ACT: "command", DIRECTOR: "director"}


def _cut(raw: bytes) -> list[bytes]:
    """Cut keys apart."""
    return [raw[at : at + 32] for at in range(0, len(raw), 32)]


class Trust:
    """What a device, or the centre, believes: fleet.pub, two trust records, newest time."""

    def __init__(self, fleet: Fleet) -> None:
        """Begin with fleet.pub alone."""
        self.fleet = fleet
        self.held: Record | None = None
        self.before: Record | None = None
        self.newest = 0

    @property
    def root_key(self) -> bytes:
        """Give the root key that signs the next trust record."""
        return self.held.fields["root"] if self.held else self.fleet.root_key

    @property
    def number(self) -> int:
        """Give the number of the trust record held."""
        return int(self.held.fields["number"]) if self.held else 0

    def take(self, record: Record) -> None:
        """Take a trust record: its fleet id and signature (P34, P37), then P38 and P39."""
        if record.role != ROOT or record.kind != "trust":
            raise BadSignature("P37: not a trust record")
        record.verify([self.root_key], self.fleet.fleet_id)
        if record.fields["number"] <= self.number:
            raise Malformed("P38: a number that is not higher")
        check_trust(record.fields)
        self.held, self.before = record, self.held

    def keys(self, role: int) -> list[bytes]:
        """Give the good keys of a role (P40, P41, P79)."""
        if role == ROOT:
            return [self.root_key]
        out: list[bytes] = []
        if self.held is None or role not in _NAMED:
            return out
        name = _NAMED[role]
        if self._lasts(self.held):
            out += _cut(self.held.fields[name])
        overlap = self.held.fields["since"] + self.held.fields["overlap"]
        follows = self.before is not None and self.before.fields["number"] + 1 == self.number
        if self.before is not None and follows and self.newest <= overlap and self._lasts(self.before):
            out += _cut(self.before.fields[name])
        return out

    def _lasts(self, record: Record) -> bool:
        """Say whether newest time is within a record's until."""
        until = record.fields["until"]
        return bool(until == 0 or self.newest <= until)

    def verify(self, record: Record) -> bytes:
        """Check a record of another role than device by the keys of its role (P6)."""
        return record.verify(self.keys(record.role), self.fleet.fleet_id)

    def read(self, record: Record) -> bytes:
        """Check a record that came down; take its time when it is a welcome (P6, then P42 and P45)."""
        key = self.verify(record)
        if record.kind == "welcome":
            check_welcome(record.fields)
            self.newest = max(self.newest, record.fields["time"])
        return key


__all__ = ["ROLES", "Trust"]
