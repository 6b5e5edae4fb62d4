"""The command `edgecloud`. Light, so that Ctrl-C finds it from the first moment on; `program` has the rest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edgecommon.starting import INTERRUPTED, quietly

if TYPE_CHECKING:  # whatever is loaded here, Ctrl-C would find at it
    from argparse import ArgumentParser
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, the error class's own, 2 for usage, 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with quietly():
            from . import program

            args = program.read(words)
        return program.run(args)
    except KeyboardInterrupt:  # as the block is left, or while Ctrl-C is answered
        return INTERRUPTED


def parser(words: Sequence[str] = ()) -> ArgumentParser:
    """Return the parser of all commands, or of the one that `words` call."""
    from . import program

    return program.parser(words)


if __name__ == "__main__":
    raise SystemExit(main())
