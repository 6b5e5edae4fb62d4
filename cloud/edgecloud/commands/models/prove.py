"""`edgecloud prove`: a version as a file that proves itself to who has the fleet's public key and nothing of ours."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecloud.proving import assembling, making
from edgecloud.proving.verifier import proofs
from edgecloud.proving.verifier.encoding import sha, unzipped
from edgecloud.versions import materialise, naming
from edgecommon.files import write_named
from edgecommon.printing import Answer
from modelwire.errors import BadArgument

from ..answer import Document, registry_of, sentences

NAME = "prove"
HELP = "Write a proof of a version that anybody can check with one small program."
EXAMPLES = (
    "edgecloud prove pi-7@12 -o proof.zip",
    "edgecloud prove pi-7/digits@12 -o proof.zip --tensor output_kernel",
    "edgecloud prove --verifier verify_proof.py",
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="DEVICE[/MODEL][@VERSION]", help="without a version: the latest")
    parser.add_argument("-o", "--output", metavar="FILE.zip", help="the proof; replaced whole")
    parser.add_argument("--tensor", metavar="NAME", help="prove one tensor in the place of the whole file")
    parser.add_argument("--verifier", metavar="FILE.py", help="write the program that checks proofs; it needs numpy and cryptography")


def run(args: argparse.Namespace) -> Answer:
    if (args.name is None) != (args.output is None) or (args.name is None and args.verifier is None):
        raise BadArgument(reason="a version and a file belong together", fix="edgecloud prove DEVICE@VERSION -o proof.zip")
    document: Document = {}
    lines = []
    if args.name is not None:
        data = _proof(args)
        write_named(Path(args.output), data)
        index = proofs.read_index(unzipped(data))
        document = {"file": args.output, "bytes": len(data), "sha256": sha(data), **index}
        lines = [f"{args.output}: {len(data)} bytes prove {index['name']}", *index["says"]]
        lines.append(f"python verify_proof.py {args.output} --fleet fleet.pub checks it; edgecloud prove --verifier writes that program")
    if args.verifier is not None:
        text = assembling.verify_proof_py().encode()
        write_named(Path(args.verifier), text)
        document |= {"verifier": args.verifier, "verifier_sha256": sha(text)}
        lines.append(f"{args.verifier}: give it to who checks, apart from any proof; its SHA-256 is {sha(text).hex()}")
    return Answer(document, sentences(lines))


def _proof(args: argparse.Namespace) -> bytes:
    with registry_of(args) as store, store.database.reading():
        place = naming.find(store, naming.parse(args.name))
        if place.version is None:
            raise BadArgument(reason=f"{place} is the base, which no device made", fix="name a version that edgecloud log lists")
        return making.proof_of(store, place.version, materialise.LoadedBases(store), tensor=args.tensor)
