"""The board: collects samples, trains its own model, snaps it to the lattice, and tells the centre what changed."""

from __future__ import annotations

from .samples.spool import Spool

__all__ = ["Spool", "__version__"]

__version__ = "0.1.0"
