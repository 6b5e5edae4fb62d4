"""Commands of a model's author: inspect looks at a .tflite; graft, author and pack make a trainable one, each of something else."""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import asdict
from pathlib import Path

from edgecloud.author import author
from edgecloud.files import write_whole
from edgecloud.graft.costs import Cost, cost
from edgecloud.graft.grafting import Grafted, Wish, graft
from edgecloud.graft.inspecting import Looked, look
from edgecloud.graft.packing import pack
from edgecloud.graft.writing import ops
from modelwire import limits
from modelwire.errors import BadArgument, MissingFile, TooLarge
from modelwire.tflite import file as tflite_file
from modelwire.tflite.notes import THRESHOLD, Notes

from .. import int8_heads
from ..answer import Answer, Document, facts, table


def inspect(args: argparse.Namespace) -> Answer:
    """Say what a .tflite holds, what of it can be trained and why not, and what a training step would take."""
    if args.gmacs is not None and not 0 < args.gmacs < 1e6:
        raise BadArgument(reason=f"{args.gmacs} thousand million multiplications a second", fix="--gmacs 4.5")
    wish = Wish(loss=args.loss, optimizer=args.optimizer, batch=args.batch, output=args.target or "", model=Path(args.file).name)
    data = read_file(args.file)
    found = look(data, wish, rate=1e9 * (args.gmacs or 0))
    head, why = int8_heads.found(data, wish.model)
    document: Document = {
        "file": args.file, "bytes": len(found.stock.data), "sha256": found.stock.sha256, "signatures": list(found.signatures),
        "inputs": _tensors(found, found.stock.inputs), "outputs": _tensors(found, found.stock.outputs), "reason": found.reason,
        "operators": [{"operator": name, "count": n, "gradient": rule} for name, n, rule in found.operators],
        "layers": [
            {"name": one.name, "kind": one.kind, "operator": one.operator,
             "weights": {name: list(found.stock.tensors[t].shape) for name, t in one.weights.items()}}
            for one in found.layers
        ],
        "int8_head": int8_heads.describe(head), "int8_head_reason": why,
        "batch": _batch(args, found), "multiplications_per_second": found.rate,
        "head": None if found.notes is None or found.notes.head is None else asdict(found.notes.head),
        "score": found.notes is not None and found.notes.score,
        "modes": [
            {"mode": m.name, "layers": m.layers or None, "weights": m.entries, "reason": m.reason, "milliseconds": m.milliseconds or None,
             **_cost(m.cost)}
            for m in found.modes
        ],
    }  # fmt: skip
    return Answer(document, _inspected(args, found, int8_heads.say(head) if head is not None else why and f"not as it is: {why}"))


def _tensors(found: Looked, which: tuple[int, ...]) -> list[Document]:
    tensors = [found.stock.tensors[t] for t in which]
    return [{"name": t.name, "shape": list(t.shape), "type": ops.TYPE_NAMES.get(t.type, str(t.type))} for t in tensors]


def _cost(cost: Cost | None) -> Document:
    if cost is None:
        return {"operators": None, "multiplications": None, "peak_bytes": None, "constant_bytes": None}
    return {
        "operators": cost.operators, "multiplications": cost.multiplications, "peak_bytes": cost.peak_bytes,
        "constant_bytes": cost.constant_bytes,
    }  # fmt: skip


def _inspected(args: argparse.Namespace, found: Looked, int8: str) -> str:
    stock, mib = found.stock, 1024 * 1024
    ends = [", ".join(f"{t['type']}{t['shape']}" for t in _tensors(found, which)) for which in (stock.inputs, stock.outputs)]
    lines = [
        facts(
            (
                ("file", args.file), ("bytes", len(stock.data)), ("signatures", ", ".join(found.signatures)), ("takes", ends[0]),
                ("gives", ends[1]), ("can't be grafted" if int8 else "can't be trained", found.reason), ("int8 head", int8),
                *_noted(found.notes),
            )
        ),
        table(("operator", "count", "gradient"), [(name, n, "yes" if rule else "no") for name, n, rule in found.operators]),
    ]  # fmt: skip
    if found.layers:
        weights = [" ".join(f"{n}{list(stock.tensors[t].shape)}" for n, t in one.weights.items()) for one in found.layers]
        rows = [(one.name, one.kind, said) for one, said in zip(found.layers, weights, strict=True)]
        lines.append(table(("layer", "operator", "weights"), rows))
    if found.modes:
        modes = [
            (m.name, m.layers or "", m.entries, f"{m.cost.peak_bytes / mib:.2f}", f"{m.milliseconds:.3g}", "") if m.cost is not None
            else (m.name, m.layers, m.entries, "", "", m.reason)
            for m in found.modes
        ]  # fmt: skip
        title = f"a step of {_batch(args, found)} samples, at {found.rate / 1e9:.1f} thousand million multiplications a second"
        lines.append(table(("mode", "layers", "weights", "MiB alive", "ms, estimated", "why not"), modes, title=title))
    return "\n\n".join(lines)


def _batch(args: argparse.Namespace, found: Looked) -> int:
    """Return the samples of one step: of a trainable file, those that it was made for."""
    return int(args.batch) if found.notes is None else tflite_file.contract(found.stock.data).batch


def _noted(notes: Notes | None) -> tuple[tuple[str, str], ...]:
    if notes is None:
        return ()
    dense = "" if notes.head is None else f"{len(notes.head.layers)} dense on {notes.head.features} features, {notes.head.loss}"
    return (("optimizer", notes.optimizer), ("head", dense), ("score", f"against {THRESHOLD}" if notes.score else ""))


def graft_to(args: argparse.Namespace) -> Answer:
    """Put the signatures that train it onto a stock .tflite, without TensorFlow."""
    data = read_file(args.file)
    made = graft(data, wish_of(args))
    write_whole(Path(args.output), made.file)
    return Answer(_document(args, made, data), _text(args, made, len(data)))


def author_to(args: argparse.Namespace) -> Answer:
    """Make a trainable .tflite of a Keras model, with TensorFlow."""
    made = author(args.file, wish_of(args))
    write_whole(Path(args.output), made.file)
    document = {**_document(args, made.grafted, made.stock), "difference": made.difference}
    return Answer(document, _text(args, made.grafted, len(made.stock)))


def wish_of(args: argparse.Namespace) -> Wish:
    """Return what the command line asks of a graft."""
    return Wish(
        train=tuple(args.train), modes=tuple(args.modes), loss=args.loss, optimizer=args.optimizer, batch=args.batch,
        output=args.target or "", add_classes=tuple(args.add_class), score=args.score, model=Path(args.file).name,
    )  # fmt: skip


def pack_to(args: argparse.Namespace) -> Answer:
    """Make a trainable .tflite ready to deploy: checked, each initial value in a buffer of its own, its notes written."""
    data = read_file(args.file)
    made = pack(data, name=args.name or "", model=Path(args.file).name)
    write_whole(Path(args.output), made.file)
    fixed = tflite_file.contract(made.file)
    weights = {v.name: list(v.shape) for v in tflite_file.read_variables(made.file)}
    document: Document = {
        "file": args.output, "bytes": len(made.file), "changed": made.changed, "separated": list(made.separated),
        "renamed": dict(made.renamed), "batch": fixed.batch, "x": list(fixed.x_shape), "y": list(fixed.y_shape), "weights": weights,
    }  # fmt: skip
    text = facts(
        (
            ("file", args.output), ("bytes", f"{len(made.file)} ({len(data)} before)"),
            ("buffers of their own", ", ".join(made.separated)),
            ("renamed", ", ".join(f"{a} -> {b}" for a, b in made.renamed.items())), ("weights", ", ".join(weights)),
            ("batch", f"{fixed.batch} of x {list(fixed.x_shape)}, y {list(fixed.y_shape)}"),
        )
    )  # fmt: skip
    return Answer(document, text)


def read_file(name: str) -> bytes:
    """Return the bytes of a model file that the command line names."""
    path, limit = Path(name), limits.DEFAULT.model_file
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)  # what has no end, as a device, ends here
    except FileNotFoundError:
        raise MissingFile(path=path, what="the model file") from None
    except OSError as error:
        raise BadArgument(reason=f"{path} can't be read: {error.strerror}", fix="name a .tflite file") from error
    if len(data) > limit:
        raise TooLarge(what=path, size=f"more than {limit}", limit=limit)
    if data[4:8] != b"TFL3":
        raise BadArgument(reason=f"{path} is no .tflite: it does not carry the mark TFL3", fix="name a .tflite file, whole as it was made")
    return data


def _document(args: argparse.Namespace, made: Grafted, data: bytes) -> Document:
    fixed = tflite_file.contract(made.file)
    return {
        "file": args.output, "bytes": len(made.file),
        "stock": args.file, "stock_bytes": len(data), "stock_sha256": hashlib.sha256(data).hexdigest(),
        "batch": fixed.batch, "x": list(fixed.x_shape), "y": list(fixed.y_shape), "loss": made.loss, "optimizer": args.optimizer,
        "weights": {v.name: list(v.shape) for v in tflite_file.read_variables(made.file)},
        "layers": [layer.name for layer in made.layers], "features": made.features, "signatures": list(made.signatures),
        "modes": [
            {"mode": m.name, "signature": m.signature, "weights": list(m.weights), **_cost(cost(made.graphs[m.name]))} for m in made.modes
        ],
        "head": None if made.head is None else asdict(made.head), "score": args.score,
    }  # fmt: skip


def _text(args: argparse.Namespace, made: Grafted, before: int) -> str:
    fixed = tflite_file.contract(made.file)
    entries = sum(layer.entries(made.stock) for layer in made.layers)
    names = {"ce": "cross-entropy", "binary": "binary cross-entropy", "mse": "mean squared error"}
    said = facts(
        (
            ("file", args.output), ("bytes", f"{len(made.file)} ({before} before)"),
            ("trains", f"{entries} weights in {', '.join(layer.name for layer in made.layers)}"),
            ("loss", names[made.loss]), ("optimizer", args.optimizer),
            ("batch", f"{fixed.batch} of x {list(fixed.x_shape)}, y {list(fixed.y_shape)}"),
            ("features", made.features or "none: the trained layers see the input itself, or see it in several places"),
            ("head", "one that trains with the same bits everywhere" if made.head else ""),
            ("score", f"compared with the weight {THRESHOLD}" if args.score else ""),
            ("signatures", ", ".join(made.signatures)),
        )
    )  # fmt: skip
    if len(made.modes) == 1:
        return said
    rows = [(m.name, m.signature, len(m.weights), f"{cost(made.graphs[m.name]).peak_bytes / 2**20:.2f}") for m in made.modes]
    return f"{said}\n\n{table(('mode', 'signature', 'tensors', 'MiB alive'), rows)}"
