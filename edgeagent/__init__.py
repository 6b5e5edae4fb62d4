"""The board: collects samples, trains its own model, snaps it to the lattice, and tells the centre what changed."""

from __future__ import annotations

from edgecommon import __version__

from .samples.spool import Spool

__all__ = ["Spool", "__version__"]
