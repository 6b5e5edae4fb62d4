"""`edgecloud int8-head`: expose shows what the last layer of an int8 classifier sees, fit retrains it and puts it in place."""

from __future__ import annotations

import argparse
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecloud.graft import retraining
from edgecloud.graft.grafting import output_named
from edgecloud.graft.stock import Stock, consistent, read
from edgecommon.files import write_named
from edgecommon.printing import Answer
from modelwire import limits
from modelwire.errors import BadArgument, MissingFile, TooLarge
from modelwire.tflite import int8_finder
from modelwire.tflite.file import read_head, read_weights
from modelwire.tflite.int8_head import LOGISTIC, MSE, SOFTMAX, Int8Head
from modelwire.tflite.int8_numbers import F64, features_of, layer_of

from ..answer import Document, facts
from ..model_files import read_file, require_another
from ..verb import Verb

NAME = "int8-head"
HELP = "The head of an int8 model, retrained in place."
EXAMPLES = ("edgecloud int8-head expose wakeword.tflite -o seen.tflite",)

LOSSES = (SOFTMAX, LOGISTIC, MSE)
HELD_OUT = 4  # one row of so many judges the fit


def _expose_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.tflite", help="a model of int8, with or without state from call to call")
    parser.add_argument("--target", metavar="OUTPUT", help="which of several outputs (default: the first)")
    parser.add_argument("--loss", choices=LOSSES, help="what a head without softmax or logistic learns by on devices (default: mse)")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write; replaced whole")


def expose(args: argparse.Namespace) -> Answer:
    with consistent(Path(args.file).name):
        stock, head = _head(args)
        note = int8_finder.note(args.loss, head.output if args.target else None) if args.loss or args.target else b""
        file = retraining.exposing(stock, head.seen, note)
        if note:  # devices will read it: what they would refuse is not written
            read_head(file, model=Path(args.file).name)
    write_named(Path(args.output), file)
    tensor = stock.tensors[head.seen]
    document: Document = {
        "file": args.output, "bytes": len(file), "output": len(stock.outputs), "tensor": tensor.name, "shape": list(tensor.shape),
        "scale": head.feature_scale, "zero": head.feature_zero,
    }  # fmt: skip
    place = f"number {len(stock.outputs)}, int{16 if head.wide else 8}{list(tensor.shape)}: {tensor.name}"
    return Answer(document, facts((("file", args.output), ("bytes", len(file)), ("output", place))))


def _fit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.tflite", help="the classifier whose head is retrained")
    parser.add_argument("rows", metavar="ROWS.npz", help="x: rows that the exposed model gave, int8 or what they stand for; y: the classes")
    parser.add_argument("--target", metavar="OUTPUT", help="which of several outputs (default: the first)")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write; replaced whole")


def fit(args: argparse.Namespace) -> Answer:
    with consistent(Path(args.file).name):
        stock, head = _head(args)
        rows, labels = _rows(Path(args.rows), head.features)
        features = features_of(head, rows) if rows.dtype == (np.int16 if head.wide else np.int8) else rows.astype(np.float64)
        retraining.check(head, features, labels)
        # Shuffled, and the same each time: rows often come in the order of their classes.
        held = np.random.default_rng(0).permutation(len(features)) % HELD_OUT == HELD_OUT - 1
        kernel, bias = retraining.fit(head, features[~held], labels[~held])
        made = retraining.put(stock.data, head, kernel, bias, features)
        right = _accuracy(features[held], labels[held], kernel, bias)
        before, stored = (_accuracy(features[held], labels[held], *_layer_in(file, head)) for file in (stock.data, made.file))
    write_named(Path(args.output), made.file)
    document: Document = {
        "file": args.output, "bytes": len(made.file), "changed_bytes": made.changed, "rescaled": made.rescaled, "rows": len(rows),
        "held_out": int(held.sum()), "accuracy_before": before, "accuracy_float": right, "accuracy": stored,
    }  # fmt: skip
    text = facts(
        (
            ("file", args.output), ("bytes", f"{len(made.file)}, {made.changed} of them changed"),
            ("scales", "new: the weights did not fit the old ones" if made.rescaled else "kept"),
            ("held-out rows", f"{held.sum()} of {len(rows)}"),
            ("accuracy", f"{stored:.3f} as int8, {right:.3f} as float, {before:.3f} before" if held.any() else ""),
        )
    )  # fmt: skip
    return Answer(document, text)


def _head(args: argparse.Namespace) -> tuple[Stock, Int8Head]:
    require_another(args.file, args.output)
    name = Path(args.file).name
    stock = read(read_file(args.file), name)
    return stock, retraining.int8_head_of(stock, output_named(stock, args.target) if args.target else stock.outputs[0], model=name)


def _layer_in(file: bytes, head: Int8Head) -> tuple[F64, F64]:
    """Return (kernel, bias) as the file holds them. file: the head's, or one with another head in its place."""
    weights = read_weights(retraining.trainable(file, head))
    return layer_of(head.with_weights(weights), weights)


def _rows(path: Path, size: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    try:
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(each.file_size for each in packed.infolist())
        if unpacked > limits.DEFAULT.model_file:
            raise TooLarge(what=path, size=unpacked, limit=limits.DEFAULT.model_file)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("x", "y") if name in file.files}
    except FileNotFoundError:
        raise MissingFile(path=path, what="the file of rows") from None
    except (OSError, ValueError, EOFError, MemoryError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise BadArgument(reason=f"{path} is no .npz file of arrays", fix="numpy.savez('rows.npz', x=rows, y=labels)") from error
    if set(arrays) != {"x", "y"} or arrays["x"].ndim < 1 or arrays["y"].dtype.kind not in "iu" or arrays["y"].ndim != 1:
        raise BadArgument(reason=f"{path} does not hold rows x and whole numbers y", fix="numpy.savez('rows.npz', x=rows, y=labels)")
    x, y = arrays["x"], arrays["y"].astype(np.int64)
    if len(x) != len(y) or x.dtype.kind not in "if" or x.size != len(x) * size:
        reason = f"{path}: x is {x.dtype}{list(x.shape)}; int8[{len(y)}, {size}] is needed"
        raise BadArgument(reason=reason, fix="run the file that edgecloud int8-head expose writes: its last output gives rows")
    if not len(x):
        raise BadArgument(reason=f"{path} holds no rows", fix="numpy.savez('rows.npz', x=rows, y=labels)")
    return x.reshape(len(x), size), y


def _accuracy(features: F64, labels: NDArray[np.int64], kernel: F64, bias: F64) -> float | None:
    if not len(labels):
        return None
    z = features @ kernel.T + bias
    said = (z[:, 0] > 0).astype(np.int64) if z.shape[1] == 1 else z.argmax(1)
    return float((said == labels).mean())


VERBS = (
    Verb(
        "expose", "Write an int8 model with what its head sees as one output more: run it to gather rows for `int8-head fit`.",
        ("edgecloud int8-head expose wakeword.tflite -o seen.tflite",), expose, _expose_arguments,
    ),
    Verb(
        "fit", "Retrain the head of an int8 model on rows of what it sees, and write the model with it: of the same size.",
        ("edgecloud int8-head fit wakeword.tflite rows.npz -o newword.tflite",), fit, _fit_arguments,
    ),
)  # fmt: skip
