"""`edgecloud materialise`: a version's weights as a file."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from edgecloud.feasibility import fitness
from edgecloud.versions import exporting, materialise, naming
from edgecommon.printing import Answer
from modelwire.errors import BadArgument

from ..answer import Document, facts, registry_of

NAME = "materialise"
HELP = "Write a version's weights to a file: exact and proven, or nothing."
EXAMPLES = (
    "edgecloud materialise pi-7@12 -o model.tflite",
    "edgecloud materialise pi-7/digits -o weights.npz",
    "edgecloud materialise pi-7@latest -o weights.safetensors",
    "edgecloud materialise pi-7@latest --fit-only -o model.tflite",
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE[/MODEL][@VERSION]", help="without a version: the latest")
    what = "refuse a version that says more than the centre finds, or that was never scored: edgecloud matrix"
    parser.add_argument("--fit-only", action="store_true", help=what)
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="FILE.tflite, FILE.npz or FILE.safetensors; replaced whole")


def run(args: argparse.Namespace) -> Answer:
    path = Path(args.output)
    if path.suffix not in exporting.FORMATS:
        raise BadArgument(reason=f"{path.name!r} names no format", fix="name the file FILE.tflite, FILE.npz or FILE.safetensors")
    with registry_of(args) as store:
        bases = materialise.LoadedBases(store)
        place = naming.find(store, naming.parse(args.name))
        base = bases[place.base]
        if args.fit_only and place.version is not None:
            fitness.require_fit(store, place.lineage, place.version)
        state = materialise.rebuild(store, place.version, bases) if place.version else base.state()
        commit = place.version.commit if place.version else place.base
        root = place.version.root if place.version else base.manifest.root  # proven on the way
        said = {"name": str(place), "commit": commit.hex(), "root": root.hex(), "base": place.base.hex()}
        data = exporting.export(path, state, base, said)
    digest = hashlib.sha256(data).digest()
    document: Document = {
        "name": str(place), "file": str(path), "format": path.suffix[1:], "bytes": len(data), "sha256": digest, "root": root,
        "commit": commit,
    }  # fmt: skip
    pairs = (("version", place), ("file", path), ("bytes", len(data)), ("sha256", digest.hex()), ("root", root.hex()))
    return Answer(document, facts(pairs))
