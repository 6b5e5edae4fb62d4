"""`edgecloud author`: a Keras model becomes a trainable file."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from edgecloud.author import author
from edgecommon.files import write_named
from edgecommon.printing import Answer

from ..model_files import require_another
from ..rehearsals import add_rehearsal
from .deepest import rehearse_graft
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
    add_rehearsal(parser)


def run(args: argparse.Namespace) -> Answer:
    require_another(args.file, args.output)
    wish = wish_of(args)
    made = author(args.file, wish)
    ran = rehearse_graft(args, made.grafted, made.stock, wish)
    write_named(Path(args.output), ran.file)
    grafted = replace(made.grafted, file=ran.file)
    document = {**describe(args, grafted, made.stock), "difference": made.difference, **ran.document()}
    return Answer(document, in_words(args, grafted, len(made.stock), ran.words()))
