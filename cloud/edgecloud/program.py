"""What `edgecloud` does: reads the arguments, runs one command; results on standard output, everything else on standard error."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from typing import Any

from edgecommon import disk
from edgecommon.printing import Answer, Parser, answered, epilog, require_sense
from modelwire.errors import BadArgument, ModelWireError

from . import __version__, commands
from .commands.painting import painted

OF_THE_CENTRE = ("rich", "safetensors", "sqlite_utils")  # a board does without them
_UNHEARD = logging.NullHandler()
INSTALL = "pip install 'edgeagent[cloud]'"
Run = Callable[[argparse.Namespace], Answer]


def read(words: Sequence[str]) -> argparse.Namespace:
    """Load the command that the words call, and return what is to be run. Ends with SystemExit where there is nothing to run."""
    Parser.json_errors = "--json" in words
    args = parser(words).parse_args(words)
    require_sense(args)
    args.db = getattr(args, "db", None)
    return args


def run(args: argparse.Namespace) -> int:
    """Run one command and return its exit code. What is logged is for a service; beside an answer it would be a line too many."""
    logging.getLogger(__package__).addHandler(_UNHEARD)
    as_json = getattr(args, "json", False)
    return answered("edgecloud", lambda: _run(args), as_json=as_json, surroundings=_surroundings, painted=painted)


def parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser of all commands, or of the one that `words` call. Each --help ends with examples, which a test parses."""
    top = Parser(
        prog="edgecloud",
        description="The centre of a fleet: takes updates in, keeps every version of every device's model, gives any of them back exactly.",
        epilog=epilog([
            "edgecloud init --fleet orchard",
            "edgecloud bases add digits.tflite",
            "edgecloud ingest --broker mqtt://127.0.0.1:1883",
            "edgecloud log pi-7",
            "edgecloud materialise pi-7@12 -o model.tflite",
        ]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _common(top, version="print the release")
    below = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in commands.chosen(words):
        run = getattr(command, "run", None)
        one = _command(below, command.NAME, command.HELP, command.EXAMPLES, run)
        if hasattr(command, "add"):
            command.add(one)
        if not hasattr(command, "VERBS"):
            continue
        verbs = one.add_subparsers(title="commands", metavar="COMMAND", required=run is None)
        for verb in command.VERBS:
            below_it = _command(verbs, verb.name, verb.help, verb.examples, verb.run)
            if verb.add is not None:
                verb.add(below_it)
            _let_before(one, below_it)
    return top


def _let_before(command: argparse.ArgumentParser, verb: argparse.ArgumentParser) -> None:
    """Let options that both know stand before the verb, too: its defaults would overwrite what was given there.

    A word of the verb's own is another thing than an option of that name: the NAME of `acknowledge` is not the --name of a list.
    """
    known = {action.dest for action in command._actions if action.option_strings}
    for action in verb._actions:
        if action.option_strings and action.dest in known:
            action.default = argparse.SUPPRESS


def _command(below: Any, name: str, said: str, examples: Sequence[str], run: Run | None) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = below.add_parser(
        name, help=said.split(";")[0].rstrip("."), description=said, epilog=epilog(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _common(made)
    made.set_defaults(parser=made)
    if run is not None:
        made.set_defaults(run=run)
    return made


def _common(made: argparse.ArgumentParser, version: str = argparse.SUPPRESS) -> None:
    made.add_argument("--version", action="version", version=f"edgecloud {__version__}", help=version)
    # SUPPRESS: what stands before the command must not be overwritten by a default that stands after it.
    made.add_argument("--db", default=argparse.SUPPRESS, metavar="FILE", help="the registry (default: fleet.db); EDGECLOUD_DB")
    made.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")


def _run(args: argparse.Namespace) -> Answer:
    said: Answer
    try:
        said = args.run(args)
    except (ModelWireError, OSError):
        raise
    except ModuleNotFoundError as error:
        if error.name not in OF_THE_CENTRE:
            raise
        raise BadArgument(reason=f"a centre needs the package {error.name}, which is not here", fix=INSTALL) from None
    except Exception as error:
        named = commands.named_damage(args, error)
        if named is None:
            raise
        raise named from error
    return said


def _surroundings(error: OSError) -> ModelWireError:
    """Files are named where they are known; this is for the surroundings that nobody has thought of."""
    if (full := disk.unwritable(error)) is not None:
        return full
    reason = error.strerror or str(error)
    where = f"{error.filename}: {reason}" if error.filename is not None else reason
    return BadArgument(reason=where, fix="check the path, and who may use it")

