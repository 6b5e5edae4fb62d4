"""What arguments of a command line may be: each type says what it expected, in words, before any work begins."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

LARGEST = (1 << 63) - 1  # what SQLite and the wire keep in a whole number
RULES = "rules"  # where a parser keeps what its options must be beside each other
Rule = Callable[[argparse.Namespace], str]  # what is wrong with them; empty when nothing is


def rule(parser: argparse.ArgumentParser, check: Rule) -> None:
    """Have a command's options looked at together, once they were read."""
    parser.set_defaults(**{RULES: (*(parser.get_default(RULES) or ()), check)})


def only_with(parser: argparse.ArgumentParser, option: str, *others: str) -> None:
    """Refuse an option where none of the others is given: it would do nothing. Options as they are typed; none has a default."""

    def check(args: argparse.Namespace) -> str:
        if not given(args, option) or any(given(args, other) for other in others):
            return ""
        return f"{option} does nothing without {' or '.join(others)}"

    rule(parser, check)


def never_with(parser: argparse.ArgumentParser, option: str, *others: str) -> None:
    """Refuse an option beside any of the others: one of both would do nothing."""

    def check(args: argparse.Namespace) -> str:
        beside = next((other for other in others if given(args, other)), "")
        word = beside if beside.startswith("-") else beside.upper()
        return f"{option} does nothing beside {word}" if beside and given(args, option) else ""

    rule(parser, check)


def given(args: argparse.Namespace, option: str) -> bool:
    """Return whether an option was given; what a parser does not have was not."""
    return getattr(args, option.lstrip("-").replace("-", "_"), None) not in (None, False, [], "")


def whole(least: int = 0, most: int = LARGEST) -> Callable[[str], int]:
    """Return a type of whole numbers from `least` to `most`, as people write them: no signs but minus, no underscores, no spaces."""

    def read(text: str) -> int:
        if re.fullmatch(r"-?[0-9]{1,19}", text) is None or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{shown(text)} is not a whole number {_between(least, most)}")
        return int(text)

    return read


def number(above: float = 0.0, most: float = 1e9) -> Callable[[str], float]:
    """Return a type of decimal numbers above one and up to another; nan and inf are none."""

    def read(text: str) -> float:
        value = float(text) if re.fullmatch(r"[0-9]{0,15}\.?[0-9]{1,15}([eE][+-]?[0-9]{1,3})?", text) else above
        if not above < value <= most:
            least = f"above {above:g}" if above >= 0 else "of 0 or more"  # no text with a sign is read
            raise argparse.ArgumentTypeError(f"{shown(text)} is not a number {least}, up to {most:g}")
        return value

    return read


def duration(read: Callable[[str], float], example: str, most: float) -> Callable[[str], float]:
    """Return a type of times as `read` takes them, which raises ValueError for others. most: in seconds."""

    def checked(text: str) -> float:
        try:
            value = read(text)
        except ValueError:
            value = -1.0
        if not 0 < value <= most:
            raise argparse.ArgumentTypeError(f"{shown(text)} is not a time such as {example}, above 0 and up to {most / 86400:.0f} days")
        return value

    return checked


def filled(what: str = "an empty text") -> Callable[[str], str]:
    """Return a type of texts that say something: an empty one is what a variable of a script gives that was never set."""

    def read(text: str) -> str:
        if not text.strip():
            raise argparse.ArgumentTypeError(f"{what} says nothing")
        return text

    return read


def shown(text: str) -> str:
    """Return what was typed, in quotes, and no more of it than fits a line."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _between(least: int, most: int) -> str:
    if most < LARGEST:
        return f"from {least} to {most}"
    return "above 0" if least == 1 else f"of {least} or more"
