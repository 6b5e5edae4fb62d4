"""What an operator may say of a rollout on a command line: its phases, percents, facts, a window of the day, and who says it."""

from __future__ import annotations

import argparse
import getpass
import re
from collections.abc import Callable

from edgecloud.rollouts.choosing import ALL_WORD
from edgecommon.arguments import shown
from edgecommon.printing import visible
from modelwire.deploying.plans import WHOLE, RolloutPhase
from modelwire.deploying.terms import SOAK_MAX, URL_MAX
from modelwire.errors import BadArgument
from modelwire.names import NAME
from modelwire.text import is_plain

from ..sealing import parse_expires

PERSON_MAX, REASON_MAX, TITLE_MAX, FACT_MAX = 64, 1000, 64, 200
NOBODY = "operator"  # where the system knows no name of who types
_DAY = 86_400
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,2})?)\s?%\Z")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])\Z")


def percent_type(least: int = 0, most: int = WHOLE) -> Callable[[str], int]:
    """Return the type of a share, as 2% or 2.5%: in ten-thousandths."""

    def read(text: str) -> int:
        match = _PERCENT.match(text)
        share = round(float(match[1]) * 100) if match else -1
        if not least <= share <= most:
            raise argparse.ArgumentTypeError(f"{shown(text)} is no percentage from {least / 100:g}% to {most / 100:g}%, such as 2.5%")
        return share

    return read


def seconds_type(flag: str, most: int = SOAK_MAX) -> Callable[[str], int]:
    """Return the type of a time, as 90s, 30m, 24h or 7d: in seconds; 0s is one."""

    def read(text: str) -> int:
        try:
            seconds = parse_expires(text, flag, 0)
        except BadArgument:
            seconds = -1
        if not 0 <= seconds <= most:
            raise argparse.ArgumentTypeError(f"{shown(text)} is no time such as 90s, 30m, 24h or 7d, up to {most // _DAY}d")
        return seconds

    return read


def phase_type(text: str) -> RolloutPhase:
    """Return a phase: devices by name, a number of them, a share, or all; several with commas, and behind a colon how long it soaks."""
    words, colon, soak = text.partition(":")
    devices, count, share = list[str](), 0, 0
    good = bool(words)
    for word in words.split(","):
        if word == ALL_WORD:
            share = WHOLE
        elif re.fullmatch(r"[0-9]{1,7}", word):
            count, good = int(word), good and not count and int(word) > 0
        elif _PERCENT.match(word):
            share, good = percent_type(1)(word), good and not share
        elif NAME.match(word):
            devices.append(word)
        else:
            good = False
    if not good:
        what = "is no phase: pi-1,pi-2 by name, 5 devices, 25% of them, or all; 5:48h soaks longer"
        raise argparse.ArgumentTypeError(f"{shown(text)} {what}")
    return RolloutPhase(tuple(dict.fromkeys(devices)), count, share, seconds_type("--phase")(soak) if colon else 0)


def window_type(text: str) -> tuple[int, int]:
    """Return from and until which second of the day, in UTC, a device may begin to serve it, as 01:00-05:00; over midnight too."""
    match = _CLOCK.match(text)
    if match is None or match[1] + match[2] == match[3] + match[4]:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no window such as 01:00-05:00 or 22:30-04:00, in UTC")
    first, first_minute, last, last_minute = (int(match[n]) for n in range(1, 5))
    return (first * 60 + first_minute) * 60, (last * 60 + last_minute) * 60


def fact_type(text: str) -> tuple[str, str]:
    """Return a fact that devices' data cards tell, as region=eu."""
    key, equals, value = text.partition("=")
    if not equals or not NAME.match(key) or not value or len(value) > FACT_MAX or not is_plain(value):
        raise argparse.ArgumentTypeError(f"{shown(text)} is no fact such as region=eu: edgecloud card DEVICE shows a device's")
    return key, value


def names_type(text: str) -> tuple[str, ...]:
    """Return names of devices, with commas between them."""
    names = tuple(dict.fromkeys(one.strip() for one in text.split(",") if one.strip()))
    wrong = next((one for one in names if not NAME.match(one)), None)
    if not names or wrong is not None:
        raise argparse.ArgumentTypeError(f"{shown(text if wrong is None else wrong)} names no device: write pi-1,pi-2")
    return names


def url_type(text: str) -> str:
    """Return an address of the variant's file; {file} and {commit} in it stand for its digests."""
    good = len(text) <= URL_MAX and text.isascii() and text.isprintable() and " " not in text
    if not good or not re.match(r"https?://[^/@]+(/|\Z)", text):
        what = "is no address that begins with http:// or https://, without a password"
        raise argparse.ArgumentTypeError(f"{shown(text)} {what}")
    return text


def plain_type(most: int) -> Callable[[str], str]:
    """Return the type of a text for people: one line that draws on no terminal, of so many characters at most."""

    def read(text: str) -> str:
        if not text.strip() or len(text) > most or not is_plain(text):
            raise argparse.ArgumentTypeError(f"{shown(text)} is no line of 1 to {most} plain characters")
        return text.strip()

    return read


def add_person(parser: argparse.ArgumentParser) -> None:
    """Let a command say who decides, for people who read it later; what proves it is the key."""
    parser.add_argument("--by", type=plain_type(PERSON_MAX), metavar="NAME", help="who decides, for the record (default: the login name)")


def person(args: argparse.Namespace) -> str:
    """Return who decides, as said or as the system knows them."""
    if args.by is not None:
        said: str = args.by
        return said
    try:
        login = getpass.getuser()
    except (OSError, KeyError, ImportError):  # no name behind this user id
        login = NOBODY
    return visible(login)[:PERSON_MAX] or NOBODY
