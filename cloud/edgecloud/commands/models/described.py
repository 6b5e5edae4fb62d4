"""What a document says of a version, for `log` and `show`."""

from __future__ import annotations

from edgecloud.registry import LineageRow, SqliteStore, VersionRow
from edgecloud.versions import cards
from modelwire.wire import cbor

from ..answer import Document


def describe(store: SqliteStore, lineage: LineageRow, v: VersionRow) -> Document:
    """Return a version as JSON holds it."""
    metrics = cbor.decode(v.extension, "extension") if v.extension else {}
    assert isinstance(metrics, dict)  # ingest has parsed it
    metrics.pop(cards.KEY, None)
    return {
        "name": f"{lineage}@{v.version}", "version": v.version, "epoch": v.epoch, "kind": v.kind, "status": v.status.value,
        "reason": v.reason, "commit": v.commit, "parent": v.parent, "base": v.base, "root": v.root, "bytes": v.size,
        "received_at": v.received_at, "metrics": metrics, "skipped": store.versions.skipped(v.id),
    }  # fmt: skip


def notes_on(store: SqliteStore, kind: str, object: str) -> list[Document]:
    """Return the notes that people left on an object."""
    return [{"text": n.text, "at": n.at} for n in store.annotations.of(kind, object)]


def carried(skipped: list[tuple[int, int]]) -> str:
    """Return which versions an update carries, in words."""
    return "carries " + ", ".join(f"@{a}" if a == b else f"@{a}..{b}" for a, b in skipped) if skipped else ""
