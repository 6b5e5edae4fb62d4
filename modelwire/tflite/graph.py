"""Parses what the project reads of a .tflite: signatures, subgraphs, operators, tensors, and where each buffer lies in the file.

Field numbers are those of the TFLite schema (schema_v3c), whose fields never change their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TypeAlias

from modelwire import limits
from modelwire.errors import TooLarge
from modelwire.tensors import Codes, Dtype

from .flatbuffer import I8, I32, U8, U32, U64, File, Table

Buffer: TypeAlias = bytes | bytearray | memoryview

# Tables, shapes and operands that are read, about 10 for each operator: the conv net under tests/models has 273 operators and takes
# 2,802. Bounds time and memory whatever the file claims: a large file may have more, in proportion to its bytes. NASNet-Mobile with the
# step that trains all of it has 36,590 operators and takes 365,989 for 23 MB, with Adam.
MAX_ENTRIES = 200_000
LARGE_ENTRIES = 1_000_000
ENTRY_BYTES = 16  # of a large file, for each entry that it may have

# BuiltinOperator
CONV_2D, DEQUANTIZE, FULLY_CONNECTED, LOGISTIC, RESHAPE, SOFTMAX, SQUEEZE, LOG_SOFTMAX, QUANTIZE = 3, 6, 9, 14, 22, 25, 43, 50, 114
CUSTOM, ADD_N, ELU, CALL_ONCE, VAR_HANDLE, READ_VARIABLE, ASSIGN_VARIABLE = 32, 106, 111, 129, 142, 143, 144
_CALL_ONCE_OPTIONS, _VAR_HANDLE_OPTIONS = 103, 111  # BuiltinOptions
FLOAT32, FLOAT16, INT32, UINT8, INT64, INT16, INT8, BFLOAT16 = 0, 1, 2, 3, 4, 7, 9, 18  # TensorType


@dataclass(frozen=True, slots=True)
class Tensor:
    shape: tuple[int, ...]
    type: int
    buffer: int  # 0 means none
    fixed: bool  # no dimension is left open


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator. `variable` is set for VAR_HANDLE (container, shared name), `init` for CALL_ONCE (a subgraph)."""

    code: int
    custom: str | None
    inputs: tuple[int, ...]  # -1 stands for an input left out
    outputs: tuple[int, ...]
    variable: tuple[str, str] | None = None
    init: int | None = None


@dataclass(frozen=True)
class Graph:
    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]

    @cached_property
    def source(self) -> Mapping[int, Operator]:
        """The operator that gives each tensor; parsing has made sure that it is one at most."""
        return {t: op for op in self.operators for t in op.outputs}

    def variable(self, tensor: int) -> tuple[str, str] | None:
        """Return which variable the tensor is a handle of, None when it is no handle made in this subgraph."""
        op = self.source.get(tensor)
        return op.variable if op is not None and op.code == VAR_HANDLE else None

    def is_constant(self, tensor: int) -> bool:
        """Return whether the tensor's value stands in the file."""
        return tensor not in self.source and tensor not in self.fed and self.tensors[tensor].buffer != 0

    # Sets once a subgraph, not once a signature: thousands of signatures may name one subgraph.

    @cached_property
    def fed(self) -> frozenset[int]:
        return frozenset(self.inputs)

    @cached_property
    def given(self) -> frozenset[int]:
        return frozenset(self.outputs)


@dataclass(frozen=True, slots=True)
class Signature:
    graph: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TfliteModel:
    """The parsed file. Every index in it is inside its range."""

    graphs: tuple[Graph, ...]
    signatures: Mapping[str, Signature]
    buffers: tuple[tuple[int, int], ...]  # (byte in the file, bytes); (0, 0) when empty
    metadata: tuple[tuple[str, int], ...]  # name and buffer of each entry
    metadata_buffers: tuple[int, ...]  # theirs, and those of an older list without names


@dataclass(frozen=True, slots=True)
class Variable:
    """One trainable tensor: its name in `get_weights`, and where its value lies in the file."""

    name: str
    shape: tuple[int, ...]
    dtype: Dtype
    offset: int  # bytes from the start of the file
    nbytes: int
    verbatim: bool = False  # float32 that no lattice suits: scales of int8, which are written anew or kept to the bit


@dataclass(frozen=True, slots=True)
class Contract:
    """The shapes that a trainable file fixes. Shapes are of one sample, without the batch."""

    batch: int  # samples of one `train` or `eval` call
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]  # what `train` is told: one-hot classes, or a target of this shape
    evaluates: bool  # whether there is an `eval`
    codes: Codes = Codes.NONE

    @property
    def classes(self) -> int:
        """Entries of one target; for a classifier, its classes."""
        return prod(self.y_shape)


def parse(file: Buffer, limit: limits.Limits = limits.DEFAULT) -> TfliteModel:
    """Return the parsed model. Raises Malformed, or TooLarge for a file beyond `limit.model_file`."""
    return model_of(root_table(file, limit))


def model_of(root: Table) -> TfliteModel:
    """Return what hangs on the root table; its file's `spans` then hold every byte that this depends on. Raises as `parse`."""
    reader = root.file
    codes = tuple((max(t.integer(0, I8), t.integer(3, I32)), t.text(1)) for t in root.tables(1))
    buffers = tuple(_place(t) for t in root.tables(4))
    graphs = tuple(_graph(t, codes, len(buffers)) for t in root.tables(2))
    for graph in graphs:
        for op in graph.operators:
            if op.init is not None and op.init >= len(graphs):
                raise reader.malformed(f"an operator calls subgraph {op.init} of {len(graphs)}")
    signatures: dict[str, Signature] = {}
    for t in root.tables(7):
        key, index = t.text(2) or "", t.integer(4, U32)
        if index >= len(graphs) or key in signatures:
            raise reader.malformed(f"signature {key[:40]!r} is there twice or names subgraph {index} of {len(graphs)}")
        graph = graphs[index]
        signatures[key] = Signature(index, _names(t, 0, graph.fed), _names(t, 1, graph.given))
    metadata = tuple((t.text(0) or "", t.integer(1, U32)) for t in root.tables(6))
    if any(buffer >= len(buffers) for _, buffer in metadata):
        raise reader.malformed(f"its metadata name a buffer beyond its {len(buffers)}")
    return TfliteModel(graphs, signatures, buffers, metadata, tuple(buffer for _, buffer in metadata) + root.integers(5))


def allowance(size: int) -> int:
    """Return how many entries a file of so many bytes may have."""
    return min(size, max(MAX_ENTRIES, min(size // ENTRY_BYTES, LARGE_ENTRIES)))


def root_table(file: Buffer, limit: limits.Limits = limits.DEFAULT) -> Table:
    """Return the root table. Raises as `parse`."""
    data = memoryview(file).cast("B")
    if len(data) > limit.model_file:
        raise TooLarge(what="the model file", size=len(data), limit=limit.model_file)
    reader = File(data, what="model file", entries=allowance(len(data)))
    root = reader.root(b"TFL3")
    if root.integer(0, U32) != 3:
        raise reader.malformed(f"schema version {root.integer(0, U32)} is not 3")
    return root


def readers_of(m: TfliteModel) -> Counter[int]:
    """Return how often each buffer is meant: by tensors, and by the operators and results that a tensor goes to."""
    out = Counter(m.metadata_buffers)
    for graph in m.graphs:
        uses = Counter(t for op in graph.operators for t in op.inputs)
        uses.update(graph.outputs)
        for index, tensor in enumerate(graph.tensors):
            out[tensor.buffer] += max(1, uses[index])
    return out


def _place(table: Table) -> tuple[int, int]:
    if table.integer(1, U64) > 1:
        raise table.file.malformed("a buffer lies outside the flatbuffer, as in files beyond 2 GiB; such files are not read")
    v = table.vector(0, 1)
    return (v.start, v.count) if v.count else (0, 0)


def _graph(table: Table, codes: tuple[tuple[int, str | None], ...], buffers: int) -> Graph:
    bad = table.file.malformed
    tensors = []
    for t in table.tables(0):
        shape, open_shape, buffer = t.integers(0), t.integers(7), t.integer(2, U32)
        if buffer >= buffers:
            raise bad(f"a tensor names buffer {buffer} of {buffers}")
        tensors.append(Tensor(shape, t.integer(1, I8), buffer, min(shape + open_shape, default=1) > 0))
    inputs, outputs = table.integers(1), table.integers(2)
    operators, given = [], set(inputs)
    for t in table.tables(3):
        index = t.integer(0, U32)
        if index >= len(codes):
            raise bad(f"an operator names code {index} of {len(codes)}")
        code, custom = codes[index]
        op = Operator(code, custom, t.integers(1), t.integers(2), _variable(t, code), _init(t, code))
        if any(not -1 <= i < len(tensors) for i in op.inputs) or any(not 0 <= i < len(tensors) for i in op.outputs):
            raise bad(f"an operator names a tensor that is not one of its subgraph's {len(tensors)}")
        if given.intersection(op.outputs) or len(set(op.outputs)) != len(op.outputs):
            raise bad("a tensor is given by two operators")
        given.update(op.outputs)
        operators.append(op)
    if any(not 0 <= i < len(tensors) for i in inputs + outputs):
        raise bad(f"a subgraph's input or output is not one of its {len(tensors)} tensors")
    return Graph(tuple(tensors), inputs, outputs, tuple(operators))


def _variable(operator: Table, code: int) -> tuple[str, str] | None:
    if code != VAR_HANDLE:
        return None
    options = operator.table(4) if operator.integer(3, U8) == _VAR_HANDLE_OPTIONS else None
    return ("", "") if options is None else (options.text(0) or "", options.text(1) or "")


def _init(operator: Table, code: int) -> int | None:
    if code != CALL_ONCE:
        return None
    options = operator.table(4) if operator.integer(3, U8) == _CALL_ONCE_OPTIONS else None
    index = 0 if options is None else options.integer(0, I32)
    if index < 0:
        raise operator.file.malformed(f"an operator calls subgraph {index}")
    return index


def _names(signature: Table, number: int, allowed: frozenset[int]) -> Mapping[str, int]:
    """Return the tensor of each name; each must be an input (or output) of the subgraph."""
    out: dict[str, int] = {}
    for t in signature.tables(number):
        name, tensor = t.text(0) or "", t.integer(1, U32)
        if name in out or tensor not in allowed:
            raise signature.file.malformed(f"a signature's {name[:40]!r} is there twice or is no input or output of its subgraph")
        out[name] = tensor
    return out
