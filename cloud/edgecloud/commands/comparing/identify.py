"""`edgecloud identify`: whose model a file is."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecloud.searching import identify
from edgecloud.searching.identify import Identified
from edgecommon.printing import Answer

from ..answer import Document, progress, registry_of, sentences, table
from ..model_files import read_model
from .nearest import COLUMNS, documented, notes, rows

NAME = "identify"
HELP = "Say whose model a .tflite file is, and which version; else the nearest."
EXAMPLES = ("edgecloud identify found.tflite", "edgecloud identify found.tflite --json")
NAMED = 20  # versions with the same weights that are listed in words


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.tflite")


def run(args: argparse.Namespace) -> Answer:
    file = read_model(args.file)
    with registry_of(args) as store:
        found = identify.identify(store, file, name=str(args.file), progress=progress("versions"))
    document: Document = {
        "file": str(args.file), "base": found.base, "same_file": found.same_file, "is_base": found.is_base,
        "versions": [str(one) for one in found.owners], "off_lattice": found.off_lattice,
        "nearest": documented(found.search)["nearest"] if found.search is not None else [],
    }  # fmt: skip
    return Answer(document, _text(args.file, found))


def _text(path: Path, found: Identified) -> str:
    lines: list[str] = []
    if found.is_base:
        lines.append(f"{path} is the base {found.base!r}: its weights are the base's, bit for bit.")
    if found.owners:
        more = f", and {len(found.owners) - NAMED} more" if len(found.owners) > NAMED else ""
        names = ", ".join(str(one) for one in found.owners[:NAMED])
        lines.append(f"{path} is {names}{more}: its weights are that version's, bit for bit.")
    if not found.is_base and not found.owners:
        lines.append(f"{path} is of the base {found.base!r}, and no version in this registry has its weights.")
    if not found.same_file:
        lines.append("What of it is not weights is not the base's file, byte for byte: who made it changed more than the weights.")
    if found.search is None:
        return sentences(lines)
    if found.off_lattice:
        lines.append(f"{found.off_lattice} weights lie off the lattice or beyond it, which no device sends; points near by stood in.")
    lines += notes(found.search)
    return "\n".join([sentences(lines), "", table(COLUMNS, rows(found.search), title="nearest")])
