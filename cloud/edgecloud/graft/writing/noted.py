"""Adds to what a trainable file says of itself; all else in the file stays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from modelwire.tflite import graph as tflite_graph
from modelwire.tflite.flatbuffer import File
from modelwire.tflite.notes import CONTRACT, ENTRY, LEARNING_RATE, REHEARSED

from . import flat
from .flat import Node, Number, OldNode, TableVector


def with_rehearsal(data: bytes, said: str, rates: Mapping[str, float]) -> bytes:
    """Return the file with the word of a rehearsal in its notes; the same bytes where they say so already.

    data: a file that keeps the contract. said: the runtime that ran it, and its version; "" where none did. rates: the suggested
    learning rates by the names of modes.
    """
    notes = _notes(data)
    before = json.dumps(notes)
    notes[REHEARSED] = said or False
    contract = notes.get("contract", 1)
    lists = type(contract) is int and contract >= CONTRACT  # as `notes_of` reads it
    given = {mode["name"]: mode for mode in notes["modes"]} if lists else {"all": notes}
    for name, mode in given.items():
        mode.pop(LEARNING_RATE, None)
        if rates.get(name):
            mode[LEARNING_RATE] = rates[name]
    return data if json.dumps(notes) == before else with_notes(data, json.dumps(notes, separators=(",", ":")).encode())


def _notes(data: bytes) -> dict[str, Any]:
    m = tflite_graph.parse(data)
    for name, buffer in m.metadata:
        if name == ENTRY:
            start, size = m.buffers[buffer]
            return dict(json.loads(data[start : start + size]))
    return {"contract": 1}


def with_notes(data: bytes, notes: bytes) -> bytes:
    """Return the file with these notes in the place of its own; what it held stays inside it, whole."""
    root = File(memoryview(data), what="model file", entries=max(1000, len(data))).root(b"TFL3")
    buffers: list[Node] = [OldNode(t.at) for t in root.tables(4)]
    kept: list[Node] = [OldNode(t.at) for t in root.tables(6) if t.text(0) != ENTRY]
    buffers.append(flat.TableNode({0: flat.data(notes)}))
    kept.append(flat.TableNode({0: flat.text(ENTRY), 1: flat.u32(len(buffers) - 1)}))
    fields: dict[int, Number | Node] = {
        0: flat.u32(3), 1: TableVector([OldNode(t.at) for t in root.tables(1)]), 2: TableVector([OldNode(t.at) for t in root.tables(2)]),
        4: TableVector(buffers), 6: TableVector(kept), 7: TableVector([OldNode(t.at) for t in root.tables(7)]),
    }  # fmt: skip
    description = root.text(3)
    if description:
        fields[3] = flat.text(description)
    return flat.write(flat.TableNode(fields), b"TFL3", data)
