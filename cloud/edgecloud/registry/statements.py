"""What the operator's command key seals about what the registry keeps: a policy, a purge of rows, an erasure; and how it is sealed.

No board hears of any. One number, which acts share, orders them: what was sealed once is never entered again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TypeVar

from modelwire import limits
from modelwire.errors import BadSignature, Malformed, TooLarge
from modelwire.names import check_name
from modelwire.text import is_plain
from modelwire.wire import cbor, signing
from modelwire.wire.signing import KEY_BYTES, SIGNATURE_BYTES, Signer

SEALED_MAX = 1024 * 1024  # bytes; 10,000 of the longest serial numbers take 660,000
_LIMIT = limits.Limits(cbor_items=10_064)
KEEP_MAX = 100  # characters of what a policy keeps
CLAIM_BYTES = 16
POLICY = b"edgecloud policy 1\0"  # of the command key, over each of the three
PURGE = b"edgecloud purge 1\0"
ERASURE = b"edgecloud erasure 1\0"

S = TypeVar("S", "Policy", "Purge", "Erasure")


@dataclass(frozen=True, slots=True)
class Policy:
    """Which versions stay recoverable."""

    number: int  # rises, with those of acts
    at: int  # Unix seconds, when it was sealed
    keep: str  # as edgecloud.keeping.retention reads it: all, daily, last N, tagged


@dataclass(frozen=True, slots=True)
class Purge:
    """The rows of a device's recipes go; what the recipes came to stays."""

    number: int
    at: int
    device: str


@dataclass(frozen=True, slots=True)
class Erasure:
    """All that is held of a device goes. It says neither which device, nor anything from which that follows."""

    number: int
    at: int
    keys: bytes  # its public keys, 32 bytes each: they never speak again
    claims: bytes  # ids of the claims by which it was let in, 16 bytes each, one for each time
    count: int  # entries of the log about it
    root: bytes  # 32 bytes, of the tree over them (edgecloud.audit.erased); of none where there is none


def seal(statement: Policy | Purge | Erasure, key: Signer, fleet: bytes) -> bytes:
    """Return a statement as the command key seals it in the fleet with this id. Raises Malformed for what `read` would refuse."""
    _CHECKS[type(statement)](statement)
    domain = {Policy: POLICY, Purge: PURGE, Erasure: ERASURE}[type(statement)]
    return sealed(asdict(statement), key, domain, fleet)


def read_policy(data: bytes, fleet: bytes, command_keys: Iterable[bytes]) -> Policy:
    """Return a policy. command_keys: those that may have sealed it. Raises TooLarge, Malformed or BadSignature."""
    return _made(Policy, opened(data, command_keys, POLICY, fleet, "policy"), "policy")


def read_purge(data: bytes, fleet: bytes, command_keys: Iterable[bytes]) -> Purge:
    """Return a purge. Raises as `read_policy`."""
    return _made(Purge, opened(data, command_keys, PURGE, fleet, "purge"), "purge")


def read_erasure(data: bytes, fleet: bytes, command_keys: Iterable[bytes]) -> Erasure:
    """Return an erasure. Raises as `read_policy`."""
    return _made(Erasure, opened(data, command_keys, ERASURE, fleet, "erasure"), "erasure")


def unsealed(data: bytes) -> Policy | Purge | Erasure:
    """Return what a statement says, whoever sealed it: for people, and decided by nothing. Raises Malformed or TooLarge."""
    values = as_map(data[:-SIGNATURE_BYTES], "statement")
    if "keep" in values:
        return _made(Policy, values, "policy")
    return _made(Purge, values, "purge") if "device" in values else _made(Erasure, values, "erasure")


def sealed(values: Mapping[str, cbor.Value], key: Signer, domain: bytes, fleet: bytes) -> bytes:
    """Return a map as the command key seals it."""
    body = cbor.encode(dict(values), _LIMIT)
    return body + key.sign(domain, fleet, body)


def opened(data: bytes, keys: Iterable[bytes], domain: bytes, fleet: bytes, what: str) -> dict[str, cbor.Value]:
    """Return the map that one of the keys has sealed: nothing of it is read before that is sure."""
    if len(data) > SEALED_MAX:
        raise TooLarge(what=f"the {what}", size=len(data), limit=SEALED_MAX)
    body, signature = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
    for key in keys:
        try:
            signing.verify(key, domain, fleet, body, signature, what=what, signer="the fleet's command key")
            break
        except BadSignature:
            continue
    else:
        raise BadSignature(what=what, signer="the fleet's command key")
    return as_map(body, what)


def as_map(body: bytes, what: str) -> dict[str, cbor.Value]:
    """Return the map that a body holds. Raises TooLarge or Malformed."""
    if len(body) > SEALED_MAX:
        raise TooLarge(what=f"the {what}", size=len(body), limit=SEALED_MAX)
    values = cbor.decode(body, what, _LIMIT)
    if not isinstance(values, dict):
        raise Malformed(what=what, reason="it is no map")
    return values


def require_shape(values: Mapping[str, cbor.Value], types: Mapping[str, type], what: str) -> None:
    """Raise Malformed unless a map has these fields, each of its type."""
    if values.keys() != types.keys():
        raise Malformed(what=what, reason="it has other fields than it must")
    for name, of in types.items():
        if type(values[name]) is not of:
            raise Malformed(what=what, reason=f"{name} is not of type {of.__name__}")


_TYPES: dict[type, dict[str, type]] = {
    Policy: {"number": int, "at": int, "keep": str},
    Purge: {"number": int, "at": int, "device": str},
    Erasure: {"number": int, "at": int, "keys": bytes, "claims": bytes, "count": int, "root": bytes},
}


def _made(of: type[S], values: dict[str, cbor.Value], what: str) -> S:
    require_shape(values, _TYPES[of], what)
    made = of(**values)  # type: ignore[arg-type]
    _CHECKS[of](made)
    return made


def _check_order(what: str, of: Policy | Purge | Erasure) -> None:
    if not (0 < of.number < 1 << 63 and 0 <= of.at < 1 << 63):
        raise Malformed(what=what, reason="number or at is out of range")


def _check_policy(policy: Policy) -> None:
    _check_order("policy", policy)
    if not 0 < len(policy.keep) <= KEEP_MAX or not is_plain(policy.keep):
        raise Malformed(what="policy", reason=f"what it keeps is said in 1 to {KEEP_MAX} printable characters")


def _check_purge(purge: Purge) -> None:
    _check_order("purge", purge)
    check_name("device name", purge.device)


def _check_erasure(erasure: Erasure) -> None:
    _check_order("erasure", erasure)
    if len(erasure.keys) % KEY_BYTES or len(erasure.claims) % CLAIM_BYTES or len(erasure.root) != 32:
        raise Malformed(what="erasure", reason="keys, claims or root are not as long as they must be")
    if not 0 <= erasure.count < 1 << 31:
        raise Malformed(what="erasure", reason="count is out of range")


_CHECKS: dict[type, Callable[..., None]] = {Policy: _check_policy, Purge: _check_purge, Erasure: _check_erasure}
