"""Another base on this board: staged, probed, soaked, taken over or taken back. Knows no link, no round and no command line."""

from __future__ import annotations

__all__ = ["desired_store", "learned", "places", "switching"]
