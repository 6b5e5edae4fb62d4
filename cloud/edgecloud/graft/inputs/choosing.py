"""Chooses the subgraph that is looked at: that of a signature, or the first."""

from __future__ import annotations

from edgecloud.graft.stock import Stock, read
from modelwire.errors import BadArgument
from modelwire.tflite.flatbuffer import U32


def chosen(stock: Stock, signature: str, model: str) -> Stock:
    """Return the file with the subgraph of a signature in the place of the first. signature: its name; empty: the first subgraph as it is.

    Raises BadArgument for a signature that is not there.
    """
    if not signature:
        return stock
    graphs = {t.text(2) or "": t.integer(4, U32) for t in stock.root.tables(7)}
    if signature not in graphs:
        known = f"name one of: {', '.join(graphs)}" if graphs else "the file has none: leave --signature out"
        raise BadArgument(reason=f"no signature is called {signature!r}", fix=known)
    if graphs[signature] >= len(stock.subgraphs):
        raise stock.root.file.malformed(f"the signature {signature!r} names subgraph {graphs[signature]} of {len(stock.subgraphs)}")
    return stock if graphs[signature] == stock.number else read(stock.data, model, graphs[signature])


def names_of(stock: Stock) -> dict[int, str]:
    """Return a name for each input: its signature's where there is one for this subgraph, else the tensor's."""
    names = {t: stock.tensors[t].name for t in stock.inputs}
    for table in stock.root.tables(7):
        if table.integer(4, U32) == stock.number:
            given = {entry.integer(1, U32): entry.text(0) or "" for entry in table.tables(0)}
            return names | {t: name for t, name in given.items() if t in names and name}
    return names
