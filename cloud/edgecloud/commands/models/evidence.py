"""`edgecloud evidence`: all that the signed log holds of a device, as a file that anybody can check."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecloud.proving import telling
from edgecommon.files import streamed
from edgecommon.printing import Answer

from ..answer import Document, registry_of, sentences

NAME = "evidence"
HELP = "Write what the signed log holds of a device: approvals, versions, their figures."
EXAMPLES = ("edgecloud evidence pi-7 -o pi-7.evidence", "edgecloud evidence pi-7 -o pi-7.evidence --json")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="JSON lines; written whole or not at all, and replaced")


def run(args: argparse.Namespace) -> Answer:
    path, count, versions = Path(args.output), 0, 0
    with registry_of(args) as store, store.database.reading(), streamed(path, mode=0o644) as beside:
        with beside.open("w", encoding="ascii", newline="\n") as out:
            for line in telling.evidence_lines(store, args.device):
                out.write(line + "\n")
                count, versions = count + 1, versions + line.startswith(('{"extension":', '{"lost":'))
        size = beside.stat().st_size
    document: Document = {"device": args.device, "file": str(path), "lines": count, "versions": versions, "bytes": size}
    text = f"{path}: {versions} versions of {args.device} and the log that enters them, {size} bytes; python verify_proof.py checks it"
    return Answer(document, sentences([text]))
