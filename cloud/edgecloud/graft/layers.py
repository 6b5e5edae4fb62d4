"""Finds the layers of a stock graph, what is trainable in them, and names for it; and picks the layers that a cut trains."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelwire.errors import BadArgument, NotTrainable

from .stock import Op, Stock
from .weights import stored
from .writing import ops

NAME_LENGTH = 60  # characters of a layer's name; a weight's adds its part
# Parts of a tensor's name that say what an operator does, or what every name in the file begins with.
_NOISE = re.compile(
    r"(MatMul|BiasAdd|Conv[12]D|ReadVariableOp|resource|[Dd]epthwise|separable_conv2d|Transpose|convolution|conv_transpose|Tensordot|Relu6?|Tanh"
    r"|Sigmoid|[Aa]dd|[Mm]ul|[Ss]ub|batchnorm|Squeeze|ExpandDims|Kernel|Bias|[Kk]ernel|bias|weights|biases|Alpha"
    r"|model|[Ss]equential|functional|StatefulPartitionedCall)?(_?\d+)*"
)
_NAMELESS = re.compile(r"(arith_constant|constant|const|pseudo_const|tfl_.*|arg\d*|)\d*", re.IGNORECASE)
KERNELS = {
    ops.FULLY_CONNECTED: (1, 2), ops.CONV_2D: (1, 2), ops.DEPTHWISE_CONV_2D: (1, 2), ops.TRANSPOSE_CONV: (1, 3), ops.BATCH_MATMUL: (1, -1),
}  # fmt: skip
_VECTORS = frozenset(("scale", "offset", "slope"))
TABLES = {ops.GATHER: 0, ops.GATHER_ND: 0, ops.EMBEDDING_LOOKUP: 1}  # which input holds what an embedding looks up


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: an operator with its kernel, or several that share it; or a vector of slopes, scales or offsets."""

    name: str
    kind: str  # the operator's name
    operator: int  # index of the first one
    weights: Mapping[str, int]  # the stock tensor of each weight, by the weight's name
    kernel: bool  # false for a vector that stands by itself, and where the kernel is locked
    locked: str = ""  # why its kernel can't be trained; empty otherwise

    def entries(self, stock: Stock) -> int:
        return sum(stock.tensors[t].size for t in self.weights.values())


def layers(stock: Stock, output: int) -> tuple[Layer, ...]:
    """Return every layer that leads to the output, in the order of the graph."""
    leading, sloped, out = stock.leading_to(output), _sloped(stock, output), list[Layer]()
    taken: set[int] = set()
    names: set[str] = set()
    for op in stock.operators:
        if op.index not in leading or not stock.moving.intersection(op.inputs):
            continue
        locked = _locked(stock, op)
        weights_here = {part: t for part, t in _weights(stock, op).items() if t not in taken} if not locked else {}
        if not weights_here and not locked:
            continue
        if weights_here.keys() <= _VECTORS and not locked and sloped.isdisjoint(op.outputs):
            continue  # a window in front of a Fourier transform, say: it prepares the input
        name = _layer_name(stock, op, weights_here, names)
        names.add(name)
        taken.update(weights_here.values())
        weights = {f"{name}_{part}": t for part, t in weights_here.items()}
        kernel = not weights_here.keys().isdisjoint(("kernel", "table"))
        out.append(Layer(name, op.name, op.index, weights, kernel, locked))
    return tuple(out)


def _sloped(stock: Stock, output: int) -> frozenset[int]:
    """Return the tensors from which a gradient can lead to the output, as far as their types and the operators' kinds tell."""
    out = {output}
    for op in reversed(stock.operators):
        if op.code not in ops.STEPS and not out.isdisjoint(op.outputs):
            out.update(t for t in op.inputs if t >= 0 and stock.tensors[t].type == ops.FLOAT32 and t not in stock.known)
    return frozenset(out)


def _locked(stock: Stock, op: Op) -> str:
    """Return why the kernel of a layer can't be trained; empty for what can be, and for what is no layer with a kernel of its own."""
    place = KERNELS.get(op.code, (-1,))[0]
    kernel = op.inputs[place] if 0 <= place < len(op.inputs) else -1
    if kernel < 0 or kernel in stock.moving or kernel in stock.inputs or _float_kernel(stock, op, kernel):
        return ""
    tensor = stock.tensors[kernel]
    kind = ops.TYPE_NAMES.get(tensor.type, f"type {tensor.type}")
    if tensor.type == ops.FLOAT32:
        return f"its kernel {tensor.name!r} is no constant of the file"
    if stock.tensors[op.inputs[0]].type != ops.FLOAT32:
        return f"it computes in {kind}; edgecloud int8-head trains the last layer of an int8 classifier"
    return f"its kernel {tensor.name!r} is {kind}: {stored.refused(stock.table_at(tensor.byte)) or 'no constant of the file'}"


def _float_kernel(stock: Stock, op: Op, kernel: int) -> bool:
    """Return whether a kernel is float32, or codes that a layer of float32 takes as they are, which can become float32."""
    if not stock.holds(kernel):
        return False
    tensor = stock.tensors[kernel]
    if tensor.type == ops.FLOAT32:
        return True
    return stock.tensors[op.inputs[0]].type == ops.FLOAT32 and not stored.refused(stock.table_at(tensor.byte))


def _weights(stock: Stock, op: Op) -> dict[str, int]:
    """Return the float weights of one operator by what they are in it."""

    def float_weight(t: int) -> bool:
        filled = t in stock.source and stock.source[t].code in (ops.FILL, ops.ZEROS_LIKE)  # as the state that a sequence starts from
        return t >= 0 and stock.holds(t) and stock.tensors[t].type == ops.FLOAT32 and not filled

    if op.code in KERNELS:
        places = dict(zip(("kernel", "bias"), KERNELS[op.code], strict=True))
        if op.code == ops.BATCH_MATMUL and float_weight(op.inputs[0]):
            return {"kernel": op.inputs[0]}
        there = {part: op.inputs[i] for part, i in places.items() if 0 < i < len(op.inputs) and op.inputs[i] >= 0}
        return {part: t for part, t in there.items() if float_weight(t) or (part == "kernel" and _float_kernel(stock, op, t))}
    if op.code in TABLES:
        table = op.inputs[TABLES[op.code]]
        return {"table": table} if float_weight(table) and stock.tensors[table].size > 1 else {}
    if op.code == ops.PRELU and float_weight(op.inputs[1]):
        return {"slope": op.inputs[1]}
    if op.code in (ops.ADD, ops.MUL):
        part = "offset" if op.code == ops.ADD else "scale"
        # A single number is part of a formula, as the half in a hard sigmoid; a vector was learnt.
        vectors = [t for t in op.inputs if float_weight(t) and stock.tensors[t].size > 1]
        return {part: vectors[0]} if vectors else {}
    return {}


def _layer_name(stock: Stock, op: Op, weights: Mapping[str, int], taken: set[str]) -> str:
    """Return a name from those that the converter left: of the output where the kernel's was lost in folding."""
    candidates = [stock.tensors[op.outputs[0]].name, *(stock.tensors[t].name for t in weights.values())]
    for candidate in candidates:
        for fused in candidate.split(";"):
            parts = [p for p in re.split(r"[/:.]", fused) if not _NOISE.fullmatch(p)]
            name = re.sub(r"\W+", "_", parts[-1] if parts else "", flags=re.ASCII).strip("_").removesuffix("_1")  # Keras numbers its calls
            name = name[-NAME_LENGTH:].lstrip("_0123456789")
            if not _NAMELESS.fullmatch(name):
                return name if name not in taken else f"{name}_op{op.index}"
    return f"{op.name.lower()}_op{op.index}"


def select(stock: Stock, every: Sequence[Layer], what: Sequence[str]) -> tuple[Layer, ...]:
    """Return the layers that a cut trains. what: `head`, `last:N`, `all`, or names of layers, weights or stock tensors.

    Vectors that stand by themselves go with the kernels before them; what stands before the first kernel only prepares the input.
    Raises BadArgument for a name that is not there; NotTrainable for a layer whose kernel can't be trained.
    """
    kernels = [layer for layer in every if layer.kernel]
    if not kernels:
        reason = "the model has no layer with float weights that leads to its output"
        raise BadArgument(reason=reason, fix="edgecloud inspect shows what it has")
    if len(what) == 1 and (count := _count(what[0], len(kernels))) is not None:
        last = [layer for layer in every if layer.kernel or layer.locked][-count:] if what[0] != "all" else kernels
        # "head" is the last layer whatever it is: to train another one in its stead would be no service.
        locked = next((layer for layer in reversed(last) if layer.locked), None)
        if locked is not None:
            way = "--train with the name of another layer trains that one"
            raise NotTrainable(model=locked.name, reason=f"{locked.kind} (operator {locked.operator}): {locked.locked}; {way}")
        return tuple(layer for layer in every if layer.operator >= last[0].operator and not layer.locked)
    every = [layer for layer in every if not layer.locked]
    chosen: list[Layer] = []
    for name in what:
        match = [layer for layer in every if name == layer.name]
        match = match or [_part(layer, name, stock) for layer in every if _has(layer, name, stock)]
        if not match:
            known = ", ".join(layer.name for layer in every)
            raise BadArgument(reason=f"no layer or weight is called {name!r}", fix=f"name one of: {known}")
        chosen += match
    return tuple(sorted({tuple(c.weights): c for c in chosen}.values(), key=lambda layer: layer.operator))


def _count(what: str, kernels: int) -> int | None:
    if what == "head":
        return 1
    if what == "all":
        return kernels
    if not what.startswith("last:"):
        return None
    count = what.removeprefix("last:")
    if not count.isdecimal() or not count.isascii() or len(count) > 9 or not 1 <= int(count) <= kernels:
        raise BadArgument(reason=f"{what!r} names no number of layers", fix=f"last:1 to last:{kernels}, which is all")
    return int(count)


def _has(layer: Layer, name: str, stock: Stock) -> bool:
    return any(name in (weight, stock.tensors[t].name) for weight, t in layer.weights.items())


def _part(layer: Layer, name: str, stock: Stock) -> Layer:
    weights = {weight: t for weight, t in layer.weights.items() if name in (weight, stock.tensors[t].name)}
    return Layer(layer.name, layer.kind, layer.operator, weights, layer.kernel)
