"""The board: collects samples, trains its own model, snaps it to the lattice, and tells the centre what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgecommon import __version__

if TYPE_CHECKING:
    from .samples.spool import Spool

__all__ = ["Spool", "__version__"]

def __getattr__(name: str) -> Any:
    # Only when it is asked for: numpy takes half a second on a board, in which Ctrl-C would find no program yet.
    if name != "Spool":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .samples.spool import Spool

    return Spool


def __dir__() -> list[str]:
    return __all__
