"""Model files made to cost whoever reads them: long, wide, deep, shared, circular, or of sizes that no file bears out."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgecloud.graft.writing import flat, ops
from edgecloud.graft.writing.flat import Node, Number, TableNode, TableVector

WHILE = 119


@dataclass
class Graph:
    """One subgraph in the making. Tensors: (shape, type, buffer); operators: (place of its code, inputs, outputs)."""

    tensors: list[Node] = field(default_factory=list)
    operators: list[Node] = field(default_factory=list)
    inputs: Sequence[int] = (0,)
    outputs: Sequence[int] = (0,)

    def tensor(self, shape: Sequence[int], *, of: int = ops.FLOAT32, buffer: int = 0, quantization: Node | None = None) -> int:
        name = flat.text(f"t{len(self.tensors)}")
        fields: dict[int, Number | Node] = {0: flat.integers(shape), 1: flat.i8(of), 2: flat.u32(buffer), 3: name}
        if quantization is not None:
            fields[4] = quantization
        self.tensors.append(TableNode(fields))
        return len(self.tensors) - 1

    def op(self, code: int, inputs: Sequence[int], outputs: Sequence[int], options: tuple[int, Node] | None = None) -> None:
        fields: dict[int, Number | Node] = {0: flat.u32(code), 1: flat.integers(inputs), 2: flat.integers(outputs)}
        if options is not None:
            fields |= {3: flat.u8(options[0]), 4: options[1]}
        self.operators.append(TableNode(fields))


def written(graphs: Sequence[Graph], codes: Sequence[int], buffers: Sequence[bytes]) -> bytes:
    """Return the file."""
    tables: list[Node] = [
        TableNode({0: TableVector(g.tensors), 1: flat.integers(g.inputs), 2: flat.integers(g.outputs), 3: TableVector(g.operators)})
        for g in graphs
    ]
    root = TableNode({
        0: flat.u32(3), 1: TableVector([TableNode({0: flat.i8(min(c, 127)), 3: flat.i32(c)}) for c in codes]), 2: TableVector(tables),
        4: TableVector([TableNode({}), *(TableNode({0: flat.data(b)}) for b in buffers)]),
    })  # fmt: skip
    return flat.write(root, b"TFL3", b"")


def _floats(*shape: int) -> bytes:
    count = 1
    for n in shape:
        count *= n
    return struct.pack(f"<{count}f", *([0.01] * count))


def chain(length: int, code: int = ops.RELU) -> bytes:
    """Return a dense layer behind `length` operators, one behind the other."""
    g = Graph()
    last = g.tensor((1, 4))
    w, b, out = g.tensor((2, 4), buffer=1), g.tensor((2,), buffer=2), g.tensor((1, 2))
    for _ in range(length):
        new = g.tensor((1, 4))
        g.op(0, (last,), (new,))
        last = new
    g.op(1, (last, w, b), (out,), (8, TableNode({})))
    g.outputs = (out,)
    return written([g], [code, ops.FULLY_CONNECTED], [_floats(2, 4), _floats(2)])


def layers(length: int, last: int = ops.RELU) -> bytes:
    """Return `length` dense layers with weights of their own, and one operator in front of the last of them."""
    g, buffers = Graph(), [_floats(4, 4), _floats(4)]
    tensor = g.tensor((1, 4))
    for i in range(length):
        w, b = g.tensor((4, 4), buffer=1), g.tensor((4,), buffer=2)
        if i == length // 2:
            new = g.tensor((1, 4))
            g.op(1, (tensor,), (new,))
            tensor = new
        new = g.tensor((1, 4))
        g.op(0, (tensor, w, b), (new,), (8, TableNode({})))
        tensor = new
    g.outputs = (tensor,)
    return written([g], [ops.FULLY_CONNECTED, last], buffers)


def many_tensors(count: int) -> bytes:
    """Return a file with `count` tensors, all one table."""
    return _with_vector(count)


def _with_vector(count: int) -> bytes:
    """Return a minimal file whose subgraph has `count` tensors that are all the same table."""
    out = bytearray(struct.pack("<I4s", 0, b"TFL3"))

    def put(raw: bytes) -> int:
        out.extend(bytes(-len(out) % 4))
        place = len(out)
        out.extend(raw)
        return place

    def table(fields: dict[int, int], sizes: int) -> int:
        places = [4 + 4 * sorted(fields).index(n) if n in fields else 0 for n in range(sizes)]
        vtable = put(struct.pack(f"<{2 + sizes}H", 4 + 2 * sizes, 4 + 4 * len(fields), *places))
        at = put(b"")
        out.extend(struct.pack("<i", at - vtable) + bytes(4 * len(fields)))
        return at

    def point(at: int, to: int) -> None:
        out[at : at + 4] = struct.pack("<I", to - at)

    root = table({0: 0, 2: 0, 4: 0}, 5)
    point(0, root)
    out[root + 4 : root + 8] = struct.pack("<I", 3)
    graphs = put(struct.pack("<II", 1, 0))
    point(root + 8, graphs)
    buffers = put(struct.pack("<II", 1, 0))
    point(root + 12, buffers)
    graph = table({0: 0, 1: 0, 2: 0}, 4)
    point(graphs + 4, graph)
    tensors = put(struct.pack("<I", count) + bytes(4 * count))
    point(graph + 4, tensors)
    one = put(struct.pack("<II", 1, 0))
    point(graph + 8, one)
    point(graph + 12, put(struct.pack("<II", 1, 0)))
    tensor = table({0: 0}, 8)
    point(tensor + 4, put(struct.pack("<III", 2, 1, 4)))
    empty = table({}, 1)
    point(buffers + 4, empty)
    for i in range(count):
        point(tensors + 4 + 4 * i, tensor)
    return bytes(out)


def shared_scales(tensors: int, scales: int) -> bytes:
    """Return a file whose tensors all have the same vector of scales: read anew for each, it is tensors * scales numbers."""
    g = Graph()
    vector = flat.VectorNode(struct.pack(f"<{scales}f", *([1.0] * scales)), scales)
    zeros = flat.VectorNode(bytes(8 * scales), scales, 8)
    for _ in range(tensors):
        g.tensor((1, 4), quantization=TableNode({2: vector, 3: zeros}))
    return written([g], [], [])


def sized(shape: Sequence[int]) -> bytes:
    """Return a file whose input claims this shape."""
    g = Graph()
    x = g.tensor(shape)
    w, b, out = g.tensor((2, 4), buffer=1), g.tensor((2,), buffer=2), g.tensor((1, 2))
    g.op(0, (x, w, b), (out,), (8, TableNode({})))
    g.outputs = (out,)
    return written([g], [ops.FULLY_CONNECTED], [_floats(2, 4), _floats(2)])


def wrong_constant(size: int) -> bytes:
    """Return a file whose kernel has `size` bytes where its shape asks for 32."""
    g = Graph()
    x = g.tensor((1, 4))
    w, b, out = g.tensor((2, 4), buffer=1), g.tensor((2,), buffer=2), g.tensor((1, 2))
    g.op(0, (x, w, b), (out,), (8, TableNode({})))
    g.outputs = (out,)
    return written([g], [ops.FULLY_CONNECTED], [bytes(size), _floats(2)])


def circle() -> bytes:
    """Return a file of two operators, each of which takes what the other gives."""
    g = Graph()
    x, a, b = (g.tensor((1, 4)) for _ in range(3))
    g.op(0, (x, b), (a,))
    g.op(0, (a, x), (b,))
    g.outputs = (b,)
    return written([g], [ops.ADD], [])


def endless_loop() -> bytes:
    """Return a file whose WHILE never ends: its condition gives its input back, which is true."""
    main, condition, body = Graph(), Graph(), Graph()
    x = main.tensor((1, 4))
    flag = main.tensor((), of=ops.BOOL, buffer=3)
    out, kept = main.tensor((), of=ops.BOOL), main.tensor((1, 4))
    main.op(1, (flag, x), (out, kept), (93, TableNode({0: flat.i32(1), 1: flat.i32(2)})))
    w, b, y = main.tensor((2, 4), buffer=1), main.tensor((2,), buffer=2), main.tensor((1, 2))
    main.op(0, (kept, w, b), (y,), (8, TableNode({})))
    main.outputs = (y,)
    for g in (condition, body):
        g.tensor((), of=ops.BOOL)
        g.tensor((1, 4))
        g.inputs = (0, 1)
    condition.outputs, body.outputs = (0,), (0, 1)
    return written([main, condition, body], [ops.FULLY_CONNECTED, WHILE], [_floats(2, 4), _floats(2), b"\1"])


CASES: dict[str, Callable[[], bytes]] = {
    "50,000 operators in a chain": lambda: chain(50_000),
    "50,000 operators without a gradient": lambda: chain(50_000, ops.FLOOR),
    "3,000 layers": lambda: layers(3_000),
    "3,000 layers around one without a gradient": lambda: layers(3_000, ops.FLOOR),
    "20,000 operators in a chain": lambda: chain(19_999),
    "25,000 layers": lambda: layers(25_000),
    "a million tensors of one table": lambda: many_tensors(1_000_000),
    "scales shared by all tensors": lambda: shared_scales(4_000, 4_000),
    "an input of -1 x -1": lambda: sized((-1, -1)),
    "an input of 1 x 2^31 - 1": lambda: sized((1, 2**31 - 1)),
    "a product that overflows": lambda: sized((1, 65_536, 65_536, 65_536)),
    "128 million entries": lambda: sized((1, 128 * 1024 * 1024)),
    "a constant that is too short": lambda: wrong_constant(28),
    "a constant that is too long": lambda: wrong_constant(64),
    "a circle": circle,
    "a loop that never ends": endless_loop,
}  # fmt: skip
