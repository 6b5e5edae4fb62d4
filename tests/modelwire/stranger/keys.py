"""Keys as lines of text (protocol page, Keys)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import Malformed, WrongKeyKind

WHITE = "\t\n\v\f\r "
DIGITS = {"edge-fleet-pub": 96} | {
    f"edge-{what}": 64
    for what in (
        "device-pub", "receipt-pub", "command-pub", "director-pub", "device-key", "root-key", "receipt-key", "command-key",
        "director-key", "root-pub",
    )
}


def read_key(line: str, kind: str) -> bytes:
    """Read a key of a kind (P4, P5)."""
    line = line.strip(WHITE)
    found, colon, digits = line.partition(":")
    if not colon or found != kind:
        raise WrongKeyKind(f"P4: wanted {kind}, found {found if colon else 'no kind'}")
    if len(digits) != DIGITS[kind] or not re.fullmatch("[0-9a-f]*", digits):
        raise Malformed(f"P5: digits of {kind}")
    return bytes.fromhex(digits)


def write_key(kind: str, raw: bytes) -> str:
    """Write a key as its line."""
    return f"{kind}:{raw.hex()}"


@dataclass(frozen=True)
class Fleet:
    """What fleet.pub holds."""

    root_key: bytes
    fleet_id: bytes


def read_fleet(line: str) -> Fleet:
    """Read fleet.pub."""
    raw = read_key(line, "edge-fleet-pub")
    return Fleet(raw[:32], raw[32:])
