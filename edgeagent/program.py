"""What `edgeagent` does: reads the arguments, runs one command, prints its answer, and turns errors into exit codes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from edgecommon import access, disk
from edgecommon.printing import Answer, Parser, answered, epilog, require_sense
from modelwire.errors import BadArgument, ModelWireError

from . import __version__, commands
from .troubles import naming


def read(words: Sequence[str]) -> argparse.Namespace | int:
    """Load the command that the words begin with, and return what is to be run; the exit code where that is said already."""
    try:
        args = parser("--json" in words, words).parse_args(words)
        require_sense(args)
    except SystemExit as e:  # --help and usage errors have said what they have to say
        return int(e.code or 0)
    return args


def run(args: argparse.Namespace) -> int:
    """Run a command and return its exit code."""
    around = partial(_surroundings, args.parser.prog)
    return answered("edgeagent", lambda: _run(args), as_json=args.json, surroundings=around, interrupted="stopped by the keyboard")


def _run(args: argparse.Namespace) -> Answer:
    """Run a command; what it raises carries the name of the board's trouble behind it."""
    try:
        answer: Answer = args.run(args)
        return answer
    except ModelWireError as e:
        if name := naming.name_of(e):
            naming.named(e, name)
        raise


def parser(json_errors: bool = False, words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser of all commands, or of the one that `words` begins with.

    json_errors: usage errors are one JSON object, like the others.
    """
    Parser.json_errors = json_errors
    top = Parser(
        prog="edgeagent", description="Trains models on this device and tells the centre what changed, bit for bit.",
        epilog=epilog(["edgeagent init --help", "edgeagent status", "edgeagent --version"]), formatter_class=_Help,
    )  # fmt: skip
    version = f"edgeagent {__version__}"
    top.add_argument("--version", action="version", version=version)
    below = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for command in commands.chosen(list(words)):
        one = below.add_parser(
            command.NAME, help=command.HELP, description=command.HELP, epilog=epilog(command.EXAMPLES), formatter_class=_Help
        )
        command.add(one)
        one.add_argument("--json", action="store_true", help="print one JSON document; errors are one JSON object on standard error")
        one.add_argument("--version", action="version", version=version, help=argparse.SUPPRESS)
        one.set_defaults(run=command.run, parser=one)
    return top


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


def _surroundings(command: str, error: OSError) -> ModelWireError:
    """Name what is wrong around a command: a full disk, a folder that may not be written, and by whom it may."""
    if (full := disk.unwritable(error)) is not None:
        return full
    if isinstance(error, PermissionError) and error.filename:
        return access.denied(Path(os.fsdecode(error.filename)), str(error.strerror))
    # Not ConfigError, with which systemd gives a service up: a process or a file more may be had in ten seconds, and no setting is wrong.
    fix = "edgeagent doctor" if not command.endswith((" init", " doctor")) else "see what stands at that path, or name another one"
    return BadArgument(reason=f"{error.filename}: {error.strerror}" if error.filename else str(error), fix=fix)
