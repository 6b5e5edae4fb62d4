"""Another base on this board: staged, probed, soaked, taken over or taken back. Knows no link, no round and no command line."""

from __future__ import annotations

__all__ = [
    "board_means", "desired_store", "hosts", "learned", "machine", "means", "places", "probe_child", "probing", "switching", "telling",
]  # fmt: skip
