"""Commands that a build runs: quiet, and with all that they said where one fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class NotMade(Exception):
    """What was asked for can't be made here; the text says why and what to do."""


def run(words: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it printed. env: beside the environment of this process. Raises NotMade where it fails."""
    try:
        done = subprocess.run(
            [str(word) for word in words], cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise NotMade(f"{words[0]} is not on this machine: see hw/deb/README.md for what `make deb` needs") from error
    if done.returncode:
        raise NotMade(f"{' '.join(map(str, words))} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout
