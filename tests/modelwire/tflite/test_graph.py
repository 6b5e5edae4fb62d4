"""Reading a graph takes no more time than its bytes."""

from __future__ import annotations

import struct
import time

from modelwire.tflite import graph as tflite_graph


def test_thousands_of_signatures_on_one_large_subgraph_take_no_more_than_their_bytes() -> None:
    file = _many_signatures(inputs=60_000, signatures=15_000)
    began = time.process_time()
    assert len(tflite_graph.parse(file).signatures) == 15_000
    assert time.process_time() - began < 3


def _many_signatures(inputs: int, signatures: int) -> bytes:
    """Return a model file by hand: one tensor that is an input 60,000 times, in a subgraph that every signature names."""
    out = bytearray(8)

    def table(*fields: int | None) -> tuple[int, list[int]]:
        out.extend(bytes(-len(out) % 4))
        vtable, present = len(out), [i for i, f in enumerate(fields) if f is not None]
        places = [4 + 4 * present.index(i) if i in present else 0 for i in range(len(fields))]
        out.extend(struct.pack(f"<HH{len(fields)}H", 4 + 2 * len(fields), 4 + 4 * len(present), *places))
        out.extend(bytes(-len(out) % 4))
        at = len(out)
        out.extend(struct.pack("<i", at - vtable) + b"".join(struct.pack("<I", f) for f in fields if f is not None))
        return at, [at + p for p in places]

    def vector(field: int, count: int) -> int:
        out.extend(bytes(-len(out) % 4))
        struct.pack_into("<I", out, field, len(out) - field)
        out.extend(struct.pack("<I", count) + bytes(4 * count))
        return len(out) - 4 * count

    def entry(place: int, at: int) -> None:
        struct.pack_into("<I", out, place, at - place)

    root, at = table(3, 0, 0, None, 0, None, None, 0)
    struct.pack_into("<I4s", out, 0, root, b"TFL3")
    vector(at[1], 0)
    entry(vector(at[4], 1), table()[0])
    graphs = vector(at[2], 1)
    graph, of_graph = table(0, 0)
    entry(graphs, graph)
    entry(vector(of_graph[0], 1), table()[0])
    vector(of_graph[1], inputs)
    named = vector(at[7], signatures)
    for i in range(signatures):
        signature, of_signature = table(None, None, 0, None, 0)
        entry(named + 4 * i, signature)
        name = str(i).encode()
        out.extend(bytes(-len(out) % 4))
        struct.pack_into("<I", out, of_signature[2], len(out) - of_signature[2])
        out.extend(struct.pack("<I", len(name)) + name)
    return bytes(out)
