"""Bytes, seconds and money in three figures, for tables that people read; documents hold the numbers themselves."""

from __future__ import annotations

import argparse
import re
from fractions import Fraction

from edgecommon.arguments import shown

_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))

_READ = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
_MOST = 1 << 60


def size_type(text: str) -> int:
    """Return the bytes that an argument says: 1000, 64kB, 512MiB, 1.5GB. Raises ArgumentTypeError."""
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)\s*([A-Za-z]{0,3})", text.strip())
    unit = _READ.get(match[2].lower()) if match else None
    size = round(Fraction(match[1]) * unit) if match and unit is not None else -1
    if not 0 <= size <= _MOST:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no size such as 512MiB, 2GB or 100000")
    return size


def of_bytes(size: float) -> str:
    """Return bytes in the largest unit of which there is one: 1.38 GB."""
    for unit, name in _BYTES:
        if size >= 0.9995 * unit:
            return f"{_three(size / unit)} {name}"
    return f"{size:.0f} B"


def of_seconds(seconds: float) -> str:
    """Return a duration in seconds, or in milliseconds below one."""
    return f"{_three(seconds)} s" if seconds >= 0.9995 else f"{_three(1000 * seconds)} ms"


def of_money(amount: float) -> str:
    """Return an amount of whatever currency the prices are in."""
    return f"{amount:,.2f}" if amount >= 1 or amount == 0 else f"{amount:.2g}"


def _three(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"
