"""Commands of a model's author: graft, which makes trainable files out of stock ones."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelwire import tflite_file
from modelwire.errors import BadArgument, MissingFile

from ..files import write_whole
from ..graft.grafting import Grafted, Wish, graft
from .answer import Answer, Document, facts


def graft_to(args: argparse.Namespace) -> Answer:
    """Put the signatures that train it onto a stock .tflite, without TensorFlow."""
    data = _read(args.file)
    wish = Wish(tuple(args.train), args.loss, args.optimizer, args.batch, args.target or "", Path(args.file).name)
    made = graft(data, wish)
    write_whole(Path(args.output), made.file)
    return Answer(_document(args, made, len(data)), _text(args, made, len(data)))


def _read(name: str) -> bytes:
    path = Path(name)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MissingFile(path=path, what="the model file") from None
    except OSError as error:
        raise BadArgument(reason=f"{path} can't be read: {error.strerror}", fix="name a .tflite file") from error


def _document(args: argparse.Namespace, made: Grafted, before: int) -> Document:
    fixed = tflite_file.contract(made.file)
    return {
        "file": args.output, "bytes": len(made.file), "stock": args.file, "stock_bytes": before, "stock_sha256": made.stock.sha256,
        "batch": fixed.batch, "x": list(fixed.x_shape), "y": list(fixed.y_shape), "loss": made.loss, "optimizer": args.optimizer,
        "weights": {v.name: list(v.shape) for v in tflite_file.read_variables(made.file)},
        "layers": [layer.name for layer in made.layers], "features": made.features, "signatures": list(made.signatures),
    }  # fmt: skip


def _text(args: argparse.Namespace, made: Grafted, before: int) -> str:
    fixed = tflite_file.contract(made.file)
    entries = sum(layer.entries(made.stock) for layer in made.layers)
    names = {"ce": "cross-entropy", "binary": "binary cross-entropy", "mse": "mean squared error"}
    return facts(
        (
            ("file", args.output), ("bytes", f"{len(made.file)} ({before} before)"),
            ("trains", f"{entries} weights in {', '.join(layer.name for layer in made.layers)}"),
            ("loss", names[made.loss]), ("optimizer", args.optimizer),
            ("batch", f"{fixed.batch} of x {list(fixed.x_shape)}, y {list(fixed.y_shape)}"),
            ("features", made.features or "none: the trained layers see the input itself, or see it in several places"),
            ("signatures", ", ".join(made.signatures)),
        )
    )  # fmt: skip
