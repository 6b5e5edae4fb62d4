"""What a CA has issued, as one file: everything else in its folder but the private keys can be written again from it."""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from edgecommon import files
from modelwire.errors import BadArgument, MissingFile

FILE = "ledger.json"
VERSION = 1
LEDGER_MAX = 256 * 1024 * 1024


class Holder(str, enum.Enum):
    """What a certificate is for."""

    DEVICE = "device"
    CENTRE = "centre"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Issue:
    """One certificate that was issued. Times are Unix seconds; 0 means never."""

    serial: str  # hexadecimal
    name: str
    kind: Holder
    authority: int  # which of the folder's CAs signed it
    since: int
    until: int
    key: str  # SHA-256 of its public key, in hexadecimal
    certificate: str  # PEM
    hosts: tuple[str, ...] = ()  # a server's
    superseded: int = 0  # when another one of this name was issued
    revoke_at: int = 0  # when it is revoked by itself, unless it was before
    revoked: int = 0
    reason: str = ""  # why it was revoked


@dataclass(frozen=True, slots=True)
class Revocations:
    """The lists that were signed last. number and at only rise: a broker that is given two lists goes by the later one."""

    number: int = 0
    at: int = 0
    lists: tuple[str, ...] = ()  # PEM, one for each trusted CA


@dataclass(frozen=True, slots=True)
class Ledger:
    """The whole. authorities: certificates in PEM, the first has number 1; retired: the numbers of those that are trusted no more."""

    fleet: str
    authorities: tuple[str, ...]
    crosses: tuple[str, ...] = ()  # PEM, each authority but the first, signed by the one before it
    retired: tuple[int, ...] = ()
    issues: tuple[Issue, ...] = ()
    revocations: Revocations = Revocations()

    @property
    def current(self) -> int:
        """The number of the CA that signs now."""
        return len(self.authorities)

    @property
    def trusted(self) -> tuple[int, ...]:
        """The numbers of the CAs that are trusted, the oldest first."""
        return tuple(n for n in range(1, self.current + 1) if n not in self.retired)

    def newest(self, name: str, kind: Holder) -> Issue | None:
        """Return what was issued last for a name."""
        return next((one for one in reversed(self.issues) if (one.name, one.kind) == (name, kind)), None)

    def all_newest(self) -> list[Issue]:
        """Return the last one of each name, in the order in which they were issued."""
        last = {(one.kind, one.name): one for one in self.issues}
        return [one for one in self.issues if last[one.kind, one.name] is one]

    def changed(self, *changed: Issue) -> Ledger:
        """Return a ledger with these in the place of those of the same serial."""
        by_serial = {one.serial: one for one in changed}
        return replace(self, issues=tuple(by_serial.get(one.serial, one) for one in self.issues))


def save(folder: Path, ledger: Ledger) -> None:
    """Write it so that a power cut leaves the old one or the new one."""
    document = {"version": VERSION, **asdict(ledger)}
    files.write(folder / FILE, (json.dumps(document, indent=0) + "\n").encode(), mode=0o600)


def load(folder: Path) -> Ledger:
    """Return the ledger in a CA's folder. Raises MissingFile, BadArgument."""
    path = folder / FILE
    fix = "put the folder back from a copy: the CA's key alone does not know what it has issued"
    try:
        data = files.read_private(path, LEDGER_MAX)
    except FileNotFoundError:
        raise MissingFile(path=path, what="the ledger of a CA") from None
    except files.NotPrivateError as error:
        raise BadArgument(reason=str(error), fix=error.fix) from None
    except OSError as error:
        raise BadArgument(reason=f"{path}: {error.strerror}", fix=f"check who owns it: ls -l {path}") from None
    try:
        return _parsed(json.loads(data))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadArgument(reason=f"{path} is no ledger of a CA: {error}", fix=fix) from None


def _parsed(document: Any) -> Ledger:
    if document.pop("version") != VERSION:
        raise ValueError("another release wrote it")
    issues = tuple(_issue(one) for one in document.pop("issues"))
    serials = {one.serial for one in issues}
    if len(serials) != len(issues):
        raise ValueError("a serial stands in it twice")
    said = document.pop("revocations")
    revocations = Revocations(_whole(said["number"]), _whole(said["at"]), _texts(said["lists"]))
    retired = tuple(_whole(n) for n in document.pop("retired"))
    fleet, authorities, crosses = _text(document.pop("fleet")), _texts(document.pop("authorities")), _texts(document.pop("crosses"))
    if document or not authorities or len(crosses) != len(authorities) - 1:
        raise ValueError("its parts do not fit")
    return Ledger(fleet, authorities, crosses, retired, issues, revocations)


def _issue(said: dict[str, Any]) -> Issue:
    if set(said) != {f.name for f in fields(Issue)}:
        raise ValueError("a certificate in it has other fields")
    int(said["serial"], 16)
    return Issue(
        _text(said["serial"]), _text(said["name"]), Holder(said["kind"]), _whole(said["authority"]), _whole(said["since"]),
        _whole(said["until"]), _text(said["key"]), _text(said["certificate"]), _texts(said["hosts"]), _whole(said["superseded"]),
        _whole(said["revoke_at"]), _whole(said["revoked"]), _text(said["reason"]),
    )  # fmt: skip


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(_text(value) for value in values)
