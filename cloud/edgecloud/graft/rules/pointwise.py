"""Gradients of activations and of other functions of one entry; and of the softmax."""

from __future__ import annotations

from edgecloud.graft.stock import Op
from edgecloud.graft.tape import Tape, activation_gradient, rule
from edgecloud.graft.writing import ops


@rule(*ops.FUSED_AS)
def activation(tape: Tape, op: Op, dy: int) -> None:
    tape.give(op.inputs[0], activation_gradient(tape.graph, ops.FUSED_AS[op.code], op.outputs[0], dy))


@rule(ops.LOGISTIC)
def logistic(tape: Tape, op: Op, dy: int) -> None:
    graph, y = tape.graph, op.outputs[0]
    tape.give(op.inputs[0], graph.mul(dy, graph.mul(y, graph.sub(graph.constant_of(1.0), y))))


@rule(ops.SOFTMAX)
def softmax(tape: Tape, op: Op, dy: int) -> None:
    graph, y = tape.graph, op.outputs[0]
    inner = graph.sum(graph.mul(dy, y), [len(tape.shape(y)) - 1], keep=True)
    tape.give(op.inputs[0], graph.scale(graph.mul(y, graph.sub(dy, inner)), op.number(0, 1.0)))


@rule(ops.LOG_SOFTMAX)
def log_softmax(tape: Tape, op: Op, dy: int) -> None:
    graph, y = tape.graph, op.outputs[0]
    total = graph.sum(dy, [len(tape.shape(y)) - 1], keep=True)
    tape.give(op.inputs[0], graph.sub(dy, graph.mul(graph.exp(y), total)))


@rule(ops.LEAKY_RELU)
def leaky_relu(tape: Tape, op: Op, dy: int) -> None:
    graph, x = tape.graph, op.inputs[0]
    positive = graph.compare(ops.GREATER, x, graph.constant_of(0.0))
    tape.give(x, graph.select(positive, dy, graph.scale(dy, op.number(0))))


@rule(ops.PRELU)
def prelu(tape: Tape, op: Op, dy: int) -> None:
    graph, (x, slope) = tape.graph, op.inputs
    zero = graph.constant_of(0.0)
    if tape.wants(x):
        tape.give(x, graph.select(graph.compare(ops.GREATER, x, zero), dy, graph.mul(dy, slope)))
    if tape.wants(slope):
        tape.give(slope, graph.sum_to(graph.mul(dy, graph.minimum(x, zero)), tape.shape(slope)))


@rule(ops.HARD_SWISH)
def hard_swish(tape: Tape, op: Op, dy: int) -> None:
    """x * relu6(x + 3) / 6: its slope is x / 3 + 1/2 between -3 and 3, 0 below and 1 above."""
    graph, x = tape.graph, op.inputs[0]
    slope = graph.add(graph.scale(x, 1 / 3), graph.constant_of(0.5))
    slope = graph.select(graph.compare(ops.GREATER, x, graph.constant_of(3.0)), graph.constant_of(1.0), slope)
    slope = graph.select(graph.compare(ops.LESS, x, graph.constant_of(-3.0)), graph.constant_of(0.0), slope)
    tape.give(x, graph.mul(dy, slope))


@rule(ops.EXP)
def exp(tape: Tape, op: Op, dy: int) -> None:
    tape.give(op.inputs[0], tape.graph.mul(dy, op.outputs[0]))


@rule(ops.LOG)
def log(tape: Tape, op: Op, dy: int) -> None:
    tape.give(op.inputs[0], tape.graph.div(dy, op.inputs[0]))


@rule(ops.NEG)
def neg(tape: Tape, op: Op, dy: int) -> None:
    tape.give(op.inputs[0], tape.graph.neg(dy))


@rule(ops.SQUARE)
def square(tape: Tape, op: Op, dy: int) -> None:
    tape.give(op.inputs[0], tape.graph.mul(dy, tape.graph.scale(op.inputs[0], 2.0)))


@rule(ops.SQRT)
def sqrt(tape: Tape, op: Op, dy: int) -> None:
    tape.give(op.inputs[0], tape.graph.div(tape.graph.scale(dy, 0.5), op.outputs[0]))


@rule(ops.RSQRT)
def rsqrt(tape: Tape, op: Op, dy: int) -> None:
    graph, y = tape.graph, op.outputs[0]
    tape.give(op.inputs[0], graph.mul(graph.scale(dy, -0.5), graph.mul(y, graph.mul(y, y))))


@rule(ops.ABS)
def absolute(tape: Tape, op: Op, dy: int) -> None:
    graph, x = tape.graph, op.inputs[0]
    zero = graph.constant_of(0.0)
    above, below = (graph.as_float(graph.compare(code, x, zero)) for code in (ops.GREATER, ops.LESS))
    tape.give(x, graph.mul(dy, graph.sub(above, below)))
