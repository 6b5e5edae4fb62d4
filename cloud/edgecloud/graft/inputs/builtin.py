"""Writes custom operators that are builtin ones by another name as those, so that every runtime has them and a gradient passes.

`Convolution2DTransposeBias` is MediaPipe's: TRANSPOSE_CONV with a bias, from before that had one. LiteRT's XNNPACK delegate takes it as
its own deconvolution, which TRANSPOSE_CONV becomes too, so the bits are the same; no builtin kernel has it.
"""

from __future__ import annotations

import struct

from edgecloud.graft.batch import single, stock_tensors
from edgecloud.graft.stock import Op, Stock, read
from edgecloud.graft.writing import flat, ops
from edgecloud.graft.writing.build import FileBuilder, GraphBuilder
from edgecloud.graft.writing.flat import OldNode
from modelwire.errors import NotTrainable

TRANSPOSED = "Convolution2DTransposeBias"
_OPTIONS = struct.Struct("<3i")  # TfLiteTransposeConvParams: padding (1 same, 2 valid), stride across, stride down
_CUSTOM = 5  # field of Operator: custom_options
_STRIDE_MAX = 1 << 15


def builtin(stock: Stock, model: str) -> Stock:
    """Return the graph with builtin operators in the place of custom ones that compute the same; one without any as it is.

    Raises NotTrainable for one whose numbers do not fit together.
    """
    if not any(_transposed(op) for op in stock.operators):
        return stock
    file = FileBuilder(stock, model)
    graph = GraphBuilder(file, stock.graph.text(4) or "main")
    stock_tensors(graph, stock, single(stock), frozenset())
    graph.inputs, graph.outputs = list(stock.inputs), list(stock.outputs)
    for op in stock.operators:
        if _transposed(op):
            _convolve(graph, stock, op, model)
        else:
            graph.operators.append(OldNode(op.byte))
    # A subgraph is called by its number, so the others keep theirs.
    file.graphs += [OldNode(byte) for byte in stock.subgraphs[1:]]
    return read(file.write({}), model)


def _transposed(op: Op) -> bool:
    return op.code == ops.CUSTOM and op.custom == TRANSPOSED


def _convolve(graph: GraphBuilder, stock: Stock, op: Op, model: str) -> None:
    """Append the TRANSPOSE_CONV that the operator is."""

    def refuse(why: str) -> NotTrainable:
        given = f", giving {stock.tensors[op.outputs[0]].name!r}" if op.outputs else ""
        return NotTrainable(model=model, reason=f"{op.name} (operator {op.index}{given}) {why}; convert the model with TRANSPOSE_CONV")

    if len(op.inputs) not in (2, 3) or min(op.inputs[:2]) < 0 or len(op.outputs) != 1:
        raise refuse("takes other than an image, filters and a bias")
    taken = [stock.tensors[t] for t in (*op.inputs, *op.outputs) if t >= 0]
    if any(t.type != ops.FLOAT32 for t in taken):
        raise refuse("computes with other than float32")
    x, filters, y = (stock.tensors[t].shape for t in (*op.inputs[:2], *op.outputs))
    if (len(x), len(filters), len(y)) != (4, 4, 4) or min(*x, *filters, *y) < 1 or filters[3] != x[3] or (x[0], filters[0]) != (y[0], y[3]):
        raise refuse(f"makes {list(y)} of {list(x)} by filters {list(filters)}")
    if len(op.inputs) == 3 and op.inputs[2] >= 0 and stock.tensors[op.inputs[2]].shape != (y[3],):
        raise refuse(f"has a bias of {list(stock.tensors[op.inputs[2]].shape)} for {y[3]} channels")
    table = stock.table_at(op.byte)
    options = table.vector(_CUSTOM, 1)
    if options.count < _OPTIONS.size:
        raise refuse(f"has {options.count} bytes of options")
    padding, across, down = _OPTIONS.unpack_from(stock.data, options.start)
    if padding not in (1, 2) or not (0 < across <= _STRIDE_MAX and 0 < down <= _STRIDE_MAX):
        raise refuse(f"has the padding {padding} and strides of {across} and {down}")
    for back, size, kernel, stride in zip(x[1:3], y[1:3], filters[1:3], (down, across), strict=True):
        if back != (-(-size // stride) if padding == 1 else (size - kernel) // stride + 1):
            raise refuse(f"makes {list(y)} of {list(x)} by filters {list(filters)} and strides of {across} and {down}")
    written = {0: flat.i8(padding - 1), 1: flat.i32(across), 2: flat.i32(down)}
    bias = op.inputs[2:] if op.inputs[2:] != (-1,) else ()
    graph.add_op(ops.TRANSPOSE_CONV, (graph.constant_of(y), op.inputs[1], op.inputs[0], *bias), op.outputs, written)
