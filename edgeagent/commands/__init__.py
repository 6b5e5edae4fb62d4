"""The commands of `edgeagent`, one module each: NAME, HELP, EXAMPLES, `add` for its arguments and `run` for its answer.

Knows every room; no room knows it.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["NAMES", "chosen", "every"]

NAMES = (
    "init", "run", "train", "publish", "status", "samples", "model", "desired", "log", "outbox", "estimate", "why", "measure",
    "calibrate", "certificate", "board", "provision", "doctor", "config", "version",
)  # fmt: skip
_ROOMS = {"board": "boards.", "provision": "boards.", "desired": "deploying."}  # of those that have a room of their own


def chosen(words: list[str]) -> tuple[ModuleType, ...]:
    """Return the command that the words begin with, alone: a service keeps no other one in memory. Else all, in order."""
    names = words[:1] if words[:1] and words[0] in NAMES else NAMES
    return tuple(import_module(f".{_ROOMS.get(name, '')}{name}", __name__) for name in names)


def every() -> tuple[ModuleType, ...]:
    """Return all commands, in the order in which they are listed."""
    return chosen([])
