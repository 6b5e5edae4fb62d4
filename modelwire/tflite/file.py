"""Reads and overwrites, in place, the initial values of the variables of a trainable .tflite; says what keeps a file from being one.

docs/trainable-models.md is the contract; a file without its signatures is one too when it ends in an int8 head (int8_head.py).
A version of a model is the same file with these bytes replaced: no checkpoint format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from modelwire import limits, storage
from modelwire.errors import NotTrainable, ShapeMismatch
from modelwire.tensors import Dtype, Held, Schema, TensorSpec, Weights

from . import int8_finder
from .graph import (
    ADD_N,
    ASSIGN_VARIABLE,
    BFLOAT16,
    CALL_ONCE,
    CUSTOM,
    ELU,
    FLOAT16,
    FLOAT32,
    INT8,
    INT32,
    READ_VARIABLE,
    Buffer,
    Graph,
    Signature,
    Tensor,
    TfliteModel,
    model_of,
    parse,
    readers_of,
    root_table,
)
from .graph import Contract as Contract
from .graph import Variable as Variable
from .int8_head import Int8Head

WEIGHT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")  # the signatures take them as keyword arguments
REQUIRED = ("get_weights", "infer", "set_weights", "train")
GRAFT = "edgecloud graft FILE.tflite -o NEW.tflite writes what trains a stock file; docs/trainable-models.md says what that is"
TRAINING = frozenset(REQUIRED) - {"infer"}  # a file with one of these means to keep the contract; whatever infers may be stock
LOOKS = ("features", "infer", "score")  # signatures of one sample that move no weight
REFUSED = {
    ADD_N: "ADD_N, whose result depends on the number of threads; add in a chain",
    ELU: "ELU, which is missing from the reference kernels; use another activation",
}
CUSTOM_OF_RUNTIMES = ("AudioSpectrogram", "Mfcc", "TFLite_Detection_PostProcess")  # custom by name, but part of both runtimes
STORED = {FLOAT32: Dtype.FLOAT32, FLOAT16: Dtype.FLOAT16, BFLOAT16: Dtype.BFLOAT16, INT8: Dtype.INT8, INT32: Dtype.INT32}
NO_VALUE = "has no initial value in the file; a runtime would train on whatever lies in memory"


def read_variables(file: Buffer | TfliteModel, *, model: str = "the model") -> tuple[Variable, ...]:
    """Return everything that the signature `get_weights` lists, or all of an int8 head, sorted by name.

    Raises NotTrainable when a variable has no initial value of its own in the file; Malformed or TooLarge for a damaged file.
    """
    m = parsed(file)
    head = head_of(file, m, model=model)
    return _variables(m, model) if head is None else head.variables


def read_head(file: Buffer, *, model: str = "the model") -> Int8Head | None:
    """Return the int8 head that is trained of a file without the contract's signatures; None for a file of any other kind.

    Raises as `read_variables`.
    """
    return head_of(file, parse(file), model=model)


def head_of(file: Buffer | TfliteModel, m: TfliteModel, *, model: str) -> Int8Head | None:
    """Return the same of a file and what was parsed of it. Of the parsed one alone there is none: its scales are not parsed."""
    if isinstance(file, TfliteModel) or m.signatures.keys() & TRAINING:
        return None
    return int8_finder.find(file, m, model)


@dataclass(frozen=True, slots=True, eq=False)
class TrainableFile:
    """A file whose weights are read and written any number of times, and which was parsed once."""

    data: bytes
    variables: tuple[Variable, ...]  # sorted by name
    apart: bool  # nothing that was parsed lies where the weights do: written, they can't change what the file is
    parsed: TfliteModel
    head: Int8Head | None


def parse_trainable(file: bytes, *, model: str = "the model") -> TrainableFile:
    """Return the file with where its weights lie. Raises as `read_variables`."""
    root = root_table(file)
    parsed = model_of(root)
    head = head_of(file, parsed, model=model)
    variables = head.variables if head is not None else _variables(parsed, model)
    spans = np.array(root.file.spans, np.int64).reshape(-1, 2)
    over = (((spans[:, 0] < v.offset + v.nbytes) & (spans[:, 1] > v.offset)).any() for v in variables)
    return TrainableFile(file, variables, not any(over), parsed, head)


def read_weights(file: Buffer | TrainableFile, *, model: str = "the model") -> Weights:
    """Return the initial values by name, in sorted order, held as their types are; copies, bit for bit as they stand in the file.

    Raises NonFinite for a float16 or bfloat16 that is no number: only float32 can be held whatever its bits say.
    """
    schema, flat = read_tensors(file, model=model)
    return schema.shaped(flat)


def read_tensors(file: Buffer | TrainableFile, *, model: str = "the model") -> tuple[Schema, list[Held]]:
    """Return the schema of what `get_weights` lists and the initial values as flat arrays. Raises as `read_weights`."""
    if isinstance(file, TrainableFile):
        data, variables = memoryview(file.data), file.variables
    else:
        data = memoryview(file).cast("B")
        variables = read_variables(data, model=model)
    flat = [storage.from_bytes(v.dtype, data[v.offset : v.offset + v.nbytes]) for v in variables]
    return Schema(tuple(TensorSpec(v.name, v.shape, v.dtype) for v in variables)), flat


def write_weights(file: bytes | TrainableFile, weights: Mapping[str, NDArray[np.generic]], *, model: str = "the model") -> bytes:
    """Return the file with `weights` as its initial values: of the same length, every other byte untouched.

    Parsing takes longer than writing: whoever makes many versions of one file hands it in as `parse_trainable` gives it.
    Raises ShapeMismatch unless `weights` holds exactly the file's tensors in their shapes, held as their types are.
    """
    base = file if isinstance(file, TrainableFile) else parse_trainable(file, model=model)
    extra = sorted(set(weights) - {v.name for v in base.variables})
    if extra:
        raise ShapeMismatch(tensor=extra[0], expected="no such tensor", got="a tensor")
    for v in base.variables:
        value = np.asarray(weights[v.name]) if v.name in weights else None
        if value is None or value.dtype != v.dtype.held or value.shape != v.shape:
            got = "nothing" if value is None else f"{value.dtype}{list(value.shape)}"
            raise ShapeMismatch(tensor=v.name, expected=f"{np.dtype(v.dtype.held)}{list(v.shape)}", got=got)
    if base.head is not None:
        base.head.with_weights(weights, model=model)
    written = _with_variables(base, weights)
    if not base.apart and parse(written) != base.parsed:
        _refuse(model, "its variables lie over other parts of the file")
    return written


def _with_variables(base: TrainableFile, weights: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return the file with weights that were checked, every byte of it copied once: a file of gigabytes is not held three times."""
    pieces: list[memoryview] = []
    place, old = 0, memoryview(base.data)
    for v in sorted(base.variables, key=lambda one: one.offset):
        stored = storage.bits(v.dtype, np.ascontiguousarray(weights[v.name]).reshape(-1))
        pieces += [old[place : v.offset], stored.data.cast("B")]
        place = v.offset + v.nbytes
    return b"".join([*pieces, old[place:]])


def parsed(file: Buffer | TfliteModel) -> TfliteModel:
    """Return the parsed file; what is parsed already is not parsed again, which takes tenths of a second for a large one on a board."""
    return file if isinstance(file, TfliteModel) else parse(file)


def signature_names(file: Buffer) -> tuple[str, ...]:
    """Return the names of the file's signatures, sorted."""
    return tuple(sorted(parse(file).signatures))


def contract(file: Buffer | TfliteModel, *, model: str = "the model") -> Contract:
    """Return batch and shapes, read from the `train` signature or the int8 head. Raises NotTrainable when it isn't as the contract says."""
    m = parsed(file)
    head = head_of(file, m, model=model)
    return _contract(m, model) if head is None else head.contract


def moved(file: Buffer | TfliteModel, *, model: str = "the model") -> dict[str, frozenset[str]]:
    """Return which of the weights each training signature changes: `train`, and every other one whose name begins with `train_`."""
    m = parsed(file)
    names = {handle: name for name, handle in _listed(m, model, _signature(m, model, "get_weights")).items()}
    signatures = {key: s for key, s in m.signatures.items() if trains(key)}
    by_graph = {i: frozenset(names[h] for h, _ in _assignments(m.graphs[i]) if h in names) for i in {s.graph for s in signatures.values()}}
    return {key: by_graph[s.graph] for key, s in signatures.items()}


def moved_slots(file: Buffer, signature: str, *, model: str = "the model") -> frozenset[str]:
    """Return which of the slots that `get_state` lists training by `signature` changes; none when the file has no get_state."""
    m = parse(file)
    given = m.signatures.get("get_state")
    if given is None:
        return frozenset()
    names = {handle: name for name, handle in _listed(m, model, given).items()}
    return frozenset(names[h] for h, _ in _assignments(m.graphs[_signature(m, model, signature).graph]) if h in names)


def hides_state(file: Buffer, signature: str, *, model: str = "the model") -> bool:
    """Return whether training by `signature` changes variables that neither get_weights nor get_state and set_state tell of."""
    m = parse(file)
    listed = set(_listed(m, model, _signature(m, model, "get_weights")).values())
    given, taken = m.signatures.get("get_state"), m.signatures.get("set_state")
    if given is not None and taken is not None and set(given.outputs) == set(taken.inputs):
        listed |= set(_listed(m, model, given).values())
    return any(handle not in listed for handle, _ in _assignments(m.graphs[_signature(m, model, signature).graph]))


def trains(signature: str) -> bool:
    """Return whether a signature of this name is one that trains."""
    return signature == "train" or signature.startswith("train_")


def check_trainable(file: Buffer, *, model: str = "the model") -> None:
    """Raise NotTrainable, naming the first thing found that the contract of docs/trainable-models.md forbids."""
    m = parse(file)
    if head_of(file, m, model=model) is not None:
        return
    missing = [name for name in REQUIRED if name not in m.signatures]
    if missing:
        stock = not TRAINING & m.signatures.keys()
        raise NotTrainable(model=model, reason=f"it has no signature {missing[0]!r}", **({"fix": GRAFT} if stock else {}))
    _check_operators(m, model)
    _check_setter(m, model, _variables(m, model))
    _check_state(m, model)
    _contract(m, model)


def _refuse(model: str, reason: str) -> NoReturn:
    raise NotTrainable(model=model, reason=reason)


def _signature(m: TfliteModel, model: str, name: str) -> Signature:
    signature = m.signatures.get(name)
    if signature is None:
        _refuse(model, f"it has no signature {name!r}")
    return signature


# Which variable each weight is: signature output <- READ_VARIABLE <- VAR_HANDLE; and its value: the constant that the
# CALL_ONCE subgraph assigns to that handle. Nothing may stand between; a converter has no reason to put anything there.


def _variables(m: TfliteModel, model: str) -> tuple[Variable, ...]:
    signature = _signature(m, model, "get_weights")
    _check_custom(m, model)
    initial = _initial_values(m, model)
    readers = readers_of(m)
    out = []
    for name, handle in sorted(_listed(m, model, signature).items()):
        tensor = m.graphs[signature.graph].tensors[signature.outputs[name]]
        if handle not in initial:
            _refuse(model, f"{name!r} {NO_VALUE}")
        value = initial[handle]
        dtype = STORED.get(value.type)
        if dtype is None or tensor.type != value.type:
            _refuse(model, f"{name!r} is of none of the types {', '.join(d.name.lower() for d in STORED.values())}")
        if tensor.shape != value.shape or not tensor.fixed:
            _refuse(model, f"{name!r} is read as {list(tensor.shape)} and initialised as {list(value.shape)}")
        if readers[value.buffer] > 1:
            _refuse(model, f"the initial value of {name!r} shares its bytes with another tensor; give each its own buffer")
        offset, nbytes = m.buffers[value.buffer]
        needed = dtype.width * prod(value.shape)
        if nbytes != needed:
            _refuse(model, f"the initial value of {name!r} takes {nbytes} bytes; {list(value.shape)} takes {needed}")
        out.append(Variable(name, value.shape, dtype, offset, nbytes))
    if not out:
        _refuse(model, "its get_weights lists nothing")
    _check_overlap(m, model, out)
    return tuple(out)


def _listed(m: TfliteModel, model: str, signature: Signature) -> dict[str, tuple[str, str]]:
    """Return the variable behind each output of get_weights; no two may be the same one."""
    graph, out = m.graphs[signature.graph], dict[str, tuple[str, str]]()
    for name, tensor in signature.outputs.items():
        if not WEIGHT_NAME.match(name) or len(name) > limits.DEFAULT.tensor_name:
            _refuse(model, f"{name[:40]!r} can't name a weight; letters, digits and _ do")
        read = graph.source.get(tensor)
        if read is None or read.code != READ_VARIABLE or len(read.inputs) != 1:
            _refuse(model, f"the output {name!r} of get_weights is not a variable as it stands")
        handle = graph.variable(read.inputs[0])
        if handle is None:
            _refuse(model, f"the variable behind {name!r} is not named in get_weights itself")
        out[name] = handle
    if len(set(out.values())) != len(out):
        _refuse(model, "get_weights lists one variable under two names")
    return out


def _initial_values(m: TfliteModel, model: str) -> dict[tuple[str, str], Tensor]:
    """Return the constant that initialises each variable, over all subgraphs that CALL_ONCE names."""
    out: dict[tuple[str, str], Tensor] = {}
    assigned: set[tuple[str, str]] = set()
    for index in sorted({op.init for g in m.graphs for op in g.operators if op.init is not None}):
        graph = m.graphs[index]
        for handle, value in _assignments(graph):
            if handle is None:
                continue
            if handle in assigned:
                _refuse(model, f"the variable {handle[1]!r} is initialised twice")
            assigned.add(handle)
            if graph.is_constant(value):
                out[handle] = graph.tensors[value]
    return out


def _assignments(graph: Graph) -> list[tuple[tuple[str, str] | None, int]]:
    """Return (variable, assigned tensor) of each ASSIGN_VARIABLE; None for a handle that came from elsewhere."""
    ops = [op for op in graph.operators if op.code == ASSIGN_VARIABLE and len(op.inputs) == 2 and min(op.inputs) >= 0]
    return [(graph.variable(op.inputs[0]), op.inputs[1]) for op in ops]


def _check_overlap(m: TfliteModel, model: str, variables: list[Variable]) -> None:
    names = {(v.offset, v.nbytes): v.name for v in variables}
    known = set(names.values())
    end, last = 0, "another buffer"
    for offset, nbytes in sorted(b for b in m.buffers if b[1]):
        name = names.get((offset, nbytes), "another buffer")
        if offset < end and (name in known or last in known):
            _refuse(model, f"the bytes of {name!r} and {last!r} overlap")
        if offset + nbytes > end:
            end, last = offset + nbytes, name


# The rest of the contract.


def _check_custom(m: TfliteModel, model: str) -> None:
    for op in (op for g in m.graphs for op in g.operators):
        if op.code == CUSTOM and op.custom not in CUSTOM_OF_RUNTIMES:
            _refuse(model, f"it uses the operator {(op.custom or 'CUSTOM')[:60]}, which only full TensorFlow or its author's code can run")


def _check_operators(m: TfliteModel, model: str) -> None:
    _check_custom(m, model)
    # What only looks at samples may stand as it came: no step is done again by it.
    learns = {signature.graph for name, signature in m.signatures.items() if name not in LOOKS}
    only_looks = {signature.graph for signature in m.signatures.values()} - learns
    for i, graph in enumerate(m.graphs):
        for op in graph.operators:
            if op.code in REFUSED and i not in only_looks:
                _refuse(model, f"it uses {REFUSED[op.code]}")
        rank = max((len(t.shape) for t in graph.tensors), default=0)
        if rank > limits.DEFAULT.rank:
            # One runtime's delegate claims such a tensor and then fails to prepare it.
            _refuse(model, f"it has a tensor of rank {rank}; at most {limits.DEFAULT.rank} works in every runtime")


def _check_setter(m: TfliteModel, model: str, variables: tuple[Variable, ...]) -> None:
    """set_weights takes what get_weights lists, straight into the same variables."""
    getter, setter = m.signatures["get_weights"], m.signatures["set_weights"]
    if getter.inputs:
        _refuse(model, "its get_weights takes an input")
    if set(setter.inputs) != set(getter.outputs):
        odd = min(set(setter.inputs) ^ set(getter.outputs))
        _refuse(model, f"get_weights and set_weights do not name the same tensors: {odd[:40]!r}")
    if "ok" not in setter.outputs:
        _refuse(model, "its set_weights has no output 'ok'")
    graph = m.graphs[setter.graph]
    assigned = {value: handle for handle, value in _assignments(graph)}
    listed = _listed(m, model, getter)
    for v in variables:
        source = setter.inputs[v.name]
        if assigned.get(source) != listed[v.name]:
            _refuse(model, f"set_weights does not put {v.name!r} into the variable that get_weights reads")
        if v.dtype is Dtype.BFLOAT16:
            _refuse(model, f"{v.name!r} is bfloat16, which no runtime hands to Python")
        if graph.tensors[source].shape != v.shape or STORED.get(graph.tensors[source].type) is not v.dtype:
            _refuse(model, f"set_weights takes {v.name!r} in another shape or type than get_weights gives it")


def _check_state(m: TfliteModel, model: str) -> None:
    """Every variable has a first value wherever it is used, and what training changes and inference reads is in get_weights."""
    initial = _initial_values(m, model)
    listed = set(_listed(m, model, m.signatures["get_weights"]).values())
    usage = {i: {op.variable for op in g.operators if op.variable is not None} for i, g in enumerate(m.graphs)}
    judged: set[int] = set()  # thousands of signatures may name one subgraph
    changed = {handle for i in {s.graph for key, s in m.signatures.items() if trains(key)} for handle, _ in _assignments(m.graphs[i])}
    for name, signature in sorted(m.signatures.items()):
        used = usage[signature.graph]
        blank = sorted(used - initial.keys()) if signature.graph not in judged else []
        if blank:
            _refuse(model, f"the variable {blank[0][1]!r} {NO_VALUE}")
        if used and signature.graph not in judged and not any(op.code == CALL_ONCE for op in m.graphs[signature.graph].operators):
            _refuse(model, f"its signature {name!r} does not initialise the variables (CALL_ONCE), so the order of calls would matter")
        judged.add(signature.graph)
        if name in ("infer", "eval"):
            lost = sorted((used & changed) - listed)
            if lost:
                _refuse(model, f"training changes {lost[0][1]!r} and {name} reads it, but get_weights does not list it")


def _contract(m: TfliteModel, model: str) -> Contract:
    train, infer = _only(m, model, "train", ("lr", "x", "y"), "loss"), _only(m, model, "infer", ("x",), "output")
    x, y, lr, loss = train["x"], train["y"], train["lr"], train["loss"]
    if not x.shape or not y.shape or x.shape[0] != y.shape[0]:
        _refuse(model, f"train takes x {list(x.shape)} and y {list(y.shape)}, which have no batch in common")
    if lr.shape != ():
        _refuse(model, f"train takes lr of shape {list(lr.shape)}, not a scalar")
    if prod(loss.shape) != 1:
        _refuse(model, f"train gives a loss of shape {list(loss.shape)}, not one number")
    for name in sorted(n for n in m.signatures if trains(n) and n != "train"):
        other = _only(m, model, name, ("lr", "x", "y"), "loss")
        if any(other[what].shape != train[what].shape for what in train):
            _refuse(model, f"its signature {name!r} takes or gives other shapes than 'train'")
    evaluate = _only(m, model, "eval", ("x",), "output") if "eval" in m.signatures else None
    for name, signature, batch in (("infer", infer, 1), ("eval", evaluate, x.shape[0])):
        if signature is None:
            continue
        for what, like in (("x", x), ("output", y)):
            shape, expected = signature[what].shape, (batch, *like.shape[1:])
            if shape != expected:
                _refuse(model, f"{name} has {what} {list(shape)}; to fit train it would be {list(expected)}")
    return Contract(x.shape[0], x.shape[1:], y.shape[1:], evaluate is not None)


def _only(m: TfliteModel, model: str, name: str, inputs: tuple[str, ...], output: str) -> dict[str, Tensor]:
    """Return the named tensors of a signature: exactly these inputs and at least this output, all of fixed float32 shapes."""
    signature = _signature(m, model, name)
    if tuple(sorted(signature.inputs)) != inputs or output not in signature.outputs:
        _refuse(model, f"its signature {name!r} is not {name}({', '.join(inputs)}) -> {output}")
    tensors = m.graphs[signature.graph].tensors
    out = {n: tensors[t] for n, t in (*signature.inputs.items(), (output, signature.outputs[output]))}
    for n, t in out.items():
        if t.type != FLOAT32 or not t.fixed:
            _refuse(model, f"{n!r} of its signature {name!r} is not float32 of a fixed shape")
    return out
