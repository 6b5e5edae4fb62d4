"""The command `edgeagent`: reads the arguments, runs one command, prints its answer, and turns errors into exit codes."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from modelwire.errors import ConfigError, ModelWireError

from . import __version__, commands
from .commands.answer import Answer

USAGE, INTERRUPTED, CLOSED_PIPE = 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, the code of an error's class, 2 for usage, 130 for Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parser("--json" in words, words).parse_args(words)
    except SystemExit as e:  # --help and usage errors have said what they have to say
        return int(e.code or 0)
    try:
        answer: Answer = args.run(args)
        print_answer(answer, as_json=args.json)
        return answer.code
    except ModelWireError as e:
        print_error(type(e).__name__, e.code, e.message, e.next_step, as_json=args.json)
        return e.code
    except OSError as e:  # a full disk, a folder that may not be written
        if isinstance(e, BrokenPipeError):  # `edgeagent log | head`: the reader has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return CLOSED_PIPE
        message = f"{e.filename}: {e.strerror}" if e.filename else str(e)
        print_error("ConfigError", ConfigError.code, message, "edgeagent doctor", as_json=args.json)
        return ConfigError.code
    except KeyboardInterrupt:
        print_error("Interrupted", INTERRUPTED, "stopped by the keyboard", "", as_json=args.json)
        return INTERRUPTED


def parser(json_errors: bool = False, words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser of all commands, or of the one that `words` begins with.

    json_errors: usage errors are one JSON object, like the others.
    """
    Parser.json_errors = json_errors
    top = Parser(
        prog="edgeagent", description="Trains models on this device and tells the centre what changed, bit for bit.",
        epilog=_epilog(["edgeagent init --help", "edgeagent status", "edgeagent --version"]), formatter_class=_Help,
    )  # fmt: skip
    top.add_argument("--version", action="version", version=f"edgeagent {__version__}")
    below = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for command in commands.chosen(list(words)):
        one = below.add_parser(
            command.NAME, help=command.HELP, description=command.HELP, epilog=_epilog(command.EXAMPLES), formatter_class=_Help
        )
        command.add(one)
        one.add_argument("--json", action="store_true", help="print one JSON document; errors are one JSON object on standard error")
        one.set_defaults(run=command.run)
    return top


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors follow the same contract as all others."""

    json_errors = False

    def error(self, message: str) -> NoReturn:
        hint = f"{self.prog} --help"
        if not self.json_errors:
            self.print_usage(sys.stderr)
        print_error("Usage", USAGE, message, hint, as_json=self.json_errors)
        raise SystemExit(USAGE)


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


def print_answer(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(answer.document, indent=2))
    elif answer.text:
        print(answer.text)
    sys.stdout.flush()


def print_error(error: str, code: int, message: str, hint: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": error, "code": code, "message": message, "hint": hint}), file=sys.stderr)
        return
    print(f"edgeagent: {message}", file=sys.stderr)
    if hint:
        print(f"  try: {hint}", file=sys.stderr)


def _epilog(examples: Sequence[str]) -> str:
    return "examples:\n" + "\n".join(f"  {line}" for line in examples)
