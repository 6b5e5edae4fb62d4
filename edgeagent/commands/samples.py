"""`edgeagent samples`: add samples from a file with their context, and see what there is."""

from __future__ import annotations

import argparse

from edgeagent.samples.from_files import read_all
from edgeagent.samples.spool import Spool
from edgeagent.state.folder import open_folder
from edgecommon.printing import Answer
from modelwire.errors import ConfigError

from .answer import add_folder, chosen, load, table

NAME = "samples"
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
    parser.add_argument("action", choices=("add", "list"))
    parser.add_argument("model", nargs="?", metavar="MODEL", help="the model that they are for")
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help=".npz with x and y; .npy or .csv with the class in the last column, or all of one --label"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--label", type=int, metavar="CLASS", help="the class of all samples in the file")
    how.add_argument("--unlabelled", action="store_true", help="there are no classes: the model shall answer each sample itself")
    parser.add_argument(
        "--context", metavar="NAME=VALUE", action="append", default=[],
        help="what was known of the circumstances, of all samples in the file; repeatable. A file has its own as context.NAME",
    )  # fmt: skip
    add_folder(parser)


def run(args: argparse.Namespace) -> Answer:
    loaded = load(args)
    if args.action == "add":
        if not args.model or not args.file:
            raise ConfigError(reason="samples add takes MODEL and FILE: edgeagent samples add --help")
        with Spool(loaded.state) as spool:
            given = _context(args.context)
            content = read_all(args.file, label=args.label, model=args.model, unlabelled=args.unlabelled)
            contexts = [{**own, **given} for own in content.contexts] or given
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
    shown = [(n, _class(c.cls), c.samples, c.bytes) for n, _, counts, _, _ in rows for c in counts]
    text = table(("model", "class", "samples", "bytes"), shown) if shown else "no samples yet"
    apart = [(n, _class(c.cls), _words(c.context), c.samples) for n, _, _, _, cells in rows for c in cells if any(o.context for o in cells)]
    if apart:
        text += "\n\n" + table(("model", "class", "context", "samples"), apart)
    return Answer(document, text)


def _context(texts: list[str]) -> dict[str, str]:
    out = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(reason=f"--context {text!r} is not NAME=VALUE")
        out[name.strip()] = value.strip()
    return out


def _class(cls: int) -> int | str:
    return "target" if cls < 0 else cls


def _words(context: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in context.items()) or "-"
