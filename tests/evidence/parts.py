"""Measures the parts of a topic, each a module with a `measure` of its own, and says how long each took."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from importlib import import_module

Figures = dict[str, int | float | str]


def measured(package: str, parts: Sequence[str], full: bool) -> Figures:
    """Return the figures of all parts of a package. full: the sizes that the promise names, which take long."""
    figures: Figures = {}
    for part in parts:
        started = time.monotonic()
        print(f"{part}: measuring", file=sys.stderr)
        figures |= import_module(f"{package}.{part}").measure(full)
        print(f"{part}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return figures
