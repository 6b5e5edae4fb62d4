"""Where a passphrase comes from: a file that its owner alone may read, or the terminal; never a command line or the environment."""

from __future__ import annotations

import argparse
import os
from getpass import getpass
from pathlib import Path

from edgecloud.keys import Passphrase
from edgecloud.settings import from_environment
from edgecommon.files import NotPrivateError, read_private
from edgecommon.printing import visible
from modelwire.errors import BadArgument, MissingFile

PASSPHRASE_MAX = 1024  # bytes
_FIX = "name a file with the passphrase alone: --passphrase-file or EDGECLOUD_PASSPHRASE_FILE"


def add_passphrase(parser: argparse.ArgumentParser) -> None:
    """Let a command name the file with the passphrase of the keys that it opens."""
    parser.add_argument(
        "--passphrase-file", metavar="FILE",
        help="file with the passphrase of a key, readable by its owner alone (default: it is typed); EDGECLOUD_PASSPHRASE_FILE",
    )  # fmt: skip


def passphrase_of(args: argparse.Namespace) -> Passphrase:
    """Return what gives the passphrase of a key that is there."""
    file = passphrase_file(args)
    if file is not None:
        given = _read(file)
        return lambda _: given
    known: dict[str, bytes] = {}

    def ask(what: object) -> bytes:
        if str(what) not in known:
            known[str(what)] = _asked(f"Passphrase of {what}: ", what)
        return known[str(what)]

    return ask


def new_passphrase(args: argparse.Namespace, what: object) -> bytes:
    """Return the passphrase for what is made, asked for twice where no file holds it."""
    file = passphrase_file(args)
    if file is not None:
        return _read(file)
    first = _asked(f"New passphrase for {what}: ", what)
    if _asked("The same again: ", what) != first:
        raise BadArgument(reason="the two passphrases are not the same; nothing was written", fix="try again")
    return first


def passphrase_file(args: argparse.Namespace) -> Path | None:
    """Return the file that the command line or the environment names, if one does."""
    said = getattr(args, "passphrase_file", None) or from_environment("PASSPHRASE_FILE", "")
    return Path(said) if said else None


def _read(file: Path) -> bytes:
    try:
        held = read_private(file, PASSPHRASE_MAX + 2, group=True).rstrip(b"\r\n")
    except FileNotFoundError:
        raise MissingFile(path=file, what="the passphrase file") from None
    except NotPrivateError as error:
        raise BadArgument(reason=f"the passphrase file {error}", fix=error.fix) from None
    except OSError as error:
        raise BadArgument(reason=f"{file}: {error.strerror}", fix=_FIX) from None
    return _checked(held, file)


def _asked(prompt: str, what: object) -> bytes:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))  # getpass would read, and show, what comes on standard input
    except OSError:
        raise BadArgument(reason=f"{what} needs its passphrase, and there is no terminal to ask for it", fix=_FIX) from None
    try:
        return _checked(getpass(visible(prompt)).encode(), "what was typed")
    except EOFError:
        raise BadArgument(reason=f"no passphrase was typed for {what}", fix=_FIX) from None


def _checked(held: bytes, where: object) -> bytes:
    if not held or len(held) > PASSPHRASE_MAX or b"\0" in held or b"\n" in held:
        raise BadArgument(reason=f"{where} is no passphrase: one line of 1 to {PASSPHRASE_MAX} bytes is", fix=_FIX)
    return held
