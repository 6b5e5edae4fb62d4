"""Statements about deployments, and what desired and report say in more (protocol page, Desired and report)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

from . import cbor, ed25519
from .errors import Malformed, WrongFleet
from .fields import INT_MAX, check_fleet_name, check_name, printable
from .records import ACT, ROOT, domain

MAGICS = {b"\x89MWV": ROOT, b"\x89MWO": ACT, b"\x89MWQ": ACT}
Check = Callable[[Any], bool]


def whole(least: int = 0, most: int = INT_MAX) -> Check:
    """Make a check of integers."""
    return lambda value: cbor.is_int(value, least, most)


def text(most: int = 1000) -> Check:
    """Make a check of texts."""
    return lambda value: isinstance(value, str) and len(value) <= most and printable(value)


def blob(*lengths: int) -> Check:
    """Make a check of bytes of one of these lengths."""
    return lambda value: isinstance(value, bytes) and len(value) in lengths


def each(most: int, good: Check) -> Check:
    """Make a check of lists."""
    return lambda value: isinstance(value, list) and len(value) <= most and all(good(one) for one in value)


def yes(value: Any) -> bool:
    """Check true or false."""
    return isinstance(value, bool)


def url(value: Any) -> bool:
    """Check an address of a file."""
    plain = isinstance(value, str) and len(value) <= 1000 and all("!" <= c <= "~" for c in value)
    return plain and value.startswith(("http://", "https://"))


def pair(value: Any) -> bool:
    """Check a fact of a data card."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) and len(v) <= 200 for v in value)


def phase(value: Any) -> bool:
    """Check a phase: devices, count, share, soak."""
    return isinstance(value, list) and len(value) == 4 and each(1000, text())(value[0]) and all(whole()(n) for n in value[1:])


def word(*words: str) -> Check:
    """Make a check of one of some words."""
    return lambda value: value in words


SAYS: dict[bytes, dict[str, Check]] = {
    b"\x89MWV": {
        "fleet": text(), "model": text(), "name": text(64), "commit": blob(32), "file": blob(32), "size": whole(1), "tree": blob(32),
        "schema": blob(32), "exact": yes, "runtime": text(64), "ram": whole(), "parents": each(64, blob(32)), "at": whole(),
        "number": whole(1), "type_id": text(64),
    },
    b"\x89MWO": {
        "fleet": text(), "model": text(), "rollout": blob(16), "name": text(64), "variant": blob(32), "devices": each(1000, text()),
        "cohort": text(200), "where": each(16, pair), "follow": yes, "phases": each(16, phase), "gates": each(6, whole()),
        "soak": whole(0, 7_776_000), "rate": whole(0, 1_000_000), "jitter": whole(0, 86_400), "window": each(2, whole(0, 86_399)),
        "learned": word("auto", "anew"), "consent": yes, "urls": each(4, url), "expiry": whole(1, 7_776_000), "approvals": whole(0, 8),
        "made_by": text(64), "at": whole(),
    },
    b"\x89MWQ": {
        "fleet": text(), "rollout": blob(16), "number": whole(1), "by": text(64), "reason": text(), "at": whole(),
        "verb": word("approve", "start", "pause", "resume", "halt", "roll back", "abort"),
    },
}  # fmt: skip
TERMS: dict[str, Check] = {
    "rollout": blob(16), "variant": lambda value: isinstance(value, bytes) and len(value) <= 8192, "urls": each(4, url),
    "soak": whole(0, 7_776_000), "tries": whole(1, 1000), "most": whole(), "learned": word("auto", "anew"), "consent": yes,
    "not_before": whole(), "back": yes, "slower": whole(0, 1 << 20), "worse": whole(0, 10_000),
}  # fmt: skip
FIGURES: dict[str, Check] = {
    "accuracy": yes, **dict.fromkeys(("rows", "better", "worse"), whole(0, 1_000_000)),
    **dict.fromkeys(("micros", "micros_before"), whole(0, 1 << 40)), "code": text(64), "learned": text(64), "serves": blob(0, 32),
    "passive": blob(0, 32),
}  # fmt: skip


def _check(values: Any, shape: dict[str, Check], what: str) -> dict[str, Any]:
    if not isinstance(values, dict) or values.keys() != shape.keys():
        raise Malformed(f"{what}: other keys than the page has")
    for key, good in shape.items():
        if not good(values[key]):
            raise Malformed(f"{what}: {key}")
    return values


def read_statement(data: bytes, keys: Iterable[bytes], fleet: bytes) -> tuple[bytes, dict[str, Any]]:
    """Read a statement: its magic, and what it says. keys: those that speak in its role."""
    if len(data) < 88:
        raise Malformed("a statement that is too short")
    magic, version, role, size, of = struct.unpack_from("<4sBBH16s", data)
    if magic not in MAGICS or version != 1 or role != MAGICS[magic] or 24 + size + 64 != len(data):
        raise Malformed("a statement of another form")
    if of != fleet:
        raise WrongFleet("a statement of another fleet")
    ed25519.verify(keys, domain(role), fleet, data[:-64], data[-64:])
    says = _check({k: v for k, v in cbor.decode(data[24:-64]).items() if k != "more"}, SAYS[magic], "a statement")
    check_fleet_name(says["fleet"])
    for name in ("fleet", "model"):
        if name in says:
            check_name(name, says[name])
    return magic, says


def read_terms(more: dict[str, Any]) -> dict[str, Any]:
    """Read the terms of a desired; empty where there are none."""
    if "terms" not in more:
        return {}
    terms = _check(more["terms"], TERMS, "terms")
    if not terms["variant"] and not terms["back"]:
        raise Malformed("terms that bring no variant, and are not the way back")
    return terms


def read_figures(more: dict[str, Any]) -> dict[str, Any]:
    """Read the figures of a report; empty where there are none."""
    if "figures" not in more:
        return {}
    figures = _check(more["figures"], FIGURES, "figures")
    if figures["better"] + figures["worse"] > figures["rows"]:
        raise Malformed("figures of more samples than were judged")
    return figures
