"""A source over HTTP that is loaded when the first file is asked for: boards that fetch nothing do without http, ssl and email."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .ranges import Source


def over_http(ca: Path | None, wake: Callable[[], None]) -> Callable[[], Source]:
    """Return what makes a source over HTTP.

    ca: certificates that sign a server's; None: the system's. wake: called when an answer is there, from a thread of its own.
    """

    def make() -> Source:
        from .http_source import HttpSource

        return HttpSource(ca, wake)

    return make
