"""What an entry of the log says: read strictly, for whoever writes to the registry's file writes entries, too."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from edgecloud.registry import LogEntry
from modelwire.errors import Malformed
from modelwire.wire import cbor
from modelwire.wire.log import Link, next_link_of

TRUST, ACT, COMMAND, ANSWER = "trust", "act", "command", "answer"
CLAIM, WITHDRAWAL, ENROL = "claim", "withdrawal", "enrol"
EPOCH, HEAD, VERDICT, RESTORE = "epoch", "head", "verdict", "restore"
POLICY, PURGE, THIN, ERASE, ERASED = "policy", "purge", "thin", "erase", "erased"
VARIANT, PLAN, DECISION, DESIRED = "variant", "plan", "decision", "desired"
STATEMENTS = (POLICY, PURGE, ERASE)
DEPLOYING = (VARIANT, PLAN, DECISION, DESIRED)  # sealed by the root key, the command key twice, and the director's key

# What an operator, or the director, enters beside a running ingester. Each proves itself by a seal, but for the word on a restore, which
# nothing rests on. A thinning rests on the seal of its policy or purge, an erased entry on that of its erasure.
BY_OPERATOR = (TRUST, ACT, COMMAND, CLAIM, WITHDRAWAL, RESTORE, *STATEMENTS, *DEPLOYING, THIN, ERASED)
# What says nothing about who speaks: entered with each update, so whoever made one does not read it again.
LETS_NOBODY_IN = (ANSWER, EPOCH, HEAD, VERDICT)

_ERASED_MARK = cbor.encode({"kind": ERASED})[1:]  # it is in every entry of this kind, and read only there

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
    POLICY: {"record": bytes},
    PURGE: {"record": bytes},
    THIN: {"by": int, "gone": bytes, "squashed": bytes},
    ERASE: {"record": bytes},
    **{kind: {"record": bytes} for kind in DEPLOYING},
    ERASED: {"by": int, "digest": bytes, "index": int, "count": int, "path": bytes},
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


def digest_of(row: LogEntry) -> bytes:
    """Return the SHA-256 of an entry; of an erased one, that of what stood there: its link binds no more than that."""
    if isinstance(row.entry, bytes) and _ERASED_MARK in row.entry:
        entry = parse(row)
        if entry.kind == ERASED and len(entry.bytes("digest")) == 32:
            return entry.bytes("digest")
    return hashlib.sha256(row.entry).digest()


def commits_of(entry: Decided) -> tuple[list[bytes], dict[bytes, bytes]]:
    """Return the commits that a thinning took for good, and those that squashes lead to now, with their digests. Raises Malformed."""
    gone, pairs = entry.bytes("gone"), entry.bytes("squashed")
    if len(gone) % 32 or len(pairs) % 64:
        raise Malformed(what=f"entry {entry.number} of the log", reason="its commits are not whole")
    squashed = {pairs[i : i + 32]: pairs[i + 32 : i + 64] for i in range(0, len(pairs), 64)}
    return [gone[i : i + 32] for i in range(0, len(gone), 32)], squashed


def follow(before: Link | None, row: LogEntry) -> Link:
    """Return the link of an entry that comes after `before`. Raises Malformed when it does not follow."""
    due = before.number + 1 if before else 1
    if row.number != due:
        raise Malformed(what="the log", reason=f"it has a hole: entry {due} is missing, and {row.number} is there")
    link = next_link_of(before, digest_of(row))
    if link.digest != row.link:
        raise Malformed(what=f"entry {row.number} of the log", reason="it was changed, or one before it: its link does not follow")
    return link
