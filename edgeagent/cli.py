"""The command `edgeagent`: reads the arguments, runs one command, prints its answer, and turns errors into exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from edgecommon import disk
from edgecommon.printing import Parser, answered, epilog
from modelwire.errors import ConfigError, ModelWireError

from . import __version__, commands


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, the code of an error's class, 2 for usage, 130 for Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parser("--json" in words, words).parse_args(words)
    except SystemExit as e:  # --help and usage errors have said what they have to say
        return int(e.code or 0)
    return answered(
        "edgeagent", lambda: args.run(args), as_json=args.json, surroundings=_surroundings, interrupted="stopped by the keyboard"
    )


def parser(json_errors: bool = False, words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser of all commands, or of the one that `words` begins with.

    json_errors: usage errors are one JSON object, like the others.
    """
    _Parser.json_errors = json_errors
    top = _Parser(
        prog="edgeagent", description="Trains models on this device and tells the centre what changed, bit for bit.",
        epilog=epilog(["edgeagent init --help", "edgeagent status", "edgeagent --version"]), formatter_class=_Help,
    )  # fmt: skip
    top.add_argument("--version", action="version", version=f"edgeagent {__version__}")
    below = top.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for command in commands.chosen(list(words)):
        one = below.add_parser(
            command.NAME, help=command.HELP, description=command.HELP, epilog=epilog(command.EXAMPLES), formatter_class=_Help
        )
        command.add(one)
        one.add_argument("--json", action="store_true", help="print one JSON document; errors are one JSON object on standard error")
        one.set_defaults(run=command.run)
    return top


class _Parser(Parser):
    usage_error = "edgeagent: {message}\n  try: {hint}"


class _Help(argparse.RawDescriptionHelpFormatter):
    """As wide as the terminal, which argparse itself asks a module for that brings all packers of archives."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    said = os.environ.get("COLUMNS", "")
    if said.isdigit() and int(said):
        return int(said)
    try:
        return os.get_terminal_size(1).columns or 80
    except (OSError, ValueError):
        return 80


def _surroundings(error: OSError) -> ModelWireError:
    """Name what is wrong around the agent: a full disk, a folder that may not be written."""
    if (full := disk.unwritable(error)) is not None:
        return full
    named = ConfigError(reason=f"{error.filename}: {error.strerror}" if error.filename else str(error))
    named.hint = "edgeagent doctor"
    return named
