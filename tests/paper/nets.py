"""The nets of the evaluation, written as stock `.tflite` files: shaped as MobileNetV2 and ResNet18, and MMM's battery model.

Layers, widths and counts of weights are those of the papers; normalisation is folded into the convolutions, as converters leave it. The
weights begin as He et al. draw them and are then really trained, briefly, by `flow`: images are small, so that two cores suffice.
Sources: Sandler et al. 2018 (MobileNetV2), He et al. 2016 (ResNet18), hpides/mmlib-multi (5-48-48-48-1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from modelwire.tensors import F32

SIDE = 64  # pixels of an image's side
CLASSES = 1000
NONE, RELU, RELU6 = 0, 1, 3  # what a convolution ends with, as files number it
_MOBILE = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_RESIDUAL = 0.3  # what the last layer of a branch is scaled by, where no normalisation keeps sums from growing


@dataclass
class NetWriter:
    """A stock file in the making: one subgraph, operators in order, each weight with a buffer of its own."""

    seed: int
    rng: np.random.Generator = field(init=False)
    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])
    operators: list[Any] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def tensor(self, name: str, shape: Sequence[int], data: F32 | Any | None = None) -> int:
        one = schema.TensorT()
        one.name, one.shape = name.encode(), np.array(shape, np.int32)
        one.type = schema.TensorType.INT32 if data is not None and data.dtype == np.int32 else schema.TensorType.FLOAT32
        one.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            one.buffer = len(self.buffers)
            self.buffers.append(buffer)
        self.tensors.append(one)
        return len(self.tensors) - 1

    def op(self, code: int, kind: str, inputs: Sequence[int], out: tuple[str, Sequence[int]], **options: Any) -> int:
        one = schema.OperatorT()
        if code not in self.codes:
            self.codes.append(code)
        one.opcodeIndex = self.codes.index(code)
        result = self.tensor(*out)
        one.inputs, one.outputs = np.array(inputs, np.int32), np.array([result], np.int32)
        one.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        one.builtinOptions = getattr(schema, f"{kind}T")()
        for name, value in options.items():
            setattr(one.builtinOptions, name, value)
        self.operators.append(one)
        return result

    def shape(self, tensor: int) -> list[int]:
        return [int(n) for n in self.tensors[tensor].shape]

    def drawn(self, name: str, shape: Sequence[int], fan: int, scale: float) -> int:
        return self.tensor(name, shape, (self.rng.standard_normal(shape) * np.sqrt(2 / fan) * scale).astype(np.float32))

    def conv(self, x: int, width: int, size: int, stride: int, ends: int, *, scale: float = 1.0) -> int:
        n, name = self.shape(x), f"conv{len(self.operators)}"
        kernel = self.drawn(f"{name}/kernel", (width, size, size, n[3]), size * size * n[3], scale)
        bias = self.tensor(f"{name}/bias", (width,), np.zeros(width, np.float32))
        out = (name, (1, -(-n[1] // stride), -(-n[2] // stride), width))
        return self.op(schema.BuiltinOperator.CONV_2D, "Conv2DOptions", (x, kernel, bias), out, strideH=stride, strideW=stride,
            dilationHFactor=1, dilationWFactor=1, fusedActivationFunction=ends)  # fmt: skip

    def depthwise(self, x: int, stride: int) -> int:
        n, name = self.shape(x), f"depthwise{len(self.operators)}"
        kernel = self.drawn(f"{name}/kernel", (1, 3, 3, n[3]), 9, 1.0)
        bias = self.tensor(f"{name}/bias", (n[3],), np.zeros(n[3], np.float32))
        out = (name, (1, -(-n[1] // stride), -(-n[2] // stride), n[3]))
        return self.op(schema.BuiltinOperator.DEPTHWISE_CONV_2D, "DepthwiseConv2DOptions", (x, kernel, bias), out, strideH=stride,
            strideW=stride, depthMultiplier=1, dilationHFactor=1, dilationWFactor=1, fusedActivationFunction=RELU6)  # fmt: skip

    def add(self, a: int, b: int, ends: int = NONE) -> int:
        out = (f"add{len(self.operators)}", self.shape(a))
        return self.op(schema.BuiltinOperator.ADD, "AddOptions", (a, b), out, fusedActivationFunction=ends)

    def pooled(self, x: int) -> int:
        axes = self.tensor("axes", (2,), np.array([1, 2], np.int32))
        return self.op(schema.BuiltinOperator.MEAN, "ReducerOptions", (x, axes), ("pooled", (1, self.shape(x)[3])), keepDims=False)

    def dense(self, x: int, width: int, ends: int = NONE, *, scale: float = 1.0) -> int:
        inputs, name = self.shape(x)[1], f"dense{len(self.operators)}"
        kernel = self.drawn(f"{name}/kernel", (width, inputs), inputs, scale)
        bias = self.tensor(f"{name}/bias", (width,), np.zeros(width, np.float32))
        return self.op(schema.BuiltinOperator.FULLY_CONNECTED, "FullyConnectedOptions", (x, kernel, bias), (name, (1, width)),
            fusedActivationFunction=ends)  # fmt: skip

    def softmax(self, x: int) -> int:
        return self.op(schema.BuiltinOperator.SOFTMAX, "SoftmaxOptions", (x,), ("scores", self.shape(x)), beta=1.0)

    def file(self, x: int, y: int) -> bytes:
        """Return the `.tflite` whose input is `x` and whose output is `y`."""
        model, graph = schema.ModelT(), schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = b"main", self.tensors, self.operators
        graph.inputs, graph.outputs = np.array([x], np.int32), np.array([y], np.int32)
        model.version, model.description, model.subgraphs, model.buffers = 3, b"", [graph], self.buffers
        model.operatorCodes = []
        for code in self.codes:
            one = schema.OperatorCodeT()
            one.builtinCode, one.deprecatedBuiltinCode, one.version = code, min(code, 127), 1
            model.operatorCodes.append(one)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def mobilenet_v2(seed: int = 1) -> bytes:
    """Return a net shaped as MobileNetV2 (width 1.0, 1,000 classes): about 3.5 million weights."""
    net = NetWriter(seed)
    x = image = net.tensor("image", (1, SIDE, SIDE, 3))
    x = net.conv(x, 32, 3, 2, RELU6)
    for times, width, repeats, first in _MOBILE:
        for place in range(repeats):
            stride, before = first if place == 0 else 1, x
            if times > 1:
                x = net.conv(x, net.shape(x)[3] * times, 1, 1, RELU6)
            whole = stride == 1 and net.shape(before)[3] == width
            x = net.conv(net.depthwise(x, stride), width, 1, 1, NONE, scale=_RESIDUAL if whole else 0.7)
            x = net.add(before, x) if whole else x
    x = net.pooled(net.conv(x, 1280, 1, 1, RELU6))
    return net.file(image, net.softmax(net.dense(x, CLASSES, scale=0.1)))


def resnet18(seed: int = 2) -> bytes:
    """Return a net shaped as ResNet18 (1,000 classes): about 11.7 million weights. Strides stand in the place of its one pooling."""
    net = NetWriter(seed)
    x = image = net.tensor("image", (1, SIDE, SIDE, 3))
    x = net.conv(x, 64, 7, 4, RELU)
    for width, first in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first, 1):
            before = x if stride == 1 and net.shape(x)[3] == width else net.conv(x, width, 1, stride, NONE, scale=0.7)
            x = net.conv(net.conv(x, width, 3, stride, RELU), width, 3, 1, NONE, scale=_RESIDUAL)
            x = net.add(before, x, RELU)
    return net.file(image, net.softmax(net.dense(net.pooled(x), CLASSES, scale=0.1)))


def battery(seed: int = 3) -> bytes:
    """Return MMM's battery model, 5-48-48-48-1: 5,041 weights with its biases."""
    net = NetWriter(seed)
    x = cell = net.tensor("cell", (1, 5))
    for _ in range(3):
        x = net.dense(x, 48, RELU)
    return net.file(cell, net.dense(x, 1))
