"""What a document says of a version, for `log` and `show`."""

from __future__ import annotations

from edgecloud.merging import parents
from edgecloud.registry import LineageRow, SqliteStore, VersionRow
from edgecloud.versions import cards
from modelwire.wire import cbor

from ..answer import Document


def describe(store: SqliteStore, lineage: LineageRow, v: VersionRow, before: Document | None = None) -> Document:
    """Return a version as JSON holds it. before: the one of the next number above, where it was described just now."""
    metrics = cbor.decode(v.extension, "extension") if v.extension else {}
    assert isinstance(metrics, dict)  # ingest has parsed it
    metrics.pop(cards.KEY, None)
    return {
        "name": f"{lineage}@{v.version}", "version": v.version, "epoch": v.epoch, "kind": v.kind, "status": v.status.value,
        "reason": v.reason, "commit": v.commit, "parent": v.parent, "base": v.base, "base_before": base_before(store, v), "root": v.root,
        "bytes": v.size, "received_at": v.received_at, "metrics": metrics, "skipped": store.versions.skipped(v.id),
        **held(store, lineage, v, before),
    }  # fmt: skip


def held(store: SqliteStore, lineage: LineageRow, v: VersionRow, before: Document | None) -> Document:
    """Return what of a version is held: all of it, what leads to it, or no more than what proves it."""
    left, near = store.thinnings.get(v.id), list[int]()
    if left is not None and left.gone:
        beside = before is not None and not before["recoverable"]  # of a run of them all have the same beside them
        near = before["nearest"] if before is not None and beside else [
            n for n in store.thinnings.nearest(lineage.id, v.version) if n is not None
        ]  # fmt: skip
    return {"recoverable": left is None or not left.gone, "squashed": left is not None and not left.gone, "nearest": near}


def thinned(version: Document) -> str:
    """Return what was thinned of a version, in words."""
    if version["recoverable"]:
        return "squashed" if version["squashed"] else ""
    return f"no longer recoverable; nearest {' and '.join(f'@{n}' for n in version['nearest']) or 'none'}"


def base_before(store: SqliteStore, v: VersionRow) -> bytes:
    """Return the base that a version was made on: another one than its own where it is a snapshot that went over to that."""
    parent = store.versions.by_id(v.parent_id) if v.parent_id is not None else None
    return parent.base if parent is not None else v.parent


def other_base(version: Document) -> str:
    """Return whether a version went over to another base, in words."""
    return f"went over to the base {version['base'].hex()[:16]}" if version["base"] != version["base_before"] else ""


def notes_on(store: SqliteStore, kind: str, object: str) -> list[Document]:
    """Return the notes that people left on an object."""
    return [{"text": n.text, "at": n.at} for n in store.annotations.of(kind, object)]


def carried(skipped: list[tuple[int, int]]) -> str:
    """Return which versions an update carries, in words."""
    return "carries " + ", ".join(f"@{a}" if a == b else f"@{a}..{b}" for a, b in skipped) if skipped else ""


def made_of(store: SqliteStore, base: bytes) -> str:
    """Return what a base is the average of, in words; "" where it is none."""
    row = store.bases.recall(base)
    origin = None if row is None else parents.origin_of(store, row.file)
    return "" if row is None or origin is None else f"its base {row.name} is {origin}: edgecloud bases show {row.name}"


def merged_into(store: SqliteStore, v: VersionRow) -> list[Document]:
    """Return the merges that a version is in, with the bases that were made of them."""
    merges = store.merges.made_of(v.id)
    bases = store.bases.all() if merges else []
    return [
        {"file_sha256": one.file, "rule": one.rule, "versions": one.versions, "at": one.at,
         "bases": [base.name for base in bases if base.file == one.file]}
        for one in merges
    ]  # fmt: skip


def told_merges(merges: list[Document]) -> list[str]:
    """Return merges in words."""
    made = [", ".join(one["bases"]) or f"a file {one['file_sha256'].hex()[:16]} that is no base yet" for one in merges]
    return [f"with {one['versions'] - 1} others into {into}" for one, into in zip(merges, made, strict=True)]
