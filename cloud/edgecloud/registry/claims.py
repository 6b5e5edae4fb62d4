"""Claims as the centre holds them: what the operator's command key sealed about who may enrol, and when it takes that back.

Nothing here lets anybody in: the secret half of a claim is in its token alone, which the registry never sees.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from modelwire.errors import BadSignature, Malformed
from modelwire.text import is_plain
from modelwire.wire import cbor, claims
from modelwire.wire.claims import Token, prove
from modelwire.wire.signing import KEY_BYTES, SIGNATURE_BYTES, Signer

from .statements import SEALED_MAX, as_map, opened, require_shape, sealed

__all__ = [
    "ID_BYTES", "SEALED_MAX", "SERIALS_MAX", "Statement", "Token", "Withdrawal", "check", "prove", "read", "read_withdrawal", "seal",
    "unsealed", "withdraw",
]  # fmt: skip

ID_BYTES = claims.ID_BYTES
SERIALS_MAX, SERIAL_MAX, COUNT_MAX = 10_000, claims.SERIAL_MAX, 1_000_000  # serial numbers of one claim, characters of one, boards
GIVEN = b"edgecloud claim 1\0"  # of the command key, over a statement
WITHDRAWN = b"edgecloud claim withdrawn 1\0"  # of the command key, over a withdrawal


@dataclass(frozen=True, slots=True)
class Statement:
    """What a claim allows: so many boards, until then, with these serial numbers."""

    id: bytes  # 16 random bytes
    public: bytes  # of the claim key, whose private half is in the token
    count: int  # boards, 1 or more
    expiry: int  # Unix seconds of the centre's clock: later nobody is let in by it
    serials: tuple[str, ...]  # rising, each once; empty: any
    at: int  # Unix seconds, when it was sealed


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """The operator takes a claim back: who was let in by it stays, nobody else comes."""

    id: bytes
    at: int


def seal(statement: Statement, key: Signer, fleet: bytes) -> bytes:
    """Return a statement as the command key seals it in the fleet with this id. Raises Malformed for what `read` would refuse."""
    _check(statement)
    return sealed(_plain(statement), key, GIVEN, fleet)


def read(data: bytes, fleet: bytes, command_keys: Iterable[bytes]) -> Statement:
    """Return what a sealed statement says. command_keys: those that may have sealed it. Raises TooLarge, Malformed or BadSignature."""
    return _statement(opened(data, command_keys, GIVEN, fleet, "statement of a claim"))


def withdraw(withdrawal: Withdrawal, key: Signer, fleet: bytes) -> bytes:
    """Return a withdrawal as the command key seals it. Raises Malformed for what `read_withdrawal` would refuse."""
    _check_common(withdrawal, "withdrawal of a claim")
    return sealed({"id": withdrawal.id, "at": withdrawal.at}, key, WITHDRAWN, fleet)


def read_withdrawal(data: bytes, fleet: bytes, command_keys: Iterable[bytes]) -> Withdrawal:
    """Return what a sealed withdrawal says. Raises as `read`."""
    return _withdrawal(opened(data, command_keys, WITHDRAWN, fleet, "withdrawal of a claim"))


def unsealed(data: bytes) -> Statement | Withdrawal:
    """Return what a statement or a withdrawal says, whoever sealed it: for people, and decided by nothing. Raises Malformed or TooLarge."""
    values = as_map(data[:-SIGNATURE_BYTES], "claim")
    return _statement(values) if "public" in values else _withdrawal(values)


def check(proof: bytes, statement: Statement, fleet: bytes, device: str, key: bytes, serial: str) -> None:
    """Raise unless the token of this statement says that this key speaks for this device, on the board with this serial number.

    How often, and until when, is for who knows the time and the others. Raises Malformed, or BadSignature for another claim's or device's.
    """
    if claims.claim_id(proof) != statement.id:
        raise BadSignature(what="claim", signer=f"the claim {statement.id.hex()}")
    if statement.serials and serial not in statement.serials:
        raise Malformed(what="claim", reason=f"the serial number {serial[:SERIAL_MAX]!r} is none that it lists")
    claims.verify(proof, statement.public, fleet, device, key, serial)


def _statement(values: dict[str, cbor.Value]) -> Statement:
    require_shape(values, {"id": bytes, "public": bytes, "count": int, "expiry": int, "serials": list, "at": int}, "statement of a claim")
    serials = values.pop("serials")
    assert isinstance(serials, list)
    statement = Statement(serials=tuple(serials), **values)  # type: ignore[arg-type]
    _check(statement)
    return statement


def _withdrawal(values: dict[str, cbor.Value]) -> Withdrawal:
    require_shape(values, {"id": bytes, "at": int}, "withdrawal of a claim")
    withdrawal = Withdrawal(**values)  # type: ignore[arg-type]
    _check_common(withdrawal, "withdrawal of a claim")
    return withdrawal


def _plain(statement: Statement) -> dict[str, cbor.Value]:
    return {
        "id": statement.id, "public": statement.public, "count": statement.count, "expiry": statement.expiry,
        "serials": list(statement.serials), "at": statement.at,
    }  # fmt: skip


def _check(s: Statement) -> None:
    what = "statement of a claim"
    _check_common(s, what)
    if len(s.public) != KEY_BYTES:
        raise Malformed(what=what, reason=f"public is {len(s.public)} bytes instead of {KEY_BYTES}")
    if not (1 <= s.count <= COUNT_MAX and s.at <= s.expiry < 1 << 63):
        raise Malformed(what=what, reason=f"it is for 1 to {COUNT_MAX} boards, and ends after it begins")
    if len(s.serials) > SERIALS_MAX or (s.serials and s.count > len(s.serials)):
        raise Malformed(what=what, reason=f"it lists at most {SERIALS_MAX} serial numbers, and at least as many as it is for")
    if not all(isinstance(one, str) and 0 < len(one) <= SERIAL_MAX and is_plain(one) for one in s.serials):
        raise Malformed(what=what, reason=f"a serial number is 1 to {SERIAL_MAX} printable characters")
    if any(a >= b for a, b in itertools.pairwise(s.serials)):
        raise Malformed(what=what, reason="its serial numbers are not in order, each once")


def _check_common(of: Statement | Withdrawal, what: str) -> None:
    if len(of.id) != ID_BYTES:
        raise Malformed(what=what, reason=f"id is {len(of.id)} bytes instead of {ID_BYTES}")
    if not 0 <= of.at < 1 << 63:
        raise Malformed(what=what, reason="at is out of range")
