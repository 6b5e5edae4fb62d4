"""Reads an inference-only .tflite: its operators with their options, its tensors, and the constants' values."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwire import limits
from modelwire.errors import Malformed, ModelError, TooLarge
from modelwire.tflite.flatbuffer import I8, I32, U8, U32, File, Table

from .shapes import Resolved, resolve
from .weights import stored
from .writing import ops

Array = NDArray[Any]
_LAID_OUT = (ops.RESHAPE, ops.SQUEEZE, ops.EXPAND_DIMS)
_RELAYS = frozenset((*_LAID_OUT, ops.TRANSPOSE, ops.DEQUANTIZE, ops.DENSIFY))
_RELAYED = 8  # operators by which a constant may be widened, made dense or laid out anew, and still count as held


@dataclass(frozen=True, slots=True)
class StockTensor:
    byte: int  # where its table stands in the file
    name: str
    shape: tuple[int, ...]  # as a runtime has it, whatever the file says: of one sample
    type: int
    buffer: int
    scales: tuple[float, ...] = ()  # of a quantized tensor: one, or one for each channel
    zeros: tuple[int, ...] = ()
    sparse: bool = False
    kept: bool = False  # by the runtime from call to call: the state of a recurrent operator
    open: tuple[int, ...] = ()  # axes whose size the file leaves open; -1: how many there are
    quantization: int = -1  # where that table stands; -1 for none
    reshaped: bool = False  # whether its table in the file gives another shape than it has

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Op:
    """One operator. Its options are asked for by the field's number in their table."""

    index: int  # in the subgraph
    byte: int
    code: int
    inputs: tuple[int, ...]  # -1 stands for an input left out
    outputs: tuple[int, ...]
    options: Table | None
    custom: str = ""

    def option(self, number: int, default: int = 0, *, small: bool = False) -> int:
        """Return an integer option; small: one of a single byte."""
        return default if self.options is None else self.options.integer(number, I8 if small else I32, default)

    def number(self, number: int, default: float = 0.0) -> float:
        """Return a float option."""
        if self.options is None or (place := self.options.field(number, 4)) is None:
            return default
        return float(np.frombuffer(self.options.file.data, "<f4", 1, place)[0])

    @property
    def fused(self) -> int:
        """The activation fused into it."""
        return self.option(ops.FUSED[self.code], small=True) if self.code in ops.FUSED else ops.NONE

    @property
    def name(self) -> str:
        return self.custom or ops.name(self.code)


@dataclass(frozen=True)
class Stock:
    """The parsed file and its first subgraph."""

    data: bytes
    root: Table
    graph: Table
    codes: tuple[int, ...]  # byte of each operator code's table
    subgraphs: tuple[int, ...]
    buffers: tuple[tuple[int, int], ...]  # (byte in the file, bytes)
    buffer_tables: tuple[int, ...]
    tensors: tuple[StockTensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Op, ...]
    number: int = 0  # of the subgraph among the file's
    known: Mapping[int, Array] = field(default_factory=dict)  # what operators give that depends on shapes and constants alone
    unknown: Mapping[int, str] = field(default_factory=dict)  # tensors whose shape is not known, and why
    wrong: frozenset[int] = frozenset()  # those of them whose operator takes what does not fit together

    @cached_property
    def source(self) -> Mapping[int, Op]:
        """The operator that gives each tensor."""
        return {t: op for op in self.operators for t in op.outputs}

    @cached_property
    def users(self) -> Mapping[int, tuple[Op, ...]]:
        """The operators that take each tensor."""
        out: dict[int, list[Op]] = {}
        for op in self.operators:
            for t in dict.fromkeys(op.inputs):
                out.setdefault(t, []).append(op)
        return {t: tuple(users) for t, users in out.items()}

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def is_constant(self, tensor: int) -> bool:
        """Return whether the file holds the tensor's value."""
        return tensor >= 0 and tensor not in self.source and self.buffers[self.tensors[tensor].buffer][1] > 0

    def table_at(self, byte: int) -> Table:
        """Return the table that stands at a byte of the file, to be read with an allowance of its own: it may be asked for often."""
        return Table(File(memoryview(self.data), what=self.root.file.what, entries=max(1000, len(self.data))), byte)

    def value(self, tensor: int) -> Array:
        """Return a constant: of the type that it has in the file, or float32 where it is dequantized at once; a sparse one made dense.

        Raises ModelError for one that can't be read.
        """
        (first, *others), known = self._relayed(tensor), self.tensors[tensor]
        held = self.tensors[first]
        if first in self.known:
            out = self.known[first]
        elif self.is_constant(first) or (first not in self.source and held.size == 0):
            out = stored.constant(self.table_at(held.byte), held.shape, held.type, self.buffers[held.buffer], held.name)
        else:
            raise ModelError(model=known.name, reason="it is computed, and no constant of the file")
        for t in others:
            op = self.source[t]
            if op.code == ops.DEQUANTIZE:
                out = stored.widened(out, self.table_at(self.tensors[op.inputs[0]].byte), known.name)
            elif op.code == ops.TRANSPOSE:
                out = out.transpose(self.value(op.inputs[1]))
            elif op.code in _LAID_OUT:
                out = out.reshape(self.tensors[t].shape)
        return out

    def holds(self, tensor: int) -> bool:
        """Return whether the tensor's value is had from the file: a constant, or one that is only widened, made dense or laid out anew."""
        first, *others = self._relayed(tensor)
        if not self._is_known(first) or not self.unknown.keys().isdisjoint(others):
            return False
        taken = [self.source[t].inputs[0] for t in others if self.source[t].code == ops.DEQUANTIZE]
        return all(self.tensors[t].type == ops.FLOAT16 or not stored.refused(self.table_at(self.tensors[t].byte)) for t in taken)

    def _relayed(self, tensor: int) -> list[int]:
        """Return the tensors from what the file or the shapes tell to this one; this one alone where something else computes it."""
        chain = [tensor]
        while len(chain) <= _RELAYED and chain[0] not in self.known and (op := self.source.get(chain[0])) is not None:
            if op.code not in _RELAYS or not op.inputs or op.inputs[0] < 0:
                break
            if op.code == ops.TRANSPOSE and not self._is_known(op.inputs[1]):
                break
            chain.insert(0, op.inputs[0])
        return chain

    def _is_known(self, tensor: int) -> bool:
        return tensor in self.known or self.is_constant(tensor)

    @cached_property
    def moving(self) -> frozenset[int]:
        """The tensors that depend on the input."""
        moving = set(self.inputs)
        for op in self.operators:
            if moving.intersection(op.inputs):
                moving.update(t for t in op.outputs if t not in self.known)
        return frozenset(moving)

    def leading_to(self, tensor: int) -> frozenset[int]:
        """Return the indices of the operators that the tensor is computed from."""
        wanted, leading = {tensor}, set()
        for op in reversed(self.operators):
            if wanted.intersection(op.outputs):
                leading.add(op.index)
                wanted.update(op.inputs)
        return frozenset(leading)


@contextmanager
def consistent(model: str = "model file") -> Iterator[None]:
    """Tell a file whose operators and tensors contradict each other as what it is.

    Rules look at shapes, options and constants that a sound file has; what each of them may miss is checked here, once.
    """
    try:
        yield
    except (LookupError, ValueError, TypeError, ArithmeticError, AssertionError, MemoryError, struct.error) as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise Malformed(what=model, reason=f"its operators and tensors do not fit together ({said})") from error


def read(data: bytes, model: str = "model file", graph: int = 0) -> Stock:
    """Return the parsed model. model: its name, for errors. graph: which of its subgraphs. Raises Malformed for what is no .tflite."""
    file = File(memoryview(data), what=model, entries=max(1000, len(data)))
    root = file.root(b"TFL3")
    codes, tables = [], []
    for t in root.tables(1):
        tables.append(t.at)
        codes.append((max(t.integer(0, I8), t.integer(3, I32)), t.text(1) or ""))
    buffers, places = [], []
    for t in root.tables(4):
        v = t.vector(0, 1)
        buffers.append((v.start, v.count) if v.count else (0, 0))
        places.append(t.at)
    graphs = list(root.tables(2))
    if not graph < len(graphs):
        raise file.malformed(f"it has {len(graphs)} subgraphs" if graphs else "it has no subgraph")
    main = graphs[graph]
    _check_size(main, model)
    tensors = tuple(_tensor(t, len(buffers)) for t in main.tables(0))
    operators = tuple(_op(i, t, codes, len(tensors)) for i, t in enumerate(main.tables(3)))
    inputs, outputs = main.integers(1), main.integers(2)
    if any(not 0 <= t < len(tensors) for t in inputs + outputs):
        raise file.malformed("an input or output is not one of its tensors")
    _check_order(file, inputs, operators)
    return _resolved(Stock(
        data, root, main, tuple(tables), tuple(g.at for g in graphs), tuple(buffers), tuple(places), tensors, inputs, outputs, operators,
        graph,
    ))  # fmt: skip


def _resolved(stock: Stock) -> Stock:
    """Return the graph with the shapes that its tensors have once a runtime has opened it."""
    found: Resolved = resolve(stock)
    tensors = tuple(
        replace(tensor, shape=shape, reshaped=bool(tensor.open) or shape != tensor.shape)
        for tensor, shape in zip(stock.tensors, found.shapes, strict=True)
    )
    known = {t: value for t, value in found.known.items() if not tensors[t].kept}  # a state starts with it, and goes on from there
    return replace(stock, tensors=tensors, known=known, unknown=found.unknown, wrong=found.wrong)


def _check_size(graph: Table, model: str) -> None:
    """Raise TooLarge for a graph that would take long to look at: its file may refer to one table a million times, in 4 bytes each."""
    for number, what, limit in ((0, "tensors", limits.DEFAULT.graph_tensors), (3, "operators", limits.DEFAULT.graph_operators)):
        count = graph.vector(number, 4).count
        if count > limit:
            raise TooLarge(what=f"{model}: its graph of {what}", size=count, limit=limit)


def _check_order(file: File, inputs: tuple[int, ...], operators: tuple[Op, ...]) -> None:
    """Raise Malformed where walks from a tensor to its source would not end: each is given once, and before it is taken."""
    given, computed = set(inputs), {t for op in operators for t in op.outputs}
    for op in operators:
        if any(t in computed and t not in given for t in op.inputs):
            raise file.malformed(f"operator {op.index} takes a tensor before it is computed")
        if len(set(op.outputs)) < len(op.outputs) or not given.isdisjoint(op.outputs):
            raise file.malformed(f"operator {op.index} gives a tensor that is given already")
        given.update(op.outputs)


def _tensor(t: Table, buffers: int) -> StockTensor:
    buffer = t.integer(2, U32)
    if buffer >= buffers:
        raise t.file.malformed(f"a tensor names buffer {buffer} of {buffers}")
    shape = t.integers(0)
    if min(shape, default=1) < 0 or prod(shape) > limits.DEFAULT.elements or len(shape) > limits.DEFAULT.rank + 2:
        raise t.file.malformed(f"a tensor of the shape {list(shape)}")
    quantization = t.table(4)
    scales: tuple[float, ...] = ()
    zeros: tuple[int, ...] = ()
    if quantization is not None:
        # Taken from the allowance: all tensors of a file may refer to one long vector.
        t.file.spend(quantization.vector(2, 4).count + quantization.vector(3, 8).count)
        v = quantization.vector(2, 4)
        scales = tuple(np.frombuffer(t.file.data, "<f4", v.count, v.start).tolist()) if v.count else ()
        v = quantization.vector(3, 8)
        zeros = tuple(np.frombuffer(t.file.data, "<i8", v.count, v.start).tolist()) if v.count else ()
    signature = t.integers(7)
    left_open = tuple(i for i, n in enumerate(signature) if n == -1)
    if not shape and not buffer and not t.integer(8, I8):
        left_open = (-1,)
    at = -1 if quantization is None else quantization.at
    sparse, kept = t.table(6) is not None, bool(t.integer(5, U8))
    return StockTensor(t.at, t.text(3) or "", shape, t.integer(1, I8), buffer, scales, zeros, sparse, kept, left_open, at)


def _op(index: int, t: Table, codes: list[tuple[int, str]], tensors: int) -> Op:
    code = t.integer(0, U32)
    if code >= len(codes):
        raise t.file.malformed(f"an operator names code {code} of {len(codes)}")
    inputs, outputs = t.integers(1), t.integers(2)
    if any(not -1 <= i < tensors for i in inputs) or any(not 0 <= i < tensors for i in outputs):
        raise t.file.malformed("an operator names a tensor that is not there")
    # Of another operator's kind they are none to a runtime, which then goes by its defaults.
    kind = t.integer(3, U8)
    options = t.table(4) if kind and kind == (ops.OPTIONS.get(codes[code][0]) or kind) else None
    return Op(index, t.at, codes[code][0], inputs, outputs, options, codes[code][1])
