"""The command `edgeagent`. Light, so that Ctrl-C finds it from the first moment on; `program` has the rest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edgecommon.starting import INTERRUPTED, quietly

if TYPE_CHECKING:  # whatever is loaded here, Ctrl-C would find at it
    from argparse import ArgumentParser
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, the code of an error's class, 2 for usage, 130 for Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with quietly():
            from . import program

            args = program.read(words)
        return args if isinstance(args, int) else program.run(args)
    except KeyboardInterrupt:  # as the block is left, or while Ctrl-C is answered
        return INTERRUPTED


def parser(json_errors: bool = False, words: Sequence[str] = ()) -> ArgumentParser:
    """Return the parser of all commands, or of the one that `words` begins with."""
    from . import program

    return program.parser(json_errors, words)
