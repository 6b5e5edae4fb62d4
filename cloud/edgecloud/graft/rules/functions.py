"""Gradients of functions of one entry or of two in the same place, of choices between entries, and of what passes none on."""

from __future__ import annotations

from math import pi, prod, sqrt

import numpy as np

from edgecloud.graft.stock import Op
from edgecloud.graft.tape import Tape, rule
from edgecloud.graft.writing import flat, ops

CUBIC = 0.044715  # of the usual approximation of GELU by tanh


@rule(*ops.STEPS)
def flat_everywhere(tape: Tape, op: Op, dy: int) -> None:
    """Steps: their slope is 0 wherever they have one, so nothing that leads through them learns by them."""


@rule(ops.CAST)
def cast(tape: Tape, op: Op, dy: int) -> None:
    if tape.graph.types[op.inputs[0]] == tape.graph.types[op.outputs[0]] == ops.FLOAT32:
        tape.give(op.inputs[0], dy)


@rule(ops.SIN)
def sin(tape: Tape, op: Op, dy: int) -> None:
    graph, x = tape.graph, op.inputs[0]
    tape.give(x, graph.mul(dy, graph.op(ops.COS, (x,), tape.shape(x))))


@rule(ops.COS)
def cos(tape: Tape, op: Op, dy: int) -> None:
    graph, x = tape.graph, op.inputs[0]
    tape.give(x, graph.neg(graph.mul(dy, graph.op(ops.SIN, (x,), tape.shape(x)))))


@rule(ops.RELU_0_TO_1)
def relu_0_to_1(tape: Tape, op: Op, dy: int) -> None:
    graph, y = tape.graph, op.outputs[0]
    inside = graph.both(graph.compare(ops.GREATER, y, graph.constant_of(0.0)), graph.compare(ops.LESS, y, graph.constant_of(1.0)))
    tape.give(op.inputs[0], graph.mul(dy, graph.as_float(inside)))


@rule(ops.ELU)
def elu(tape: Tape, op: Op, dy: int) -> None:
    graph, (x, y) = tape.graph, (op.inputs[0], op.outputs[0])
    below = graph.mul(dy, graph.add(y, graph.constant_of(1.0)))
    tape.give(x, graph.select(graph.compare(ops.GREATER, x, graph.constant_of(0.0)), dy, below))


@rule(ops.GELU)
def gelu(tape: Tape, op: Op, dy: int) -> None:
    """x times the normal distribution's share below x; or that share by its usual approximation with tanh."""
    graph, (x, y) = tape.graph, (op.inputs[0], op.outputs[0])
    half, one, squared = graph.constant_of(0.5), graph.constant_of(1.0), graph.mul(x, x)
    if op.option(0, small=True):
        cubic = graph.add(graph.scale(squared, CUBIC), one)
        inner = graph.activation(graph.scale(graph.mul(x, cubic), sqrt(2 / pi)), ops.FUSED_TANH)
        rise = graph.scale(graph.add(graph.scale(squared, 3 * CUBIC), one), sqrt(2 / pi))
        share = graph.mul(graph.add(inner, one), half)
        bend = graph.mul(graph.mul(graph.mul(x, half), graph.sub(one, graph.mul(inner, inner))), rise)
    else:
        # The share is had back from what the operator gave; close to 0, where that is 0 / 0, from its slope there.
        close = graph.compare(ops.LESS, graph.absolute(x), graph.constant_of(1e-3))
        near = graph.add(graph.scale(x, 1 / sqrt(2 * pi)), half)
        share = graph.select(close, near, graph.div(y, graph.select(close, one, x)))
        bend = graph.scale(graph.mul(x, graph.exp(graph.scale(squared, -0.5))), 1 / sqrt(2 * pi))
    tape.give(x, graph.mul(dy, graph.add(share, bend)))


@rule(ops.POW)
def power(tape: Tape, op: Op, dy: int) -> None:
    """A base of 0 or less has no logarithm: the exponent then gets nothing, as TensorFlow has it."""
    graph, (a, b) = tape.graph, op.inputs
    if tape.wants(a):
        less = graph.sub(b, graph.constant_of(1.0))
        shape = tuple(np.broadcast_shapes(tape.shape(a), tape.shape(less)))
        slope = graph.mul(b, graph.op(ops.POW, (a, less), shape))
        tape.give(a, graph.sum_to(graph.mul(dy, slope), tape.shape(a)))
    if tape.wants(b):
        positive = graph.compare(ops.GREATER, a, graph.constant_of(0.0))
        log = graph.log(graph.select(positive, a, graph.constant_of(1.0)))
        tape.give(b, graph.sum_to(graph.mul(graph.mul(dy, op.outputs[0]), log), tape.shape(b)))


@rule(ops.FLOOR_MOD)
def floor_mod(tape: Tape, op: Op, dy: int) -> None:
    graph, (a, b) = tape.graph, op.inputs
    if tape.wants(a):
        tape.give(a, graph.sum_to(dy, tape.shape(a)))
    if tape.wants(b):
        quotient = graph.div(a, b)
        whole = graph.op(ops.FLOOR, (quotient,), tape.shape(quotient))
        tape.give(b, graph.neg(graph.sum_to(graph.mul(dy, whole), tape.shape(b))))


@rule(ops.ADD_N)
def add_n(tape: Tape, op: Op, dy: int) -> None:
    for t in op.inputs:
        if tape.wants(t):
            tape.give(t, tape.graph.sum_to(dy, tape.shape(t)))


@rule(ops.SELECT, ops.SELECT_V2)
def select(tape: Tape, op: Op, dy: int) -> None:
    graph, (where, a, b) = tape.graph, op.inputs
    rank, shape = len(tape.shape(dy)), tape.shape(where)
    if op.code == ops.SELECT and len(shape) == 1 < rank:  # one choice for each row
        where = graph.op(ops.RESHAPE, (where, graph.constant_of([*shape, *[1] * (rank - 1)])), (*shape, *[1] * (rank - 1)), type=ops.BOOL)
    zero = graph.constant_of(0.0)
    if tape.wants(a):
        tape.give(a, graph.sum_to(graph.select(where, dy, zero), tape.shape(a)))
    if tape.wants(b):
        tape.give(b, graph.sum_to(graph.select(where, zero, dy), tape.shape(b)))


@rule(ops.L2_NORMALIZATION)
def l2_normalization(tape: Tape, op: Op, dy: int) -> None:
    """x over its length along the last axis, or over 1e-6 where it is shorter."""
    graph, x = tape.graph, op.inputs[0]
    last = [len(tape.shape(x)) - 1]
    length = graph.sqrt(graph.sum(graph.mul(x, x), last, keep=True))
    least = graph.constant_of(1e-6)
    norm = graph.maximum(length, least)
    y = graph.div(x, norm)  # anew: the operator's own output may have gone through an activation
    inner = graph.sum(graph.mul(dy, y), last, keep=True)
    inner = graph.mul(inner, graph.as_float(graph.compare(ops.GREATER, length, least)))
    tape.give(x, graph.div(graph.sub(dy, graph.mul(y, inner)), norm))


@rule(ops.LOCAL_RESPONSE_NORMALIZATION)
def local_response(tape: Tape, op: Op, dy: int) -> None:
    """Sums over neighbouring channels are products with a matrix of ones along its diagonal."""
    graph, x = tape.graph, op.inputs[0]
    radius, bias, alpha, beta = op.option(0), op.number(1), op.number(2), op.number(3)
    shape = tape.shape(x)
    channels = shape[-1]
    graph.file.room(channels * channels)
    place = np.arange(channels)
    near = graph.constant_of((np.abs(place[:, None] - place[None]) <= radius).astype(np.float32))
    rows = (prod(shape) // channels, channels)
    x2, dy2 = graph.reshape(x, rows), graph.reshape(dy, rows)
    total = graph.add(graph.scale(graph.matmul(graph.mul(x2, x2), near), alpha), graph.constant_of(bias))
    scaled = graph.mul(dy2, graph.op(ops.POW, (total, graph.constant_of(-beta)), rows))
    others = graph.matmul(graph.div(graph.mul(scaled, x2), total), near)
    gradient = graph.sub(scaled, graph.scale(graph.mul(x2, others), 2 * alpha * beta))
    tape.give(x, graph.reshape(gradient, shape))


@rule(ops.TOPK_V2)
def top_k(tape: Tape, op: Op, dy: int) -> None:
    """The largest take all; which they are is the operator's second output."""
    graph, x = tape.graph, op.inputs[0]
    if dy < 0:
        return
    shape, kept = tape.shape(x), tape.shape(dy)
    graph.file.room(prod(kept) * shape[-1])
    ends = (graph.constant_of(np.array(shape[-1], np.int32)), graph.constant_of(1.0), graph.constant_of(0.0))
    which = graph.op(ops.ONE_HOT, (op.outputs[1], *ends), (*kept, shape[-1]), {0: flat.i32(-1)})
    rows = prod(shape[:-1])
    product = graph.matmul(graph.reshape(dy, (rows, 1, kept[-1])), graph.reshape(which, (rows, kept[-1], shape[-1])))
    tape.give(x, graph.reshape(product, shape))
