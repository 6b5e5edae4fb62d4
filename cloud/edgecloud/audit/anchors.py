"""Anchors: where the log ended, written down where nobody who reaches the registry does. A log that lacks one was cut off or made anew."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgecloud.registry import Store
from edgecommon import disk
from edgecommon.files import open_regular
from modelwire.errors import BadArgument, DiskUnwritable, Malformed, MissingFile
from modelwire.wire.log import Link

from . import carrying

LINE_MAX = 16 * 1024 * 1024  # characters; all acts of a large fleet are in the first line
FILE_MAX = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Anchor:
    """One line of a file of anchors."""

    fleet_id: bytes
    at: int  # Unix seconds
    link: Link
    sealed: tuple[bytes, ...]  # trust records and acts since the line before it: a restore brings them back
    restored: bool = False  # the operator says that the lines before it count no more

    def line(self) -> str:
        """Return it as one line of JSON, without its end."""
        return json.dumps({
            "fleet_id": self.fleet_id.hex(), "at": self.at, "number": self.link.number, "link": self.link.digest.hex(),
            "sealed": [one.hex() for one in self.sealed], "restored": self.restored,
        })  # fmt: skip


def anchor(store: Store, now: int, before: Anchor | None = None, *, restored: bool = False) -> Anchor:
    """Return where the log ends now. before: the last line that is written already. Raises BadArgument for a log that is empty."""
    end = store.log.end()
    if end is None:
        raise BadArgument(reason="the log has no entry yet", fix="edgecloud init makes the first one")
    since = before.link.number if before is not None and not restored else 0
    return Anchor(store.identity.id, now, end, tuple(carrying.sealed(store, since)), restored)


def append(path: Path, one: Anchor) -> None:
    """Write a line at the end of a file, durably: all of it, or none. Raises BadArgument where there is no room."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        begun = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # a line without an end would take this one with it
        view = memoryview(f"{'' if not begun else chr(10)}{one.line()}\n".encode())
        try:
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(descriptor, size)  # half a line would make all of the file unreadable
            if (full := disk.unwritable(error, path)) is not None:
                raise DiskUnwritable(**{**full.facts, "fix": f"{full.next_step}; no line was added"}) from error
            raise BadArgument(reason=f"{path}: {error.strerror}", fix="see who may write there; no line was added") from None
    finally:
        os.close(descriptor)


def read(path: Path, fleet_id: bytes, *, required: bool = False) -> list[Anchor]:
    """Return the anchors of this fleet in a file, oldest first. Raises MissingFile, or Malformed for a line that is none.

    required: raises BadArgument where none is of this fleet: a file that proves nothing is not passed by.
    """
    if not path.exists():
        raise MissingFile(path=path, what="the file of anchors", fix=f"check the path; edgecloud anchor {path} begins one")
    if path.stat().st_size > FILE_MAX:
        raise Malformed(what=str(path), reason=f"it has more than {FILE_MAX} bytes")
    out: list[Anchor] = []
    with open_regular(path) as file:
        for number, line in enumerate(file, 1):
            one = _parse(line, f"line {number} of {path}")
            if one.fleet_id == fleet_id:
                out = [one] if one.restored else [*out, one]
    if required and not out:
        raise BadArgument(reason=f"{path} holds no anchor of this fleet", fix=f"name the file of the fleet with the id {fleet_id.hex()}")
    return out


def missed(store: Store, held: list[Anchor]) -> list[str]:
    """Return in words which anchors the log does not hold."""
    out = []
    end = store.log.end()
    for one in held:
        link = store.log.link(one.link.number)
        if link is None:
            last, saw = end.number if end is not None else 0, one.link.number
            out.append(f"the log ends at entry {last}, and an anchor saw entry {saw}: it was cut off, or an older copy restored")
        elif link != one.link.digest:
            out.append(f"entry {one.link.number} of the log is another than an anchor saw: the log was made anew from there or before")
    return out


def _parse(line: bytes, where: str) -> Anchor:
    if len(line) > LINE_MAX:
        raise Malformed(what=where, reason=f"it has more than {LINE_MAX} bytes")
    try:
        said = json.loads(line)
        number, at, restored = said["number"], said["at"], said["restored"]
        digest, fleet = bytes.fromhex(said["link"]), bytes.fromhex(said["fleet_id"])
        sealed = tuple(bytes.fromhex(one) for one in said["sealed"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Malformed(what=where, reason=f"it is no anchor: {type(error).__name__}") from None
    whole = type(number) is int and 0 < number < 1 << 63 and type(at) is int and 0 <= at < 1 << 63 and type(restored) is bool
    if not whole or len(digest) != 32 or len(fleet) != 16:
        raise Malformed(what=where, reason="it is no anchor")
    return Anchor(fleet, at, Link(number, digest), sealed, restored)
