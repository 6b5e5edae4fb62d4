"""Finds the last layer of an int8 classifier, which a device trains with no signature for it, and where its integers and scales lie.

docs/trainable-models.md, "An int8 classifier as it is". Everything about the layer that could be otherwise is checked here: whoever
has an `Int8Head` may compute with it and write over its variables.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import NoReturn

import numpy as np

from modelwire.errors import NotTrainable
from modelwire.tensors import Dtype, Held

from .flatbuffer import I8, U8, Table
from .graph import (
    CONV_2D,
    DEQUANTIZE,
    FLOAT16,
    FLOAT32,
    FULLY_CONNECTED,
    INT8,
    INT32,
    LOGISTIC,
    QUANTIZE,
    RESHAPE,
    SOFTMAX,
    SQUEEZE,
    Buffer,
    Contract,
    Graph,
    Operator,
    TfliteModel,
    Variable,
    readers_of,
    root_table,
)
from .places import Parts

KERNEL, BIAS, KERNEL_SCALE, BIAS_SCALE = "head_kernel", "head_bias", "head_kernel_scale", "head_bias_scale"
OUTPUT_SCALE, OUTPUT_ZERO = "head_output_scale", "head_output_zero"
BATCH = 32  # samples of a step; no graph fixes it
CODE_MAX = 127  # of a weight: narrow range, as the runtimes want it
BIAS_MAX = 1 << 30
FEATURES_MAX = 16384  # 255 * 127 * this and a bias stay within the int32 in which the kernels add up

_BEHIND = (DEQUANTIZE, LOGISTIC, QUANTIZE, RESHAPE, SOFTMAX, SQUEEZE)
_TYPES = {FLOAT32: "float32", FLOAT16: "float16", INT32: "int32"}  # as errors call them
_OPTIONS = {FULLY_CONNECTED: 8, CONV_2D: 1, SOFTMAX: 9}  # BuiltinOptions
_FUSED = {FULLY_CONNECTED: 0, CONV_2D: 3}  # the field of the activation fused into the operator
_NEAR = 2.0**-18  # how far, of itself, a bias's scale may be from the product that it should be: float32 loses 2^-24 a step


@dataclass(frozen=True, slots=True)
class Int8Head:
    """The dense layer that an int8 classifier ends in. It sees `features` int8 codes; a code c counts (c - zero) * scale."""

    variables: tuple[Variable, ...]  # sorted by name; scales are among them where they are the layer's own
    features: int
    outputs: int
    logistic: bool  # each output is a probability by itself; else a softmax makes them add up to 1
    feature_scale: float
    feature_zero: int
    kernel_scales: tuple[float, ...]  # one for each output, or one for all
    bias_scales: tuple[float, ...]
    output_scale: float  # of the logits
    output_zero: int
    exposed: int | None  # the output of the file that gives what the head sees; None where it has no such output
    seen: int  # the tensor of what it sees, in the first subgraph
    given: int  # and that of its logits

    @property
    def names(self) -> frozenset[str]:
        return frozenset(v.name for v in self.variables)

    @property
    def keeps_scales(self) -> bool:
        """Whether the file shares the layer's scales with others, so that they stay as they are."""
        return KERNEL_SCALE not in self.names

    @property
    def contract(self) -> Contract:
        """Rows of codes in, a class out: of one logistic output two, its absence and its presence."""
        return Contract(BATCH, (self.features,), (2 if self.outputs == 1 else self.outputs,), True, codes=True)

    def holds(self, least: float, most: float) -> bool:
        """Return whether the scale of the logits holds all between these."""
        low, high = self.reach
        return low <= least and most <= high

    @property
    def reach(self) -> tuple[float, float]:
        """The least and the largest logit that its codes stand for."""
        return (-128 - self.output_zero) * self.output_scale, (127 - self.output_zero) * self.output_scale

    def with_weights(self, weights: Mapping[str, Held], *, model: str = "the model") -> Int8Head:
        """Return the head with the scales that are among `weights`. Raises NotTrainable for scales that a runtime would refuse."""
        kernel = _numbers(weights.get(KERNEL_SCALE), self.kernel_scales)
        bias = _numbers(weights.get(BIAS_SCALE), self.bias_scales)
        scale, zero = self.output_scale, self.output_zero
        if OUTPUT_SCALE in weights:
            scale = float(weights[OUTPUT_SCALE].reshape(()))
            zero = int(weights[OUTPUT_ZERO].astype("<i4").view("<i8")[0])
        made = replace(self, kernel_scales=kernel, bias_scales=bias, output_scale=scale, output_zero=zero)
        made.check(model)
        return made

    def check(self, model: str) -> None:
        """Raise NotTrainable unless its scales are such as every runtime computes with."""
        scales = (self.feature_scale, *self.kernel_scales, *self.bias_scales, self.output_scale)
        if not all(math.isfinite(s) and s >= float(np.finfo(np.float32).tiny) for s in scales):
            _refuse(model, "a scale of its last layer is not a positive number")
        if not -128 <= self.feature_zero <= 127 or not -128 <= self.output_zero <= 127:
            _refuse(model, "a zero point of its last layer is no int8")
        for kernel, bias in zip(self.kernel_scales, self.bias_scales, strict=True):
            product = kernel * self.feature_scale
            if abs(bias - product) > _NEAR * product:
                _refuse(model, "the scale of its last layer's bias is not that of the weights times that of the features")
            if not 2.0**-31 <= product / self.output_scale < 2.0**8:
                _refuse(model, "the scales of its last layer are too far apart")


def find(file: Buffer, m: TfliteModel, model: str) -> Int8Head | None:
    """Return the head of a parsed file that has no signature to train it; None when it ends in no layer of int8 at all.

    Raises NotTrainable when it does, and something about that layer keeps it from being trained in place.
    """
    graph = m.graphs[0] if m.graphs else None
    if graph is None or not graph.outputs:
        return None
    layer, behind = _layer(graph, graph.outputs[0])
    if layer is None or INT8 not in {graph.tensors[t].type for t in layer.inputs[:2] if t >= 0}:
        return None
    return _Finder(file, m, graph, layer, behind, model).head(graph.outputs[0])


def find_behind(file: Buffer, m: TfliteModel, output: int, model: str) -> Int8Head:
    """Return the head that leads to this output of the first subgraph, whatever signatures there are; its logits may be the output.

    Raises NotTrainable for anything but a head that can be retrained in place.
    """
    graph = m.graphs[0]
    layer, behind = _layer(graph, output)
    if layer is None:
        _refuse(model, "its output does not come from a dense layer through a logistic or a softmax")
    types = [graph.tensors[t].type for t in layer.inputs[:2] if t >= 0]
    if INT8 not in types:
        where = f"its last layer (operator {graph.operators.index(layer)})"
        _refuse(model, f"{where} is {_TYPES.get(types[-1], 'something')}, not int8 with symmetric scales")
    return _Finder(file, m, graph, layer, behind, model).head(output, bare=True)


def _layer(graph: Graph, output: int) -> tuple[Operator | None, list[Operator]]:
    """Return the dense layer that leads to the output, and what stands between the two, last first."""
    behind: list[Operator] = []
    op = graph.source.get(output)
    while op is not None and op.code in _BEHIND and op.inputs and op.inputs[0] >= 0 and len(behind) <= len(_BEHIND):
        behind.append(op)
        op = graph.source.get(op.inputs[0])
    return (op if op is not None and op.code in _FUSED and len(op.inputs) >= 2 else None), behind


class _Finder:
    """Looks at one layer from all sides."""

    def __init__(self, file: Buffer, m: TfliteModel, graph: Graph, layer: Operator, behind: list[Operator], model: str) -> None:
        self.m, self.graph, self.layer, self.behind, self.model = m, graph, layer, behind, model
        self.data = memoryview(file).cast("B")
        subgraph = next(iter(root_table(file).tables(2)))
        self.tensors, self.operators = list(subgraph.tables(0)), list(subgraph.tables(3))
        self.parts = Parts(file)

    def refuse(self, reason: str) -> NoReturn:
        _refuse(self.model, reason)

    def head(self, output: int, *, bare: bool = False) -> Int8Head:
        """Return the head that leads to this output. bare: it may give the logits themselves."""
        tensors = self.graph.tensors
        x, w, *rest = self.layer.inputs
        bias = rest[0] if rest else -1
        if min(x, w, bias) < 0 or len(rest) != 1 or len(self.layer.outputs) != 1:
            self.refuse("its last layer has no bias")
        out = self.layer.outputs[0]
        if tensors[bias].type != INT32 or not all(tensors[t].type == INT8 for t in (x, w, out)):
            self.refuse("its last layer is not int8 throughout, with an int32 bias")
        logistic = self._activation(bare)
        outputs = tensors[w].shape[0] if tensors[w].shape else 0
        features = prod(tensors[w].shape[1:])
        self._check_shapes((x, w, bias, out, output), outputs, features)
        self._check_own(w, bias)
        kernel, kernel_scale = self._place(KERNEL, w, Dtype.INT8), self._scale(KERNEL_SCALE, w)
        biases, bias_scale = self._place(BIAS, bias, Dtype.INT32), self._scale(BIAS_SCALE, bias)
        variables = [kernel, biases]
        counts = {prod(kernel_scale.shape), prod(bias_scale.shape)}
        if counts not in ({1}, {outputs}) or any(self._zeros(w)) or any(self._zeros(bias)) or self._axis(w) or self._axis(bias):
            self.refuse("the scales of its last layer are not one for all or one for each output, without zero points")
        if self._alone(kernel_scale) and self._alone(bias_scale):  # shared, they stay as they are
            variables += [kernel_scale, bias_scale]
        zeros = [self._zeros(t) for t in (x, out)]
        if any(len(z) != 1 for z in zeros) or any(self._count(t) != 1 for t in (x, out)):
            self.refuse("what its last layer takes or gives has not one scale and one zero point")
        if not logistic:
            variables += self._output(out)
        self._check_places(variables)
        head = Int8Head(
            tuple(sorted(variables, key=lambda v: v.name)), features, outputs, logistic, self._floats(self._scale("", x))[0], zeros[0][0],
            self._floats(kernel_scale), self._floats(bias_scale), self._floats(self._scale("", out))[0], zeros[1][0],
            self._exposed(x), x, out,
        )  # fmt: skip
        head.check(self.model)
        return head

    def _activation(self, bare: bool) -> bool:
        """Return whether the outputs go through a logistic, and not through a softmax."""
        codes = [op.code for op in self.behind if op.code in (LOGISTIC, SOFTMAX)]
        if len(codes) != 1 and (codes or not bare):
            self.refuse("its output does not come from its last layer through one logistic or one softmax")
        for op in (self.layer, *(o for o in self.behind if o.code == SOFTMAX)):
            options = self._options(op)
            if op.code in _FUSED and options is not None and options.integer(_FUSED[op.code], I8):
                self.refuse("its last layer has an activation fused into it")
            if op.code == FULLY_CONNECTED and options is not None and options.integer(1, I8):
                self.refuse("the weights of its last layer are shuffled")
            place = None if options is None or op.code != SOFTMAX else options.field(0, 4)
            if op.code == SOFTMAX and (place is None or float(np.frombuffer(self.data, "<f4", 1, place)[0]) != 1.0):
                self.refuse("its softmax has another beta than 1")
        return codes == [LOGISTIC]

    def _options(self, op: Operator) -> Table | None:
        table = self.operators[self.graph.operators.index(op)]
        return table.table(4) if table.integer(3, U8) == _OPTIONS[op.code] else None

    def _check_shapes(self, around: tuple[int, int, int, int, int], outputs: int, features: int) -> None:
        t, (x, w, bias, out, output) = self.graph.tensors, around
        small = t[w].fixed and t[x].fixed and t[out].fixed and 0 < features <= FEATURES_MAX and outputs > 0
        sizes = tuple(prod(t[i].shape) for i in (x, out, output))
        if not small or sizes != (features, outputs, outputs) or t[bias].shape != (outputs,):
            self.refuse(f"its last layer, a kernel of {list(t[w].shape)}, is not one of up to {FEATURES_MAX} features for a single row")
        if self.layer.code == CONV_2D and (len(t[w].shape) != 4 or t[w].shape[1:3] != (1, 1)):
            self.refuse("its last layer is a convolution over a map")
        if self.layer.code == FULLY_CONNECTED and len(t[w].shape) != 2:
            self.refuse("the kernel of its last layer has not two dimensions")
        if outputs == 1 and any(op.code == SOFTMAX for op in self.behind):
            self.refuse("a softmax of one output says nothing")

    def _check_own(self, *constants: int) -> None:
        uses = readers_of(self.m)
        for t in constants:
            if not self.graph.is_constant(t) or t in self.graph.given:
                self.refuse("the weights of its last layer are not constants")
            if uses[self.graph.tensors[t].buffer] > 1:
                self.refuse("the weights of its last layer share their bytes with another tensor, or are taken twice")
            if self.tensors[t].table(6) is not None:
                self.refuse("the weights of its last layer are sparse")

    def _place(self, name: str, tensor: int, dtype: Dtype) -> Variable:
        source = self.graph.tensors[tensor]
        offset, nbytes = self.m.buffers[source.buffer]
        needed = dtype.width * prod(source.shape)
        if nbytes != needed:
            self.refuse(f"{name!r} takes {nbytes} bytes; {list(source.shape)} takes {needed}")
        shape = (source.shape[0], needed // source.shape[0]) if dtype is Dtype.INT8 else source.shape
        return Variable(name, shape, dtype, offset, nbytes)

    # Quantization: min 0, max 1, scale 2, zero_point 3, details 5, quantized_dimension 6.

    def _scale(self, name: str, tensor: int) -> Variable:
        table = self.tensors[tensor].table(4)
        count = 0 if table is None else table.vector(2, 4).count
        if table is None or not count:
            self.refuse("a tensor of its last layer has no scale")
        return Variable(name, (count,), Dtype.FLOAT32, table.vector(2, 4).start, 4 * count, verbatim=True)

    def _floats(self, scale: Variable) -> tuple[float, ...]:
        return _numbers(np.frombuffer(self.data, "<f4", scale.shape[0], scale.offset), ())

    def _count(self, tensor: int) -> int:
        return self._scale("", tensor).shape[0]

    def _zeros(self, tensor: int) -> tuple[int, ...]:
        table = self.tensors[tensor].table(4)
        v = None if table is None else table.vector(3, 8)
        if v is None or not v.count:
            return (0,) * self._count(tensor)
        return tuple(int(z) for z in np.frombuffer(self.data, "<i8", min(v.count, self._count(tensor) + 1), v.start))

    def _axis(self, tensor: int) -> int:
        table = self.tensors[tensor].table(4)
        place = None if table is None else table.field(6, 4)
        return 0 if place is None else int(np.frombuffer(self.data, "<i4", 1, place)[0])

    def _alone(self, v: Variable) -> bool:
        """Return whether these bytes belong to one vector that one table refers to, and are nothing else."""
        return self.parts.users(v.offset, v.nbytes) == 1

    def _output(self, out: int) -> list[Variable]:
        """Return scale and zero point of the logits, where only a softmax reads them: it takes any."""
        uses = Counter(t for op in self.graph.operators for t in op.inputs)
        scale, table = self._scale(OUTPUT_SCALE, out), self.tensors[out].table(4)
        assert table is not None
        v = table.vector(3, 8)
        if not self.behind or self.behind[-1].code != SOFTMAX or uses[out] != 1 or out in self.graph.given or v.count != 1:
            return []
        # int64 in the file: as two int32, low half first, so that every bit has its place.
        own = [scale, Variable(OUTPUT_ZERO, (2,), Dtype.INT32, v.start, 8)]
        return own if all(self._alone(each) for each in own) else []

    def _check_places(self, variables: Sequence[Variable]) -> None:
        if not all(self._alone(v) for v in variables):
            self.refuse("the weights of its last layer lie over other parts of the file")

    def _exposed(self, x: int) -> int | None:
        return self.graph.outputs.index(x) if x in self.graph.given and self.graph.tensors[x].type != FLOAT32 else None


def _numbers(held: Held | None, otherwise: tuple[float, ...]) -> tuple[float, ...]:
    return otherwise if held is None else tuple(float(s) for s in held.reshape(-1))


def _refuse(model: str, reason: str) -> NoReturn:
    raise NotTrainable(model=model, reason=reason)
