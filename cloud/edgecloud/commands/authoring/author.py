"""`edgecloud author`: a Keras model becomes a trainable file."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecloud.author import author
from edgecommon.files import write_named
from edgecommon.printing import Answer

from ..model_files import require_another
from .grafts import add_graft, describe, in_words, wish_of

NAME = "author"
HELP = "Make a trainable .tflite of a Keras model, with TensorFlow."
EXAMPLES = (
    "edgecloud author doorbell.keras --train last:3 --optimizer momentum -o doorbell.tflite",
    "edgecloud author exported/ --train all --modes head last:3 --batch 8 -o doorbell.tflite --json",
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="MODEL", help="a .keras or .h5 file, or the folder of a SavedModel; needs the extra [author]")
    add_graft(parser)


def run(args: argparse.Namespace) -> Answer:
    require_another(args.file, args.output)
    made = author(args.file, wish_of(args))
    write_named(Path(args.output), made.file)
    document = {**describe(args, made.grafted, made.stock), "difference": made.difference}
    return Answer(document, in_words(args, made.grafted, len(made.stock)))
