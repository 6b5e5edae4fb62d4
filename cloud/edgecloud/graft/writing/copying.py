"""Copies what a stock file holds into another place: an operator with other tensors, and the whole file with another main graph."""

from __future__ import annotations

from collections.abc import Sequence

from edgecloud.graft.stock import Stock
from modelwire.tflite.flatbuffer import I8, I32, U8, U32, Table

from . import flat
from .flat import Node, Number, OldNode, TableNode, TableVector

_OPTIONS, _CUSTOM, _FORMAT, _MUTATING, _INTERMEDIATES, _LARGE, _OPTIONS_2 = 3, 5, 6, 7, 8, 9, 11  # fields of Operator


def operator(table: Table, inputs: Sequence[int], outputs: Sequence[int], intermediates: Sequence[int] | None = None) -> TableNode:
    """Return an operator of the stock file that takes and gives other tensors; its options are read from where they stand.

    intermediates: tensors that take the place of those that it keeps for itself. Raises Malformed for options outside the flatbuffer.
    """
    fields: dict[int, Number | Node] = {
        0: flat.u32(table.integer(0, U32)), 1: flat.integers(inputs), 2: flat.integers(outputs),
    }  # fmt: skip
    for number in (_OPTIONS, _OPTIONS_2):
        options = table.table(number + 1) if table.integer(number, U8) else None
        if options is not None:
            fields |= {number: flat.u8(table.integer(number, U8)), number + 1: OldNode(options.at)}
    for number in (_CUSTOM, _MUTATING):
        v = table.vector(number, 1)
        if v.count:
            fields[number] = OldNode(v.start - U32.size)
    if table.integer(_FORMAT, I8):
        fields[_FORMAT] = flat.i8(table.integer(_FORMAT, I8))
    kept = table.integers(_INTERMEDIATES, I32) if intermediates is None else intermediates
    if kept:
        fields[_INTERMEDIATES] = flat.integers(kept)
    if table.field(_LARGE, 8) is not None:
        raise table.file.malformed("an operator's options lie outside the flatbuffer; such files are not read")
    return TableNode(fields)


def with_main_graph(
    stock: Stock, tensors: Sequence[Node], operators: Sequence[Node], buffers: Sequence[Node] = (), *, codes: Sequence[Node] = (),
    behind: Sequence[Node] = (),
) -> bytes:  # fmt: skip
    """Return the stock file with another first subgraph of the same inputs and outputs; its others stand where they stood.

    buffers, codes, behind: buffers, operator codes and subgraphs that come after those that it has. Signatures are left out: theirs
    would name tensors of the old one.
    """
    ends, name = (flat.integers(stock.inputs), flat.integers(stock.outputs)), flat.text(stock.graph.text(4) or "main")
    main = TableNode({0: TableVector(tensors), 1: ends[0], 2: ends[1], 3: TableVector(operators), 4: name})
    graphs: list[Node] = [main, *(OldNode(byte) for byte in stock.subgraphs[1:]), *behind]
    held: list[Node] = [*(OldNode(byte) for byte in stock.buffer_tables), *buffers]
    coded: list[Node] = [*(OldNode(byte) for byte in stock.codes), *codes]
    fields: dict[int, Number | Node] = {
        0: flat.u32(3), 1: TableVector(coded), 2: TableVector(graphs), 4: TableVector(held),
        6: TableVector([OldNode(t.at) for t in stock.root.tables(6)]),
    }  # fmt: skip
    return flat.write(TableNode(fields), b"TFL3", stock.data)
