"""How the demos begin on the command line: an empty folder, and lines that say how far they are."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Begun:
    """A demo that has begun."""

    folder: Path  # empty
    rounds: int
    say: Callable[[str], None]  # prints a line with the seconds since the beginning
    began: float  # monotonic seconds


def begin(name: str, doc: str | None, argv: Sequence[str] | None, *, folder: Path, rounds: int, help: str) -> Begun:
    """Return the demo that the command line asks for. folder, rounds: the defaults; help: what the rounds are."""
    parser = argparse.ArgumentParser(prog=name, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=folder, help=f"where everything is kept afterwards (default {folder})")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"{help} (default {rounds})")
    args = parser.parse_args(argv)
    chosen: Path = args.folder.resolve()
    shutil.rmtree(chosen, ignore_errors=True)
    chosen.mkdir(parents=True)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)

    return Begun(chosen, args.rounds, say, began)
