"""What earlier releases left behind, as files: what went over the wire, a registry and a board's state. Every later release reads them."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
DEVICE_SEED = bytes(range(32, 64))  # of the kept boards' key, for tests only; the fleet's are those of tests/keys.py
STRANGER_SEED = bytes(range(96, 128))  # of the board that was never admitted
