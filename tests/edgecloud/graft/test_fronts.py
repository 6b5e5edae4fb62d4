"""What of odd fronts and weights is refused, and how: by name, with a way out, and whatever the file holds."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import numpy as np
import pytest

from edgecloud.graft.grafting import Wish, graft
from edgecloud.graft.inspecting import look
from edgecloud.graft.layers import layers
from edgecloud.graft.stock import Stock, read
from edgecloud.graft.weights import sparse, stored
from edgecloud.graft.weights.plain import made_plain
from edgecloud.graft.writing import copying, flat, ops
from edgecloud.graft.writing.build import tensor_table
from edgecloud.graft.writing.flat import OldNode, TableNode, TableVector
from modelwire.errors import ModelWireError, NotTrainable
from modelwire.tflite.flatbuffer import Table
from modelwire.tflite.graph import parse, root_table
from modelwire.tflite.notes import ENTRY
from tests.stock import ROOT

FOLDER = ROOT / "tests" / "models" / "fronts"
NAMES = sorted(path.stem for path in FOLDER.glob("*.tflite"))


def file_of(name: str) -> bytes:
    return (FOLDER / f"{name}.tflite").read_bytes()


def notes(file: bytes) -> dict[str, Any]:
    m = parse(file)
    (buffer,) = [b for name, b in m.metadata if name == ENTRY]
    start, size = m.buffers[buffer]
    return dict(json.loads(file[start : start + size]))


def with_tensor(stock: Stock, tensor: int, changed: dict[int, Any], buffers: tuple[TableNode, ...] = ()) -> bytes:
    """Return the file with other fields of one tensor."""
    old = stock.tensors[tensor]
    fields = {**tensor_table(old.shape, old.type, old.name, old.buffer).fields, **changed}
    if old.quantization >= 0:
        fields.setdefault(4, OldNode(old.quantization))
    tables = [TableNode(fields) if t == tensor else OldNode(each.byte) for t, each in enumerate(stock.tensors)]
    return copying.with_main_graph(stock, tables, [OldNode(op.byte) for op in stock.operators], buffers)


def kernel_of(stock: Stock, place: int = -1) -> int:
    """Return the kernel of a dense layer: of the last one, or another."""
    return [op for op in stock.operators if op.code == ops.FULLY_CONNECTED][place].inputs[1]


def test_the_head_is_the_last_layer_and_no_other_is_trained_in_its_stead() -> None:
    stock = read(file_of("dynamic_range"))
    assert notes(graft(stock.data, Wish()).file)["weights"]["head_kernel"]["stored"] == "int8"
    in_blocks = TableNode({4: flat.u8(2), 5: TableNode({2: flat.i32(32)})})
    file = with_tensor(stock, kernel_of(stock), {4: in_blocks})
    for cut in ("head", "last:2"):
        with pytest.raises(NotTrainable, match=r"FULLY_CONNECTED \(operator 7\): its kernel .*blockwise.*--train"):
            graft(file, Wish(train=(cut,)))
    assert "blockwise" in look(file, Wish(), rate=1e9).reason
    assert {layer.name for layer in graft(file, Wish(train=("hidden",))).layers} == {"hidden"}, "named, it is meant"


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_codes_without_a_scale_that_is_one_are_refused(scale: float) -> None:
    stock = read(file_of("dynamic_range"))
    quantization = TableNode({2: flat.VectorNode(struct.pack("<f", scale), 1)})
    with pytest.raises(NotTrainable, match="no positive number"):
        graft(with_tensor(stock, kernel_of(stock), {4: quantization}), Wish())


def test_int4_weights_become_the_float32_that_they_stand_for() -> None:
    stock = read(file_of("dynamic_range"))
    kernel = kernel_of(stock)
    codes = np.random.default_rng(1).integers(-8, 8, stock.tensors[kernel].size).astype("i1")
    packed = ((codes[0::2] & 15) | (codes[1::2] << 4)).astype("u1")
    fields = {1: flat.i8(ops.INT4), 2: flat.u32(len(stock.buffers))}
    file = with_tensor(stock, kernel, fields, (TableNode({0: flat.data(packed.tobytes())}),))
    made = graft(file, Wish())
    expected = codes.reshape(stock.tensors[kernel].shape) * np.float32(stock.tensors[kernel].scales[0])
    assert made.stock.value(made.layers[-1].weights["head_kernel"]).tobytes() == expected.astype("<f4").tobytes()
    assert notes(made.file)["weights"]["head_kernel"]["stored"] == "int4"


def test_a_scale_for_each_channel_lies_along_its_axis() -> None:
    value = np.arange(-6, 6, dtype="i1").reshape(2, 3, 2)
    for axis, n in ((0, 2), (1, 3), (2, 2)):
        scales = np.linspace(0.5, 2, n).astype("<f4")
        node = TableNode({
            0: flat.integers(value.shape), 1: flat.i8(ops.INT8),
            4: TableNode({2: flat.VectorNode(scales.tobytes(), n), 6: flat.i32(axis)}),
        })  # fmt: skip
        root = TableNode({0: flat.u32(3), 2: TableVector([TableNode({0: TableVector([node])})])})
        (graph,) = root_table(flat.write(root, b"TFL3", b"")).tables(2)
        (table,) = graph.tables(0)
        along = scales.reshape([-1 if i == axis else 1 for i in range(3)])
        assert (stored.widened(value, table, "x") == value * along).all()


def test_layers_that_share_a_kernel_of_codes_share_one_of_float32() -> None:
    stock = read(file_of("dynamic_range"))
    every = layers(stock, stock.outputs[0])
    kernel = next(t for layer in every if layer.name == "hidden" for n, t in layer.weights.items() if n.endswith("kernel"))
    plainer, instead = made_plain(stock, [kernel], "m")
    assert [op.inputs[1] for op in plainer.operators if instead[kernel] in op.inputs] == [instead[kernel]]
    assert kernel not in {t for op in plainer.operators for t in op.inputs}


def with_subgraph(stock: Stock, number: int, table: TableNode) -> bytes:
    graphs = [table if i == number else OldNode(byte) for i, byte in enumerate(stock.subgraphs)]
    root = {
        0: flat.u32(3), 1: TableVector([OldNode(byte) for byte in stock.codes]), 2: TableVector(graphs),
        4: TableVector([OldNode(byte) for byte in stock.buffer_tables]),
    }  # fmt: skip
    return flat.write(TableNode(root), b"TFL3", stock.data)


def graph_fields(stock: Stock, number: int) -> dict[int, Any]:
    table = Table(stock.root.file, stock.subgraphs[number])
    tables = {n: TableVector([OldNode(t.at) for t in table.tables(n)]) for n in (0, 3)}
    return {**tables, **{n: flat.integers(table.integers(n)) for n in (1, 2)}}


def test_a_loop_that_calls_itself_is_refused_before_any_runtime_sees_it() -> None:
    stock = read(file_of("loop"))
    loop = next(op for op in stock.operators if op.code == ops.WHILE)
    fields = graph_fields(stock, 2)
    fields[3] = TableVector([*fields[3].tables, OldNode(loop.byte)])
    with pytest.raises(ModelWireError, match="calls itself"):
        graft(with_subgraph(stock, 2, TableNode(fields)), Wish())


def test_state_inside_a_loop_is_refused() -> None:
    stock = read(file_of("loop"))
    fields = graph_fields(stock, 2)
    old = next(iter(Table(stock.root.file, stock.subgraphs[2]).tables(0)))
    kept = TableNode({**tensor_table(old.integers(0), ops.FLOAT32, "kept", 0).fields, 5: flat.u8(1)})
    fields[0] = TableVector([*fields[0].tables, kept])
    with pytest.raises(NotTrainable, match="subgraph 2, a loop or a branch, keeps state from call to call"):
        graft(with_subgraph(stock, 2, TableNode(fields)), Wish())


def test_a_state_that_starts_with_nothing_is_refused() -> None:
    stock = read(file_of("stream"))
    fields = graph_fields(stock, 1)
    fields[3] = TableVector(fields[3].tables[:1])
    with pytest.raises(NotTrainable, match="has no first value in the file"):
        graft(with_subgraph(stock, 1, TableNode(fields)), Wish())


def test_what_is_not_called_is_not_kept_and_keeps_its_place_empty() -> None:
    """A second main graph, as a file with several signatures has, may hold what no device runs."""
    stock = read(file_of("loop"))
    code = TableNode({0: flat.i8(ops.CUSTOM), 1: flat.text("FlexEverything"), 3: flat.i32(ops.CUSTOM)})
    custom = TableNode({0: flat.u32(len(stock.codes)), 1: flat.integers(()), 2: flat.integers(())})
    other = TableNode({0: TableVector([]), 1: flat.integers(()), 2: flat.integers(()), 3: TableVector([custom])})
    file = copying.with_main_graph(
        stock, [OldNode(t.byte) for t in stock.tensors], [OldNode(op.byte) for op in stock.operators], codes=[code], behind=[other]
    )
    assert len(read(file).subgraphs) == len(stock.subgraphs) + 1
    made = read(graft(file, Wish()).file)
    assert [Table(made.root.file, byte).text(4) for byte in made.subgraphs][1:3] == ["while_cond", "while_body"]
    assert not [op for graph in parse(made.data).graphs for op in graph.operators if op.custom]


def levels(*each: dict[int, Any], order: tuple[int, ...], blocks: tuple[int, ...] = ()) -> Table:
    node = TableNode({0: flat.integers(order), 1: flat.integers(blocks), 2: TableVector([TableNode(level) for level in each])})
    data = flat.write(TableNode({0: flat.u32(3), 7: node}), b"TFL3", b"")
    table = root_table(data).table(7)
    assert table is not None
    return table


def csr(segments: list[int], indices: list[int], kind: int = 1) -> dict[int, Any]:
    form = {1: "i", 2: "H", 3: "B"}[kind]
    vectors = [TableNode({0: flat.VectorNode(struct.pack(f"<{len(v)}{form}", *v), len(v))}) for v in (segments, indices)]
    return {0: flat.i8(1), 2: flat.u8(kind), 3: vectors[0], 4: flat.u8(kind), 5: vectors[1]}


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_blocks_and_orders_of_a_sparse_tensor(kind: int) -> None:
    full = np.array([[1, 0, 0, 2], [0, 3, 0, 0], [0, 0, 4, 5], [0, 0, 6, 7]], "<f4")
    rows = levels({1: flat.i32(4)}, csr([0, 2, 3, 5, 7], [0, 3, 1, 2, 3, 2, 3], kind), order=(0, 1))
    assert (sparse.dense(full[full != 0], (4, 4), rows) == full).all()
    columns = levels({1: flat.i32(4)}, csr([0, 1, 2, 4, 7], [0, 1, 2, 3, 0, 2, 3], kind), order=(1, 0))
    assert (sparse.dense(full.T[full.T != 0], (4, 4), columns) == full).all()
    block = {1: flat.i32(2)}
    blocks = levels({1: flat.i32(2)}, csr([0, 2, 3], [0, 1, 1], kind), block, block, order=(0, 1, 2, 3), blocks=(0, 1))
    values = np.concatenate([full[:2, :2].ravel(), full[:2, 2:].ravel(), full[2:, 2:].ravel()])
    assert (sparse.dense(values, (4, 4), blocks) == full).all()


@pytest.mark.parametrize(("segments", "indices", "why"), [
    ([0, 2, 1, 3, 3], [0, 1, 2], "fall"), ([0, 1, 2, 3, 4], [0, 1, 2], "end elsewhere"), ([0, 1, 2, 3], [0, 1, 2], "segments where"),
    ([0, 1, 2, 3, 3], [0, 1, 4], "beyond"), ([0, 1, 2, 3, 3], [0, 1, -1], "beyond"), ([1, 1, 2, 3, 3], [0, 1, 2], "begin at 0"),
    ([0, 2, 2, 3, 3], [1, 1, 2], "twice"), ([0, 1, 2, 2, 2], [0, 1], "values where 2"), ([], [], "begin at 0"),
])  # fmt: skip
def test_a_sparse_tensor_that_contradicts_itself_is_refused(segments: list[int], indices: list[int], why: str) -> None:
    with pytest.raises(ModelWireError, match=why):
        sparse.dense(np.ones(3, "<f4"), (4, 4), levels({1: flat.i32(4)}, csr(segments, indices), order=(0, 1)))


@pytest.mark.parametrize(("order", "blocks"), [((0, 0), ()), ((0,), ()), ((1, 2), ()), ((0, 1, 2), (0,)), ((0, 1), (5,)), ((), ())])
def test_an_order_that_is_none_is_refused(order: tuple[int, ...], blocks: tuple[int, ...]) -> None:
    with pytest.raises(ModelWireError, match="a sparse tensor of the shape"):
        sparse.dense(np.ones(3, "<f4"), (4, 4), levels({1: flat.i32(4)}, csr([0, 1, 2, 3, 3], [0, 1, 2]), order=order, blocks=blocks))


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_grafted_or_refused_by_name(name: str) -> None:
    """Whether what is grafted also runs is tried elsewhere, in a process of its own: here nothing else than a named error may come out."""
    data, rng = file_of(name), random.Random(name)
    counts = {"grafted": 0, "refused": 0}
    for _ in range(40):
        bad = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(8, min(len(bad), 6000)) & ~3
            bad[at : at + 4] = rng.choice([rng.randbytes(4), struct.pack("<i", rng.randint(-3, 40))])
        try:
            graft(bytes(bad), Wish(batch=2, train=(rng.choice(["head", "all"]),), model=name))
            counts["grafted"] += 1
        except ModelWireError:
            counts["refused"] += 1
    assert sum(counts.values()) == 40 and counts["refused"]
