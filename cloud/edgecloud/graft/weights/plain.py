"""Gives layers that compute with int8, int4 or sparse weights the same weights as plain float32, so that they can be trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from edgecloud.graft.layers import KERNELS, Layer
from edgecloud.graft.stock import Stock, read
from edgecloud.graft.writing import copying, flat, ops
from edgecloud.graft.writing.build import tensor_table
from edgecloud.graft.writing.flat import Node, OldNode, TableNode

from . import stored


def made_plain(stock: Stock, tensors: Iterable[int], model: str) -> tuple[Stock, Mapping[int, int]]:
    """Return a stock file whose layers take these weights as float32, and the tensor that stands for each that was none.

    What is float32 already, if only behind DEQUANTIZE or DENSIFY, stays as it is; a file of such weights alone is returned itself.
    """
    codes = sorted({t for t in tensors if needed(stock, t)})
    if not codes:
        return stock, {}
    buffers: list[Node] = []
    tables: list[Node] = [OldNode(t.byte) for t in stock.tensors]
    instead: dict[int, int] = {}
    for t in codes:
        old = stock.tensors[t]
        value = stored.widened(stock.value(t), stock.table_at(old.byte), old.name)
        buffers.append(TableNode({0: flat.data(value.tobytes())}))
        instead[t] = len(tables)
        tables.append(tensor_table(old.shape, ops.FLOAT32, old.name, len(stock.buffers) + len(buffers) - 1))
    operators: list[Node] = []
    for op in stock.operators:
        place = KERNELS[op.code][0] if op.code in KERNELS else -1
        if place < 0 or len(op.inputs) <= place or op.inputs[place] not in instead:
            operators.append(OldNode(op.byte))
            continue
        takes = [instead[t] if i == place else t for i, t in enumerate(op.inputs)]
        operators.append(copying.operator(stock.table_at(op.byte), takes, op.outputs))
    data = copying.with_main_graph(stock, tables, operators, buffers)
    return read(data, model), instead


def plain_layers(layers: Sequence[Layer], instead: Mapping[int, int]) -> tuple[Layer, ...]:
    """Return the same layers of the file that `made_plain` gave."""
    return tuple(replace(layer, weights={name: instead.get(t, t) for name, t in layer.weights.items()}) for layer in layers)


def needed(stock: Stock, tensor: int) -> bool:
    """Return whether a layer takes this weight as what no variable can be: trained, it computes as float32, with other last bits."""
    known = stock.tensors[tensor]
    return known.type != ops.FLOAT32 or (known.sparse and tensor not in stock.source)


def not_plain(stock: Stock, weights: Mapping[str, int]) -> dict[str, str]:
    """Return how the file stores each of these weights that is not plain float32, by its name."""
    every = {name: stored_as(stock, t) for name, t in weights.items()}
    return {name: how for name, how in every.items() if how != "float32"}


def stored_as(stock: Stock, tensor: int) -> str:
    """Return how the file stores a weight: float32, float16, int8, ...; and whether it is sparse."""
    while (op := stock.source.get(tensor)) is not None and op.code in (ops.DEQUANTIZE, ops.DENSIFY):
        tensor = op.inputs[0]
    name = ops.TYPE_NAMES.get(stock.tensors[tensor].type, "unknown")
    return f"sparse {name}" if stock.tensors[tensor].sparse else name
