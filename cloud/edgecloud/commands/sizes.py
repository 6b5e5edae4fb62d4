"""Bytes, seconds and money in three figures, for tables that people read; documents hold the numbers themselves."""

from __future__ import annotations

_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


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
