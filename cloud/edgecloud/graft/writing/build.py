"""Builds subgraphs: tensors, constants, operators, one short method for each operator that gradients are written with.

A tensor is its index in the subgraph. A subgraph that continues a stock one keeps the stock tensors' indices.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecloud.graft.stock import Stock
from modelwire import limits
from modelwire.errors import NotTrainable
from modelwire.tflite.graph import MAX_ENTRIES

from . import flat, ops
from .flat import Node, Number, OldNode, TableNode, TableVector

_TYPES = {np.dtype("<f4"): ops.FLOAT32, np.dtype("<i4"): ops.INT32, np.dtype("?"): ops.BOOL, np.dtype("i1"): ops.INT8}
Shape = tuple[int, ...]
TENSORS = MAX_ENTRIES // 2  # that a file may get: a reader spends at least a table and an index on each


@dataclass
class FileBuilder:
    """A file in the making: the stock file's operator codes and buffers, and what is new."""

    stock: Stock
    model: str = "the model"  # its name, for errors
    codes: list[Node] = field(init=False)
    buffers: list[Node] = field(init=False)
    graphs: list[Node | GraphBuilder] = field(default_factory=list)
    signatures: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.codes = [OldNode(byte) for byte in self.stock.codes]
        self.buffers = [OldNode(byte) for byte in self.stock.buffer_tables]
        self._code: dict[tuple[int, int], int] = {}
        self._buffer: dict[bytes, int] = {}
        self._tensors = self._bytes = 0

    def spend(self, *, tensors: int = 0, bytes: int = 0) -> None:
        """Take note of what a graph makes. Raises NotTrainable where the file would be one that no device reads."""
        self._tensors, self._bytes = self._tensors + tensors, self._bytes + bytes
        if self._tensors > TENSORS or self._bytes > limits.DEFAULT.model_file:
            reason = f"its training step would need more than {TENSORS} tensors or {limits.DEFAULT.model_file} bytes of constants"
            raise NotTrainable(model=self.model, reason=f"{reason}; train fewer layers")

    def code(self, code: int) -> int:
        """Return the index of an operator code; the stock file's own may ask for a later version, so they are not used."""
        version = ops.VERSIONS.get(code, 1)
        if (code, version) not in self._code:
            self._code[code, version] = len(self.codes)
            fields: dict[int, Number | Node] = {0: flat.i8(min(code, 127)), 3: flat.i32(code)}
            if version > 1:
                fields[2] = flat.i32(version)
            self.codes.append(TableNode(fields))
        return self._code[code, version]

    def buffer(self, value: bytes, *, own: bool = False) -> int:
        """Return the index of a buffer with these bytes. own: of one that nothing else uses."""
        if own or value not in self._buffer:
            self.spend(bytes=len(value))
            self.buffers.append(TableNode({0: flat.data(value)}))
            if own:
                return len(self.buffers) - 1
            self._buffer[value] = len(self.buffers) - 1
        return self._buffer[value]

    def room(self, entries: int) -> None:
        """Raise NotTrainable where a constant of so many float32 would find no room: asked before it is made."""
        self.spend(bytes=4 * entries)
        self._bytes -= 4 * entries

    def sign(self, key: str, graph: GraphBuilder, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> None:
        """Give a subgraph a name by which it is called, and its inputs and outputs theirs."""
        graph.inputs, graph.outputs = list(inputs.values()), list(outputs.values())
        maps = [TableVector([TableNode({0: flat.text(n), 1: flat.u32(t)}) for n, t in names.items()]) for names in (inputs, outputs)]
        self.signatures.append(TableNode({0: maps[0], 1: maps[1], 2: flat.text(key), 4: flat.u32(self.graphs.index(graph))}))

    def write(self, notes: Mapping[str, bytes]) -> bytes:
        """Return the file. notes: metadata by name; the stock file's is kept beside it."""
        metadata: list[Node] = [OldNode(t.at) for t in self.stock.root.tables(6) if t.text(0) not in notes]
        metadata += [TableNode({0: flat.text(name), 1: flat.u32(self.buffer(value, own=True))}) for name, value in notes.items()]
        graphs = [g.table() if isinstance(g, GraphBuilder) else g for g in self.graphs]
        fields: dict[int, Number | Node] = {
            0: flat.u32(3), 1: TableVector(self.codes), 2: TableVector(graphs),
            4: TableVector(self.buffers), 6: TableVector(metadata), 7: TableVector(self.signatures),
        }  # fmt: skip
        description = self.stock.root.text(3)
        if description:
            fields[3] = flat.text(description)
        return flat.write(TableNode(fields), b"TFL3", self.stock.data)


@dataclass(frozen=True, slots=True)
class Made:
    """What an operator reads and writes, kept for the estimate of memory and work."""

    code: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(slots=True)
class Gate:
    """Keeps operators of the backward pass from running before the gradient that they are for is there.

    A delegate's partitions take every operator as soon as its inputs are known: masks and windows, which only look at what the forward
    pass gave, would all be computed at its end, and kept.
    """

    early: frozenset[int]  # what the forward pass gave and samples change
    late: set[int]  # what some gradient leads to
    by: int = -1  # the gradient at hand
    zero: int = -1  # an entry of it times 0
    opened: dict[int, int] = field(default_factory=dict)  # early tensors with that zero added

    def wait_for(self, gradient: int) -> None:
        """Let what is added from now on come after this gradient."""
        self.by, self.zero, self.opened = gradient, -1, {}


class GraphBuilder:
    """A subgraph in the making."""

    def __init__(self, file: FileBuilder, name: str, *, listed: bool = True) -> None:
        """listed: False for one that stands in the file only as copies of it in others."""
        self.file, self.name = file, name
        self.tensors: list[Node] = []
        self.shapes: list[Shape] = []
        self.types: list[int] = []
        self.constant: set[int] = set()
        self.operators: list[Node] = []
        self.made: list[Made] = []
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self._constants: dict[tuple[int, Shape, bytes], int] = {}
        self.gate: Gate | None = None  # while the backward pass is written
        self.columns: dict[tuple[int, Hashable], int] = {}  # what windows see of a tensor, where it was laid in rows
        if listed:
            file.graphs.append(self)

    def table(self) -> TableNode:
        lists = (TableVector(self.tensors), flat.integers(self.inputs), flat.integers(self.outputs), TableVector(self.operators))
        return TableNode({**dict(enumerate(lists)), 4: flat.text(self.name)})

    # Tensors.

    def tensor(self, shape: Shape, type: int = ops.FLOAT32, *, name: str = "", buffer: int = 0) -> int:
        self.file.spend(tensors=1)
        self.tensors.append(tensor_table(shape, type, name, buffer))
        self.shapes.append(tuple(shape))
        self.types.append(type)
        return len(self.tensors) - 1

    def constant_of(self, value: NDArray[Any] | Sequence[int] | float) -> int:
        """Return a constant: an array as it is, a sequence as int32, a number as float32."""
        array = np.asarray(value, np.float32 if isinstance(value, float) else None if isinstance(value, np.ndarray) else np.int32)
        raw = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        key = (_TYPES[array.dtype], array.shape, raw)
        if key not in self._constants:
            made = self.tensor(array.shape, key[0], buffer=self.file.buffer(raw))
            self.constant.add(made)
            self._constants[key] = made
        return self._constants[key]

    def filled(self, shape: Shape, value: float) -> int:
        """Return a constant of float32 that has the same entry everywhere."""
        self.file.room(prod(shape))
        return self.constant_of(np.full(shape, value, np.float32))

    # Operators.

    def add_op(self, code: int, inputs: Iterable[int], outputs: Sequence[int], options: Mapping[int, Number | Node] | None = None) -> None:
        takes, gives = tuple(inputs), tuple(outputs)
        if self.gate is not None:
            takes = self._gated(self.gate, takes)
            if not self.gate.late.isdisjoint(takes):
                self.gate.late.update(gives)
        fields: dict[int, Number | Node] = {0: flat.u32(self.file.code(code)), 1: flat.integers(takes), 2: flat.integers(gives)}
        if ops.OPTIONS[code]:
            fields |= {3: flat.u8(ops.OPTIONS[code]), 4: TableNode(options or {})}
        self.operators.append(TableNode(fields))
        self.made.append(Made(code, takes, gives))

    def _gated(self, gate: Gate, takes: tuple[int, ...]) -> tuple[int, ...]:
        """Return what an operator of the backward pass should take: what the forward pass left is to be had when the gradient is there."""
        if gate.by < 0 or not gate.late.isdisjoint(takes):
            return takes
        out = []
        for t in takes:
            if t in gate.early and t not in gate.opened:
                self.gate = None
                if gate.zero < 0:
                    first = self.slice(gate.by, [0] * len(self.shape(gate.by)), [1] * len(self.shape(gate.by)))
                    gate.zero = self.reshape(self.scale(first, 0.0), (1,))
                gate.opened[t] = self.add(t, gate.zero)
                gate.late.add(gate.opened[t])
                self.gate = gate
            out.append(gate.opened.get(t, t))
        return tuple(out)

    def op(
        self, code: int, inputs: Iterable[int], shape: Shape, options: Mapping[int, Number | Node] | None = None, *, type: int = ops.FLOAT32
    ) -> int:
        """Return the only output, of this shape."""
        out = self.tensor(shape, type)
        self.add_op(code, inputs, [out], options)
        return out

    def shape(self, t: int) -> Shape:
        return self.shapes[t]

    def _binary(self, code: int, a: int, b: int, *, type: int = ops.FLOAT32) -> int:
        return self.op(code, (a, b), tuple(np.broadcast_shapes(self.shape(a), self.shape(b))), type=type)

    def _unary(self, code: int, a: int) -> int:
        return self.op(code, (a,), self.shape(a))

    def add(self, a: int, b: int) -> int:
        return self._binary(ops.ADD, a, b)

    def sub(self, a: int, b: int) -> int:
        return self._binary(ops.SUB, a, b)

    def mul(self, a: int, b: int) -> int:
        return self._binary(ops.MUL, a, b)

    def div(self, a: int, b: int) -> int:
        return self._binary(ops.DIV, a, b)

    def maximum(self, a: int, b: int) -> int:
        return self._binary(ops.MAXIMUM, a, b)

    def minimum(self, a: int, b: int) -> int:
        return self._binary(ops.MINIMUM, a, b)

    def scale(self, a: int, by: float) -> int:
        return a if by == 1 else self.mul(a, self.constant_of(float(by)))

    def compare(self, code: int, a: int, b: int) -> int:
        return self._binary(code, a, b, type=ops.BOOL)

    def both(self, a: int, b: int) -> int:
        return self._binary(ops.LOGICAL_AND, a, b, type=ops.BOOL)

    def select(self, where: int, a: int, b: int) -> int:
        shape = np.broadcast_shapes(self.shape(where), self.shape(a), self.shape(b))
        return self.op(ops.SELECT_V2, (where, a, b), tuple(shape))

    def as_float(self, a: int) -> int:
        return self.op(ops.CAST, (a,), self.shape(a), {0: flat.i8(ops.BOOL), 1: flat.i8(ops.FLOAT32)})

    def neg(self, a: int) -> int:
        return self._unary(ops.NEG, a)

    def exp(self, a: int) -> int:
        return self._unary(ops.EXP, a)

    def log(self, a: int) -> int:
        return self._unary(ops.LOG, a)

    def sqrt(self, a: int) -> int:
        return self._unary(ops.SQRT, a)

    def absolute(self, a: int) -> int:
        return self._unary(ops.ABS, a)

    def relu(self, a: int) -> int:
        return self._unary(ops.RELU, a)

    def activation(self, a: int, fused: int) -> int:
        """Return an activation by the number that it has when it is fused."""
        codes = {number: code for code, number in ops.FUSED_AS.items()}
        return a if fused == ops.NONE else self._unary(codes[fused], a)

    def reshape(self, a: int, shape: Sequence[int]) -> int:
        wanted = tuple(shape)
        if wanted == self.shape(a):
            return a
        return self.op(ops.RESHAPE, (a, self.constant_of(wanted)), wanted, {0: flat.integers(wanted)})

    def laid(self, a: int, shape: Shape) -> int:
        """Return a tensor of any type in another shape."""
        return self.op(ops.RESHAPE, (a, self.constant_of(shape)), shape, {0: flat.integers(shape)}, type=self.types[a])

    def transpose(self, a: int, order: Sequence[int]) -> int:
        return self.op(ops.TRANSPOSE, (a, self.constant_of(order)), tuple(self.shape(a)[i] for i in order))

    def matmul(self, a: int, b: int, *, adjoint_a: bool = False, adjoint_b: bool = False) -> int:
        """Return the product of the last two axes; those before them must be equal."""
        x, y = self.shape(a), self.shape(b)
        rows, columns = x[-1] if adjoint_a else x[-2], y[-2] if adjoint_b else y[-1]
        options: dict[int, Number | Node] = {}
        if adjoint_a:
            options[0] = flat.i8(1)
        if adjoint_b:
            options[1] = flat.i8(1)
        shape = (*np.broadcast_shapes(x[:-2], y[:-2]), rows, columns)
        return self.op(ops.BATCH_MATMUL, (a, b), shape, options)

    def sum(self, a: int, axes: Sequence[int], *, keep: bool = False, code: int = ops.SUM) -> int:
        shape = tuple(1 if i in axes else n for i, n in enumerate(self.shape(a)) if keep or i not in axes)
        return self.op(code, (a, self.constant_of(list(axes))), shape, {0: flat.i8(1)} if keep else {})

    def broadcast(self, a: int, shape: Sequence[int]) -> int:
        wanted = tuple(shape)
        return a if wanted == self.shape(a) else self.op(ops.BROADCAST_TO, (a, self.constant_of(wanted)), wanted, type=self.types[a])

    def concatenate(self, parts: Sequence[int], axis: int) -> int:
        if len(parts) == 1:
            return parts[0]
        shape = list(self.shape(parts[0]))
        axis %= len(shape)
        shape[axis] = sum(self.shape(p)[axis] for p in parts)
        return self.op(ops.CONCATENATION, parts, tuple(shape), {0: flat.i32(axis)})

    def pack(self, parts: Sequence[int], axis: int) -> int:
        shape = list(self.shape(parts[0]))
        shape.insert(axis, len(parts))
        return self.op(ops.PACK, parts, tuple(shape), {0: flat.i32(len(parts)), 1: flat.i32(axis)})

    def slice(self, a: int, begin: Sequence[int], size: Sequence[int]) -> int:
        if tuple(size) == self.shape(a):
            return a
        return self.op(ops.SLICE, (a, self.constant_of(list(begin)), self.constant_of(list(size))), tuple(size))

    def strided(self, a: int, begin: Sequence[int], size: Sequence[int], stride: Sequence[int]) -> int:
        """Return `size` entries along each axis, from `begin` on, `stride` apart."""
        if max(stride) == 1:
            return self.slice(a, begin, size)
        end = [b + (n - 1) * s + 1 for b, n, s in zip(begin, size, stride, strict=True)]
        return self.op(ops.STRIDED_SLICE, (a, *(self.constant_of(list(v)) for v in (begin, end, stride))), tuple(size))

    def pad(self, a: int, pads: Sequence[tuple[int, int]], fill: float = 0.0) -> int:
        if not any(n for pair in pads for n in pair):
            return a
        shape = tuple(n + before + after for n, (before, after) in zip(self.shape(a), pads, strict=True))
        widths = self.constant_of(np.array(pads, np.int32))
        return self.op(ops.PAD, (a, widths), shape) if fill == 0 else self.op(ops.PADV2, (a, widths, self.constant_of(fill)), shape)

    def reverse(self, a: int, axis: int) -> int:
        return self.op(ops.REVERSE_V2, (a, self.constant_of([axis])), self.shape(a))

    def gather(self, a: int, indices: Sequence[int], axis: int) -> int:
        shape = list(self.shape(a))
        shape[axis] = len(indices)
        return self.op(ops.GATHER, (a, self.constant_of(list(indices))), tuple(shape), {0: flat.i32(axis)})

    # Variables.

    def call_once(self, graph: GraphBuilder) -> None:
        self.add_op(ops.CALL_ONCE, (), (), {0: flat.i32(self.file.graphs.index(graph))})

    def variable(self, name: str) -> int:
        """Return a handle of a variable."""
        return self.op(ops.VAR_HANDLE, (), (), {0: flat.text(""), 1: flat.text(name)}, type=ops.RESOURCE)

    def read(self, handle: int, shape: Shape) -> int:
        return self.op(ops.READ_VARIABLE, (handle,), shape)

    def assign(self, handle: int, value: int) -> None:
        self.add_op(ops.ASSIGN_VARIABLE, (handle, value), ())

    def sum_to(self, a: int, shape: Shape) -> int:
        """Return `a` summed over what broadcasting from `shape` repeated."""
        have = self.shape(a)
        lead = len(have) - len(shape)
        axes = [i for i, n in enumerate(have) if i < lead or (shape[i - lead] == 1 and n != 1)]
        if axes == list(range(len(axes))) and len(axes) > 1:  # one sum over leading axes laid together, which kernels do fast
            a = self.reshape(a, (prod(have[: len(axes)]), *have[len(axes) :]))
            axes = [0]
        return self.reshape(self.sum(a, axes) if axes else a, shape)


def tensor_table(shape: Shape, type: int, name: str, buffer: int) -> TableNode:
    """Return a tensor as the file holds it: fixed in shape, and of a known rank even when it is a scalar."""
    fields: dict[int, Number | Node] = {0: flat.integers(shape), 8: flat.i8(1)}
    if name:
        fields[3] = flat.text(name)
    if type:
        fields[1] = flat.i8(type)
    if buffer:
        fields[2] = flat.u32(buffer)
    return TableNode(fields)
