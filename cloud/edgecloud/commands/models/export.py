"""`edgecloud export`: the registry's rows as a file for a spreadsheet, a notebook, or Datasette."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from edgecloud.registry import SqliteStore
from edgecloud.versions import reporting
from edgecommon.files import streamed
from edgecommon.printing import Answer
from modelwire.errors import BadArgument, UnknownVersion

from ..answer import Document, registry_of
from .card import as_document

NAME = "export"
HELP = "Write the registry's rows for other programs: versions, devices, since when each is silent, or data cards."
EXAMPLES = (
    "edgecloud export versions --csv -o versions.csv",
    "edgecloud export fleet --json",
    "edgecloud export cards --ndjson --device pi-7",
    "edgecloud export --sqlite -o report.db --force",
)
Writer = Callable[[TextIO, Iterable[dict[str, Any]], Sequence[str]], int]


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind", nargs="?", metavar="VIEW", type=_kind, choices=reporting.KINDS,
        help="versions, fleet, stale or cards (default: versions; with --sqlite all of them)",
    )  # fmt: skip
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--csv", action="store_true", help="with a head; what a spreadsheet would run gets a ' in front (default)")
    how.add_argument("--ndjson", action="store_true", help="a JSON object a line; with --json: one array of them")
    how.add_argument("--sqlite", action="store_true", help="tables of a SQLite file, without keys, weights and what waits; needs -o")
    parser.add_argument("--device", metavar="NAME", help="the rows of one device alone")
    parser.add_argument("-o", "--output", metavar="FILE", help="file to write, whole or not at all (default: standard output)")
    parser.add_argument("--force", action="store_true", help="replace FILE when it is there")


def run(args: argparse.Namespace) -> Answer:
    as_json, kind = bool(getattr(args, "json", False)), args.kind or "versions"
    if args.output is None and (args.sqlite or (as_json and (args.csv or args.ndjson))):
        given = "--sqlite" if args.sqlite else f"{'--csv' if args.csv else '--ndjson'} with --json"
        raise BadArgument(reason=f"{given} needs a file", fix="edgecloud export ... -o FILE")
    if args.output is None and args.force:
        raise BadArgument(reason="--force replaces a file, and none is named", fix="edgecloud export ... -o FILE --force")
    writer: Writer = reporting.write_lines if args.ndjson else reporting.write_json if as_json and not args.csv else reporting.write_csv
    with registry_of(args) as store, store.database.reading():
        if args.device is not None and args.device not in store.devices.names():
            raise UnknownVersion(name=args.device)
        if args.output is None:
            writer(sys.stdout, _rows(store, kind, args.device), reporting.columns(store, kind, as_document))
            return Answer({}, said=True)
        path = Path(args.output)
        if path.resolve() == store.database.path:
            raise BadArgument(reason=f"{path} is the registry itself", fix="name another file")
        with streamed(path, replace=args.force) as beside:
            if args.sqlite:
                kinds = reporting.KINDS if args.kind is None else (kind,)
                counts = reporting.write_sqlite(beside, {one: _rows(store, one, args.device) for one in kinds})
            else:
                with beside.open("w", encoding="utf-8", newline="") as out:
                    counts = {kind: writer(out, _rows(store, kind, args.device), reporting.columns(store, kind, as_document))}
        size = path.stat().st_size
    document: Document = {"file": str(path), "rows": counts, "bytes": size}
    return Answer(document, f"{path}: {', '.join(f'{n} rows of {one}' for one, n in counts.items())}, {size} bytes")


def _kind(text: str) -> str:
    return text.removeprefix("v_")


def _rows(store: SqliteStore, kind: str, device: str | None) -> Iterable[dict[str, Any]]:
    return reporting.rows(store, kind, device, as_document)
