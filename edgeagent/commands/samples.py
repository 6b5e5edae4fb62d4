"""`edgeagent samples`: add labelled samples from a file, and see what there is."""

from __future__ import annotations

import argparse

from modelwire.errors import ConfigError

from .. import device
from ..sample_files import read
from ..spool import Spool
from .answer import Answer, add_folder, chosen, load, table

NAME = "samples"
HELP = "Add samples from a file, or list what there is of each class. Works while the agent runs."
EXAMPLES = (
    "edgeagent samples list",
    "edgeagent samples add digits seen.npz",
    "edgeagent samples add digits seven.npy --label 7",
    "edgeagent samples add motion walk.csv --dir pi-7 --json",
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("add", "list"))
    parser.add_argument("model", nargs="?", metavar="MODEL", help="the model that they are for")
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help=".npz with x and y; .npy or .csv with the class in the last column, or all of one --label"
    )
    parser.add_argument("--label", type=int, metavar="CLASS", help="the class of all samples in the file")
    add_folder(parser)


def run(args: argparse.Namespace) -> Answer:
    loaded = load(args)
    if args.action == "add":
        if not args.model or not args.file:
            raise ConfigError(reason="samples add takes MODEL and FILE: edgeagent samples add --help")
        with Spool(loaded.state) as spool:
            x, labels, targets = read(args.file, label=args.label, model=args.model)
            added = spool.extend(args.model, x, labels, targets=targets)
            held = spool.count(args.model)
        document = {"model": args.model, "added": len(added), "held": held}
        return Answer(document, f"{args.model}: {len(added)} samples added, {held} held")
    with device.opened(loaded, alone=False) as opened:
        rows = []
        for lineage in chosen(opened, [args.model] if args.model else []):
            new = opened.spool.count(lineage.name, after=lineage.head().trained_id)
            rows.append((lineage.name, opened.spool.shape(lineage.name), opened.spool.classes(lineage.name), new))
    document = {
        "models": [
            {
                "name": name, "shape": list(shape.x), "classes": shape.classes, "samples": sum(c.samples for c in counts),
                "bytes": sum(c.bytes for c in counts), "new": new, "by_class": {str(c.cls): c.samples for c in counts},
            }
            for name, shape, counts, new in rows
        ]
    }  # fmt: skip
    cells = [(n, "target" if c.cls < 0 else c.cls, c.samples, c.bytes) for n, _, counts, _ in rows for c in counts]
    return Answer(document, table(("model", "class", "samples", "bytes"), cells) if cells else "no samples yet")
