"""Finds the last layer of an int8 model, and where its integers and scales lie; says what keeps it from being trained in place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from math import prod
from typing import Any, NoReturn

import numpy as np

from modelwire.errors import NotTrainable
from modelwire.tensors import Dtype

from . import int8_head
from .flatbuffer import I8, I32, U8, Table
from .graph import (
    CONV_2D,
    DEQUANTIZE,
    FULLY_CONNECTED,
    INT8,
    INT16,
    INT32,
    INT64,
    LOG_SOFTMAX,
    LOGISTIC,
    QUANTIZE,
    RESHAPE,
    SOFTMAX,
    SQUEEZE,
    Buffer,
    Graph,
    Operator,
    TfliteModel,
    Variable,
    readers_of,
    root_table,
)
from .int8_head import BIAS, BIAS_SCALE, FEATURES_MAX, KERNEL, KERNEL_SCALE, OUTPUT_SCALE, OUTPUT_ZERO, OUTPUTS_MAX, Int8Head, numbers
from .places import Parts

ENTRY = "edgeagent.int8_head"  # the metadata that say which output, and what a head without probabilities learns by
NOTE_BYTES, OUTPUTS_TRIED = 200, 16

_BEHIND = (DEQUANTIZE, LOGISTIC, LOG_SOFTMAX, QUANTIZE, RESHAPE, SOFTMAX, SQUEEZE)
_ANY_SCALE = (DEQUANTIZE, LOG_SOFTMAX, SOFTMAX)  # these take the logits under any scale
_OPTIONS = {FULLY_CONNECTED: 8, CONV_2D: 1, SOFTMAX: 9}  # BuiltinOptions
_FUSED = {FULLY_CONNECTED: 0, CONV_2D: 3}  # the field of the activation fused into the operator
_ACTIVATIONS = {1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}
# As errors call them: what models end in, and the types of tensors.
_NAMES = {
    0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 9: "FULLY_CONNECTED", 11: "L2_NORMALIZATION",
    14: "LOGISTIC", 17: "MAX_POOL_2D", 18: "MUL", 19: "RELU", 21: "RELU6", 23: "RESIZE_BILINEAR", 25: "SOFTMAX", 28: "TANH", 34: "PAD",
    36: "GATHER", 39: "TRANSPOSE", 40: "MEAN", 41: "SUB", 44: "UNIDIRECTIONAL_SEQUENCE_LSTM", 45: "STRIDED_SLICE", 49: "SPLIT", 53: "CAST",
    55: "MAXIMUM", 56: "ARG_MAX", 57: "MINIMUM", 67: "TRANSPOSE_CONV", 74: "SUM", 82: "REDUCE_MAX", 83: "PACK",
    97: "RESIZE_NEAREST_NEIGHBOR", 98: "LEAKY_RELU", 111: "ELU", 117: "HARD_SWISH", 119: "WHILE", 126: "BATCH_MATMUL",
}  # fmt: skip
_TYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 7: "int16", 9: "int8", 17: "int4"}
_QUANTIZED_WEIGHTS = (3, 17)  # uint8 with a zero point, as of before 2019; int4
_AGAIN = "convert the model again, or graft its float file (edgecloud graft)"


def find(file: Buffer, m: TfliteModel, model: str) -> Int8Head | None:
    """Return the head of a parsed file that has no signature to train it; None when it ends in no layer of int8 at all.

    It is that of the output which the file's metadata name, else of the first output that has one. Raises NotTrainable when outputs end in
    int8, and something keeps each from being trained in place: what is wrong with the first.
    """
    graph = m.graphs[0] if m.graphs else None
    if graph is None or not graph.outputs:
        return None
    noted = _noted(file, m, model)
    which = range(min(len(graph.outputs), OUTPUTS_TRIED)) if noted.get("output") is None else (noted["output"],)
    finder, first = _Finder(file, m, graph, model), None
    for output in which:
        try:
            head = finder.head(graph.outputs[output], output, loss=noted.get("loss"))
        except NotTrainable as error:
            first = first or error
            continue
        if head is not None:
            return head
    if first is not None:
        raise first
    return None


def find_behind(file: Buffer, m: TfliteModel, output: int, model: str) -> Int8Head:
    """Return the head that leads to this tensor of the first subgraph, an output or its logits, whatever signatures there are.

    Raises NotTrainable for anything but a head that can be retrained in place.
    """
    graph = m.graphs[0]
    noted, place = _noted(file, m, model), graph.outputs.index(output) if output in graph.given else 0
    loss = noted.get("loss") if noted.get("output", place) == place else None
    head = _Finder(file, m, graph, model).head(output, place, loss=loss, whatever=True)
    assert head is not None
    return head


def note(loss: str | None, output: int | None) -> bytes:
    """Return what the metadata entry holds."""
    said = {"loss": loss, "output": output}
    return json.dumps({key: value for key, value in said.items() if value is not None}, sort_keys=True).encode()


def _noted(file: Buffer, m: TfliteModel, model: str) -> dict[str, Any]:
    """Return what the metadata say, checked; empty where they say nothing."""
    entries = [m.buffers[buffer] for name, buffer in m.metadata if name == ENTRY]
    if not entries:
        return {}
    (start, size), data = entries[0], memoryview(file).cast("B")
    try:
        said = json.loads(bytes(data[start : start + size]).decode()) if len(entries) == 1 and size <= NOTE_BYTES else None
    except (ValueError, RecursionError):
        said = None
    loss, output = (said.get("loss"), said.get("output")) if isinstance(said, dict) else (0, 0)
    there = len(m.graphs[0].outputs) if m.graphs else 0
    good = loss in (None, int8_head.SOFTMAX, int8_head.LOGISTIC, int8_head.MSE)
    if not good or not (output is None or (type(output) is int and 0 <= output < there)):
        int8_head.refuse(model, f"its metadata {ENTRY!r} say no loss (softmax, logistic or mse) and no output that it has")
    return {key: value for key, value in (("loss", loss), ("output", output)) if value is not None}


def _layer(graph: Graph, output: int) -> tuple[Operator | None, list[Operator]]:
    """Return the operator that leads to the output, and what of softmax and its like stands between the two, last first."""
    behind: list[Operator] = []
    op = graph.source.get(output)
    while op is not None and op.code in _BEHIND and op.inputs and op.inputs[0] >= 0 and len(behind) <= len(_BEHIND):
        behind.append(op)
        op = graph.source.get(op.inputs[0])
    return op, behind


class _Finder:
    """Looks at one layer from all sides."""

    layer: Operator
    behind: list[Operator]

    def __init__(self, file: Buffer, m: TfliteModel, graph: Graph, model: str) -> None:
        self.m, self.graph, self.model = m, graph, model
        self.file, self.data = file, memoryview(file).cast("B")
        subgraph = next(iter(root_table(file).tables(2)))
        self.tensors, self.operators = list(subgraph.tables(0)), list(subgraph.tables(3))

    @cached_property
    def parts(self) -> Parts:
        return Parts(self.file)

    @cached_property
    def uses(self) -> Counter[int]:
        return readers_of(self.m)

    def refuse(self, reason: str, way: str = "") -> NoReturn:
        """Raise NotTrainable. way: what the author of the file can do."""
        int8_head.refuse(self.model, f"{reason}; {way}" if way else reason)

    def head(self, tensor: int, output: int, *, loss: str | None, whatever: bool = False) -> Int8Head | None:
        """Return the head of one of the file's outputs, its tensor and number; None where that ends in no int8 layer.

        whatever: raise then too.
        """
        layer, self.behind = _layer(self.graph, tensor)
        if layer is None or layer.code not in _FUSED or len(layer.inputs) < 2 or INT8 not in (self._type(t) for t in layer.inputs[:2]):
            self._refuse_other(layer, output, whatever)
            return None
        self.layer = layer
        tensors = self.graph.tensors
        x, w, bias = (*layer.inputs, -1)[:3]
        if min(x, w) < 0 or len(layer.inputs) > 3 or len(layer.outputs) != 1:
            self.refuse(f"{self._said(layer)} has not the inputs of a dense layer")
        out = layer.outputs[0]
        self._check_types(x, w, bias, out)
        loss = self._loss(loss)
        outputs = tensors[w].shape[0] if tensors[w].shape else 0
        features = prod(tensors[w].shape[1:])
        self._check_shapes((x, w, bias, out), outputs, features)
        if loss == int8_head.SOFTMAX and outputs == 1:
            self.refuse(f"a softmax of one output says nothing: {self._said(layer)}", "end the model in a sigmoid, or let it learn by mse")
        self._check_softmax(outputs)
        self._check_own(w)
        zeros = [self._zeros(t) for t in (x, out)]
        if any(len(z) != 1 for z in zeros) or any(self._count(t) != 1 for t in (x, out)):
            self.refuse(f"what {self._said(layer)} takes or gives has not one scale and one zero point")
        variables, kept = self._variables(w, bias, outputs)
        wide = tensors[x].type == INT16
        if loss != int8_head.LOGISTIC:
            variables += self._output(out, wide=wide)
        self._check_places(variables)
        feature_scale, kernel_scales = self._floats(self._scale("", x))[0], self._floats(self._scale("", w))
        head = Int8Head(
            tuple(sorted(variables, key=lambda v: v.name)), features, outputs, loss, feature_scale, zeros[0][0], kernel_scales,
            self._floats(self._scale("", bias)) if bias >= 0 else tuple(s * feature_scale for s in kernel_scales),
            self._floats(self._scale("", out))[0], zeros[1][0], self._exposed(x), x, out, output,
            max(1, prod(tensors[x].shape) // features), wide, wide and self._long(bias), kept,
        )  # fmt: skip
        head.check(self.model)
        self._check_wide_biases(bias)
        return head

    # What it is, and what stands behind it.

    def _type(self, tensor: int) -> int:
        return self.graph.tensors[tensor].type if tensor >= 0 else -1

    def _said(self, op: Operator) -> str:
        """Return what an operator is called in errors: its place, its name and the tensor that it gives."""
        name = repr(op.custom[:60]) if op.custom else _NAMES.get(op.code, f"builtin {op.code}")
        text = (self.tensors[op.outputs[0]].text(3) if op.outputs else "") or ""
        return f"operator {self.graph.operators.index(op)} ({name}, {text[:60]!r})"

    def _refuse_other(self, op: Operator | None, output: int, whatever: bool) -> None:
        """Refuse an output that ends in int8, but in no dense layer of it. whatever: refuse any."""
        dense = op is not None and op.code in _FUSED and len(op.inputs) >= 2
        if whatever and (op is None or not dense):
            of = "an input of the file" if op is None else self._said(op)
            self.refuse(f"its output {output} does not come from a dense layer through a logistic or a softmax, but from {of}")
        if op is None or not op.inputs:
            return
        types = [self._type(t) for t in op.inputs[:2]]
        if whatever or (dense and types[-1] in _QUANTIZED_WEIGHTS):
            kind = _TYPES.get(types[-1], "something")
            self.refuse(f"the weights of its last layer, {self._said(op)}, are {kind}, not int8 with symmetric scales", _AGAIN)
        given = [t for t in op.outputs if self._type(t) in (INT8, INT16) and self.tensors[t].table(4) is not None]
        if not dense and given:
            self.refuse(f"its output {output} comes from {self._said(op)}, and not from a dense layer or a convolution of 1x1", _AGAIN)

    def _check_types(self, x: int, w: int, bias: int, out: int) -> None:
        """int8 throughout with an int32 bias; or int16 features and logits, with a bias of 32 or 64 bits."""
        types = [self._type(t) for t in (x, w, out, bias)]
        if types[0] == 0 and types[1] == INT8:
            reason = f"its last layer, {self._said(self.layer)}, is of dynamic range: weights of int8, features of float32"
            self.refuse(reason, "convert it with a representative_dataset, or train it by edgecloud graft")
        biases = {INT8: (INT32, -1), INT16: (INT32, INT64, -1)}.get(types[0], ())
        if types[1] != INT8 or types[2] != types[0] or types[3] not in biases:
            said = ", ".join(_TYPES.get(t, str(t)) for t in types if t >= 0)
            self.refuse(f"its last layer, {self._said(self.layer)}, is not int8 throughout, with an int32 bias, but {said}", _AGAIN)

    def _loss(self, noted: str | None) -> str:
        """Return what the head learns by: what stands behind it says so, and the metadata where nothing does."""
        codes = [op.code for op in self.behind if op.code in (LOGISTIC, LOG_SOFTMAX, SOFTMAX)]
        if len(codes) > 1:
            self.refuse("its output does not come from its last layer through one logistic or one softmax")
        options = self._options(self.layer)
        if options is not None and options.integer(_FUSED[self.layer.code], I8):
            name = _ACTIVATIONS.get(options.integer(_FUSED[self.layer.code], I8), "something")
            reason = f"its last layer, {self._said(self.layer)}, has an activation fused into it, {name}"
            self.refuse(reason, "end the model in a layer without")
        if self.layer.code == FULLY_CONNECTED and options is not None and options.integer(1, I8):
            self.refuse(f"the weights of its last layer, {self._said(self.layer)}, are shuffled", _AGAIN)
        said = {LOGISTIC: int8_head.LOGISTIC}.get(codes[0], int8_head.SOFTMAX) if codes else noted or int8_head.MSE
        if noted is not None and said != noted:
            self.refuse(f"its metadata say {noted}, and its output comes through a {said}")
        return said

    def _check_softmax(self, outputs: int) -> None:
        for op in (o for o in self.behind if o.code in (SOFTMAX, LOG_SOFTMAX)):
            shape = self.graph.tensors[op.inputs[0]].shape
            if not shape or shape[-1] != outputs:
                self.refuse(f"{self._said(op)} does not go over the {outputs} outputs of the last layer, but over {list(shape)}")
            if op.code == LOG_SOFTMAX:
                continue
            options = self._options(op)
            place = None if options is None else options.field(0, 4)
            if place is None or float(np.frombuffer(self.data, "<f4", 1, place)[0]) != 1.0:
                self.refuse(f"its softmax, {self._said(op)}, has another beta than 1")

    def _options(self, op: Operator) -> Table | None:
        table = self.operators[self.graph.operators.index(op)]
        return table.table(4) if table.integer(3, U8) == _OPTIONS[op.code] else None

    def _long(self, bias: int) -> bool:
        """Return whether the kernels shorten the factors of an int16 layer: those of convolutions do where the bias is of 64 bits.

        Without a bias its options say what it would be.
        """
        if self.layer.code != CONV_2D or bias >= 0:
            return self.layer.code == CONV_2D and self._type(bias) == INT64
        options = self._options(self.layer)
        return options is None or options.integer(6, I8) != INT32

    def _check_shapes(self, around: tuple[int, int, int, int], outputs: int, features: int) -> None:
        """Each row of what it takes gives a row of logits; how many rows there are is the application's business."""
        t, (x, w, bias, out) = self.graph.tensors, around
        said = f"its last layer, {self._said(self.layer)}, a kernel of {list(t[w].shape)},"
        if not 0 < features <= FEATURES_MAX or not 0 < outputs <= OUTPUTS_MAX:
            reason = f"{said} is not one of up to {FEATURES_MAX} features and {OUTPUTS_MAX} outputs"
            self.refuse(reason, "put a smaller layer or a pool before it")
        if any(min(t[i].shape, default=1) < 1 for i in around if i >= 0) or not t[w].fixed or len(t[x].shape) > 6:
            self.refuse(f"{said} takes or gives nothing, or has a size that is left open")
        if bias >= 0 and t[bias].shape != (outputs,):
            self.refuse(f"{said} has a bias of {list(t[bias].shape)}")
        if not t[out].shape or t[out].shape[-1] != outputs:
            self.refuse(f"{said} gives {list(t[out].shape)}")
        if self.layer.code == FULLY_CONNECTED:
            if len(t[w].shape) != 2 or (t[x].fixed and prod(t[x].shape) % features):
                self.refuse(f"{said} does not fit what it takes, {list(t[x].shape)}")
            return
        self._check_convolution(t[x].shape, t[w].shape, t[out].shape, said)

    def _check_convolution(self, x: tuple[int, ...], w: tuple[int, ...], out: tuple[int, ...], said: str) -> None:
        """It is a dense layer when it goes over points, or over the whole of its map at once."""
        options = self._options(self.layer)
        if len(x) != 4 or len(w) != 4 or len(out) != 4 or options is None:
            self.refuse(f"{said} does not fit what it takes, {list(x)}")
        strides = [options.integer(n, I32) for n in (1, 2)]
        points = w[1:3] == (1, 1) and x[3] == w[3] and (x[1:3] == (1, 1) or strides == [1, 1])
        whole = w[1:] == x[1:] and out[1:3] == (1, 1) and options.integer(0, I8) == 1  # VALID
        whole = whole and [options.integer(n, I32, 1) for n in (4, 5)] == [1, 1]
        if not points and not whole:
            self.refuse(f"{said} is a convolution over a map {list(x)}, of neither 1x1 nor all of it", "end the model in a dense layer")

    # Where it lies.

    def _check_own(self, w: int) -> None:
        said = f"the weights of its last layer, {self._said(self.layer)},"
        if not self.graph.is_constant(w) or w in self.graph.given:
            self.refuse(f"{said} are not constants")
        if self.uses[self.graph.tensors[w].buffer] > 1:
            self.refuse(f"{said} share their bytes with another tensor, or are taken twice", "give them a buffer of their own")
        if self.tensors[w].table(6) is not None:
            self.refuse(f"{said} are sparse", "convert it without pruning's sparse format")

    def _variables(self, w: int, bias: int, outputs: int) -> tuple[list[Variable], tuple[int, ...] | None]:
        """Return what is trained of weights and biases, and the biases where they are not: the file has none, or shares them."""
        kernel, kernel_scale = self._place(KERNEL, w, Dtype.INT8), self._scale(KERNEL_SCALE, w)
        counts = {prod(kernel_scale.shape)}
        if bias < 0:
            self._check_scales(counts, outputs, w)
            return [kernel, *([kernel_scale] if self._alone(kernel_scale) else [])], (0,) * outputs
        bias_scale = self._scale(BIAS_SCALE, bias)
        self._check_scales(counts | {prod(bias_scale.shape)}, outputs, w, bias)
        if not self.graph.is_constant(bias) or bias in self.graph.given or self.tensors[bias].table(6) is not None:
            self.refuse(f"the biases of its last layer, {self._said(self.layer)}, are not constants")
        place = self._place(BIAS, bias, Dtype.INT32)
        if self.uses[self.graph.tensors[bias].buffer] > 1:  # a converter stores equal biases once; written, another layer's would change
            kept = np.frombuffer(self.data, "<i4" if place.shape == (outputs,) else "<i8", outputs, place.offset)
            return [kernel], tuple(int(b) for b in kept)
        scales = [kernel_scale, bias_scale]
        return [kernel, place, *(scales if all(self._alone(s) for s in scales) else [])], None  # shared, they stay as they are

    def _check_scales(self, counts: set[int], outputs: int, *constants: int) -> None:
        zeros = any(any(self._zeros(t)) or self._axis(t) for t in constants)
        if counts not in ({1}, {outputs}) or zeros:
            said = f"the scales of its last layer, {self._said(self.layer)},"
            self.refuse(f"{said} are not one for all or one for each output, without zero points", _AGAIN)

    def _check_wide_biases(self, bias: int) -> None:
        if bias >= 0 and self._type(bias) == INT64:
            start, nbytes = self.m.buffers[self.graph.tensors[bias].buffer]
            halves = np.frombuffer(self.data, "<i4", nbytes // 4, start).reshape(-1, 2)
            if not (halves[:, 1] == halves[:, 0] >> 31).all():
                self.refuse("a bias of its last layer takes more than 32 of its 64 bits")

    def _place(self, name: str, tensor: int, dtype: Dtype) -> Variable:
        source = self.graph.tensors[tensor]
        offset, nbytes = self.m.buffers[source.buffer]
        long = source.type == INT64
        needed = (8 if long else dtype.width) * prod(source.shape)
        if nbytes != needed:
            self.refuse(f"{name!r} takes {nbytes} bytes; {list(source.shape)} takes {needed}")
        shape = (source.shape[0], needed // source.shape[0]) if dtype is Dtype.INT8 else source.shape
        return Variable(name, (*shape, 2) if long else shape, dtype, offset, nbytes)  # of 64 bits, each half as an int32, the low one first

    # Quantization: min 0, max 1, scale 2, zero_point 3, details 5, quantized_dimension 6.

    def _scale(self, name: str, tensor: int) -> Variable:
        table = self.tensors[tensor].table(4)
        count = 0 if table is None else table.vector(2, 4).count
        if table is None or not count:
            self.refuse(f"a tensor of its last layer, {self._said(self.layer)}, has no scale", _AGAIN)
        return Variable(name, (count,), Dtype.FLOAT32, table.vector(2, 4).start, 4 * count, verbatim=True)

    def _floats(self, scale: Variable) -> tuple[float, ...]:
        return numbers(np.frombuffer(self.data, "<f4", scale.shape[0], scale.offset), ())

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

    def _output(self, out: int, *, wide: bool) -> list[Variable]:
        """Return scale and zero point of the logits, where only a softmax or a DEQUANTIZE reads them: these take any."""
        uses = Counter(t for op in self.graph.operators for t in op.inputs)
        scale, table = self._scale(OUTPUT_SCALE, out), self.tensors[out].table(4)
        assert table is not None
        v = table.vector(3, 8)
        if not self.behind or self.behind[-1].code not in _ANY_SCALE or uses[out] != 1 or out in self.graph.given:
            return []
        if wide:  # its zero point is 0
            return [scale] if self._alone(scale) else []
        if v.count != 1:
            return []
        # int64 in the file: as two int32, low half first, so that every bit has its place.
        own = [scale, Variable(OUTPUT_ZERO, (2,), Dtype.INT32, v.start, 8)]
        return own if all(self._alone(each) for each in own) else []

    def _check_places(self, variables: Sequence[Variable]) -> None:
        if not all(self._alone(v) for v in variables):
            self.refuse("the weights of its last layer lie over other parts of the file")

    def _exposed(self, x: int) -> int | None:
        return self.graph.outputs.index(x) if x in self.graph.given else None
