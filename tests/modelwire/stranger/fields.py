"""The fields of records (protocol page, Records)."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable
from typing import Any

from . import cbor, limits
from .container import NAME
from .errors import Malformed, TooLarge

INT_MAX = (1 << 63) - 1
Check = Callable[[str, Any], None]


_UNPRINTABLE = (
    (0x0000, 0x001F), (0x007F, 0x00A0), (0x00AD, 0x00AD), (0x061C, 0x061C), (0x1680, 0x1680), (0x180E, 0x180E),
    (0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x206F), (0x3000, 0x3000), (0xD800, 0xDFFF), (0xE000, 0xF8FF),
    (0xFDD0, 0xFDEF), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB), (0xFFFE, 0xFFFF), (0xF0000, 0x10FFFF),
)
_FIRST = [first for first, _ in _UNPRINTABLE]


def printable(text: str) -> bool:
    """Say whether all characters of a text are printable: none is in the page's fixed table."""
    return all(ord(c) > _UNPRINTABLE[max(bisect.bisect(_FIRST, ord(c)) - 1, 0)][1] for c in text)


def check_name(what: str, value: Any) -> None:
    """Check a name (P1)."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise Malformed(f"P1: name of {what}")


def check_fleet_name(value: str) -> None:
    """Check that a fleet has not the name that stands for all (P73)."""
    if value == "all":
        raise Malformed("P73: a fleet called all")


def integer(least: int = 0, most: int = INT_MAX) -> Check:
    """Make a check of integers (P17 to P19)."""

    def check(key: str, value: Any) -> None:
        """Check one value."""
        if not cbor.is_int(value, least, most):
            raise Malformed(f"P17 to P19: {key} is no integer from {least} to {most}")

    return check


def text(key: str, value: Any) -> None:
    """Check a text (P17, P20, P21)."""
    if not isinstance(value, str):
        raise Malformed(f"P17: {key} is no text")
    if len(value) > 1000:
        raise Malformed(f"P20: {key} is too long")
    if not printable(value):
        raise Malformed(f"P21: {key} has a character that is not printable")


def one_of(*words: str) -> Check:
    """Make a check of a text that has few values (P23, P24, P71)."""

    def check(key: str, value: Any) -> None:
        """Check one value."""
        text(key, value)
        if value not in words:
            raise Malformed(f"P23, P24, P71: {key} is none of {words}")

    return check


def data(*lengths: int) -> Check:
    """Make a check of bytes of one of the lengths (P22); without lengths any length is good."""

    def check(key: str, value: Any) -> None:
        """Check one value."""
        if not isinstance(value, bytes):
            raise Malformed(f"P17: {key} is no byte string")
        if lengths and len(value) not in lengths:
            raise Malformed(f"P22: length of {key}")

    return check


def truth(key: str, value: Any) -> None:
    """Check true or false (P17)."""
    if not isinstance(value, bool):
        raise Malformed(f"P17: {key} is neither true nor false")


def mapping(key: str, value: Any) -> None:
    """Check a map (P17)."""
    if not isinstance(value, dict):
        raise Malformed(f"P17: {key} is no map")


def score(key: str, value: Any) -> None:
    """Check a float or null (P17)."""
    if value is not None and not isinstance(value, float):
        raise Malformed(f"P17: {key} is neither float nor null")


def trainers(key: str, value: Any) -> None:
    """Check the list of trainers (P25 to P27)."""
    if not isinstance(value, list):
        raise Malformed(f"P17: {key} is no array")
    if len(value) > 16:
        raise Malformed("P25: too many trainers")
    if not all(cbor.is_int(n, 1, (1 << 31) - 1) for n in value):
        raise Malformed("P26: a trainer that is no integer of the range")
    if any(a >= b for a, b in itertools.pairwise(value)):
        raise Malformed("P27: trainers that do not rise")


def check_transfer(fields: dict[str, Any]) -> None:
    """Check sizes and parts of a transfer (P50, P52, P51, P53)."""
    limit = limits.CONTAINER if fields["what"] == "update" else limits.MODEL_FILE
    if fields["size"] > limit:
        raise TooLarge("P50: size of a transfer")
    part = fields["part_size"]
    if not 1024 <= part <= 65536 or part & (part - 1):
        raise Malformed("P52: part_size")
    if fields["size"] == 0:
        raise Malformed("P51: size of a transfer is 0")
    if -(-fields["size"] // part) > limits.PARTS:
        raise TooLarge("P53: parts of a transfer")


def check_trust(fields: dict[str, Any]) -> None:
    """Check the time of a trust record (P39)."""
    if fields["until"] != 0 and fields["until"] <= fields["since"]:
        raise Malformed("P39: until is not above since")


def check_welcome(fields: dict[str, Any]) -> None:
    """Check that a number is left after those of a welcome (P42), and its link (P45)."""
    if fields["epoch"] >= 1 << 32 or fields["version"] >= 1 << 62:
        raise Malformed("P42: no container holds a number after it")
    if fields["log"]:
        check_link_number(int.from_bytes(fields["log"][:8], "little"))


def check_link_number(number: int) -> None:
    """Check the number of a link (P45)."""
    if not 1 <= number <= INT_MAX:
        raise Malformed("P45: number of a link")


_INT, _NUMBER = integer(), integer(1)
_B16, _B32, _B0_32 = data(16), data(32), data(0, 32)
_KEYS = data(32, 64, 96, 128)

KINDS: dict[str, dict[str, Check]] = {
    "hello": {
        "key": _B32, "state": _B16, "base": _B32, "epoch": _INT, "version": _INT, "commit": _B32, "runtime": text,
        "agent": text, "trust": _INT, "answer": _B0_32, "claim": data(*range(257)), "resume": truth, "trainers": trainers,
    },
    "welcome": {
        "state": _B16, "status": text, "epoch": _INT, "version": _INT, "head": _B32, "head_version": _INT,
        "verified": _INT, "time": _INT, "challenge": _B0_32, "wait": _INT, "log": data(0, 40), "resume": _B0_32,
        "resume_version": _INT, "trainers": trainers,
    },
    "wait": {"seconds": _INT, "reason": text},
    "command": {
        "number": _NUMBER, "expiry": _INT, "state": _B16, "epoch": _INT, "parent": _B0_32, "verb": text, "body": mapping,
    },
    "response": {"number": _INT, "ok": truth, "text": text, "body": mapping},
    "receipt": {
        "epoch": _INT, "version": _INT, "commit": _B32, "level": one_of("stored", "verified", "refused"), "reason": text,
        "good": _B0_32, "good_version": _INT, "place": _INT,
    },
    "presence": {"boot": _INT, "online": truth},
    "transfer": {
        "id": _B32, "size": _INT, "part_size": _INT, "what": one_of("update", "base", "bundle"), "tree": _B32,
        "parent": _B0_32,
    },
    "wanted": {"id": _B32, "have": data()},
    "desired": {"number": _NUMBER, "expiry": _INT, "variant": _B32, "bytes": _INT, "phase": _INT},
    "report": {
        "number": _NUMBER, "variant": _B32, "phase": _INT, "state": text, "slot": text, "bytes": _INT, "before": score,
        "after": score, "reason": text,
    },
    "enrol": {"key": _B32, "claim": data(*range(1, 257)), "serial": text, "agent": text},
    "trust": {
        "number": _NUMBER, "since": _INT, "until": _INT, "overlap": _INT, "root": _B32, "receipt": _KEYS,
        "command": _KEYS, "director": _KEYS,
    },
    "act": {"number": _NUMBER, "verb": one_of("admit", "revoke"), "key": _B32},
}
COMMON = ("fleet", "device", "model", "at")
