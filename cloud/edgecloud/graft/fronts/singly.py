"""Lets operators that no batch passes run once for each sample, inside a graph of many: everything behind them takes a batch.

What is written is plain operators, a copy of the front for each sample; so it runs wherever the stock file runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from edgecloud.graft.batch import Batched, CannotBatch, batched, forward, stock_table
from edgecloud.graft.stock import Op, Stock
from edgecloud.graft.tape import NoRule
from edgecloud.graft.writing import copying, flat, ops
from edgecloud.graft.writing.build import GraphBuilder, Made
from edgecloud.graft.writing.flat import OldNode
from modelwire.tflite.flatbuffer import I32

# Loops, branches, state, custom code, and what gives as much as the sample asks for: which of it is which sample's can't be followed.
_ALONE = frozenset((
    ops.IF, ops.WHILE, ops.CALL_ONCE, ops.CUSTOM, ops.VAR_HANDLE, ops.READ_VARIABLE, ops.ASSIGN_VARIABLE, ops.WHERE, ops.UNIQUE,
    ops.LSTM, ops.RNN, ops.SVDF, ops.UNIDIRECTIONAL_SEQUENCE_RNN, ops.UNIDIRECTIONAL_SEQUENCE_LSTM, ops.BIDIRECTIONAL_SEQUENCE_LSTM,
    ops.BIDIRECTIONAL_SEQUENCE_RNN, ops.NON_MAX_SUPPRESSION_V4, ops.NON_MAX_SUPPRESSION_V5, ops.SEGMENT_SUM, ops.SPARSE_TO_DENSE,
    ops.UNSORTED_SEGMENT_PROD, ops.UNSORTED_SEGMENT_MAX, ops.UNSORTED_SEGMENT_SUM, ops.UNSORTED_SEGMENT_MIN,
    ops.RANDOM_STANDARD_NORMAL, ops.RANDOM_UNIFORM, ops.BUCKETIZE, *range(136, 140),  # hash tables
))  # fmt: skip
_SIZED = (ops.WHERE, ops.UNIQUE, ops.SEGMENT_SUM)  # how much they give, the values decide
_NEWEST = 161  # operators beyond are not known here, StableHLO's above all
_ROUNDS = 64  # after which everything in front of what is trained runs once a sample
_INTERMEDIATES = 8  # field of an Operator


def layout(stock: Stock, batch: int, *, wanted: frozenset[int], trained: Iterable[int]) -> Batched:
    """Return the shapes for `batch` samples, and which of the operators in `wanted` run once for each of them.

    trained: tensors whose gradients are wanted. Raises NoRule where an operator that no batch passes stands behind one of these.
    """
    behind = _behind(stock, trained)
    moving = [op for op in stock.operators if op.index in wanted and stock.moving.intersection((*op.inputs, *op.outputs))]
    alone: set[int] = set()
    loose: set[int] = set()  # tensors whose size the sample decides, which can't lie side by side
    for op in moving:
        sized = op.code in _SIZED or not stock.unknown.keys().isdisjoint(op.outputs)
        if op.code in _ALONE or op.code > _NEWEST or sized or loose.intersection(op.inputs):
            lost = next((stock.unknown[t] for t in op.outputs if t in stock.unknown), "")
            why = f"has no known shape ({lost})" if lost else "is run once for each sample"
            _add(stock, alone, op, behind, wanted, why)
        if sized or loose.intersection(op.inputs):
            loose.update(t for t in op.outputs if sized or stock.tensors[t].open)
    for _ in range(_ROUNDS):
        _close(stock, alone, moving, behind, wanted)
        stacked = _given(stock, alone, wanted)
        try:
            found = batched(stock, batch, wanted=wanted - alone, stacked=stacked)
        except CannotBatch as refused:
            _add(stock, alone, refused.op, behind, wanted, refused.why)
            continue
        return replace(found, singly=frozenset(alone))
    alone = {op.index for op in moving if op.index not in behind}
    _close(stock, alone, moving, behind, wanted)
    try:
        found = batched(stock, batch, wanted=wanted - alone, stacked=_given(stock, alone, wanted))
    except CannotBatch as refused:
        raise NoRule(refused.op, refused.why) from None
    return replace(found, singly=frozenset(alone))


def _behind(stock: Stock, trained: Iterable[int]) -> frozenset[int]:
    """Return the operators that something trained leads to."""
    reached, out = set(trained), set()
    for op in stock.operators:
        if reached.intersection(op.inputs):
            out.add(op.index)
            reached.update(op.outputs)
    return frozenset(out)


def _add(stock: Stock, alone: set[int], op: Op, behind: frozenset[int], wanted: frozenset[int], why: str) -> None:
    """Let an operator run once a sample, with all that it is computed from and that a sample changes."""
    left = [op]
    while left:
        here = left.pop()
        if here.index in alone or here.index not in wanted:
            continue
        if here.index in behind:
            raise NoRule(op, f"{why}, and something that is trained stands before it")
        alone.add(here.index)
        # A state that the runtime keeps is each sample's own, though none of them changes how it starts.
        left += [stock.source[t] for t in here.inputs if t in stock.source and (t in stock.moving or stock.tensors[t].kept)]


def _given(stock: Stock, alone: set[int], wanted: frozenset[int]) -> frozenset[int]:
    """Return the tensors that operators behind take from those that run once a sample; and outputs that these give."""
    taken = {t for op in stock.operators if op.index in wanted and op.index not in alone for t in op.inputs} | set(stock.outputs)
    return frozenset(t for op in stock.operators if op.index in alone for t in op.outputs if t in taken and t in stock.moving)


def _close(stock: Stock, alone: set[int], moving: Iterable[Op], behind: frozenset[int], wanted: frozenset[int]) -> None:
    """Let those run once a sample, too, that take what can't be laid side by side: it has no first axis of 1."""
    given = {t for op in stock.operators if op.index in alone for t in op.outputs}
    for op in moving:  # in the order of the graph: what one of them gives is met later
        if op.index in alone:
            continue
        odd = [t for t in op.inputs if t in given and (stock.tensors[t].shape[:1] != (1,) or op.code == ops.SHAPE)]
        if odd:
            name = stock.tensors[odd[0]].name
            before = set(alone)
            _add(stock, alone, op, behind, wanted, f"takes {name!r}, which has no axis for the samples of a batch")
            given.update(t for other in stock.operators if other.index in alone - before for t in other.outputs)


def append(
    graph: GraphBuilder, stock: Stock, layout: Batched, batch: int, variables: frozenset[int], wanted: frozenset[int]
) -> frozenset[int]:  # fmt: skip
    """Append what runs once for each sample; return the operators in `wanted` that are left, all of them where nothing does.

    The graph's first tensors are the stock's. What no sample changes comes first, since the copies share it.
    """
    if not layout.singly:
        return wanted
    still = frozenset(op.index for op in stock.operators if not stock.moving.intersection(op.outputs)) - layout.singly
    forward(graph, stock, layout, variables, wanted & still)
    _copies(graph, stock, layout, batch)
    return wanted - still - layout.singly


def _copies(graph: GraphBuilder, stock: Stock, layout: Batched, batch: int) -> None:
    """Append a copy of what runs once a sample for each, and lay what the copies give side by side."""
    alone = [op for op in stock.operators if op.index in layout.singly]
    stacked = sorted(_given(stock, set(layout.singly), frozenset(op.index for op in stock.operators)))
    parts: dict[int, list[int]] = {t: [] for t in stacked}
    for sample in range(batch):
        own: dict[int, int] = {}
        for op in alone:
            for t in op.inputs:
                if t in stock.inputs and t not in own:
                    own[t] = _sample(graph, stock, t, sample)
            own.update((t, _again(graph, stock, t)) for t in op.outputs)
            table = stock.table_at(op.byte)
            inner = tuple(_again(graph, stock, t) for t in table.integers(_INTERMEDIATES, I32) if 0 <= t < len(stock.tensors))
            takes, gives = [own.get(t, t) for t in op.inputs], [own[t] for t in op.outputs]
            graph.operators.append(copying.operator(table, takes, gives, inner))
            graph.made.append(Made(op.code, tuple(takes), tuple(gives)))
        for t in stacked:
            parts[t].append(own[t])
    for t, each in parts.items():
        graph.add_op(ops.CONCATENATION, each, [t], {0: flat.i32(0)})


def _sample(graph: GraphBuilder, stock: Stock, t: int, sample: int) -> int:
    """Return one sample of an input."""
    tensor = stock.tensors[t]
    begin = graph.constant_of([sample, *[0] * (len(tensor.shape) - 1)])
    return graph.op(ops.SLICE, (t, begin, graph.constant_of(list(tensor.shape))), tensor.shape, type=tensor.type)


def _again(graph: GraphBuilder, stock: Stock, t: int) -> int:
    """Return another tensor that is like one of the stock file's in everything."""
    tensor = stock.tensors[t]
    graph.file.spend(tensors=1)
    graph.tensors.append(stock_table(tensor, tensor.shape, 0) if tensor.reshaped and not tensor.kept else OldNode(tensor.byte))
    graph.shapes.append(tensor.shape)
    graph.types.append(tensor.type)
    return len(graph.tensors) - 1
