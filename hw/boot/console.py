"""What an emulated board says on its console and through the test's port: kept in files, waited for with generous limits."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

PAUSE = 0.2  # seconds between two looks


class Silent(Exception):
    """What was waited for did not come in time; the text has the last lines that did."""


class Console:
    """A file that something else writes to, read from where it was when this was made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begun = path.stat().st_size if path.exists() else 0

    def text(self) -> str:
        """Return all that came since the beginning, control sequences of terminals left out."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._begun)
                raw = file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\0]", "", raw)

    def find(self, pattern: str) -> re.Match[str] | None:
        """Return the last place where a pattern is found, in whole lines alone; None where it is not."""
        text = self.text()
        found = list(re.finditer(pattern, text[: text.rfind("\n") + 1], re.M))
        return found[-1] if found else None

    def wait(self, pattern: str, seconds: float, alive: Callable[[], bool] = lambda: True) -> re.Match[str]:
        """Return where a pattern is found, as soon as it is. Raises Silent after so long, or once what writes has ended without it."""
        end = time.monotonic() + seconds
        while True:
            lives = alive()  # asked before the look: what it wrote last is seen
            if (found := self.find(pattern)) is not None:
                return found
            if not lives or time.monotonic() > end:
                why = f"not within {seconds:.0f} s" if lives else "the board stopped"
                raise Silent(f"waited for {pattern!r}: {why}; the last lines of {self.path}:\n{self.tail()}")
            time.sleep(PAUSE)

    def tail(self, lines: int = 25) -> str:
        return "\n".join(self.text().splitlines()[-lines:])
