"""Takes a batch in parts, one behind the other: what a part computes fits into a processor's cache, and its memory serves the next one.

The gradients of the parts are added up, so a step is that of the whole batch; only the order of its sums is another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from edgecloud.graft.stock import Stock
from modelwire.tflite.flatbuffer import U8, U32, Table

from . import flat, ops
from .build import GraphBuilder, Made
from .flat import Node, Number, OldNode, TableNode

if TYPE_CHECKING:
    from edgecloud.graft.batch import Batched

LARGEST = 1 << 19  # bytes that the largest tensor of a part should have: a few of them, and the level-2 cache of a small board is full
OPERATORS = 6000  # that the parts of one subgraph may come to: each costs the file some 100 bytes, and a reader some microseconds
BACKWARD = 16  # operators of a step for one of the stock graph, as counted on nets with convolutions


def samples_at_once(stock: Stock, many: Batched, batch: int, region: frozenset[int]) -> int:
    """Return how many samples a part should have: a divisor of the batch.

    many: the shapes at the batch. region: the operators that would be done part by part. Where they have many weights, each part would
    add up as many gradients, or pack as many constants for itself: there the parts are few.
    """
    made = [t for op in stock.operators if op.index in region for t in op.outputs if t in stock.moving]
    if any(many.axes[t] != 0 for t in (*made, *entries_of(stock, region))):
        return batch  # the samples of some tensor do not lie one behind the other
    sizes = [4 * prod(many.shapes[t]) // batch for t in made]
    fixed = {t for op in stock.operators if op.index in region for t in op.inputs if stock.holds(t)}
    weights = sum(stock.tensors[t].size for t in fixed)
    most = max(1, min(batch, OPERATORS // (BACKWARD * max(len(region), 1)), batch * sum(sizes) // 4 // max(weights, 1)))
    fitting = [n for n in range(1, batch + 1) if batch % n == 0 and batch // n <= most]
    return next((n for n in reversed(fitting) if n * max(sizes, default=0) <= LARGEST), fitting[0])


def entries_of(stock: Stock, region: frozenset[int]) -> tuple[int, ...]:
    """Return the tensors with samples that the operators of a region take from outside of it, in their order."""
    inside = {t for op in stock.operators if op.index in region for t in op.outputs}
    taken = dict.fromkeys(t for op in stock.operators if op.index in region for t in op.inputs if t >= 0)
    return tuple(t for t in taken if t in stock.moving and t not in inside)


class BatchParts:
    """Copies of one subgraph in another. What no sample leads to is computed once, and shared by the copies."""

    def __init__(self, graph: GraphBuilder, part: GraphBuilder, stock: Stock) -> None:
        self.graph, self.part, self.stock = graph, part, stock
        self._shared: dict[int, int] = {}
        self._fields: dict[int, dict[int, Number | Node]] = {}  # of the stock's operators, by their bytes

    def each(self, batch: int, samples: int, cut_up: Mapping[int, int], wanted: Sequence[int]) -> Iterator[list[int]]:
        """Append a copy for each part of the batch, and yield what stands for `wanted` in it.

        cut_up: tensors of the part that hold some samples, each with the subgraph's tensor of them all.
        """
        graph, computed = self.graph, {t for made in self.part.made for t in made.outputs}
        same = {t: t for t in range(len(self.stock.tensors)) if t not in computed}
        done = -1
        for start in range(0, batch, samples):
            given = {t: cut(graph, whole, start, samples) for t, whole in cut_up.items()}
            if done >= 0:
                given = {t: behind(graph, x, done) if graph.types[x] == ops.FLOAT32 else x for t, x in given.items()}
            made = self.copy({**same, **given}, given, wanted)
            done = made[wanted.index(max(wanted))]  # what is computed last
            yield made

    def copy(self, given: Mapping[int, int], moving: Iterable[int], wanted: Iterable[int]) -> list[int]:
        """Append the operators of the part and return what stands for `wanted`.

        given: the tensors of the subgraph that stand for some of the part's. moving: those of them that differ from copy to copy.
        """
        part, known, own = self.part, {**self._shared, **given}, set(moving)
        for node, made in zip(part.operators, part.made, strict=True):
            shared = own.isdisjoint(made.inputs)
            if shared and all(t in self._shared for t in made.outputs):
                continue
            for t in (*made.inputs, *made.outputs):
                if t >= 0 and t not in known:
                    known[t] = self._tensor(t)
                    if t in part.constant or shared:
                        self._shared[t] = known[t]
            own.update(() if shared else made.outputs)
            takes, gives = (tuple(known.get(t, -1) for t in ts) for ts in (made.inputs, made.outputs))
            self.graph.operators.append(self._operator(node, takes, gives))
            self.graph.made.append(Made(made.code, takes, gives))
        return [known[t] for t in wanted]

    def _tensor(self, t: int) -> int:
        graph, part = self.graph, self.part
        graph.file.spend(tensors=1)
        graph.tensors.append(part.tensors[t])
        graph.shapes.append(part.shapes[t])
        graph.types.append(part.types[t])
        if t in part.constant:
            graph.constant.add(len(graph.tensors) - 1)
        return len(graph.tensors) - 1

    def _operator(self, node: Node, takes: tuple[int, ...], gives: tuple[int, ...]) -> TableNode:
        if isinstance(node, TableNode):
            fields = node.fields
        else:
            assert isinstance(node, OldNode)
            if node.byte not in self._fields:
                self._fields[node.byte] = self._stock_fields(Table(self.stock.root.file, node.byte))
            fields = self._fields[node.byte]
        return TableNode({**fields, 1: flat.integers(takes), 2: flat.integers(gives)})

    def _stock_fields(self, table: Table) -> dict[int, Number | Node]:
        fields: dict[int, Number | Node] = {0: flat.u32(table.integer(0, U32))}
        options, kind = table.table(4), table.integer(3, U8)
        return {**fields, 3: flat.u8(kind), 4: OldNode(options.at)} if options is not None and kind else fields


def behind(graph: GraphBuilder, x: int, done: int) -> int:
    """Return x, to be had only once `done` is: the runtimes' planners else begin every part before they end one, and keep all of them.

    The zero that is added is one whatever `done` holds, NaN too.
    """
    rank = len(graph.shape(done))
    first = graph.reshape(graph.slice(done, [0] * rank, [1] * rank), (1,))
    zero = graph.as_float(graph.compare(ops.GREATER, first, graph.constant_of(float("inf"))))
    return graph.add(x, zero)


def cut(graph: GraphBuilder, x: int, start: int, count: int) -> int:
    """Return `count` samples of x, from `start` on."""
    shape = graph.shape(x)
    return graph.slice(x, [start, *[0] * (len(shape) - 1)], [count, *shape[1:]])
