"""`edgecloud probes`: rows that versions are run on at the centre, with what is known of them."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from edgecloud.probes import sets
from edgecloud.registry import ProbeRow
from edgecommon.printing import Answer
from edgecommon.tables import Column, add_limit, most

from ..answer import Document, facts, now, registry_of, sentences, table, when
from ..verb import Verb

NAME = "probes"
HELP = "Rows that versions are run on at the centre, to compare and score them."
EXAMPLES = ("edgecloud probes list",)
_SHOWN = 12  # classes and values of a tag on one screen


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="what to call the set; a set is never overwritten")
    parser.add_argument("file", metavar="FILE.npz", help="arrays x and, if known, y and tag.NAME: a label and a word a row")
    parser.add_argument("--model", metavar="MODEL", default="", help="for models of this name alone (default: all that take such rows)")


def add_probes(args: argparse.Namespace) -> Answer:
    probes = sets.read_npz(Path(args.file))
    with registry_of(args, readonly=False) as store, store.transaction():
        row = sets.add(store, args.name, probes, model=args.model, now=now())
    return _described(row, probes)


def list_probes(args: argparse.Namespace) -> Answer:
    with registry_of(args) as store:
        rows = store.probes.all(removed=args.removed)
    limit = most(args)
    shown = [
        (r.name, r.model or "any", _shape(r), r.rows, r.size, r.digest.hex()[:16], when(r.added_at), when(r.removed_at)) for r in rows
    ]
    head = (*_HEAD, Column("removed", 1)) if args.removed else _HEAD
    text = table(head, [row[: len(head)] for row in shown], limit=limit)
    return Answer({"probes": [_document(r) for r in rows[:limit]], "more": len(rows) - len(rows[:limit])}, text)


_HEAD = (Column("set"), Column("model", 1), Column("a row", 2), Column("rows"), Column("bytes", 4), Column("digest", 5), Column("added", 3))


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--removed", action="store_true", help="list those too that were removed")
    add_limit(parser)


def _name_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")


def show_probes(args: argparse.Namespace) -> Answer:
    with registry_of(args) as store:
        row = sets.find(store, args.name)
        probes = sets.load(store, row)
    return _described(row, probes)


def remove_probes(args: argparse.Namespace) -> Answer:
    with registry_of(args, readonly=False) as store:
        row = sets.find(store, args.name)
        store.probes.remove(row, now())
        same = [one.name for one in store.probes.all() if one.digest == row.digest]
    gone = f"its rows are still held as {', '.join(same)}" if same else "its rows and what versions made of them are gone"
    said = sentences([f"removed {row.name}: {gone}; its digest {row.digest.hex()[:16]} stays listed"])
    return Answer({**_document(row), "removed_at": now(), "same_rows": same}, said)


def _document(row: ProbeRow) -> Document:
    return {
        "name": row.name, "model": row.model, "shape": list(row.shape), "rows": row.rows, "bytes": row.size, "digest": row.digest,
        "added_at": row.added_at, "removed_at": row.removed_at,
    }  # fmt: skip


def _described(row: ProbeRow, probes: sets.ProbeSet) -> Answer:
    labels = Counter(probes.labels.tolist()) if probes.labels is not None else Counter[int]()
    tags = {name: Counter(value for value in values if value) for name, values in probes.tags.items()}
    document = {**_document(row), "kind": probes.kind, "labels": {str(k): n for k, n in sorted(labels.items())},
                "tags": {name: dict(sorted(of.items())) for name, of in tags.items()}}  # fmt: skip
    pairs = [
        ("probe set", row.name), ("model", row.model or "any that takes such rows"), ("rows", row.rows), ("a row", _shape(row)),
        ("y", probes.kind or "none"), ("classes", _counted({str(k): n for k, n in sorted(labels.items())})),
        *((f"tag {name}", _counted(of)) for name, of in tags.items()), ("bytes", row.size), ("digest", row.digest.hex()),
    ]  # fmt: skip
    return Answer(document, facts(pairs))


def _shape(row: ProbeRow) -> str:
    return "x".join(map(str, row.shape))


def _counted(of: dict[str, int] | Counter[str]) -> str:
    shown = ", ".join(f"{value} {n}" for value, n in [*of.items()][:_SHOWN])
    return shown + (f", and {len(of) - _SHOWN} more" if len(of) > _SHOWN else "")


VERBS = (
    Verb(
        "add", "Keep rows with labels and tags, write-once, after a look at each of them.",
        ("edgecloud probes add night night.npz", "edgecloud probes add doors doors.npz --model doorbell"), add_probes, _add_arguments,
    ),
    Verb("list", "List the probe sets by name.", ("edgecloud probes list --json",), list_probes, _list_arguments),
    Verb("show", "Say what a probe set holds: rows, classes, tags.", ("edgecloud probes show night",), show_probes, _name_argument),
    Verb(
        "remove", "Delete a set's rows and all that versions made of them.", ("edgecloud probes remove night",), remove_probes,
        _name_argument,
    ),
)  # fmt: skip
run, add = list_probes, _list_arguments
