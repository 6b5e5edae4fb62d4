"""Writes the loss and where its gradient enters the graph: cross-entropy at the logits, a squared error at the output."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from modelwire.errors import BadArgument

from .stock import Op, Stock
from .tape import Tape
from .writing import flat, ops
from .writing.build import GraphBuilder

LOSSES = ("auto", "ce", "mse")


@dataclass(frozen=True, slots=True)
class LossPlace:
    """Where a loss enters: what it is, the tensor whose gradient it gives, and the operators behind that, which need none."""

    kind: str  # "ce", "binary" or "mse"
    tensor: int
    behind: tuple[Op, ...]


def place(stock: Stock, output: int, loss: str) -> LossPlace:
    """Return where the loss enters. auto: cross-entropy behind a softmax or a logistic, else a squared error."""
    behind: list[Op] = []
    tensor = output
    while (op := stock.source.get(tensor)) is not None and op.code in (ops.RESHAPE, ops.SQUEEZE) and len(stock.users[op.inputs[0]]) == 1:
        behind.append(op)
        tensor = op.inputs[0]
    kinds = {ops.SOFTMAX: "ce", ops.LOGISTIC: "binary"}
    if loss != "mse" and op is not None and op.code in kinds and (op.code != ops.SOFTMAX or op.number(0, 1.0) == 1):
        return LossPlace(kinds[op.code], op.inputs[0], (*behind, op))
    if loss == "ce":
        if prod(stock.tensors[output].shape) < 2:
            raise BadArgument(reason="cross-entropy over one class is always 0", fix="--loss mse")
        return LossPlace("ce", output, ())
    return LossPlace("mse", output, ())


def write(graph: GraphBuilder, tape: Tape, place: LossPlace, output: int, y: int, parts: int = 1) -> int:
    """Return the loss, one number, and give the tape its gradient. parts: into which the batch is cut; each gives its share of both."""
    z = place.tensor
    target = graph.reshape(y, graph.shape(z))
    size = prod(graph.shape(z))
    if place.kind == "mse":
        difference = graph.sub(z, target)
        tape.give(z, graph.scale(difference, 2 / size / parts))
        errors = graph.reshape(difference, (size,))
        return graph.scale(graph.sum(graph.mul(errors, errors), [0], code=ops.MEAN), 1 / parts)
    if place.kind == "ce":
        classes = graph.shape(z)[-1]
        rows = size // classes
        likelihood = graph.op(ops.LOG_SOFTMAX, (z,), graph.shape(z))
        probability = graph.op(ops.SOFTMAX, (z,), graph.shape(z), {0: flat.f32(1.0)}) if z == output else place.behind[-1].outputs[0]
        tape.give(z, graph.scale(graph.sub(probability, target), 1 / rows / parts))
        terms = graph.reshape(graph.mul(target, likelihood), (size,))
        return graph.scale(graph.sum(terms, [0]), -1 / rows / parts)
    # log(1 + exp(z)) - z * y, in the form that can't overflow.
    probability = place.behind[-1].outputs[0]
    tape.give(z, graph.scale(graph.sub(probability, target), 1 / size / parts))
    tail = graph.log(graph.add(graph.exp(graph.neg(graph.absolute(z))), graph.constant_of(1.0)))
    terms = graph.add(graph.sub(graph.relu(z), graph.mul(z, target)), tail)
    return graph.scale(graph.sum(graph.reshape(terms, (size,)), [0], code=ops.MEAN), 1 / parts)

