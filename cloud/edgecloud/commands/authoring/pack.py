"""`edgecloud pack`: a file that a converter made becomes one to deploy."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from edgecloud.graft.packing import pack
from edgecommon.files import write_named
from edgecommon.printing import Answer
from modelwire.tflite import file as tflite_file

from ..answer import Document, facts
from ..model_files import read_file, require_another
from ..rehearsals import add_rehearsal, rehearse

NAME = "pack"
HELP = "Make a trainable .tflite ready to deploy: checked, each initial value in a buffer of its own, its notes written."
EXAMPLES = ("edgecloud pack converted.tflite -o doorbell.tflite", "edgecloud pack converted.tflite --name doorbell -o doorbell.tflite")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.tflite", help="a model with train signatures, as a converter made it")
    parser.add_argument("--name", help="a name for people, written into the file")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write; replaced whole")
    add_rehearsal(parser)


def run(args: argparse.Namespace) -> Answer:
    require_another(args.file, args.output)
    data = read_file(args.file)
    made = pack(data, name=args.name or "", model=Path(args.file).name)
    ran = rehearse(args, made.file, stock=None, model=Path(args.file).name)
    made = replace(made, file=ran.file, changed=made.changed or ran.file != made.file)
    write_named(Path(args.output), made.file)
    fixed = tflite_file.contract(made.file)
    weights = {v.name: list(v.shape) for v in tflite_file.read_variables(made.file)}
    document: Document = {
        "file": args.output, "bytes": len(made.file), "changed": made.changed, "separated": list(made.separated),
        "renamed": dict(made.renamed), "batch": fixed.batch, "x": list(fixed.x_shape), "y": list(fixed.y_shape), "weights": weights,
        **ran.document(),
    }  # fmt: skip
    text = facts(
        (
            ("file", args.output), ("bytes", f"{len(made.file)} ({len(data)} before)"),
            ("buffers of their own", ", ".join(made.separated)),
            ("renamed", ", ".join(f"{a} -> {b}" for a, b in made.renamed.items())), ("weights", ", ".join(weights)),
            ("batch", f"{fixed.batch} of x {list(fixed.x_shape)}, y {list(fixed.y_shape)}"), *ran.words(),
        )
    )  # fmt: skip
    return Answer(document, text)
