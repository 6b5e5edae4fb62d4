"""Where the weights lie in a .tflite: read from the file itself, for who may name places may name false ones.

A version's file is its base's with the weights overwritten. All that is read here lies beside the weights, which is made sure of, and is
proven to be the base's: so a forged file can't move them. Field numbers are those of the TFLite schema (schema_v3c).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from .encoding import fail

CONV_2D, DEQUANTIZE, FULLY_CONNECTED, LOGISTIC, RESHAPE, SOFTMAX, SQUEEZE, LOG_SOFTMAX, QUANTIZE = 3, 6, 9, 14, 22, 25, 43, 50, 114
CALL_ONCE, VAR_HANDLE, READ_VARIABLE, ASSIGN_VARIABLE = 129, 142, 143, 144
BEHIND = (DEQUANTIZE, LOGISTIC, LOG_SOFTMAX, QUANTIZE, RESHAPE, SOFTMAX, SQUEEZE)
WIDTHS = {1: 4, 2: 2, 3: 2, 4: 1, 5: 4}  # bytes an entry: float32, float16, bfloat16, int8, int32
TABLES_MOST = 4_000_000
Place = tuple[int, int]  # first byte, bytes
Row = tuple[str, int, tuple[int, ...]]  # of the manifest: name, type, shape


class FlatFile:
    """A flatbuffer, with each part that was read of it. Every place is checked before it is looked at."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.read: set[Place] = {(0, 8)}
        self.visits = 0
        if data[4:8] != b"TFL3":
            fail("model.tflite", "it does not carry the mark TFL3")
        self.root = self.follow(0)

    def number(self, form: str, at: int) -> int:
        if not 0 <= at <= len(self.data) - struct.calcsize(form):
            fail("model.tflite", f"an offset points to byte {at} of {len(self.data)}")
        return int(struct.unpack_from(form, self.data, at)[0])

    def follow(self, at: int) -> int:
        """Return the table that an offset points to: always behind it, so no walk is a circle."""
        self.visits += 1
        ahead = self.number("<I", at)
        if ahead < 4 or self.visits > TABLES_MOST:
            fail("model.tflite", f"the offset at byte {at} leads nowhere")
        return at + ahead

    def field(self, table: int, number: int) -> int | None:
        """Return the byte of a table's field, None when absent."""
        vtable = table - self.number("<i", table)
        length, own = self.number("<H", vtable), self.number("<H", vtable + 2)
        self.read |= {(table, own), (vtable, length)}
        if 4 + 2 * number + 2 > length:
            return None
        ahead = self.number("<H", vtable + 4 + 2 * number)
        if ahead >= own:
            fail("model.tflite", f"a field of the table at byte {table} leaves it")
        return table + ahead if ahead else None

    def integer(self, table: int, number: int, form: str = "<I") -> int:
        place = self.field(table, number)
        return 0 if place is None else self.number(form, place)

    def table(self, table: int, number: int) -> int | None:
        place = self.field(table, number)
        return None if place is None else self.follow(place)

    def vector(self, table: int, number: int, width: int, *, contents: bool) -> Place:
        """Return where the entries of a vector lie, and how many. contents: they are read, and so are no weights."""
        start = self.table(table, number)
        if start is None:
            return 0, 0
        count = self.number("<I", start)
        if count * width > len(self.data) - start - 4:
            fail("model.tflite", f"the vector at byte {start} leaves the file")
        self.read.add((start, 4 + count * width if contents else 4))
        return start + 4, count

    def integers(self, table: int, number: int) -> tuple[int, ...]:
        start, count = self.vector(table, number, 4, contents=True)
        return struct.unpack_from(f"<{count}i", self.data, start)

    def tables(self, table: int, number: int) -> Iterator[int]:
        start, count = self.vector(table, number, 4, contents=True)
        return (self.follow(start + 4 * i) for i in range(count))

    def text(self, table: int | None, number: int) -> str:
        start, count = (0, 0) if table is None else self.vector(table, number, 1, contents=True)
        return self.data[start : start + count].decode("utf-8", "replace")


def weight_places(data: bytes, rows: list[Row]) -> list[Place]:
    """Return where each tensor of the manifest lies in the file, in its order."""
    model = FlatModel(FlatFile(data))
    found = model.variables() if model.trains else model.int8_head(rows)
    if found.keys() != {name for name, _, _ in rows}:
        fail("model.tflite", "its weights are not those that the manifest lists")
    places = [found[name] for name, _, _ in rows]
    for (name, kind, shape), (_, size) in zip(rows, places, strict=True):
        if size != WIDTHS[kind] * prod(shape):
            fail("model.tflite", f"{name!r} takes {size} bytes in it, and {list(shape)} takes {WIDTHS[kind] * prod(shape)}")
    parts = np.array(sorted(model.flat.read), np.int64)
    for i, ((at, size), (name, _, _)) in enumerate(zip(places, rows, strict=True)):
        others = [(a, a + n) for a, n in places[:i] + places[i + 1 :] if a < at + size and a + n > at]
        if others or bool(((parts[:, 0] < at + size) & (parts[:, 0] + parts[:, 1] > at)).any()):
            fail("model.tflite", f"the weights of {name!r} lie over other parts of the file")
    return places


class FlatModel:
    """What is needed of a parsed file: subgraphs, their operators, and signatures."""

    def __init__(self, flat: FlatFile) -> None:
        self.flat, root = flat, flat.root
        codes = [max(flat.integer(t, 0, "<b"), flat.integer(t, 3, "<i")) for t in flat.tables(root, 1)]
        self.buffers = list(flat.tables(root, 4))
        self.graphs = [FlatGraph(flat, table, codes) for table in flat.tables(root, 2)]
        self.signatures = {flat.text(t, 2): t for t in flat.tables(root, 7)}
        self.trains = bool(self.signatures.keys() & {"get_weights", "set_weights", "train"})

    def buffer(self, tensor: int) -> Place:
        """Return where the value of a tensor stands."""
        number = self.flat.integer(tensor, 2)
        if not 0 < number < len(self.buffers):
            fail("model.tflite", "a weight has no value in it")
        return self.flat.vector(self.buffers[number], 0, 1, contents=False)

    def variables(self) -> dict[str, Place]:
        """Return what get_weights lists: signature output <- READ_VARIABLE <- VAR_HANDLE, and the value that CALL_ONCE assigns to it."""
        flat, initial = self.flat, dict[tuple[str, str], int]()
        for index in sorted({op.init for graph in self.graphs for op in graph.operators if op.code == CALL_ONCE}):
            graph = self.graphs[index] if index < len(self.graphs) else fail("model.tflite", "it calls a subgraph that it has not")
            for op in graph.operators:
                if op.code == ASSIGN_VARIABLE and len(op.inputs) == 2 and graph.handle(op.inputs[0]) is not None:
                    handle = graph.handle(op.inputs[0])
                    if handle in initial or op.inputs[1] in graph.source:
                        fail("model.tflite", f"the variable {handle} has two first values, or none that stands in the file")
                    initial[handle or ("", "")] = graph.tensor(op.inputs[1])
        signature = self.signatures.get("get_weights", 0) or fail("model.tflite", "it has no signature get_weights")
        graph, out = self.graphs[flat.integer(signature, 4)], dict[str, Place]()
        for entry in flat.tables(signature, 1):
            name, source = flat.text(entry, 0), graph.source.get(flat.integer(entry, 1))
            handle = graph.handle(source.inputs[0]) if source is not None and source.code == READ_VARIABLE else None
            if handle not in initial or name in out:
                fail("model.tflite", f"{name[:40]!r} of get_weights is no variable with a first value")
            out[name] = self.buffer(initial[handle])
        return out

    def int8_head(self, rows: list[Row]) -> dict[str, Place]:
        """Return the parts of the last layer of a file that has no signature to train: the one layer that the manifest's table fits."""
        graph, shapes = self.graphs[0], {name: shape for name, _, shape in rows}
        outputs, noted = list(graph.outputs), self.noted_output()
        found: list[dict[str, Place]] = []
        for tensor in outputs if noted is None else outputs[noted : noted + 1]:
            layer, steps = graph.source.get(tensor), 0
            while layer is not None and layer.code in BEHIND and layer.inputs and steps <= len(BEHIND):
                layer, steps = graph.source.get(layer.inputs[0]), steps + 1
            if layer is None or layer.code not in (CONV_2D, FULLY_CONNECTED) or len(layer.inputs) < 2:
                continue
            parts = self.layer_parts(graph, layer)
            one = {name: parts.get(name, (0, 0)) for name in shapes}
            if all(one[n][1] == WIDTHS[kind] * prod(shape) for n, kind, shape in rows) and one not in found:
                found.append(one)
        if len(found) != 1:
            fail("model.tflite", f"{len(found)} layers of it fit what the manifest lists")
        return found[0]

    def layer_parts(self, graph: FlatGraph, layer: FlatOperator) -> dict[str, Place]:
        (_, kernel, bias), out = (*layer.inputs, -1)[:3], layer.outputs[0]
        parts = {
            "head_kernel": self.buffer(graph.tensor(kernel)), "head_kernel_scale": self.quantization(graph.tensor(kernel), 2, 4),
            "head_output_scale": self.quantization(graph.tensor(out), 2, 4), "head_output_zero": self.quantization(graph.tensor(out), 3, 8),
        }  # fmt: skip
        if bias >= 0:
            parts |= {"head_bias": self.buffer(graph.tensor(bias)), "head_bias_scale": self.quantization(graph.tensor(bias), 2, 4)}
        return parts

    def quantization(self, tensor: int, number: int, width: int) -> Place:
        table = self.flat.table(tensor, 4)
        start, count = (0, 0) if table is None else self.flat.vector(table, number, width, contents=False)
        return start, count * width

    def noted_output(self) -> int | None:
        """Return which output the file's metadata say that the head leads to."""
        flat, said = self.flat, dict[str, Any]()
        for entry in flat.tables(flat.root, 6):
            if flat.text(entry, 0) == "edgeagent.int8_head" and flat.integer(entry, 1) < len(self.buffers):
                try:
                    said = json.loads(flat.text(self.buffers[flat.integer(entry, 1)], 0))
                    noted = said.get("output")
                except (ValueError, RecursionError, AttributeError):
                    fail("model.tflite", "its metadata on the head can't be read")
                return noted if isinstance(noted, int) else None
        return None


class FlatGraph:
    """One subgraph: its operators, and which of them gives a tensor."""

    def __init__(self, flat: FlatFile, table: int, codes: list[int]) -> None:
        self.flat, self.tensors, self.outputs = flat, list(flat.tables(table, 0)), flat.integers(table, 2)
        self.operators = [FlatOperator(flat, t, codes) for t in flat.tables(table, 3)]
        self.source = {tensor: op for op in self.operators for tensor in op.outputs}

    def handle(self, tensor: int) -> tuple[str, str] | None:
        """Return which variable a tensor is the handle of."""
        op = self.source.get(tensor)
        return op.variable if op is not None and op.code == VAR_HANDLE else None

    def tensor(self, number: int) -> int:
        return self.tensors[number] if 0 <= number < len(self.tensors) else fail("model.tflite", f"it names a tensor {number}")


class FlatOperator:
    """One operator: its code, operands, and what CALL_ONCE and VAR_HANDLE name in their options."""

    def __init__(self, flat: FlatFile, table: int, codes: list[int]) -> None:
        number = flat.integer(table, 0)
        self.code = codes[number] if number < len(codes) else fail("model.tflite", f"it names an operator {number}")
        self.inputs, self.outputs = flat.integers(table, 1), flat.integers(table, 2)
        named = self.code in (CALL_ONCE, VAR_HANDLE) and flat.integer(table, 3, "<B") == {CALL_ONCE: 103, VAR_HANDLE: 111}[self.code]
        options = flat.table(table, 4) if named else None
        self.variable = (flat.text(options, 0), flat.text(options, 1)) if self.code == VAR_HANDLE else ("", "")
        self.init = flat.integer(options, 0, "<i") if self.code == CALL_ONCE and options is not None else 0
        if self.init < 0:
            fail("model.tflite", f"it calls a subgraph {self.init}")
