"""`edgeagent samples`: add samples from a file with their context, and see what there is."""

from __future__ import annotations

import argparse

from edgeagent.samples.from_files import read_all
from edgeagent.samples.spool import Spool
from edgeagent.state.folder import open_folder
from edgecommon.arguments import given, rule, shown, whole
from edgecommon.printing import Answer
from edgecommon.tables import add_limit, more, most, table

from .answer import add_folder, chosen, load

NAME = "samples"
CLASS_MAX = (1 << 31) - 1
HELP = "Add samples from a file, or list what there is of each class. Works while the agent runs."
EXAMPLES = (
    "edgeagent samples list",
    "edgeagent samples add digits seen.npz",
    "edgeagent samples add digits seven.npy --label 7",
    "edgeagent samples add digits foggy.npz --context weather=fog --context region=north",
    "edgeagent samples add turbine calm.npy --unlabelled",
    "edgeagent samples add motion walk.csv --dir pi-7 --json",
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("add", "list"), help="what to do")
    parser.add_argument("model", nargs="?", metavar="MODEL", help="the model that they are for")
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help=".npz with x and y; .npy or .csv with the class in the last column, or all of one --label"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--label", type=whole(0, CLASS_MAX), metavar="CLASS", help="the class of all samples in the file")
    how.add_argument("--unlabelled", action="store_true", help="there are no classes: the model shall answer each sample itself")
    parser.add_argument(
        "--context", type=_context, metavar="NAME=VALUE", action="append", default=[],
        help="what was known of the circumstances, of all samples in the file; repeatable. A file has its own as context.NAME",
    )  # fmt: skip
    add_limit(parser, "the first N rows")
    add_folder(parser)
    rule(parser, _sense)


def _sense(args: argparse.Namespace) -> str:
    """Return which words do nothing beside `add` or `list`, or which one is missing."""
    if args.action == "add" and not (args.model and args.file):
        return "samples add takes MODEL and FILE"
    if args.action == "add":
        return "--limit does nothing beside add" if given(args, "--limit") else ""
    if args.file:
        return f"samples list takes no FILE, and {args.file!r} is one: samples add"
    return next((f"{option} does nothing beside list" for option in ("--label", "--unlabelled", "--context") if _said(args, option)), "")


def _said(args: argparse.Namespace, option: str) -> bool:
    return given(args, option) or (option == "--label" and args.label is not None)  # 0 is a class


def run(args: argparse.Namespace) -> Answer:
    loaded = load(args)
    if args.action == "add":
        with Spool(loaded.state) as spool:
            known = dict(args.context)
            content = read_all(args.file, label=args.label, model=args.model, unlabelled=args.unlabelled)
            contexts = [{**own, **known} for own in content.contexts] or known
            added = spool.extend(args.model, content.x, content.labels, targets=content.targets, contexts=contexts)
            held = spool.count(args.model)
        document = {"model": args.model, "added": len(added), "held": held}
        return Answer(document, f"{args.model}: {len(added)} samples added, {held} held")
    with open_folder(loaded, alone=False) as device:
        rows = []
        for lineage in chosen(device, [args.model] if args.model else []):
            new = device.spool.count(lineage.name, after=lineage.head().trained_id)
            name, spool = lineage.name, device.spool
            rows.append((name, spool.shape(name), spool.classes(name), new, spool.cells(name)))
    document = {
        "models": [
            {
                "name": name, "shape": list(shape.x), "classes": shape.classes, "samples": sum(c.samples for c in counts),
                "bytes": sum(c.bytes for c in counts), "new": new, "by_class": {str(c.cls): c.samples for c in counts},
                "cells": [{"class": c.cls, "context": c.context, "samples": c.samples} for c in cells],
            }
            for name, shape, counts, new, cells in rows
        ]
    }  # fmt: skip
    classes = [(n, _class(c.cls), c.samples, c.bytes) for n, _, counts, _, _ in rows for c in counts]
    limit = most(args)
    text = table(("model", "class", "samples", "bytes"), classes[:limit]) if classes else "no samples yet"
    text += _more(len(classes), limit)
    apart = [(n, _class(c.cls), _words(c.context), c.samples) for n, _, _, _, cells in rows for c in cells if any(o.context for o in cells)]
    if apart:
        text += "\n\n" + table(("model", "class", "context", "samples"), apart[:limit]) + _more(len(apart), limit)
    return Answer(document, text)


def _more(rows: int, limit: int | None) -> str:
    return f"\n{more(rows - limit)}" if limit is not None and rows > limit else ""


def _context(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not NAME=VALUE")
    return name.strip(), value.strip()


def _class(cls: int) -> int | str:
    return "target" if cls < 0 else cls


def _words(context: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in context.items()) or "-"
