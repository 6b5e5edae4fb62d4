"""What `inspect`, `graft` and `author` share: the arguments of a graft, and what is said of one."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from edgecloud.graft.costs import GraftCost, cost
from edgecloud.graft.grafting import Grafted, Wish
from edgecloud.graft.loss import LOSSES
from edgecloud.graft.optimizers import OPTIMIZERS
from edgecommon.arguments import whole
from modelwire.tflite import file as tflite_file
from modelwire.tflite.notes import THRESHOLD

from ..answer import Document, facts, table


def add_step(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what a training step is."""
    parser.add_argument(
        "--loss", choices=LOSSES, default="auto", help="auto: cross-entropy behind a softmax or logistic, else mse (default)"
    )
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd", help="default: sgd; the others keep slots in the file")
    parser.add_argument("--batch", type=whole(1, 65536), default=16, metavar="B", help="samples of one training step (default: 16)")
    parser.add_argument("--target", metavar="OUTPUT", help="which of several outputs is trained (default: the first)")
    parser.add_argument("--signature", metavar="NAME", help="which signature of the file is meant (default: the first subgraph)")
    parser.add_argument(
        "--input-size", type=_axes, default=(), metavar="N,N,N",
        help="the axes of one sample, of a file that leaves its input's size open: 96,96,3",
    )  # fmt: skip


def _axes(text: str) -> tuple[int, ...]:
    size = whole(1, 1 << 24)
    return tuple(size(each) for each in text.split(","))


def add_graft(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what is to be made trainable."""
    parser.add_argument(
        "--train", nargs="+", default=["head"], metavar="LAYER",
        help="the deepest mode: head, last:N, all, or names of layers or weights as `edgecloud inspect` lists them (default: head)",
    )  # fmt: skip
    parser.add_argument(
        "--modes", nargs="+", default=[], metavar="MODE",
        help="cheaper modes in the same file, between which the board chooses by its budget: head, last:N, or the name of a layer",
    )  # fmt: skip
    add_step(parser)
    parser.add_argument("--add-class", action="append", default=[], metavar="NAME", help="a class to learn besides; may be repeated")
    parser.add_argument(
        "--score", action="store_true", help="let an auto-encoder score samples, against a threshold that the device learns"
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the trainable .tflite to write; replaced whole")


def wish_of(args: argparse.Namespace) -> Wish:
    """Return what the command line asks of a graft."""
    return Wish(
        train=tuple(args.train), modes=tuple(args.modes), loss=args.loss, optimizer=args.optimizer, batch=args.batch,
        output=args.target or "", signature=args.signature or "", size=args.input_size,
        add_classes=tuple(args.add_class), score=args.score, model=Path(args.file).name,
    )  # fmt: skip


def describe(args: argparse.Namespace, made: Grafted, data: bytes) -> Document:
    """Return what a document says of a file that was made trainable. data: the stock file."""
    fixed = tflite_file.contract(made.file)
    return {
        "file": args.output, "bytes": len(made.file),
        "stock": args.file, "stock_bytes": len(data), "stock_sha256": hashlib.sha256(data).hexdigest(),
        "batch": fixed.batch, "x": list(fixed.x_shape), "y": list(fixed.y_shape), "loss": made.loss, "optimizer": args.optimizer,
        "weights": {v.name: list(v.shape) for v in tflite_file.read_variables(made.file)},
        "layers": [layer.name for layer in made.layers], "features": made.features, "signatures": list(made.signatures),
        "modes": [
            {"mode": m.name, "signature": m.signature, "weights": list(m.weights), **describe_cost(cost(made.graphs[m.name]))}
            for m in made.modes
        ],
        "inputs": [asdict(p) for p in made.parts], "labels": {name: list(lines) for name, lines in made.labels.items()},
        "head": None if made.output_head is None else asdict(made.output_head), "score": args.score,
        "stored": dict(made.stored), "once_a_sample": made.singly,
    }  # fmt: skip


def describe_cost(cost: GraftCost | None) -> Document:
    """Return what a document says of the cost of a step."""
    if cost is None:
        return {"operators": None, "multiplications": None, "peak_bytes": None, "constant_bytes": None, "process_bytes": None}
    return {
        "operators": cost.operators, "multiplications": cost.multiplications, "peak_bytes": cost.peak_bytes,
        "constant_bytes": cost.constant_bytes, "process_bytes": cost.process_bytes,
    }  # fmt: skip


def in_words(args: argparse.Namespace, made: Grafted, before: int, more: Iterable[tuple[str, str]] = ()) -> str:
    """Return the same as text. before: bytes of the stock file. more: facts to add."""
    fixed = tflite_file.contract(made.file)
    entries = sum(layer.entries(made.stock) for layer in made.layers)
    names = {"ce": "cross-entropy", "binary": "binary cross-entropy", "mse": "mean squared error"}
    said = facts(
        (
            ("file", args.output), ("bytes", f"{len(made.file)} ({before} before)"),
            ("trains", f"{entries} weights in {', '.join(layer.name for layer in made.layers)}"),
            ("loss", names[made.loss]), ("optimizer", args.optimizer),
            ("x holds", " | ".join(f"{p.name} {p.type}{list(p.shape)}" for p in made.parts)),
            ("batch", f"{fixed.batch} of x {list(fixed.x_shape)}, y {list(fixed.y_shape)}"),
            ("features", made.features or "none: the trained layers see the input itself, or see it in several places"),
            ("head", "one that trains with the same bits everywhere" if made.output_head else ""),
            ("score", f"compared with the weight {THRESHOLD}" if args.score else ""),
            ("stored", ", ".join(f"{name} as {how}" for name, how in made.stored.items())),
            ("once a sample", f"{made.singly} operators, which take no batch" if made.singly else ""),
            ("signatures", ", ".join(made.signatures)), *more,
        )
    )  # fmt: skip
    if len(made.modes) == 1:
        return said
    rows = [(m.name, m.signature, len(m.weights), f"{cost(made.graphs[m.name]).process_bytes / 2**20:.1f}") for m in made.modes]
    return f"{said}\n\n{table(('mode', 'signature', 'tensors', 'MiB, estimated'), rows)}"
