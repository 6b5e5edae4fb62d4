"""What a running agent says to those who ask on the board, kept in its memory: a full or read-only disk has no place for it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_NAME = "edgeagent-notice"
_MOST = 64 * 1024  # bytes
_PROCESSES = Path("/proc")


class Notice:
    """One notice of this process, empty at first. Its owner and root can read it for as long as the process lives."""

    def __init__(self) -> None:
        self._file: int | None = None

    def say(self, what: Mapping[str, Any]) -> None:
        """Put this in the place of what was said before."""
        with suppress(OSError):  # for people: a kernel without such files keeps nothing from running
            if self._file is None:
                self._file = os.memfd_create(_NAME)
            data = json.dumps(what).encode()[:_MOST]
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, data, 0)

    def clear(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def notice_of(process: int) -> dict[str, Any] | None:
    """Return what the process says; None when it says nothing. Raises PermissionError for another user's."""
    folder = _PROCESSES / str(process) / "fd"
    try:
        names = os.listdir(folder)
    except FileNotFoundError:  # it has ended
        return None
    for name in names:
        with suppress(FileNotFoundError, ValueError):
            if os.readlink(folder / name).startswith(f"/memfd:{_NAME}"):
                said = json.loads((folder / name).read_bytes()[:_MOST])
                return said if isinstance(said, dict) else None
    return None
