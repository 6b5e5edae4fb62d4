"""`edgecloud zoo`: what of a folder of models can be trained, tried on this machine's runtime."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from edgecloud.rehearsal import RehearsalLimits
from edgecloud.zoo import counting, running
from edgecloud.zoo.running import FileTried
from edgecommon.arguments import whole
from edgecommon.printing import Answer
from modelwire.errors import MissingFile

from ..answer import Document, facts, progress, table

NAME = "zoo"
HELP = "Try what of many models can be trained: each is grafted, run and trained here, and the table says what keeps the others out."
EXAMPLES = ("edgecloud zoo models/", "edgecloud zoo models/ --modes head last:3 all --json", "edgecloud zoo stock.tflite --seconds 300")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="FOLDER", help="folders of .tflite files, or files")
    parser.add_argument(
        "--modes", nargs="+", default=["head", "all"], metavar="MODE", help="what is trained of float models (default: head all)"
    )
    parser.add_argument("--batch", type=whole(1, 4096), default=2, metavar="B", help="samples of one training step (default: 2)")
    parser.add_argument(
        "--seconds", type=whole(1, 86_400), default=120, metavar="S", help="what one step of the trial of one file may take (default: 120)"
    )
    parser.add_argument(
        "--memory", type=whole(64, 1 << 20), default=4096, metavar="MIB", help="memory that the trial of one file may take (default: 4096)"
    )
    parser.add_argument("--jobs", type=whole(1, 64), default=1, metavar="N", help="files at a time (default: 1)")
    parser.add_argument("--no-rates", action="store_true", help="look for no learning rate: that a loss falls is then not known")


def run(args: argparse.Namespace) -> Answer:
    for path in args.paths:
        if not Path(path).exists():
            raise MissingFile(path=path, what="the folder of models")
    paths = running.found([Path(p) for p in args.paths])
    allowance = RehearsalLimits(memory=args.memory << 20, seconds=float(args.seconds))
    tried = running.tried(
        paths, args.modes, args.batch, allowance, rates=not args.no_rates, jobs=args.jobs, progress=progress("files", 10.0)
    )
    every = list(tried)
    total, rules = counting.totals(every), counting.missing(every)
    document: Document = {
        "files": [running.described(file) for file in every], "missing_rules": [asdict(rule) for rule in rules], "totals": asdict(total),
    }  # fmt: skip
    parts = [table(("file", "kind", "mode", "result", "why"), _rows(every))]
    if rules:
        columns = ("missing rule", "unlocks", "keeps out", "why")
        title = "what keeps files from being trained whole: files that a rule alone would unlock, and those that it is among the reasons of"
        parts.append(table(columns, [(r.operator, r.unlocks, r.blocks, r.why) for r in rules], title=title))
    parts.append(_summed(total))
    return Answer(document, "\n\n".join(parts))


def _rows(every: Sequence[FileTried]) -> list[tuple[str, str, str, str, str]]:
    rows = []
    for file in every:
        name = f"{file.path.parent.name}/{file.path.name}"
        if file.runs is False or not file.modes:
            rows.append((name, file.kind, "", "not run" if file.runs is False else "not read", file.reason))
        rows += [(name, file.kind, m.mode, m.came, m.reason) for m in file.modes]
    return rows


def _summed(total: counting.Totals) -> str:
    return facts(
        (
            ("files", f"{total.files}, of which the runtime here runs {total.files - total.unread}"),
            ("float, head learns", f"{total.float_head_ok} of {total.float_files}"),
            ("float, all learns", f"{total.float_all_ok} of {total.float_files}"),
            ("int8 learns", f"{total.int8_ok} of {total.int8_files}"), ("made and broken", str(total.broken)),
        )
    )  # fmt: skip
