"""What an entry of the log says: read strictly, for whoever writes to the registry's file writes entries, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgecloud.registry import LogEntry
from modelwire.errors import Malformed
from modelwire.wire import cbor
from modelwire.wire.log import Link, next_link

TRUST, ACT, COMMAND, ANSWER = "trust", "act", "command", "answer"
CLAIM, WITHDRAWAL, ENROL = "claim", "withdrawal", "enrol"
EPOCH, HEAD, VERDICT, RESTORE = "epoch", "head", "verdict", "restore"

# What an operator enters beside a running ingester. Each proves itself by a seal, but for the word on a restore, which nothing rests on.
BY_OPERATOR = (TRUST, ACT, COMMAND, CLAIM, WITHDRAWAL, RESTORE)
# What says nothing about who speaks: entered with each update, so whoever made one does not read it again.
LETS_NOBODY_IN = (ANSWER, EPOCH, HEAD, VERDICT)

_CONTENT: dict[str, dict[str, type]] = {
    TRUST: {"record": bytes},
    ACT: {"record": bytes},
    COMMAND: {"record": bytes},
    CLAIM: {"record": bytes},
    WITHDRAWAL: {"record": bytes},
    ENROL: {"claim": bytes, "record": bytes},
    ANSWER: {"device": str, "model": str, "number": int, "ok": bool, "text": str},
    EPOCH: {"device": str, "model": str, "epoch": int, "state": bytes, "base": bytes, "floor": int},
    HEAD: {"device": str, "model": str, "epoch": int, "version": int, "commit": bytes, "before": bytes},
    VERDICT: {"commit": bytes, "ok": bool, "reason": str},
    RESTORE: {"end": int, "link": bytes, "carried": int},
}


@dataclass(frozen=True, slots=True)
class Decided:
    """What one entry says was decided."""

    number: int
    kind: str
    at: int  # Unix seconds of whoever made it
    content: Mapping[str, cbor.Value]

    def text(self, name: str) -> str:
        value = self.content[name]
        assert isinstance(value, str)
        return value

    def bytes(self, name: str) -> bytes:
        value = self.content[name]
        assert isinstance(value, bytes)
        return value

    def integer(self, name: str) -> int:
        value = self.content[name]
        assert isinstance(value, int)
        return value


def parse(row: LogEntry) -> Decided:
    """Return what an entry says. Raises Malformed for one that no release up to this one makes."""
    what = f"entry {row.number} of the log"
    if not isinstance(row.entry, bytes) or not isinstance(row.subject, bytes):
        raise Malformed(what=what, reason="it is no row of bytes")
    values = cbor.decode(row.entry, what)
    if not isinstance(values, dict):
        raise Malformed(what=what, reason="it is no map")
    content = dict(values)
    kind, at = content.pop("kind", None), content.pop("at", None)
    shape = _CONTENT.get(kind) if isinstance(kind, str) else None
    if shape is None or type(at) is not int:
        raise Malformed(what=what, reason=f"no release up to this one enters the kind {str(kind)[:40]!r}")
    assert isinstance(kind, str)
    if content.keys() != shape.keys() or any(type(content[name]) is not needed for name, needed in shape.items()):
        raise Malformed(what=what, reason=f"it has other fields than one of the kind {kind}")
    if row.subject != content.get("commit", b""):
        raise Malformed(what=what, reason="it is filed under another version than it is about")
    return Decided(row.number, kind, at, content)


def follow(before: Link | None, row: LogEntry) -> Link:
    """Return the link of an entry that comes after `before`. Raises Malformed when it does not follow."""
    due = before.number + 1 if before else 1
    if row.number != due:
        raise Malformed(what="the log", reason=f"it has a hole: entry {due} is missing, and {row.number} is there")
    link = next_link(before, row.entry)
    if link.digest != row.link:
        raise Malformed(what=f"entry {row.number} of the log", reason="it was changed, or one before it: its link does not follow")
    return link
