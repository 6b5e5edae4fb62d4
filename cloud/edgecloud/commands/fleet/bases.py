"""`edgecloud bases`: the models that devices start from."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecloud.merging import parents
from edgecloud.registry import Base, SqliteStore
from edgecloud.rehearsal import rehearsed
from edgecommon.printing import Answer
from edgecommon.tables import Column, add_limit, most
from modelwire.errors import BadArgument, UnknownVersion
from modelwire.names import check_name
from modelwire.tflite.file import check_trainable, read_head
from modelwire.tflite.notes import notes_of
from modelwire.update.manifest import manifest_of, parse_manifest

from .. import int8_heads
from ..answer import Document, facts, now, registry_of, table, when
from ..model_files import read_model
from ..rehearsals import add_rehearsal, describe, progress, require, said_by_notes, say
from ..verb import Verb

NAME = "bases"
HELP = "Base models that devices start from."
EXAMPLES = ("edgecloud bases list",)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.tflite", help="a trainable model file")
    parser.add_argument("--name", help="what to call it (default: the file's name)")
    parser.add_argument("--exact", action="store_true", help="for devices that were set up with --exact: they adopt nothing")
    add_rehearsal(parser)


def add_base(args: argparse.Namespace) -> Answer:
    path = Path(args.file)
    name = check_name("base name", args.name or path.stem.lower())
    file = read_model(path)
    check_trainable(file, model=name)
    head = read_head(file, model=name)
    notes = notes_of(file, model=name)
    manifest = manifest_of(file, exact=args.exact)
    found = None if args.no_rehearse else rehearsed(file, model=name, rates=False, said=progress(name))
    require(found, name)
    with registry_of(args, readonly=False) as store, store.transaction():
        known = store.bases.get(manifest.commit)
        if known is None:
            if store.bases.named(name) is not None:
                raise BadArgument(reason=f"another base is named {name!r}", fix=f"give this one a name: --name {name}-2")
            known = Base(manifest.commit, name, manifest.encode(), store.blobs.put(file), len(file), now())
            store.bases.add(known)
        elif args.name and args.name != known.name:
            raise BadArgument(
                reason=f"this file is the base {known.name!r}, of commit {known.commit.hex()[:16]}: --name {args.name} would do nothing",
                fix=f"it stays {known.name!r}; edgecloud annotate base:{known.name} keeps another word on it",
            )
        origin = parents.origin_of(store, known.file)
    document = {
        **_base(known), "merged_from": _origin(origin), "weights": manifest.schema.size, "tensors": len(manifest.schema.tensors),
        "exact": manifest.all_exact,
        "int8_head": int8_heads.describe(head), "rehearsed": describe(found), "rehearsed_when_made": notes.rehearsed,
    }  # fmt: skip
    text = facts(
        (
            ("base", known.name), ("commit", known.commit.hex()), ("weights", manifest.schema.size), ("file", f"{known.size} bytes"),
            ("made of", str(origin or "")), ("int8 head", "" if head is None else int8_heads.say(head)),
            ("rehearsed", say(found, took=False)), ("when it was made", said_by_notes(notes.rehearsed)),
        )
    )  # fmt: skip
    return Answer(document, text)


def list_bases(args: argparse.Namespace) -> Answer:
    with registry_of(args) as store:
        rows = sorted(store.bases.all(), key=lambda b: b.added_at, reverse=True)
    limit = most(args)
    text = table(_HEAD, [(b.name, b.commit.hex()[:16], b.size, when(b.added_at)) for b in rows], limit=limit)
    return Answer({"bases": [_base(b) for b in rows[:limit]], "more": len(rows) - len(rows[:limit])}, text)


def show_base(args: argparse.Namespace) -> Answer:
    limit = most(args)
    with registry_of(args) as store:
        row = _found(store, args.name)
        origin = parents.origin_of(store, row.file)
        merged = [other.name for other in store.bases.all() if _is_made_on(store, other, row)]
    manifest = parse_manifest(row.manifest)
    document = {
        **_base(row), "root": manifest.root, "weights": manifest.schema.size, "tensors": len(manifest.schema.tensors),
        "exact": manifest.all_exact, "merged_from": _origin(origin), "merged_into": merged,
    }  # fmt: skip
    text = facts(
        (
            ("base", row.name), ("commit", row.commit.hex()), ("root", manifest.root.hex()), ("weights", manifest.schema.size),
            ("file", f"{row.size} bytes"), ("added", when(row.added_at)), ("made of", str(origin or "")),
            ("merged into", ", ".join(merged)),
        )
    )  # fmt: skip
    if origin is not None and origin.parents:
        rows = [(str(one), one.weight, one.version.commit.hex()[:16]) for one in origin.parents]
        text += "\n\n" + table((Column("parent"), Column("counts"), Column("commit", 1)), rows, limit=limit)
    return Answer(document, text)


def _found(store: SqliteStore, name: str) -> Base:
    """Return the base of a name, or of a commit or the beginning of one. Raises UnknownVersion."""
    row = store.bases.named(name)
    if row is not None:
        return row
    by_commit = [one for one in store.bases.all() if len(name) >= 8 and one.commit.hex().startswith(name)]
    if len(by_commit) != 1:
        raise UnknownVersion(name=f"base:{name}", fix="edgecloud bases list")
    return by_commit[0]


def _is_made_on(store: SqliteStore, other: Base, base: Base) -> bool:
    merge = store.merges.of(other.file)
    return merge is not None and merge.base == base.commit


def _origin(origin: parents.BaseOrigin | None) -> Document | None:
    """Return what a base was made of, as a document."""
    if origin is None:
        return None
    return {
        "rule": origin.merge.rule, "base": origin.merge.base, "versions": origin.merge.versions, "erased": origin.erased,
        "merged_at": origin.merge.at,
        "parents": [{"name": str(one), "commit": one.version.commit, "weight": one.weight} for one in origin.parents],
    }  # fmt: skip


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="BASE", help="its name, or its commit")
    add_limit(parser)


_HEAD = (Column("base"), Column("commit"), Column("bytes", 2), Column("added", 1))


def _base(base: Base) -> Document:
    return {"base": base.name, "commit": base.commit, "file_sha256": base.file, "bytes": base.size, "added_at": base.added_at}


VERBS = (
    Verb(
        "add", "Register a trainable .tflite, or a stock int8 classifier, as a base that devices start from.",
        (
            "edgecloud bases add digits.tflite",
            "edgecloud bases add model.tflite --name doorbell",
            "edgecloud bases add model.tflite --name free --exact",
        ),
        add_base, _add_arguments,
    ),
    Verb("list", "List the bases, the newest first.", ("edgecloud bases list --json", "edgecloud bases list -n 5"), list_bases, add_limit),
    Verb(
        "show", "Show a base, and the versions that a merged one was made of.", ("edgecloud bases show digits",), show_base,
        _show_arguments,
    ),
)  # fmt: skip
run, add = list_bases, add_limit
