"""Gradients of matrix products, and of the sums, products and quotients that go with them."""

from __future__ import annotations

from math import prod

from edgecloud.graft.stock import Op
from edgecloud.graft.tape import NoRule, Tape, rule
from edgecloud.graft.writing import ops


@rule(ops.FULLY_CONNECTED)
def fully_connected(tape: Tape, op: Op, dy: int) -> None:
    graph, (x, w) = tape.graph, op.inputs[:2]
    if op.option(1, small=True):
        raise NoRule(op, "keeps its weights shuffled")
    gives, takes = tape.shape(w)
    rows = prod(tape.shape(x)) // takes
    if tape.layout.axes[w] is not None:
        _product(tape, op, dy)
        return
    flat = graph.reshape(dy, (rows, gives))
    if tape.wants(w):
        # [gives, takes], as the file keeps it: no transposition.
        tape.give(w, graph.matmul(flat, graph.reshape(x, (rows, takes)), adjoint_a=True))
    if tape.wants(x):
        tape.give(x, graph.reshape(graph.matmul(flat, w), tape.shape(x)))
    give_bias(tape, op, flat)


def _product(tape: Tape, op: Op, dy: int) -> None:
    """Give both sides of a product whose weights are each sample's own."""
    graph, (x, w) = tape.graph, op.inputs[:2]
    gives, takes = tape.stock.tensors[w].shape
    many = tape.shape(w)[0] // gives
    rows = tape.stock.tensors[x].size // takes
    flat = graph.reshape(dy, (many, rows, gives))
    if tape.wants(x):
        tape.give(x, graph.reshape(graph.matmul(flat, graph.reshape(w, (many, gives, takes))), tape.shape(x)))
    if tape.wants(w):
        product = graph.matmul(flat, graph.reshape(x, (many, rows, takes)), adjoint_a=True)
        tape.give(w, graph.reshape(product, tape.shape(w)))
    give_bias(tape, op, graph.reshape(dy, (many * rows, gives)))


def give_bias(tape: Tape, op: Op, flat: int) -> None:
    """Give the bias of an operator its gradient: the sum over the rows of [rows, channels]."""
    if len(op.inputs) > 2 and op.inputs[2] >= 0 and tape.wants(op.inputs[2]):
        same = prod(tape.shape(op.inputs[2])) == prod(tape.shape(flat))  # one that differs from sample to sample, or one sample
        tape.give(op.inputs[2], tape.graph.reshape(flat if same else tape.graph.sum(flat, [0]), tape.shape(op.inputs[2])))


@rule(ops.BATCH_MATMUL)
def batch_matmul(tape: Tape, op: Op, dy: int) -> None:
    graph, (a, b) = tape.graph, op.inputs
    over_a, over_b = op.option(0, small=True), op.option(1, small=True)
    if tape.wants(a):
        product = graph.matmul(b, dy, adjoint_a=bool(over_b), adjoint_b=True) if over_a else graph.matmul(dy, b, adjoint_b=not over_b)
        tape.give(a, graph.sum_to(product, tape.shape(a)))
    if tape.wants(b):
        product = graph.matmul(dy, a, adjoint_a=True, adjoint_b=bool(over_a)) if over_b else graph.matmul(a, dy, adjoint_a=not over_a)
        tape.give(b, graph.sum_to(product, tape.shape(b)))


@rule(ops.ADD)
def add(tape: Tape, op: Op, dy: int) -> None:
    for t in op.inputs:
        if tape.wants(t):
            tape.give(t, tape.graph.sum_to(dy, tape.shape(t)))


@rule(ops.SUB)
def sub(tape: Tape, op: Op, dy: int) -> None:
    a, b = op.inputs
    if tape.wants(a):
        tape.give(a, tape.graph.sum_to(dy, tape.shape(a)))
    if tape.wants(b):
        tape.give(b, tape.graph.neg(tape.graph.sum_to(dy, tape.shape(b))))


@rule(ops.MUL)
def mul(tape: Tape, op: Op, dy: int) -> None:
    a, b = op.inputs
    for this, other in ((a, b), (b, a)):
        if tape.wants(this):
            tape.give(this, tape.graph.sum_to(tape.graph.mul(dy, other), tape.shape(this)))


@rule(ops.DIV)
def div(tape: Tape, op: Op, dy: int) -> None:
    graph, (a, b) = tape.graph, op.inputs
    quotient = graph.div(dy, b)
    if tape.wants(a):
        tape.give(a, graph.sum_to(quotient, tape.shape(a)))
    if tape.wants(b):
        # The quotient a / b anew: the operator's own output may have gone through an activation.
        tape.give(b, graph.sum_to(graph.neg(graph.mul(quotient, graph.div(a, b))), tape.shape(b)))


@rule(ops.SQUARED_DIFFERENCE)
def squared_difference(tape: Tape, op: Op, dy: int) -> None:
    graph, (a, b) = tape.graph, op.inputs
    twice = graph.mul(dy, graph.scale(graph.sub(a, b), 2.0))
    if tape.wants(a):
        tape.give(a, graph.sum_to(twice, tape.shape(a)))
    if tape.wants(b):
        tape.give(b, graph.neg(graph.sum_to(twice, tape.shape(b))))


@rule(ops.MAXIMUM, ops.MINIMUM)
def extreme(tape: Tape, op: Op, dy: int) -> None:
    """The larger one takes all; of two equal ones the first, as TensorFlow has it."""
    graph, (a, b) = tape.graph, op.inputs
    first = graph.compare(ops.GREATER_EQUAL, *((a, b) if op.code == ops.MAXIMUM else (b, a)))
    share = graph.mul(dy, graph.as_float(first))
    if tape.wants(a):
        tape.give(a, graph.sum_to(share, tape.shape(a)))
    if tape.wants(b):
        tape.give(b, graph.sum_to(graph.sub(dy, share), tape.shape(b)))
