"""A claim as a board has it: the token that came with its image, and the proof that it says in `enrol`. docs/protocol.md, "Enrolment".

The token never travels. A proof is for one device name, one key and one serial number: whoever hears it can use it for no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelwire.errors import Malformed, WrongKeyKind
from modelwire.text import is_plain

from . import cbor, signing
from .keys import KeyKind
from .signing import KEY_BYTES, SIGNATURE_BYTES, PrivateKey

ID_BYTES = 16
PROOF_BYTES = ID_BYTES + SIGNATURE_BYTES
PREFIX, TITLE = "edge-claim", "the secret token of a claim"
PROOF = b"edgecloud claimed 1\0"  # of the claim key, over a device's name, key and serial number
SERIAL = "serial"  # in `more` of a hello: the serial number that the proof in `claim` is for
SERIAL_MAX = 64  # characters, as a claim lists it
REFUSED = "claim"  # in `more` of a welcome that says quarantine: why the claim of the hello lets the board not in
REFUSED_MAX = 200  # characters, for people
_SPACE = " \t\n\v\f\r"
_DIGITS = 2 * (ID_BYTES + KEY_BYTES)


@dataclass(frozen=True, slots=True)
class Token:
    """What lets a board in: secret, and the same on all boards of one claim."""

    id: bytes  # 16 bytes, of the claim
    key: PrivateKey  # the claim key


def write_token(id: bytes, seed: bytes) -> str:
    """Return a token as a line of text, without its end. seed: the claim key's 32 secret bytes."""
    assert (len(id), len(seed)) == (ID_BYTES, KEY_BYTES)
    return f"{PREFIX}:{(id + seed).hex()}"


def read_token(text: str, where: str) -> Token:
    """Return the token in a line of text. where: the file that an error names, never what is in it. Raises WrongKeyKind or Malformed."""
    prefix, colon, digits = text.strip(_SPACE).partition(":")
    if prefix != PREFIX or not colon:
        found = next((k for k in KeyKind if k.prefix == prefix), None) if colon else None
        got = f"it is {found.title}" if found else "it says not that it is one"
        raise WrongKeyKind(where=where, got=got, needed=f"{TITLE} ({PREFIX}:...)")
    try:
        both = bytes.fromhex(digits)
    except ValueError:
        both = b""
    if len(digits) != _DIGITS or digits != both.hex():
        raise Malformed(what=where, reason=f"{TITLE} is {_DIGITS} lower-case hexadecimal digits behind {PREFIX}:")
    return Token(both[:ID_BYTES], PrivateKey(both[ID_BYTES:]))


def prove(token: Token, fleet: bytes, device: str, key: bytes, serial: str) -> bytes:
    """Return the claim that this device says in the fleet with this id. key: the device's public key; serial: of the board, or empty."""
    return token.id + token.key.sign(PROOF, fleet, _bound(token.id, device, key, serial))


def claim_id(proof: bytes) -> bytes:
    """Return which claim a proof is of. Raises Malformed for what is no proof."""
    if len(proof) != PROOF_BYTES:
        raise Malformed(what="claim", reason=f"{len(proof)} bytes instead of {PROOF_BYTES}")
    return proof[:ID_BYTES]


def verify(proof: bytes, public: bytes, fleet: bytes, device: str, key: bytes, serial: str) -> None:
    """Raise Malformed or BadSignature unless the claim key `public` gave this proof for the device, its key and its serial number."""
    message = _bound(claim_id(proof), device, key, serial)
    signing.verify(public, PROOF, fleet, message, proof[ID_BYTES:], what="claim", signer="the token of the claim that it names")


def serial_in(more: Mapping[str, cbor.Value]) -> str | None:
    """Return the serial number that a hello says its proof is for; None where it says none, or something else."""
    return _text(more, SERIAL, 0, SERIAL_MAX)


def refusal_said(reason: str) -> dict[str, cbor.Value]:
    """Return what a welcome says of a claim that lets the board not in; nothing for an empty reason. Cleaned and cut."""
    text = "".join(c if is_plain(c) else "?" for c in reason)[:REFUSED_MAX]
    return {REFUSED: text} if text else {}


def refusal_in(more: Mapping[str, cbor.Value]) -> str:
    """Return why a claim lets the board not in, as a welcome says; empty where it says nothing, or something else."""
    return _text(more, REFUSED, 1, REFUSED_MAX) or ""


def _text(more: Mapping[str, cbor.Value], key: str, least: int, most: int) -> str | None:
    value = more.get(key)
    return value if isinstance(value, str) and least <= len(value) <= most and is_plain(value) else None


def _bound(id: bytes, device: str, key: bytes, serial: str) -> bytes:
    """Return what a proof is over: only the serial number, at the end, may be of any length."""
    name = device.encode()
    return id + key + bytes([len(name)]) + name + serial.encode()
