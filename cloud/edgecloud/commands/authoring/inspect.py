"""`edgecloud inspect`: what a model file holds, and what of it can be trained."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from edgecloud.graft.grafting import Wish
from edgecloud.graft.inspecting import Looked, look
from edgecloud.graft.stock import Stock
from edgecloud.graft.weights.plain import stored_as
from edgecloud.graft.writing import ops
from edgecommon.arguments import number
from edgecommon.printing import Answer
from modelwire.tflite import file as tflite_file
from modelwire.tflite.notes import THRESHOLD, Notes

from .. import int8_heads
from ..answer import Document, facts, table
from ..model_files import read_file
from ..rehearsals import said_by_notes
from .grafts import add_step, describe_cost

NAME = "inspect"
HELP = "Say what a .tflite holds, what of it can be trained and why not, and what a training step would take."
EXAMPLES = ("edgecloud inspect stock.tflite", "edgecloud inspect stock.tflite --optimizer adam --batch 8 --gmacs 2.5 --json")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.tflite", help="any model file; nothing of it is run")
    add_step(parser)
    parser.add_argument(
        "--gmacs", type=number(0, 1e6), metavar="N", help="what the board's core multiplies: 10^9 a second (default: this machine's)"
    )


def run(args: argparse.Namespace) -> Answer:
    wish = Wish(
        loss=args.loss, optimizer=args.optimizer, batch=args.batch, output=args.target or "", signature=args.signature or "",
        size=args.input_size, model=Path(args.file).name,
    )  # fmt: skip
    data = read_file(args.file)
    looked = look(data, wish, rate=1e9 * (args.gmacs or 0))
    head, why = int8_heads.int8_head_of(data, wish.model)
    document: Document = {
        "file": args.file, "bytes": len(looked.stock.data), "sha256": looked.stock.sha256, "signatures": list(looked.signatures),
        "inputs": _tensors(looked, looked.stock.inputs), "outputs": _tensors(looked, looked.stock.outputs), "reason": looked.reason,
        "x": [asdict(part) for part in looked.parts], "labels": {name: list(lines) for name, lines in looked.labels.items()},
        "operators": [{"operator": name, "count": n, "gradient": rule} for name, n, rule in looked.operators],
        "layers": [
            {"name": one.name, "kind": one.kind, "operator": one.operator,
             "weights": {name: list(looked.stock.tensors[t].shape) for name, t in one.weights.items()}}
            for one in looked.layers
        ],
        "int8_head": int8_heads.describe(head), "int8_head_reason": why,
        "batch": _batch(args, looked), "multiplications_per_second": looked.rate,
        "head": None if looked.notes is None or looked.notes.head is None else asdict(looked.notes.head),
        "score": looked.notes is not None and looked.notes.score,
        "rehearsed": None if looked.notes is None else looked.notes.rehearsed,
        "learning_rates": {} if looked.notes is None else {m.name: m.learning_rate for m in looked.notes.modes if m.learning_rate},
        "modes": [
            {"mode": m.name, "layers": m.layers or None, "weights": m.entries, "reason": m.reason, "milliseconds": m.milliseconds or None,
             **describe_cost(m.cost)}
            for m in looked.modes
        ],
    }  # fmt: skip
    return Answer(document, _inspected(args, looked, int8_heads.say(head) if head is not None else why and f"not as it is: {why}"))


def _tensors(looked: Looked, which: tuple[int, ...]) -> list[Document]:
    tensors = [looked.stock.tensors[t] for t in which]
    return [{"name": t.name, "shape": list(t.shape), "type": ops.TYPE_NAMES.get(t.type, str(t.type))} for t in tensors]


def _inspected(args: argparse.Namespace, looked: Looked, int8: str) -> str:
    stock, mib = looked.stock, 1024 * 1024
    ends = [", ".join(f"{t['type']}{t['shape']}" for t in _tensors(looked, which)) for which in (stock.inputs, stock.outputs)]
    lines = [
        facts(
            (
                ("file", args.file), ("bytes", len(stock.data)), ("signatures", ", ".join(looked.signatures)), ("takes", ends[0]),
                ("x holds", " | ".join(f"{p.name} {p.type}{list(p.shape)}" for p in looked.parts)), ("gives", ends[1]),
                *((f"{len(lines)} names in {name}", ", ".join(lines[:5])) for name, lines in looked.labels.items()),
                ("can't be grafted" if int8 else "can't be trained", looked.reason), ("int8 head", int8),
                *_noted(looked.notes),
            )
        ),
        table(("operator", "count", "gradient"), [(name, n, "yes" if rule else "no") for name, n, rule in looked.operators]),
    ]  # fmt: skip
    if looked.layers:
        weights = [one.locked or " ".join(_weight(stock, name, t) for name, t in one.weights.items()) for one in looked.layers]
        rows = [(one.name, one.kind, said) for one, said in zip(looked.layers, weights, strict=True)]
        lines.append(table(("layer", "operator", "weights"), rows))
    if looked.modes:
        modes = [
            (m.name, m.layers or "", m.entries, f"{m.cost.process_bytes / mib:.1f}", f"{m.milliseconds:.3g}", "") if m.cost is not None
            else (m.name, m.layers, m.entries, "", "", m.reason)
            for m in looked.modes
        ]  # fmt: skip
        title = f"a step of {_batch(args, looked)} samples, at {looked.rate / 1e9:.1f} thousand million multiplications a second"
        lines.append(table(("mode", "layers", "weights", "MiB, estimated", "ms, estimated", "why not"), modes, title=title))
    return "\n\n".join(lines)


def _weight(stock: Stock, name: str, tensor: int) -> str:
    """Return a weight's shape, and how the file stores it where that is not float32."""
    stored = stored_as(stock, tensor)
    return f"{name}{list(stock.tensors[tensor].shape)}" + (f" ({stored})" if stored != "float32" else "")


def _batch(args: argparse.Namespace, looked: Looked) -> int:
    """Return the samples of one step: of a trainable file, those that it was made for."""
    return int(args.batch) if looked.notes is None else tflite_file.contract(looked.stock.data).batch


def _noted(notes: Notes | None) -> tuple[tuple[str, str], ...]:
    if notes is None:
        return ()
    dense = "" if notes.head is None else f"{len(notes.head.layers)} dense on {notes.head.features} features, {notes.head.loss}"
    rates = ", ".join(f"{mode.name} {mode.learning_rate:g}" for mode in notes.modes if mode.learning_rate)
    return (
        ("optimizer", notes.optimizer), ("head", dense), ("score", f"against {THRESHOLD}" if notes.score else ""),
        ("rehearsed", said_by_notes(notes.rehearsed)), ("learning rates", rates),
    )  # fmt: skip
