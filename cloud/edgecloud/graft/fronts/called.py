"""Says which subgraphs the operators of a stock file call, and keeps them in the new file at the places by which they are called."""

from __future__ import annotations

from collections.abc import Iterator

from edgecloud.graft.stock import Stock
from edgecloud.graft.writing import ops
from edgecloud.graft.writing.build import FileBuilder, GraphBuilder
from edgecloud.graft.writing.flat import OldNode
from modelwire.tflite.file import CUSTOM_OF_RUNTIMES as CUSTOM_OF_RUNTIMES
from modelwire.tflite.flatbuffer import I8, I32, U8, U32, Table

_ENDURES = "keeps state from call to call, which can't be started anew for each sample"
_KEPT = 5  # field of a Tensor: the runtime keeps it from call to call
_STATE = (ops.VAR_HANDLE, ops.READ_VARIABLE, ops.ASSIGN_VARIABLE, ops.CALL_ONCE)
_CALLS = {ops.IF: (0, 1), ops.WHILE: (0, 1), ops.CALL_ONCE: (0,)}  # fields of the options that name subgraphs


def operators(stock: Stock, graph: int) -> Iterator[tuple[int, Table, str]]:
    """Return code, table and custom name of each operator of a subgraph."""
    table = Table(stock.root.file, stock.subgraphs[graph])
    codes = [(max(t.integer(0, I8), t.integer(3, I32)), t.text(1) or "") for t in stock.root.tables(1)]
    for op in table.tables(3):
        index = op.integer(0, U32)
        if index >= len(codes):
            raise op.file.malformed(f"an operator names code {index} of {len(codes)}")
        yield codes[index][0], op, codes[index][1]


def reached(stock: Stock, first: int = 0) -> frozenset[int]:
    """Return the subgraphs that one calls, and those that these call.

    Raises Malformed where a subgraph calls itself, if by way of others: no runtime ends that.
    """
    calls: dict[int, set[int]] = {}
    left = [first]
    while left:
        here = left.pop()
        if here in calls:
            continue
        calls[here] = {to for code, op, _ in operators(stock, here) for to in _called(code, op)}
        if any(not 0 <= to < len(stock.subgraphs) for to in calls[here]):
            raise stock.root.file.malformed(f"an operator calls a subgraph that is none of its {len(stock.subgraphs)}")
        left += calls[here]
    ended: set[int] = set()
    while ended != calls.keys():
        now = {graph for graph, to in calls.items() if to <= ended}
        if now == ended:
            raise stock.root.file.malformed("one of its subgraphs calls itself")
        ended = now
    return frozenset(calls) - {first}


def _called(code: int, op: Table) -> tuple[int, ...]:
    fields = _CALLS.get(code, ())
    options = op.table(4) if fields and op.integer(3, U8) else None
    return tuple(0 if options is None else options.integer(field, I32) for field in fields)


def keep(file: FileBuilder, *stocks: Stock) -> None:
    """Put the subgraphs that are called behind the first of a file in the making, so that each has the number that it had.

    stocks: main graphs of one file.

    The others' places are taken by empty ones: what is not called need not keep the contract.
    """
    wanted = frozenset().union(*(reached(stock, stock.number) for stock in stocks))
    for number in range(1, max(wanted, default=0) + 1):
        if number in wanted:
            file.graphs.append(OldNode(stocks[0].subgraphs[number]))
        else:
            GraphBuilder(file, f"unused_{number}")


def refused(stock: Stock) -> str:
    """Return why what a file calls can't be kept; empty when it can."""
    if stock.number and 0 in reached(stock, stock.number):
        return "its subgraph calls the first one, whose place it has to take"
    once = {to for code, op, _ in operators(stock, stock.number) for to in _called(code, op) if code == ops.CALL_ONCE}
    for graph in sorted(reached(stock, stock.number)):
        for code, _, custom in operators(stock, graph):
            if code == ops.CUSTOM and custom not in CUSTOM_OF_RUNTIMES:
                return f"its subgraph {graph} uses {custom or 'a custom operator'}, which only its author's code can run"
            if code in _STATE and graph not in once:
                return f"its subgraph {graph}, a loop or a branch, {_ENDURES} ({ops.name(code)})"
        tensors = Table(stock.root.file, stock.subgraphs[graph]).tables(0)
        if any(t.integer(_KEPT, U8) for t in tensors):
            return f"its subgraph {graph}, a loop or a branch, {_ENDURES}"
    return ""
