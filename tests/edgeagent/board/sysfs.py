"""A board whose files under /sys a test writes."""

from __future__ import annotations

from pathlib import Path

from edgeagent.board.sensors import Sensors


def board(folder: Path, **files: str) -> Sensors:
    """Return the sensors of a board whose files are these: thermal_zone0__temp="45000"."""
    for name, text in files.items():
        entry, _, file = name.partition("__")
        kind = "thermal" if entry.startswith("thermal") else "power_supply"
        path = folder / "class" / kind / entry / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Sensors(sys=folder)
