"""Makes a trainable .tflite ready to be deployed: each variable's initial value alone in its buffer, signatures by the contract's names.

For files from a converter; what `graft` writes is packed already. The old file stays inside the new one, whole and unchanged.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from modelwire.tflite import file as tflite_file
from modelwire.tflite import graph as tflite_graph
from modelwire.tflite.flatbuffer import U8, U32, File, Table
from modelwire.tflite.notes import ENTRY, notes_of

from .writing import flat
from .writing.build import tensor_table
from .writing.flat import Node, Number, OldNode, TableVector

# What others call the two signatures: Flower's convention, a tensor for each weight.
ALIASES = {"parameters": "get_weights", "restore": "set_weights"}


@dataclass(frozen=True, slots=True)
class Packed:
    """A file that keeps the contract, and what had to be changed for that."""

    file: bytes
    separated: tuple[str, ...]  # variables that got a buffer of their own
    renamed: Mapping[str, str]  # signatures
    changed: bool


def pack(data: bytes, *, name: str = "", model: str = "the model") -> Packed:
    """Return a file that keeps the contract of docs/trainable-models.md. name: written into it, for people.

    Raises NotTrainable for what packing can't mend: an operator, a missing signature or initial value.
    """
    parsed = tflite_graph.parse(data)
    root = File(memoryview(data), what="model file", entries=max(1000, len(data))).root(b"TFL3")
    buffers: list[Node] = [OldNode(t.at) for t in root.tables(4)]
    tables = list(root.tables(2))
    graphs: list[Node] = [OldNode(t.at) for t in tables]
    separated: list[str] = []
    readers = _readers(parsed)
    for index in sorted({op.init for g in parsed.graphs for op in g.operators if op.init is not None}):
        graphs[index], names = _separate(tables[index], parsed.graphs[index], readers, buffers, data, parsed.buffers)
        separated += names
    renamed = {old: new for old, new in ALIASES.items() if old in parsed.signatures and new not in parsed.signatures}
    signatures = [_signature(t, renamed) for t in root.tables(7)]
    file = data
    if separated or renamed or name:
        fields: dict[int, Number | Node] = {
            0: flat.u32(3), 1: TableVector([OldNode(t.at) for t in root.tables(1)]), 2: TableVector(graphs), 4: TableVector(buffers),
            7: TableVector(signatures), 6: TableVector([OldNode(t.at) for t in root.tables(6)]),
        }  # fmt: skip
        # Once without the notes, so that they can tell what the file holds.
        bare = flat.write(flat.TableNode(fields), b"TFL3", data)
        tflite_file.check_trainable(bare, model=model)
        notes = _notes(bare, data, name, parsed, root)
        buffers.append(flat.TableNode({0: flat.data(notes)}))
        kept: list[Node] = [OldNode(t.at) for t in root.tables(6) if t.text(0) != ENTRY]
        kept.append(flat.TableNode({0: flat.text(ENTRY), 1: flat.u32(len(buffers) - 1)}))
        fields |= {4: TableVector(buffers), 6: TableVector(kept)}
        file = flat.write(flat.TableNode(fields), b"TFL3", data)
    tflite_file.check_trainable(file, model=model)
    notes_of(file, model=model)
    return Packed(file, tuple(separated), renamed, file is not data)


def _readers(parsed: tflite_graph.TfliteModel) -> Counter[int]:
    """Return how often each buffer is meant, by tensors and by the operators that take them."""
    out = Counter(parsed.metadata_buffers)
    for graph in parsed.graphs:
        uses = Counter(t for op in graph.operators for t in op.inputs)
        for i, tensor in enumerate(graph.tensors):
            out[tensor.buffer] += max(1, uses[i])
    return out


def _separate(
    table: Table, graph: tflite_graph.Graph, readers: Counter[int], buffers: list[Node], data: bytes, places: tuple[tuple[int, int], ...]
) -> tuple[Node, list[str]]:
    """Return the subgraph with a buffer of its own for each shared constant that starts a variable, and those variables' names."""
    tensors: list[Node] = [OldNode(t.at) for t in table.tables(0)]
    old = list(table.tables(3))
    operators: list[Node] = [OldNode(t.at) for t in old]
    names = []
    for i, op in enumerate(graph.operators):
        if op.code != tflite_graph.ASSIGN_VARIABLE or len(op.inputs) != 2 or min(op.inputs) < 0:
            continue
        handle, value = graph.variable(op.inputs[0]), op.inputs[1]
        tensor = graph.tensors[value]
        if handle is None or not graph.is_constant(value) or readers[tensor.buffer] < 2:
            continue
        start, size = places[tensor.buffer]
        buffers.append(flat.TableNode({0: flat.data(data[start : start + size])}))
        tensors.append(tensor_table(tensor.shape, tensor.type, handle[1], len(buffers) - 1))
        inputs = flat.integers([op.inputs[0], len(tensors) - 1])
        fields: dict[int, Number | Node] = {0: flat.u32(old[i].integer(0, U32)), 1: inputs}
        options = old[i].table(4)
        if options is not None:
            fields |= {3: flat.u8(old[i].integer(3, U8)), 4: OldNode(options.at)}
        operators[i] = flat.TableNode(fields)
        names.append(handle[1])
    if not names:
        return OldNode(table.at), []
    ends = (flat.integers(graph.inputs), flat.integers(graph.outputs))
    name = flat.text(table.text(4) or "")
    return flat.TableNode({0: TableVector(tensors), 1: ends[0], 2: ends[1], 3: TableVector(operators), 4: name}), names


def _signature(table: Table, renamed: Mapping[str, str]) -> Node:
    key = table.text(2) or ""
    if key not in renamed:
        return OldNode(table.at)
    maps = [TableVector([OldNode(t.at) for t in table.tables(n)]) for n in (0, 1)]
    return flat.TableNode({0: maps[0], 1: maps[1], 2: flat.text(renamed[key]), 4: flat.u32(table.integer(4, U32))})


def _notes(bare: bytes, data: bytes, name: str, parsed: tflite_graph.TfliteModel, root: Table) -> bytes:
    said: dict[str, object] = {}
    for t in root.tables(6):
        if t.text(0) == ENTRY:
            start, size = parsed.buffers[t.integer(1, U32)]
            said = _said(data[start : start + size])
    fixed = tflite_file.contract(bare)
    said.setdefault("contract", 1)  # which lists no modes
    said["batch"] = fixed.batch
    said.setdefault("packed_sha256", hashlib.sha256(data).hexdigest())
    said.setdefault("weights", {v.name: {"shape": list(v.shape)} for v in tflite_file.read_variables(bare)})
    if name:
        said["name"] = name
    return json.dumps(said, separators=(",", ":")).encode()


def _said(notes: bytes) -> dict[str, object]:
    """Return what notes say; nothing where they are not what this project writes."""
    try:
        said = json.loads(notes)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
