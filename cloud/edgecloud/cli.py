"""The command line of the centre: `edgecloud`. Results on standard output, everything else on standard error."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from modelwire.errors import BadArgument, ModelWireError

from . import commands
from .commands.answer import Answer, dump

USAGE_ERROR = 2
Run = Callable[[argparse.Namespace], Answer]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, the error class's own, 2 for usage, 130 when interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parser(given).parse_args(given)
    as_json = bool(getattr(args, "json", False))
    args.db = getattr(args, "db", None)
    try:
        answer: Answer = args.run(args)
        print(dump(answer.document) if as_json else answer.text, flush=True)
        if answer.error is not None:
            return _say(answer.error, as_json)
        return answer.code
    except ModelWireError as error:
        return _say(error, as_json)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read us has gone, as `| head` does. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # Files are named where they are known; this is for the surroundings that nobody has thought of.
        reason = error.strerror or str(error)
        where = f"{error.filename}: {reason}" if error.filename is not None else reason
        return _say(BadArgument(reason=where, fix="check the path, who may use it, and the room on its disk"), as_json)


def parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser of all commands, or of the one that `words` call. Each --help ends with examples, which a test parses."""
    top = _Parser(
        prog="edgecloud",
        description="The centre of a fleet: takes updates in, keeps every version of every device's model, gives any of them back exactly.",
        epilog=_examples(
            "edgecloud init --fleet orchard",
            "edgecloud bases add digits.tflite",
            "edgecloud ingest --broker mqtt://127.0.0.1:1883",
            "edgecloud log pi-7",
            "edgecloud materialise pi-7@12 -o model.tflite",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _common(top)
    below = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in commands.chosen(words):
        run = getattr(command, "run", None)
        one = _command(below, command.NAME, command.HELP, command.EXAMPLES, run)
        if not hasattr(command, "VERBS"):
            command.add(one)
            continue
        verbs = one.add_subparsers(title="commands", metavar="COMMAND", required=run is None)
        for verb in command.VERBS:
            below_it = _command(verbs, verb.name, verb.help, verb.examples, verb.run)
            if verb.add is not None:
                verb.add(below_it)
    return top


class _Parser(argparse.ArgumentParser):
    """Says usage errors in the form that was asked for."""

    def error(self, message: str) -> NoReturn:
        if "--json" in sys.argv[1:]:
            said = {"error": "Usage", "code": USAGE_ERROR, "message": message, "hint": f"{self.prog} --help"}
            print(json.dumps(said), file=sys.stderr)
            raise SystemExit(USAGE_ERROR)
        super().error(message)


def _command(below: Any, name: str, said: str, examples: Sequence[str], run: Run | None) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = below.add_parser(
        name, help=said.split(";")[0].rstrip("."), description=said, epilog=_examples(*examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _common(made)
    if run is not None:
        made.set_defaults(run=run)
    return made


def _common(made: argparse.ArgumentParser) -> None:
    # SUPPRESS: what stands before the command must not be overwritten by a default that stands after it.
    made.add_argument("--db", default=argparse.SUPPRESS, metavar="FILE", help="the registry (default: fleet.db); EDGECLOUD_DB")
    made.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")


def _examples(*lines: str) -> str:
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def _say(error: ModelWireError, as_json: bool) -> int:
    if as_json:
        said = {"error": type(error).__name__, "code": error.code, "message": error.message, "hint": error.next_step}
        print(json.dumps(said), file=sys.stderr, flush=True)
    else:
        hint = f"\n  try: {error.next_step}" if error.next_step else ""
        print(f"edgecloud: {error.message}{hint}", file=sys.stderr, flush=True)
    return error.code


if __name__ == "__main__":
    raise SystemExit(main())
