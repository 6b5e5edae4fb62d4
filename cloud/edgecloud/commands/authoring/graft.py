"""`edgecloud graft`: a stock model becomes trainable."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from edgecloud.graft.grafting import graft
from edgecommon.files import write_named
from edgecommon.printing import Answer

from ..model_files import read_file, require_another
from ..rehearsals import add_rehearsal
from .deepest import rehearse_graft
from .grafts import add_graft, describe, in_words, wish_of

NAME = "graft"
HELP = "Put the signatures that train it onto a stock .tflite, without TensorFlow."
EXAMPLES = (
    "edgecloud graft stock.tflite -o trainable.tflite",
    "edgecloud graft mobilenet.tflite --train last:3 --batch 8 -o doorbell.tflite",
    "edgecloud graft mobilenet.tflite --train all --modes head last:3 --optimizer adam -o doorbell.tflite",
    "edgecloud graft vibration.tflite --train all --loss mse --optimizer adam --score -o turbine.tflite",
    "edgecloud graft visitors.tflite --add-class postman --add-class cat -o visitors2.tflite",
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="STOCK.tflite", help="an inference-only float32 or float16 model of one input")
    add_graft(parser)
    add_rehearsal(parser)


def run(args: argparse.Namespace) -> Answer:
    require_another(args.file, args.output)
    data = read_file(args.file)
    wish = wish_of(args)
    made = graft(data, wish)
    ran = rehearse_graft(args, made, data, wish)
    write_named(Path(args.output), ran.file)
    made = replace(made, file=ran.file)
    return Answer({**describe(args, made, data), **ran.document()}, in_words(args, made, len(data), ran.words()))
