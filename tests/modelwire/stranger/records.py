"""Records: envelope, kinds, roles, more, signatures (protocol page)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from . import cbor, ed25519, limits
from .errors import (
    BadSignature,
    Malformed,
    TooLarge,
    UnknownDevice,
    WrongFleet,
    WrongRole,
)
from .fields import COMMON, INT_MAX, KINDS, check_fleet_name, check_name, printable

MAGIC = b"\x89MWR"
DEVICE, RECEIPT, COMMAND, ACT, DIRECTOR, ROOT = 1, 2, 3, 4, 5, 6
ROLES = {DEVICE: "device", RECEIPT: "receipt", COMMAND: "command", ACT: "act", DIRECTOR: "director", ROOT: "root"}
DOWN, UP = frozenset({RECEIPT, COMMAND, DIRECTOR, ROOT}), frozenset({DEVICE})
MAY_SAY = {
    DEVICE: {"hello", "response", "presence", "transfer", "wanted", "report", "enrol"},
    RECEIPT: {"welcome", "wait", "response", "receipt", "transfer", "wanted"},
    COMMAND: {"command"},
    ACT: {"act"},
    DIRECTOR: {"desired"},
    ROOT: {"trust"},
}


def domain(role: int) -> bytes:
    """Give the domain that a role signs in."""
    return f"modelwire {ROLES[role]} 1".encode() + b"\0"


@dataclass(frozen=True)
class Record:
    """One record, its form checked, its signature not yet."""

    raw: bytes
    role: int
    fleet_id: bytes
    fields: dict[str, Any]
    signature: bytes

    @property
    def kind(self) -> str:
        """Give what it is."""
        return str(self.fields["kind"])

    @property
    def known(self) -> bool:
        """Say whether this release knows the kind."""
        return self.kind in KINDS

    @property
    def more(self) -> dict[str, Any]:
        """Give what a later release says beside the fields."""
        return dict(self.fields.get("more", {}))

    def check_fleet(self, fleet_id: bytes) -> None:
        """Check the fleet id (step 7: P34)."""
        if self.fleet_id != fleet_id:
            raise WrongFleet("P34: another fleet id")

    def verify(self, keys: Iterable[bytes], fleet_id: bytes) -> bytes:
        """Check fleet id and signature; give the key that signed (steps 7 and 8: P34, P6)."""
        self.check_fleet(fleet_id)
        return ed25519.verify(keys, domain(self.role), fleet_id, self.raw[:-64], self.signature)

    def verify_own_key(self, fleet_id: bytes) -> bytes:
        """Check a hello or enrol by the key that it names (P43)."""
        if self.kind not in ("hello", "enrol"):
            raise BadSignature("P43: a record that names no key of its own")
        return self.verify([self.fields["key"]], fleet_id)

    def verify_device(self, keys: Iterable[bytes], fleet_id: bytes) -> bytes | None:
        """Check what came up by its device's registered keys (P8, P43); a presence that has no such key waits: none."""
        if self.kind in ("hello", "enrol"):
            return self.verify_own_key(fleet_id)
        try:
            return self.verify(keys, fleet_id)
        except BadSignature as error:
            if self.kind == "presence":
                return None
            raise UnknownDevice("P8: none of the device's registered keys has signed") from error


def _check_more(fields: dict[str, Any]) -> None:
    """Check more (P28, P29)."""
    if "more" not in fields:
        return
    more = fields["more"]
    if not isinstance(more, dict) or not more:
        raise Malformed("P28: more that is no map, or is empty")
    cbor.refuse_critical(more)


def _check_common(fields: dict[str, Any], kind: str) -> None:
    """Check names and time (P1 to P3, P15, P17, P18, P35, P73)."""
    for key in COMMON:
        if key not in fields:
            raise Malformed(f"P15, P35: {key} is lacking")
    known = kind in KINDS
    for key in ("fleet", "device", "model"):
        if not isinstance(fields[key], str):
            raise Malformed(f"P17, P35: {key} is no text")
        check_name(key, fields[key])
    check_fleet_name(fields["fleet"])
    if known and (fields["device"] == "all") != (kind == "trust"):
        raise Malformed("P2: the device all, or a trust record of one device")
    if known and (fields["model"] == "all") != (kind in ("trust", "enrol", "act")):
        raise Malformed("P3: the model all, or a trust, enrol or act of one model")
    if not cbor.is_int(fields["at"], 0, INT_MAX):
        raise Malformed("P17, P18, P35: at is no integer of the range")


def _check_fields(fields: dict[str, Any], kind: str) -> None:
    """Check all fields of a known kind (P15 to P27, P71)."""
    wanted = KINDS[kind]
    lacking = set(wanted) - set(fields)
    if lacking:
        raise Malformed(f"P15: {sorted(lacking)} lacking")
    extra = set(fields) - set(wanted) - set(COMMON) - {"kind", "more"}
    if extra:
        raise Malformed(f"P16: {sorted(extra)} not of the kind")
    for key, check in wanted.items():
        check(key, fields[key])


def read_record(data: bytes, hears: Collection[int] = ROLES) -> Record:
    """Read a record by steps 2 to 6 of its order; hears are the roles that the reader hears."""
    if len(data) > limits.RECORD:
        raise TooLarge("P9: record")
    if len(data) < 88:
        raise Malformed("P10: record too short")
    if data[:5] != MAGIC + b"\1":
        raise Malformed("P11: another magic or version")
    if len(data) != 88 + (data[6] | data[7] << 8):
        raise Malformed("P12: another length than the envelope's")
    role = data[5]
    if role not in ROLES:
        raise Malformed("P13: role")
    fields = cbor.decode(data[24:-64])
    if not isinstance(fields, dict) or not isinstance(fields.get("kind"), str):
        raise Malformed("P14: content without kind")
    kind = fields["kind"]
    if kind in KINDS and kind not in MAY_SAY[role]:
        raise WrongRole("P31: a role that may not say this")
    _check_more(fields)
    if len(kind) > 64 or not printable(kind):
        raise Malformed("P36: kind")
    _check_common(fields, kind)
    if kind in KINDS:
        _check_fields(fields, kind)
    if role not in hears:
        raise WrongRole("P7, P32, P33: a role that may not say this to this reader")
    return Record(data, role, data[8:24], fields, data[-64:])
