"""The trailing dense layers of a model: where they part from its backbone, and what many devices' layers make of one pass through that.

A model's outputs are those layers' product with what the backbone gives. Models that differ in those layers alone share the backbone's
pass, and their layers run as one product. Formulas are those of TFLite's operators; docs/comparing.md has the bound of rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from modelwire.errors import ModelWireError
from modelwire.tensors import F32
from modelwire.tflite import file as tflite_file
from modelwire.tflite.flatbuffer import I8, U32, Table
from modelwire.tflite.graph import (
    ASSIGN_VARIABLE,
    FLOAT32,
    FULLY_CONNECTED,
    INT32,
    LOGISTIC,
    READ_VARIABLE,
    RESHAPE,
    SOFTMAX,
    Graph,
    Operator,
    Signature,
    TfliteModel,
    parse,
    root_table,
)

ADD, RELU, RELU6, TANH, TRANSPOSE, BATCH_MATMUL = 0, 19, 21, 28, 39, 126  # BuiltinOperator
FUSED = {0: 0, 1: RELU, 3: RELU6, 4: TANH}  # ActivationFunctionType: the operator that does the same
_FUNCTIONS, _PAIRS = (RELU, RELU6, TANH), (ADD, FULLY_CONNECTED, BATCH_MATMUL)
LAYERS_MAX = 8


@dataclass(frozen=True, slots=True)
class Param:
    """A matrix or biases of a tail: a variable by its name in get_weights, or what stands in the file."""

    name: str = ""
    value: F32 | None = field(default=None, compare=False)
    turned: bool = False  # the matrix is [inputs, neurons]


@dataclass(frozen=True, slots=True)
class Dense:
    """One layer: matrix and biases, either of which may be missing, and the activation behind them (an operator's code; 0: none)."""

    matrix: Param | None
    biases: Param | None
    activation: int = 0


@dataclass(frozen=True, slots=True)
class Tail:
    """What follows the tensor at which a model is cut."""

    signature: str  # of the file, that is cut: eval, or infer
    cut: int | None  # the tensor, in the signature's subgraph; None: the input itself
    features: int  # entries of it, a sample
    layers: tuple[Dense, ...]
    last: int  # SOFTMAX or LOGISTIC, or 0 for none

    @property
    def names(self) -> frozenset[str]:
        """The variables that it holds."""
        params = (p for layer in self.layers for p in (layer.matrix, layer.biases) if p is not None)
        return frozenset(p.name for p in params if p.name)


class _NoTail(Exception):
    """The operators behind the cut are none that are known here."""


def tail_of(file: bytes, changed: frozenset[str]) -> Tail | None:
    """Return the tail that holds all variables of `changed`, the shortest one; None where they are not in trailing dense layers.

    file: a trainable .tflite that was let in as a base; changed: names in get_weights.
    """
    m = parse(file)
    given = m.signatures.get("get_weights")
    for name in ("eval", "infer"):  # where a batch is run sample by sample, the layers stand there many times
        signature = m.signatures.get(name)
        if signature is None or given is None or not changed or set(signature.inputs) != {"x"} or set(signature.outputs) != {"output"}:
            continue
        try:
            return _Walk(file, m, name, signature, given, changed).tail()
        except _NoTail:
            continue
    return None


def cut_file(file: bytes, tail: Tail) -> bytes | None:
    """Return the file whose signature gives the tensor of the cut as its output; None where the file has no room to say so.

    The tensor's number is written over the output's, in place: every operator stays what it was.
    """
    if tail.cut is None:
        return file
    before, root = parse(file), root_table(file)
    index = before.signatures[tail.signature].graph
    outputs = list(root.tables(2))[index].vector(2, 4)
    places = [outputs.start]
    for signature in root.tables(7):
        if signature.integer(4, U32) == index:
            places += [place for entry in signature.tables(1) if (place := entry.field(1, 4)) is not None]
    out = bytearray(file)
    for place in places:
        out[place : place + 4] = U32.pack(tail.cut)
    try:
        after = parse(bytes(out))
    except ModelWireError:
        return None
    now = after.signatures[tail.signature]
    operators = [graph.operators for graph in before.graphs], [graph.operators for graph in after.graphs]
    cut = now.outputs == {"output": tail.cut} and after.graphs[index].outputs == (tail.cut,)
    return bytes(out) if cut and operators[0] == operators[1] else None


class _Walk:
    """Walks from the output back to where nothing depends on what has changed."""

    def __init__(
        self, file: bytes, m: TfliteModel, name: str, signature: Signature, given: Signature, changed: frozenset[str]
    ) -> None:
        self.file, self.m, self.name = file, m, name
        self.graph: Graph = m.graphs[signature.graph]
        self.x, self.output = signature.inputs["x"], signature.outputs["output"]
        self.operators = list(list(root_table(file).tables(2))[signature.graph].tables(3))
        self.place = {id(op): i for i, op in enumerate(self.graph.operators)}
        self.changed, self.variables = changed, {v.name: v for v in tflite_file.read_variables(m)}
        listed = m.graphs[given.graph]
        # read_variables has checked that each output of get_weights is a variable as it stands.
        self.named = {listed.variable(listed.source[t].inputs[0]): name for name, t in given.outputs.items()}
        self.depends = self._dependent()

    def _dependent(self) -> set[int]:
        """Return the tensors that hang on a changed variable. Operators stand in the order in which they run."""
        if any(op.code == ASSIGN_VARIABLE for op in self.graph.operators):
            raise _NoTail
        out: set[int] = set()
        for op in self.graph.operators:
            mine = op.code == READ_VARIABLE and self._has(op, 1) and self.named.get(self.graph.variable(op.inputs[0])) in self.changed
            if mine or out.intersection(op.inputs):
                out.update(op.outputs)
        return out

    def tail(self) -> Tail:
        layers: list[Dense] = []
        at, last = self.output, 0
        waits = Dense(None, None)  # biases and an activation whose matrix is yet to come
        while at in self.depends:
            op = self._source(at)
            if len(layers) > LAYERS_MAX:
                raise _NoTail
            if op.code in (SOFTMAX, LOGISTIC) and at == self.output:
                self._plain(op)
                last, at = op.code, op.inputs[0]
            elif op.code in _FUNCTIONS:
                if waits != Dense(None, None):
                    layers.insert(0, waits)
                waits, at = Dense(None, None, op.code), op.inputs[0]
            elif op.code == RESHAPE:
                self._same_rows(op.inputs[0], at)
                at = op.inputs[0]
            elif op.code == ADD:
                fused, (side, biases) = self._fused(op), self._bias(op)
                if waits.biases is not None or (fused and waits.activation):
                    layers.insert(0, waits)
                    waits = Dense(None, None)
                waits, at = Dense(None, biases, fused or waits.activation), side
            elif op.code in (FULLY_CONNECTED, BATCH_MATMUL):
                layer, at = self._dense(op)
                if waits != Dense(None, None):
                    if layer.biases is None and not layer.activation:
                        layer = Dense(layer.matrix, waits.biases, waits.activation)
                    elif waits.biases is None and not layer.activation:
                        layer = Dense(layer.matrix, layer.biases, waits.activation)
                    else:
                        layers.insert(0, waits)
                layers.insert(0, layer)
                waits = Dense(None, None)
            else:
                raise _NoTail
        if waits != Dense(None, None):
            layers.insert(0, waits)
        tensor = self.graph.tensors[at]
        if not layers or tensor.type != FLOAT32 or not tensor.fixed or self.graph.is_constant(at):
            raise _NoTail
        found = Tail(self.name, None if at == self.x else at, self._entries(at), tuple(layers), last)
        if not self.changed <= found.names:
            raise _NoTail
        return found

    def _source(self, tensor: int) -> Operator:
        op = self.graph.source.get(tensor)
        if op is None or len(op.outputs) != 1 or op.custom or not self._has(op, 2 if op.code in _PAIRS else 1):
            raise _NoTail
        return op

    def _has(self, op: Operator, inputs: int) -> bool:
        return len(op.inputs) >= inputs and min(op.inputs[:inputs]) >= 0

    def _options(self, op: Operator) -> Table | None:
        return self.operators[self.place[id(op)]].table(4)

    def _fused(self, op: Operator) -> int:
        options = self._options(op)
        code = FUSED.get(0 if options is None else options.integer(0, I8))
        if code is None:
            raise _NoTail
        return code

    def _plain(self, op: Operator) -> None:
        """Refuse a softmax of another temperature."""
        options = self._options(op)
        place = options.field(0, 4) if options is not None and op.code == SOFTMAX else None
        if op.code == SOFTMAX and (place is None or np.frombuffer(self.file, "<f4", 1, place)[0] != 1):
            raise _NoTail

    def _entries(self, tensor: int) -> int:
        shape = self.graph.tensors[tensor].shape
        if len(shape) < 2:
            raise _NoTail
        return prod(shape[1:])

    def _same_rows(self, a: int, b: int) -> None:
        one, other = self.graph.tensors[a].shape, self.graph.tensors[b].shape
        if one[:1] != other[:1] or self._entries(a) != self._entries(b):
            raise _NoTail

    def _bias(self, op: Operator) -> tuple[int, Param]:
        """Return which side of an addition is the sample's, and the biases."""
        for side, other in (op.inputs, op.inputs[::-1]):
            param = self._param(other)
            if param is not None:
                if self._size(param) != self._entries(op.outputs[0]):
                    raise _NoTail
                self._same_rows(side, op.outputs[0])
                return side, param
        raise _NoTail

    def _dense(self, op: Operator) -> tuple[Dense, int]:
        """Return an operator's layer, and the tensor that it takes."""
        side, matrix = op.inputs[0], self._param(op.inputs[1])
        if matrix is None or len(self.graph.tensors[op.outputs[0]].shape) != 2:
            raise _NoTail
        options, biases, fused = self._options(op), None, 0
        if op.code == BATCH_MATMUL:
            flags = [0, 0] if options is None else [options.integer(i, I8) for i in range(2)]
            if flags[0] or len(self.graph.tensors[side].shape) != 2:
                raise _NoTail
            matrix = replace(matrix, turned=matrix.turned ^ (not flags[1]))
        else:
            if options is not None and options.integer(1, I8):
                raise _NoTail  # weights in another order
            fused = self._fused(op)
            if len(op.inputs) > 2 and op.inputs[2] >= 0 and (biases := self._param(op.inputs[2])) is None:
                raise _NoTail
        shape = self._shape(matrix)
        if len(shape) != 2:
            raise _NoTail
        inputs, neurons = shape if matrix.turned else shape[::-1]
        if self._entries(side) != inputs or self._entries(op.outputs[0]) != neurons:
            raise _NoTail
        return Dense(matrix, biases, fused), side

    def _param(self, tensor: int, *, turned: bool = False) -> Param | None:
        """Return the variable or the constant that a tensor is; None when a sample decides what it holds."""
        op = self.graph.source.get(tensor)
        if op is not None and op.code == READ_VARIABLE and self._has(op, 1):
            name = self.named.get(self.graph.variable(op.inputs[0]))
            if name is None or self.variables[name].dtype.name != "FLOAT32":
                raise _NoTail
            return Param(name)
        if op is not None and op.code == TRANSPOSE and self._has(op, 2) and not turned:
            inner = self._param(op.inputs[0], turned=True)
            if inner is None or len(self._shape(inner)) != 2 or self._integers(op.inputs[1]) != (1, 0):
                raise _NoTail
            return replace(inner, turned=not inner.turned)
        if self.graph.is_constant(tensor) and self.graph.tensors[tensor].type == FLOAT32:
            shape, (start, size) = self.graph.tensors[tensor].shape, self.m.buffers[self.graph.tensors[tensor].buffer]
            if size != 4 * prod(shape):
                raise _NoTail
            value: F32 = np.frombuffer(self.file, "<f4", prod(shape), start).reshape(shape)
            return Param("", value)
        return None

    def _integers(self, tensor: int) -> tuple[int, ...]:
        start, size = self.m.buffers[self.graph.tensors[tensor].buffer]
        if not self.graph.is_constant(tensor) or self.graph.tensors[tensor].type != INT32:
            raise _NoTail
        return tuple(np.frombuffer(self.file, "<i4", size // 4, start).tolist())

    def _shape(self, param: Param) -> tuple[int, ...]:
        return self.variables[param.name].shape if param.value is None else param.value.shape

    def _size(self, param: Param) -> int:
        return prod(self._shape(param))
