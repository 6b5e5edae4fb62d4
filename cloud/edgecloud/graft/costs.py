"""Estimates what a subgraph takes to run: multiplications, bytes moved, and the most bytes of tensors alive at one time."""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from dataclasses import dataclass
from math import prod

import numpy as np

from modelwire.tflite import graph as tflite_graph

from .writing import ops
from .writing.build import GraphBuilder, Made

# What takes how long, in multiplications of a large matrix product: one of a matrix product; one of a convolution, with constant filters
# and with filters that are variables; an entry read or written, and what it takes more in a tensor larger than a cache; a call.
# Fitted on 139 pairs of file and cut (49 files) with LiteRT on x86-64; of the half of the files that a fit had not seen, 98 and 88 % of the
# pairs lay within a factor of 2 of what was measured. A plan on a board measures instead.
PRODUCT, CONVOLUTION, VARIABLE_CONVOLUTION, ENTRY, FAR_ENTRY, CALL = 1.0, 1.6, 1.7, 15, 7.5, 800_000
GATHERING = 5.0  # a multiplication of a depthwise convolution that gives each channel several times, as windows are gathered
CACHE = 1 << 20  # bytes
# What a process grows by when it opens a file and trains: bytes; bytes for each byte alive at once (delegates keep copies and room to
# work in), for each byte of constants (packed for the delegate's kernels, in float32), and for each operator. Fitted on 129 pairs; of the
# halves that a fit had not seen, 98 and 100 % lay within a factor of 1.5 of what was measured.
PROCESS, ALIVE, CONSTANT, OPERATOR = 3_000_000, 1.73, 6.0, 3_600


@dataclass(frozen=True, slots=True)
class GraftCost:
    """What one call of a subgraph takes."""

    operators: int
    multiplications: int  # with their additions
    entries: int  # read and written by all operators
    peak_bytes: int  # of computed tensors alive at one time: what an arena must hold at least
    constant_bytes: int  # read by it, where they stand in the file
    work: float  # in multiplications of a large matrix product

    @property
    def process_bytes(self) -> int:
        """By how much a process is expected to grow that opens the file and calls this subgraph."""
        return int(PROCESS + ALIVE * self.peak_bytes + CONSTANT * self.constant_bytes + OPERATOR * self.operators)

    def milliseconds(self, rate: float) -> float:
        """Return the time of one call. rate: multiplications a second, as `machine_rate` measures them."""
        return 1e3 * self.work / rate


@dataclass(frozen=True, slots=True)
class ParsedGraph:
    """A subgraph of a file, as far as its cost goes."""

    made: Sequence[Made]
    shapes: Sequence[tuple[int, ...]]
    types: Sequence[int]
    constant: Set[int]
    inputs: Sequence[int]
    outputs: Sequence[int]


def parsed_graph(graph: tflite_graph.Graph) -> ParsedGraph:
    """Return a parsed subgraph for its cost."""
    made = [Made(op.code, op.inputs, op.outputs) for op in graph.operators]
    constant = {t for t in range(len(graph.tensors)) if graph.is_constant(t)}
    shapes, types = [t.shape for t in graph.tensors], [t.type for t in graph.tensors]
    return ParsedGraph(made, shapes, types, constant, graph.inputs, graph.outputs)


def cost(graph: GraphBuilder | ParsedGraph) -> GraftCost:
    """Return the cost of one call of a subgraph, in the making or written."""
    last: dict[int, int] = {}
    for i, made in enumerate(graph.made):
        last.update((t, i) for t in made.inputs if t >= 0)
    last.update((t, len(graph.made)) for t in graph.outputs)
    alive = sum(_bytes(graph, t) for t in graph.inputs)
    peak, ending = alive, dict[int, list[int]]()
    for t, i in last.items():
        ending.setdefault(i, []).append(t)
    multiplications = entries = 0
    work = float(CALL)
    for i, made in enumerate(graph.made):
        alive += sum(_bytes(graph, t) for t in made.outputs)
        peak = max(peak, alive)
        alive -= sum(_bytes(graph, t) for t in ending.get(i, ()) if t not in graph.constant)
        products = _multiplications(graph, made)
        sizes = [prod(graph.shapes[t]) for t in (*made.inputs, *made.outputs) if t >= 0]
        multiplications += products
        entries += sum(sizes)
        if made.code != ops.VAR_HANDLE:
            work += _factor(graph, made) * products + ENTRY * sum(sizes) + FAR_ENTRY * sum(n for n in sizes if 4 * n > CACHE)
    constants = {t for made in graph.made for t in made.inputs if t in graph.constant}
    return GraftCost(len(graph.made), multiplications, entries, peak, sum(_bytes(graph, t) for t in constants), work)


def _factor(graph: GraphBuilder | ParsedGraph, made: Made) -> float:
    """Return what a multiplication of this operator takes."""
    fixed = len(made.inputs) > 1 and made.inputs[1] in graph.constant
    if made.code == ops.DEPTHWISE_CONV_2D and fixed and graph.shapes[made.outputs[0]][-1] > graph.shapes[made.inputs[0]][-1]:
        return GATHERING
    if made.code in (ops.CONV_2D, ops.DEPTHWISE_CONV_2D) and fixed:
        return CONVOLUTION
    return VARIABLE_CONVOLUTION if made.code in _CONVOLUTIONS and not fixed else PRODUCT


_CONVOLUTIONS = (ops.CONV_2D, ops.DEPTHWISE_CONV_2D, ops.TRANSPOSE_CONV, ops.FULLY_CONNECTED)


def _bytes(graph: GraphBuilder | ParsedGraph, tensor: int) -> int:
    return prod(graph.shapes[tensor]) * ops.TYPE_BYTES.get(graph.types[tensor], 0)


def _multiplications(graph: GraphBuilder | ParsedGraph, made: Made) -> int:
    shape = graph.shapes
    if made.code == ops.BATCH_MATMUL:
        a, _ = made.inputs
        rows = shape[made.outputs[0]][-2]
        inner = shape[a][-2] if shape[a][-1] == rows and shape[a][-2] != rows else prod(shape[a]) // (prod(shape[a][:-2]) * rows)
        return prod(shape[made.outputs[0]]) * inner
    if made.code == ops.FULLY_CONNECTED:
        return prod(shape[made.outputs[0]]) * shape[made.inputs[1]][-1]
    if made.code == ops.CONV_2D:
        return prod(shape[made.outputs[0]]) * prod(shape[made.inputs[1]][1:])
    if made.code == ops.DEPTHWISE_CONV_2D:
        return prod(shape[made.outputs[0]]) * prod(shape[made.inputs[1]][1:3])
    if made.code == ops.TRANSPOSE_CONV:
        return prod(shape[made.inputs[2]]) * prod(shape[made.inputs[1]][:3])
    return 0


def machine_rate(seconds: float = 0.1) -> float:
    """Return how many multiplications with their additions one core does here in a second, by a matrix product of a net's usual size."""
    rng = np.random.default_rng(0)
    # Many small products: numpy gives one of this size to a single thread, whatever the machine has. With more threads the
    # figure would be that of all cores, or of one that waits for a busy other.
    a, b = rng.standard_normal((64, 64, 64)).astype(np.float32), rng.standard_normal((64, 64)).astype(np.float32)
    out, best, end = np.empty_like(a), float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        start = time.thread_time()
        np.matmul(a, b, out=out)
        best = min(best, time.thread_time() - start)
    return 64**4 / max(best, 1e-9)
