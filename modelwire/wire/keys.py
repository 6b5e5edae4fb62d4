"""Keys as one line of text, each with its kind in front: a key of one kind is never taken for one of another."""

from __future__ import annotations

import hashlib
from enum import Enum

from modelwire.errors import Malformed, WrongKeyKind

from .signing import FLEET_ID_BYTES, KEY_BYTES, Fleet

FINGERPRINT_DIGITS, GROUP = 20, 4  # of a key's digest, as people compare it
TEXT_MAX = 4096  # bytes of a file that holds a key
_SPACE = " \t\n\v\f\r"  # around a line; other white space of Unicode is none here


class KeyKind(Enum):
    """What a line of text is the key of: (its prefix, what an error calls it, its bytes)."""

    FLEET = ("edge-fleet-pub", "the fleet's public key", KEY_BYTES + FLEET_ID_BYTES)
    DEVICE = ("edge-device-pub", "a device's public key", KEY_BYTES)
    DEVICE_PRIVATE = ("edge-device-key", "a device's private key", KEY_BYTES)
    ROOT_PRIVATE = ("edge-root-key", "the fleet's private root key", KEY_BYTES)
    RECEIPT_PRIVATE = ("edge-receipt-key", "the centre's private receipt key", KEY_BYTES)
    COMMAND_PRIVATE = ("edge-command-key", "the operator's private command key", KEY_BYTES)
    DIRECTOR_PRIVATE = ("edge-director-key", "the director's private key", KEY_BYTES)
    RECEIPT = ("edge-receipt-pub", "the centre's public receipt key", KEY_BYTES)
    COMMAND = ("edge-command-pub", "the operator's public command key", KEY_BYTES)
    DIRECTOR = ("edge-director-pub", "the director's public key", KEY_BYTES)
    ROOT = ("edge-root-pub", "the fleet's public root key", KEY_BYTES)

    @property
    def prefix(self) -> str:
        return self.value[0]

    @property
    def title(self) -> str:
        return self.value[1]


def write_key(kind: KeyKind, key: bytes) -> str:
    """Return a key as a line of text, without its end."""
    assert len(key) == kind.value[2]
    return f"{kind.prefix}:{key.hex()}"


def read_key(text: str, kind: KeyKind, where: str) -> bytes:
    """Return the bytes of a key of this kind. where: the file or argument that an error names. Raises WrongKeyKind or Malformed."""
    prefix, colon, digits = text.strip(_SPACE).partition(":")
    found = next((k for k in KeyKind if k.prefix == prefix), None) if colon else None
    if found is not kind:
        got = f"it is {found.title}" if found else "it says not which kind of key it is"
        raise WrongKeyKind(where=where, got=got, needed=f"{kind.title} ({kind.prefix}:...)")
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        key = b""
    if len(key) != kind.value[2] or digits != key.hex():
        raise Malformed(what=where, reason=f"{kind.title} is {2 * kind.value[2]} hexadecimal digits behind {kind.prefix}:")
    return key


def fingerprint(key: bytes) -> str:
    """Return what people compare a device's public key by, on its board and at the centre: 1f2e-..., 80 bits of its SHA-256."""
    digits = hashlib.sha256(key).hexdigest()[:FINGERPRINT_DIGITS]
    return "-".join(digits[i : i + GROUP] for i in range(0, FINGERPRINT_DIGITS, GROUP))


def write_fleet(fleet: Fleet) -> str:
    """Return fleet.pub's line."""
    return write_key(KeyKind.FLEET, fleet.root + fleet.id)


def read_fleet(text: str, where: str) -> Fleet:
    """Return what fleet.pub says. Raises WrongKeyKind or Malformed."""
    both = read_key(text, KeyKind.FLEET, where)
    return Fleet(both[:KEY_BYTES], both[KEY_BYTES:])
