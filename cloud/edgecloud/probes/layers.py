"""Reads what each layer of a file gives for a row: by plain kernels, one row at a time, the tensors that depend on the row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecommon import runtime
from modelwire.errors import ModelError
from modelwire.limits import MIB
from modelwire.tensors import F32
from modelwire.text import is_plain
from modelwire.tflite import file as tflite_file
from modelwire.tflite.graph import Graph, TfliteModel

LAYERS_MAX = 512 * MIB  # bytes of all layers of one version on a probe set
NAME_MAX = 40  # characters of a layer's name
_NUMBERS = (np.float32, np.int8, np.uint8, np.int16, np.int32, np.float16)


class StockFile:
    """A file without signatures, run as it stands: its only input is given numbers, its first output is read as numbers."""

    def __init__(self, installed: runtime.Runtime, file: bytes, *, keeps: bool = False) -> None:
        self._interpreter = runtime.interpreter_for(installed.interpreter, file, delegates=not keeps, keeps=keeps)
        self.delegate = runtime.delegate_of(self._interpreter)
        self._takes, self._gives = self._interpreter.get_input_details()[0], self._interpreter.get_output_details()[0]

    def set_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Do nothing: they stand in the file."""

    def one(self, row: F32) -> F32:
        """Return the output for one row, its codes as what they stand for."""
        self._interpreter.set_tensor(self._takes["index"], _coded(row[None], self._takes))
        self._interpreter.invoke()
        return np.asarray(_numbers(self._interpreter.get_tensor(self._gives["index"]), self._gives)[0], np.float32)

    def run(self, x: F32) -> tuple[F32, list[tuple[str, F32]]]:
        return np.stack([self.one(row) for row in x]), []

    def tensor(self, index: int) -> F32:
        return _numbers(self._interpreter.get_tensor(index), self.details()[index])

    def details(self) -> dict[int, Any]:
        return {one["index"]: one for one in self._interpreter.get_tensor_details()}


class CutFile:
    """A file one of whose signatures gives something else than it was made for: called as it stands, in its batches."""

    def __init__(self, installed: runtime.Runtime, file: bytes, signature: str) -> None:
        parsed = tflite_file.parsed(file)
        called = parsed.signatures[signature]
        self._width = parsed.graphs[called.graph].tensors[called.inputs["x"]].shape[0]
        failed: Exception | None = None
        for delegates in (True, False):  # as `Runtime.open` tries them
            try:
                interpreter = runtime.interpreter_for(installed.interpreter, file, delegates=delegates)
                self._runner = interpreter.get_signature_runner(signature)
                self.delegate = runtime.delegate_of(interpreter)
                return
            except runtime.FAILURES as error:
                failed = error
        raise RuntimeError(str(failed))

    def set_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Do nothing: they stand in the file."""

    def run(self, x: F32) -> tuple[F32, list[tuple[str, F32]]]:
        out = list[F32]()
        for start in range(0, len(x), self._width):
            part = x[start : start + self._width]
            full = np.concatenate([part, np.repeat(part[:1], self._width - len(part), 0)])
            out.append(np.array(self._runner(x=full)["output"], np.float32)[: len(part)])
        return np.concatenate(out), []


class Layers:
    """A file whose layers are read. pool: of a layer with rows and columns, their mean is kept alone."""

    def __init__(self, installed: runtime.Runtime, file: bytes, *, pool: bool) -> None:
        parsed = tflite_file.parsed(file)
        self._pool, self._stock = pool, None if "infer" in parsed.signatures else StockFile(installed, file, keeps=True)
        self.delegate = runtime.PLAIN
        if self._stock is None:
            self._interpreter = runtime.interpreter_for(installed.interpreter, file, delegates=False, keeps=True)
            self._infer = self._interpreter.get_signature_runner("infer")
            self._set = self._interpreter.get_signature_runner("set_weights")
            self._dtypes = {v.name: v.dtype for v in tflite_file.read_variables(parsed)}
            self._graph = parsed.signatures["infer"].graph
            details = {one["index"]: one for one in self._interpreter.get_tensor_details(self._graph)}
        else:
            self._graph, details = 0, self._stock.details()
        self._details = details
        self._layers = [(i, name) for i, name in _computed(parsed, self._graph, details)]

    def set_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        if self._stock is None:
            self._set(**{name: runtime.native(self._dtypes[name], value) for name, value in weights.items()})

    def run(self, x: F32) -> tuple[F32, list[tuple[str, F32]]]:
        outputs, kept = [], [np.zeros((0,), np.float32)] * len(self._layers)
        for n, row in enumerate(x):
            outputs.append(self._one(row))
            for k, (index, _) in enumerate(self._layers):
                value = self._value(index)
                if not n:
                    kept[k] = np.empty((len(x), *value.shape), np.float32)
                    if sum(one.nbytes for one in kept) > LAYERS_MAX:
                        reason = f"its layers take more than {LAYERS_MAX >> 20} MiB for these rows: --pool keeps their means"
                        raise ModelError(model="the model", reason=reason)
                kept[k][n] = value
        return np.stack(outputs), [(name, values) for (_, name), values in zip(self._layers, kept, strict=True)]

    def _one(self, row: F32) -> F32:
        if self._stock is not None:
            return self._stock.one(row)
        return np.asarray(self._infer(x=np.ascontiguousarray(row[None], np.float32))["output"][0], np.float32)

    def _value(self, index: int) -> F32:
        if self._stock is not None:
            value = self._stock.tensor(index)
        else:
            value = _numbers(self._interpreter.get_tensor(index, self._graph), self._details[index])
        value = value[0] if value.ndim and value.shape[0] == 1 else value
        return np.asarray(value.mean((0, 1)), np.float32) if self._pool and value.ndim == 3 else value


def _computed(parsed: TfliteModel, number: int, details: Mapping[int, Any]) -> list[tuple[int, str]]:
    """Return the tensors of a subgraph that hold numbers and depend on its input, in the order in which they are computed, and names.

    A tensor is named by the weights that its operator takes, else as the file names it; what is called alike gets a number behind.
    """
    graph = parsed.graphs[number]
    moved, out, seen = set(graph.inputs), list[tuple[int, str]](), dict[str, int]()
    for operator in graph.operators:
        if not moved.intersection(operator.inputs):
            continue
        moved.update(operator.outputs)
        for tensor in operator.outputs:
            known = details.get(tensor)
            if known is None or known["dtype"] not in _NUMBERS or not np.prod(known["shape"], dtype=np.int64):
                continue
            name = _weights_of(graph, operator.inputs) or str(known["name"])
            name = ("".join(c if is_plain(c) else "." for c in name) or f"tensor {tensor}")[:NAME_MAX]
            seen[name] = seen.get(name, 0) + 1
            out.append((tensor, name if seen[name] == 1 else f"{name} {seen[name]}"))
    return out


def _weights_of(graph: Graph, inputs: tuple[int, ...]) -> str:
    """Return the name of the first variable that reaches an operator by a way on which nothing is computed from the row."""
    for tensor in inputs:
        for _ in range(4):  # read, cast, transpose: no further
            operator = graph.source.get(tensor)
            if operator is None:
                break
            if operator.variable is not None:
                return operator.variable[1]
            if len([i for i in operator.inputs if i >= 0 and not graph.is_constant(i)]) != 1:
                break
            tensor = next(i for i in operator.inputs if i >= 0 and not graph.is_constant(i))
    return ""


def _coded(row: F32, details: Mapping[str, Any]) -> NDArray[Any]:
    """Return a row as an input takes it: codes of its scale where it has codes."""
    dtype, (scale, zero) = details["dtype"], details["quantization"]
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        row = np.clip(np.rint(row / (scale or 1.0)) + zero, info.min, info.max)
    coded: NDArray[Any] = row.astype(dtype).reshape(details["shape"])
    return coded


def _numbers(values: NDArray[Any], details: Mapping[str, Any]) -> F32:
    """Return what the codes of a tensor stand for, as float32; of one with a scale each channel, the codes."""
    scale, zero = details["quantization"]
    if values.dtype.kind in "iu" and scale:
        return np.asarray((values.astype(np.int32) - zero) * np.float32(scale), np.float32)
    return np.array(values, np.float32)
