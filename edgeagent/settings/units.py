"""Durations, sizes, budgets and windows of time as people write them in settings: "30s", "4KiB", "3 units", "22:00-06:00"."""

from __future__ import annotations

import re

from modelwire import limits

SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
# What links charge by: a part is the largest message; a metering unit is 5 KiB at the largest broker that counts them, of which the
# 120 bytes beyond 5 kB are left for the topic.
BUDGETS = {"part": limits.DEFAULT.part, "parts": limits.DEFAULT.part, "unit": 5000, "units": 5000}

_WINDOW = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])\Z")
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\Z")


def seconds(text: str | int | float) -> float:
    """Return the seconds that `text` says; a plain number is seconds. Raises ValueError."""
    number, unit = _split(text)
    if unit and unit not in SECONDS:
        raise ValueError(f"{unit!r} is not a unit of time ({', '.join(SECONDS)})")
    return number * SECONDS.get(unit, 1.0)


def size(text: str | int | float) -> int:
    """Return the bytes that `text` says; a plain number is bytes. Raises ValueError."""
    number, unit = _split(text)
    if unit and unit not in BYTES:
        raise ValueError(f"{unit!r} is not a unit of size ({', '.join(BYTES)})")
    whole = number * BYTES.get(unit, 1)
    if whole != int(whole):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(whole)


def budget(text: str | int | float) -> int:
    """Return the bytes that `text` allows: a size, or "1 part", "3 units". Raises ValueError."""
    number, unit = _split(text)
    if unit not in BUDGETS:
        return size(text)
    if number != int(number):
        raise ValueError(f"{text!r} is not a whole number of {unit.rstrip('s')}s")
    return int(number) * BUDGETS[unit]


def windows(text: str) -> tuple[tuple[int, int], ...]:
    """Return the windows that "22:00-06:00, 12:00-13:00" says, as minutes after midnight; none for an empty text. Raises ValueError."""
    out = []
    for part in text.split(",") if text.strip() else ():
        match = _WINDOW.match(part.strip())
        if not match:
            raise ValueError(f"{part.strip()!r} is not a window of time, such as 22:00-06:00")
        begins, ends = (60 * int(match[i]) + int(match[i + 1]) for i in (1, 3))
        if begins == ends:
            raise ValueError(f"{part.strip()!r} is empty; leave the setting empty to train at all times")
        out.append((begins, ends))
    return tuple(out)


def words(value: object) -> tuple[str, ...]:
    """Return the words of a list, or of text with commas or spaces between them. Raises ValueError."""
    items = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(word, str) and word.isprintable() and word for word in items):
        raise ValueError(f"{value!r} is not a list of words")
    return tuple(items)


def say_seconds(value: float) -> str:
    """Return a duration as `seconds` reads it back, in the largest unit that keeps it whole."""
    for unit in ("d", "h", "min", "s"):
        if value >= SECONDS[unit] and value % SECONDS[unit] == 0:
            return f"{int(value / SECONDS[unit])}{unit}"
    said = f"{value:.12g}"
    return f"{said if 'e' not in said else f'{value:.15f}'.rstrip('0').rstrip('.')}s"  # powers of ten are not read back


def say_size(value: int) -> str:
    """Return a size as `size` reads it back, in the largest unit that keeps it whole."""
    for unit in ("GiB", "MiB", "KiB"):
        if value and value % BYTES[unit] == 0:
            return f"{value // BYTES[unit]}{unit}"
    return f"{value}B"


def _split(text: str | int | float) -> tuple[float, str]:
    if isinstance(text, bool):
        raise ValueError("true and false are not quantities")
    if isinstance(text, (int, float)):
        if not 0 <= text < float("inf"):
            raise ValueError(f"{text} is negative or not finite")
        return float(text), ""
    match = _QUANTITY.match(text.strip()) if isinstance(text, str) else None  # TOML has dates, lists and tables, too
    if not match:
        raise ValueError(f"{text!r} is not a number with a unit, such as 30s or 4KiB")
    return float(match[1]), match[2]
