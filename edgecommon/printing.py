"""What a command line says: answers on standard output, errors on standard error as text or JSON, and an exit code for each."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from modelwire.errors import ModelWireError
from modelwire.text import is_plain

from .arguments import RULES
from .broker import redacted
from .starting import INTERRUPTED

USAGE, CLOSED_PIPE = 2, 141
WIPE = "\x1b[K"  # to a terminal: the rest of this line is empty


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command says: one document for machines, one text for people."""

    document: Mapping[str, Any]
    text: str = ""
    code: int = 0
    error: ModelWireError | None = None  # the command has said all it knows, and still did not succeed
    said: bool = False  # it stands on standard output already: there is more of it than one holds in memory


def answered(
    program: str, work: Callable[[], Answer], *, as_json: bool, surroundings: Callable[[OSError], ModelWireError], interrupted: str = "",
    painted: Callable[[str], str] = str,
) -> int:  # fmt: skip
    """Run `work`, print what it answers, and return the exit code: the answer's, that of an error's class, 130 for Ctrl-C.

    surroundings: names what is wrong around the program, such as a full disk. interrupted: what Ctrl-C is answered with, if with anything.
    painted: gives the text its colours, where it has any.
    """
    try:
        return _answered(program, work, as_json, surroundings, painted)
    except KeyboardInterrupt:  # also one that comes while an error is being said
        clear_progress()
        return say(program, "Interrupted", INTERRUPTED, interrupted, "", as_json=as_json) if interrupted else INTERRUPTED


def _answered(
    program: str, work: Callable[[], Answer], as_json: bool,
    surroundings: Callable[[OSError], ModelWireError], painted: Callable[[str], str],
) -> int:  # fmt: skip
    try:
        answer = work()
        print_answer(answer, as_json=as_json, painted=painted)
        if answer.error is not None:
            raise answer.error
        return answer.code
    except ModelWireError as e:
        return print_error(program, e, as_json=as_json)
    except BrokenPipeError:  # `edgeagent log | head`: the reader has seen enough, and Python would complain once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except OSError as e:
        return print_error(program, surroundings(e), as_json=as_json)


def visible(text: str) -> str:
    """Return text in one line, and without what would move a cursor, change colours or turn the direction: that is written as in Python.

    Some of what is printed was written by devices, by boards' keepers, or by who made a registry that was brought along.
    """
    return text if is_plain(text) else "".join(c if is_plain(c) else ascii(c)[1:-1] for c in text)


def visible_lines(text: str) -> str:
    """Return text as `visible` does, with its line ends as they are."""
    return lines_of(text.split("\n"))


def lines_of(lines: Iterable[str]) -> str:
    """Return lines as one text; what others wrote into one begins no other."""
    return "\n".join(visible(line) for line in lines)


def as_json_text(document: object, *, indent: int | None = None) -> str:
    """Return a document as JSON, of printable ASCII alone."""
    return json.dumps(document, indent=indent, default=bytes.hex).replace("\x7f", "\\u007f")


def print_answer(answer: Answer, *, as_json: bool, painted: Callable[[str], str] = str) -> None:
    """Print the document, or the text when there is one."""
    clear_progress()
    if answer.said:
        pass
    elif as_json:
        print(as_json_text(answer.document, indent=2))
    elif answer.text:
        print(painted(visible_lines(answer.text)))
    sys.stdout.flush()


def print_error(program: str, error: ModelWireError, *, as_json: bool) -> int:
    """Print an error and return its exit code."""
    trouble = str(error.facts.get("trouble", ""))  # of a board: its id
    return say(program, type(error).__name__, error.code, error.message, error.next_step, as_json=as_json, trouble=trouble)


def say(program: str, error: str, code: int, message: str, hint: str, *, as_json: bool, trouble: str = "") -> int:
    """Print what went wrong and what to do next, as text or as one JSON object, and return the code. trouble: which one of a board's."""
    if as_json:
        named = {"trouble": trouble} if trouble else {}
        said = as_json_text({"error": error, "code": code, "message": message, "hint": hint, **named})
    else:
        more = (f"\n  trouble: {visible(trouble)}" if trouble else "") + (f"\n  try: {visible(hint)}" if hint else "")
        said = f"{program}: {visible(message)}{more}"
    clear_progress()
    print(said, file=sys.stderr, flush=True)
    return code


_progress: list[str] = []  # what stands on the line of the terminal's cursor now; nothing where no line was drawn


def draw_progress(line: str) -> None:
    """Write how far work is on the line where it was written before. For a terminal."""
    sys.stderr.write(f"\r{WIPE}{line}")
    sys.stderr.flush()
    _progress[:] = [line]


def clear_progress() -> None:
    """Wipe that line: what comes next begins at its left."""
    if _progress:
        sys.stderr.write(f"\r{WIPE}")
        sys.stderr.flush()
        _progress.clear()


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors follow the same contract as all others; a command that lacks every word is answered by its help."""

    json_errors = False
    bare = False  # nothing was given

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.bare = not args
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        hint = f"{self.prog} --help"
        message = redacted(message).removeprefix("argument ")  # it tells what was typed, a broker's URL among it
        if self.json_errors:
            raise SystemExit(say(self.prog, "Usage", USAGE, message, hint, as_json=True))
        if self.bare:
            self.print_help(sys.stderr)
            self.exit(USAGE)
        self.print_usage(sys.stderr)
        raise SystemExit(say(self.prog, "Usage", USAGE, message, hint, as_json=False))

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:  # --option=-- is an empty list to older argparse
            return self._checked(action, "--")
        return super()._get_values(action, arg_strings)

    def _checked(self, action: argparse.Action, arg_string: str) -> Any:
        value = self._get_value(action, arg_string)
        self._check_value(action, value)
        return value

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            if error.message.startswith("invalid "):  # argparse would name the function that read it
                error.message = f"{arg_string!r} can't be read"
            raise


def require_sense(args: argparse.Namespace) -> None:
    """End with a usage error where options do nothing beside each other, as the command's rules say: `arguments.rule`."""
    for one in getattr(args, RULES, ()):
        if said := one(args):
            args.parser.bare = False
            args.parser.error(said)


def epilog(examples: Sequence[str]) -> str:
    """Return the end of a --help."""
    return "examples:\n" + "\n".join(f"  {line}" for line in examples)
