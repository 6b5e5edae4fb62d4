"""Holds the gradients of grafted files against the float64 reference, on any files: how far each tensor's are off, and whether at a kink.

    python -m tests.models.check_gradients FOLDER_OR_FILE...

Each file is grafted (all of it; where that is refused, its head) and makes one step of momentum, which leaves the gradient itself in its
slots; the reference computes the same one sample after the other. A tensor is right when no entry is off by more than 1e-5 of its largest.
Where it is not, the samples are moved by a millionth, as far as float32 may be off after some layers: a gradient that jumps by as much in
the reference itself lies at a kink, of a ReLU or of a maximum, where there is no one gradient.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from edgecloud.graft.grafting import Grafted, Wish, graft
from edgecloud.graft.stock import Stock
from edgecommon.runtime import interpreter_for, load
from modelwire.errors import ModelWireError
from tests.models import reference
from tests.models.gradients import samples

BATCH, CLOSE, MOVED, TRIES = 2, 1e-5, 1e-6, 3
Gradients = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of one file: `right`, `kink`, `wrong`, or `left` with the reason why nothing could be compared."""

    file: str
    result: str
    cut: str = ""
    tensors: int = 0
    worst: float = 0.0  # of all tensors, of the largest entry of its gradient
    where: str = ""  # the tensor of the worst
    reason: str = ""


def checked(files: Iterable[Path], *, most: int = 0) -> list[Checked]:
    """Return what came of each file. most: stop after so many that could be compared; 0 takes all."""
    out: list[Checked] = []
    for path in files:
        out.append(check(path))
        if most and sum(c.result != "left" for c in out) >= most:
            break
    return out


def check(path: Path) -> Checked:
    """Return what came of one file."""
    made, cut, reason = _grafted(path)
    if made is None:
        return Checked(path.name, "left", reason=reason)
    rng = np.random.default_rng(7)
    try:
        x, y, ours = _ours(made)
        theirs = gradients(made, x, y)
        off = {name: float(np.abs(ours[name] - theirs[name]).max() / max(np.abs(theirs[name]).max(), 1e-30)) for name in ours}
        where = max(off, key=lambda name: off[name])
        wrong = {name for name, value in off.items() if not value <= CLOSE}
        for _ in range(TRIES if wrong else 0):
            near = gradients(made, x * (1 + MOVED * rng.standard_normal(x.shape)), y)
            wrong -= {n for n in wrong if np.abs(near[n] - theirs[n]).max() >= 0.5 * np.abs(ours[n] - theirs[n]).max()}
    except reference.Unknown as unknown:
        return Checked(path.name, "left", cut, reason=f"the reference does not compute {unknown}")
    result = "wrong" if wrong else "kink" if off[where] > CLOSE else "right"
    return Checked(path.name, result, cut, len(off), off[where], where)


def _grafted(path: Path) -> tuple[Grafted | None, str, str]:
    reason = ""
    for cut in ("all", "head"):
        try:
            return graft(path.read_bytes(), Wish(train=(cut,), optimizer="momentum", batch=BATCH, model=path.name)), cut, ""
        except ModelWireError as refused:
            reason = reason or str(refused)
    return None, "", reason


def _ours(made: Grafted) -> tuple[Any, Any, Gradients]:
    """Return samples, targets, and the gradients that the file leaves in its slots."""
    interpreter = interpreter_for(load().interpreter, made.file, delegates=True)
    runner = interpreter.get_signature_runner("train")
    shapes = {name: tuple(int(n) for n in detail["shape"]) for name, detail in runner.get_input_details().items()}
    x, y = samples(shapes["x"][1:], shapes["y"][1:], made.loss)
    x, y = x[:BATCH], y[:BATCH]
    runner(x=x, y=y, lr=np.float32(0))
    state = interpreter.get_signature_runner("get_state")()
    names = [name for layer in made.layers for name in layer.weights]
    return x, y, {name: np.asarray(state[f"{name}_momentum"], np.float64) for name in names}


def gradients(made: Grafted, x: NDArray[Any], y: NDArray[Any]) -> Gradients:
    """Return the gradients of the mean loss of these samples in float64, by weight. Raises reference.Unknown."""
    stock, names = made.stock, {name: t for layer in made.layers for name, t in layer.weights.items()}
    weights = {t: jnp.asarray(stock.value(t), jnp.float64) for t in names.values()}
    total: Mapping[int, Any] = dict.fromkeys(weights, 0.0)
    output = next(t for t in stock.outputs)
    slope = jax.grad(lambda w, one, target: _loss(stock, made.loss, output, one, target, w))
    for i in range(len(x)):
        new = slope(weights, np.asarray(x[i : i + 1], np.float64), np.asarray(y[i : i + 1], np.float64))
        total = {t: total[t] + np.asarray(g) / len(x) for t, g in new.items()}
    return {name: np.asarray(total[t]) for name, t in names.items()}


def _loss(stock: Stock, kind: str, output: int, x: Any, y: Any, weights: Mapping[int, Any]) -> Any:
    values = reference.run(stock, {stock.inputs[0]: x}, weights, output)
    out = values[output]
    target = jnp.reshape(y, out.shape)
    if kind == "mse":
        return jnp.mean(jnp.square(out - target))
    op = stock.source[output]
    while op.name in ("RESHAPE", "SQUEEZE"):
        op = stock.source[op.inputs[0]]
    behind = op.name in ("SOFTMAX", "LOGISTIC")
    logits = jnp.reshape(values[op.inputs[0]] if behind else out, out.shape)
    if kind == "ce":
        return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), -1))
    return jnp.mean(jax.nn.softplus(logits) - logits * target)


def found(places: Iterable[Path]) -> list[Path]:
    """Return the .tflite files that are named or lie in the folders, the smallest first."""
    every = {p for place in places for p in ([place] if place.is_file() else place.rglob("*.tflite"))}
    return sorted(every, key=lambda p: (p.stat().st_size, p))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.models.check_gradients", description="Check gradients of grafts in float64.")
    parser.add_argument("places", nargs="+", type=Path, help="files, or folders of .tflite files")
    parser.add_argument("--json", action="store_true", help="one object a file")
    args = parser.parse_args(argv)
    wrong = 0
    for path in found(args.places):
        done = check(path)
        wrong += done.result == "wrong"
        said = f"{done.file:40} {done.result:6} {done.cut:5} {done.tensors:4} tensors  {done.worst:.1e}  {done.where}{done.reason}"
        print(json.dumps(asdict(done)) if args.json else said, flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
