"""Writes in front of a stock graph the operators that cut its inputs out of one float32 x.

A training step takes one x. Of several inputs x holds all entries, one behind the other; of whole numbers and truth values it holds
the values, which a cast makes what they were. Both are exact, so the graph behind gives the bits that the stock file gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from edgecloud.graft.batch import single, stock_tensors
from edgecloud.graft.stock import Stock, StockTensor, read
from edgecloud.graft.writing import flat, ops
from edgecloud.graft.writing.build import FileBuilder, GraphBuilder
from edgecloud.graft.writing.flat import OldNode
from modelwire.errors import NotTrainable

from .choosing import names_of

_CASTS = (ops.INT32, ops.UINT8, ops.INT64, ops.BOOL, ops.INT8, ops.INT16)
SAMPLE_MAX = 1 << 24  # entries of one sample


@dataclass(frozen=True, slots=True)
class InputPart:
    """One input of the stock file, as a piece of x."""

    name: str
    shape: tuple[int, ...]  # as the stock file takes it, for one sample
    type: str  # as the stock file takes it


def joined(stock: Stock, model: str, trained: int) -> tuple[Stock, tuple[InputPart, ...]]:
    """Return the graph with one float32 input, and the parts of that in their order; none where the input is as it was.

    trained: the output that is trained; where it has no axis of samples it gets one in front.

    Raises NotTrainable for inputs that no x can hold.
    """
    if not stock.inputs:
        raise NotTrainable(model=model, reason="it takes no input")
    names = names_of(stock)
    for t in stock.inputs:
        _check(stock.tensors[t], names[t], model)
    parts = tuple(InputPart(names[t], stock.tensors[t].shape, ops.TYPE_NAMES[stock.tensors[t].type]) for t in stock.inputs)
    plain = len(parts) == 1 and parts[0].type == "float32" and _sampled(parts[0].shape)
    bare = stock.tensors[trained].type == ops.FLOAT32 and stock.tensors[trained].shape[:1] != (1,)
    if plain and stock.number == 0 and not bare:
        return stock, ()
    if sum(prod(part.shape) for part in parts) > SAMPLE_MAX:
        raise NotTrainable(model=model, reason=f"its inputs are more than {SAMPLE_MAX} entries a sample")
    return read(_written(stock, model, plain=plain, bare=trained if bare else -1), model), () if plain else parts


def _sampled(shape: tuple[int, ...]) -> bool:
    """Return whether a shape has a first axis of one sample, and a place for what is in it."""
    return len(shape) > 1 and shape[0] == 1


def _check(tensor: StockTensor, name: str, model: str) -> None:
    """Raise NotTrainable for an input that is no piece of a sample."""
    kind = ops.TYPE_NAMES.get(tensor.type, f"type {tensor.type}")
    sizes = ", ".join("any" if i in tensor.open and i else str(n) for i, n in enumerate(tensor.shape))

    def refuse(why: str) -> NotTrainable:
        return NotTrainable(model=model, reason=f"its input {name!r} is {kind}[{sizes}]: {why}")

    if tensor.type == ops.STRING:
        raise refuse("text is no sample of numbers; convert the part of the model behind its tokens")
    if tensor.type != ops.FLOAT32 and tensor.type not in _CASTS:
        raise refuse("x is float32, and nothing makes that of it")
    if any(i > 0 for i in tensor.open):
        raise refuse("a sample needs a fixed size: --input-size says one, or convert the model with one")
    if tensor.size == 0:
        raise refuse("it is empty")


def _written(stock: Stock, model: str, *, plain: bool, bare: int) -> bytes:
    """Return the file with its graph behind what cuts x into the inputs.

    plain: x is the only input already. bare: an output that gets an axis of samples; -1 for none.
    """
    file = FileBuilder(stock, model)
    graph = GraphBuilder(file, stock.graph.text(4) or "main")
    stock_tensors(graph, stock, single(stock), frozenset())
    graph.inputs, graph.outputs = list(stock.inputs), list(stock.outputs)
    if not plain:
        graph.inputs = [_cut(graph, stock)]
    graph.operators += [OldNode(op.byte) for op in stock.operators]
    if bare >= 0:
        tensor = stock.tensors[bare]
        shape = (1, *(tensor.shape or (1,)))
        out = graph.tensor(shape, name=tensor.name)
        graph.add_op(ops.RESHAPE, (bare, graph.constant_of(shape)), [out], {0: flat.integers(shape)})
        graph.outputs = [out if t == bare else t for t in graph.outputs]
    # A subgraph is called by its number, so the others keep theirs.
    file.graphs += [OldNode(byte) for byte in stock.subgraphs[1:]]
    return file.write({})


def _cut(graph: GraphBuilder, stock: Stock) -> int:
    """Append the operators that give the inputs; return x."""
    tensors = [stock.tensors[t] for t in stock.inputs]
    sizes = [tensor.size for tensor in tensors]
    if len(tensors) == 1 and len(tensors[0].shape) > 1:
        x = graph.tensor(tensors[0].shape if _sampled(tensors[0].shape) else (1, *tensors[0].shape), name="x")
    else:
        x = graph.tensor((1, sum(sizes)), name="x")
    begin = 0
    for t, tensor, size in zip(stock.inputs, tensors, sizes, strict=True):
        piece = x if len(tensors) == 1 else graph.slice(x, (0, begin), (1, size))
        begin += size
        if tensor.type == ops.FLOAT32:
            graph.add_op(ops.RESHAPE, (piece, graph.constant_of(tensor.shape)), [t], {0: flat.integers(tensor.shape)})
        else:
            graph.add_op(ops.CAST, (graph.reshape(piece, tensor.shape),), [t], {0: flat.i8(ops.FLOAT32), 1: flat.i8(tensor.type)})
    return x
