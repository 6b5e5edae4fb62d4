"""The shapes that are found in a file are those that a runtime computes with, and a graft of a file that left them open trains."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecloud.graft.grafting import Grafted, Wish, graft
from edgecloud.graft.inspecting import look
from edgecloud.graft.shapes import resolve
from edgecloud.graft.stock import Stock, read
from edgecloud.graft.writing import flat, ops
from edgecloud.graft.writing.build import FileBuilder, GraphBuilder, tensor_table
from edgecloud.graft.writing.flat import OldNode
from edgecommon.runtime import interpreter_for
from modelwire.errors import ModelWireError, NotTrainable
from modelwire.tensors import F32
from modelwire.tflite.flatbuffer import U32
from tests.stock import OTHERS, ROOT, STOCK, runtime, stock_file

OPEN = ROOT / "tests" / "models" / "open"
ZOO = ROOT / "build" / "zoo"  # tests/models/zoo.py fills it
FILES = [*sorted(STOCK.glob("*.tflite")), *sorted(OPEN.glob("*.tflite")), *sorted(OTHERS.glob("*.tflite")), *sorted(ZOO.rglob("*.tflite"))]
# One float32 input with a batch left open, and every operator batched and known to the rules.
TRAINED = ("convnext", "dilated", "open_gru", "open_lstm", "reshaped", "sequence", "stft", "token", "transformer", "upward")


def opened(file: bytes) -> Any:
    return interpreter_for(runtime().interpreter, file, delegates=False)


def differences(stock: Stock, interpreter: Any) -> list[str]:
    """Return the tensors that operators use and whose shape a run does not agree with."""
    return differences_of({t for op in stock.operators for t in (*op.inputs, *op.outputs) if t >= 0}, stock, interpreter)


def differences_of(used: Iterable[int], stock: Stock, interpreter: Any) -> list[str]:
    real = {d["index"]: tuple(int(n) for n in d["shape"]) for d in interpreter.get_tensor_details()}
    pairs = [(t, stock.tensors[t].shape, real[t]) for t in sorted(real.keys() & used) if t not in stock.unknown]
    return [f"{stock.tensors[t].name!r}: {found} here, {given} there" for t, found, given in pairs if found != given]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shapes_are_those_of_a_run(path: Path) -> None:
    data = path.read_bytes()
    try:
        interpreter = opened(data)
        interpreter.allocate_tensors()
        for given in interpreter.get_input_details():
            if given["dtype"] in (np.bytes_, np.object_):
                pytest.skip("it takes text")
            interpreter.set_tensor(given["index"], np.zeros(given["shape"], given["dtype"]))
        interpreter.invoke()  # what is computed by values gets its shape only now
    except (RuntimeError, ValueError) as error:
        pytest.skip(f"the runtime does not run it: {str(error)[:80]}")
    assert differences(read(data), interpreter) == []


def losses(made: Grafted, x: F32, y: F32, rate: float, steps: int = 6) -> list[float]:
    train = opened(made.file).get_signature_runner("train")
    return [float(train(x=x, y=y, lr=np.array(rate, np.float32))["loss"]) for _ in range(steps)]


def target(made: Grafted, rng: np.random.Generator) -> F32:
    shape = opened(made.file).get_signature_runner("train").get_input_details()["y"]["shape"]
    if made.loss == "mse":
        return np.asarray(rng.standard_normal(shape) / 10, np.float32)
    y = np.zeros(shape, np.float32)
    y[..., 0] = 1
    return y


@pytest.mark.parametrize("cut", ["head", "all"])
@pytest.mark.parametrize("name", TRAINED)
def test_a_file_with_open_shapes_infers_to_the_bit_and_trains(name: str, cut: str) -> None:
    data = (OPEN / f"{name}.tflite").read_bytes()
    made = graft(data, Wish(train=(cut,), batch=3, model=name))
    model, stock = opened(made.file), opened(data)
    infer, evaluate = model.get_signature_runner("infer"), model.get_signature_runner("eval")
    rng = np.random.default_rng(3)
    x = rng.standard_normal(evaluate.get_input_details()["x"]["shape"]).astype(np.float32)
    stock.allocate_tensors()
    (given,), (gives,) = stock.get_input_details(), stock.get_output_details()
    rows = []
    for one in x[:, None]:
        stock.set_tensor(given["index"], one)
        stock.invoke()
        rows.append(infer(x=one)["output"])
        assert rows[-1].tobytes() == stock.get_tensor(gives["index"]).tobytes()
    np.testing.assert_allclose(evaluate(x=x)["output"], np.concatenate(rows), rtol=1e-4, atol=1e-5)
    before, *_, after = losses(made, x, target(made, rng), 0.05)
    assert after < before


def test_what_depends_on_shapes_alone_is_no_work_in_a_training_step() -> None:
    """The chains of SHAPE, STRIDED_SLICE and PACK are gone from eval; infer keeps each operator."""
    made = graft((OPEN / "sequence.tflite").read_bytes(), Wish(batch=2))
    counts = {}
    for name in ("infer", "eval"):
        number = next(t for t in read(made.file).root.tables(7) if t.text(2) == name).integer(4, U32)
        counts[name] = sum(op.code in (ops.SHAPE, ops.PACK) for op in read(made.file, graph=number).operators)
    assert counts["infer"] > 0 == counts["eval"]


def graph_of(build: Any) -> bytes:
    """Return a file of one graph, continuing that of `dense`. build: appends to it, and returns its outputs."""
    stock = read(stock_file("dense"))
    file = FileBuilder(stock)
    graph = GraphBuilder(file, "main")
    graph.inputs = [graph.tensor((2, 3, 4), name="x")]
    graph.outputs = build(graph, graph.inputs[0])
    return file.write({})


def test_slices_by_any_masks_are_those_of_a_run() -> None:
    """Random begins, ends, strides and masks, over the input and over a constant: shapes and values."""
    rng, ran = np.random.default_rng(11), 0
    table = rng.integers(-50, 50, (2, 3, 4)).astype(np.int32)
    for _ in range(80):
        count = int(rng.integers(1, 4))
        begin, end = rng.integers(-5, 6, count), rng.integers(-5, 6, count)
        stride = rng.choice([-2, -1, 1, 2, 3], count)
        masks = [int(rng.integers(0, 1 << count)) for _ in range(2)]
        ellipsis, new, shrink = 0, 0, int(rng.integers(0, 1 << count)) & int(rng.integers(0, 1 << count))
        # A single entry that is not there, or taken backwards: runtimes take some other one, and here it is refused.
        shrink &= sum(1 << i for i, n in enumerate((2, 3, 4)[:count]) if -n <= begin[i] < n and stride[i] > 0)
        special = int(rng.integers(0, 4))
        if special == 1:
            ellipsis, shrink = 1 << int(rng.integers(0, count)), 0
        elif special == 2:
            new, shrink = 1 << int(rng.integers(0, count)), 0

        def build(graph: GraphBuilder, x: int) -> list[int]:
            vectors = [graph.constant_of([int(n) for n in v]) for v in (begin, end, stride)]  # noqa: B023
            options = {i: flat.i32(mask) for i, mask in enumerate((*masks, ellipsis, new, shrink)) if mask}  # noqa: B023
            first = graph.op(ops.STRIDED_SLICE, (x, *vectors), (), options)
            second = graph.op(ops.STRIDED_SLICE, (graph.constant_of(table), *vectors), (), options, type=ops.INT32)
            return [first, second]

        data = graph_of(build)
        interpreter = opened(data)
        try:
            interpreter.allocate_tensors()
            interpreter.invoke()
        except (RuntimeError, ValueError):
            continue  # an entry that is not there, or what this runtime's kernel does not do
        stock = read(data)
        assert not stock.unknown, (begin, end, stride, masks, ellipsis, new, shrink)
        assert differences_of(stock.outputs, stock, interpreter) == [], (begin, end, stride, masks, ellipsis, new, shrink)
        if stock.tensors[stock.outputs[1]].size:
            said = str((begin, end, stride, masks, ellipsis, new, shrink))
            np.testing.assert_array_equal(stock.known[stock.outputs[1]], interpreter.get_tensor(stock.outputs[1]), said)
        ran += 1
    assert ran > 30


def test_chains_of_whole_numbers_are_computed_as_a_run_does() -> None:
    rng = np.random.default_rng(12)
    codes = (ops.ADD, ops.SUB, ops.MUL, ops.MAXIMUM, ops.MINIMUM, ops.FLOOR_DIV, ops.FLOOR_MOD)

    def build(graph: GraphBuilder, x: int) -> list[int]:
        ops_of = ops.OPTIONS | {ops.FLOOR_DIV: 0, ops.FLOOR_MOD: 0}
        made = [graph.op(ops.TRANSPOSE, (graph.constant_of(np.arange(6, dtype=np.int32).reshape(2, 3)), graph.constant_of([1, 0])), (3, 2),
                         type=ops.INT32)]
        for code in codes:
            other = graph.constant_of(rng.choice([-7, -2, -1, 1, 3, 5], (3, 1)).astype(np.int32))
            graph.file.code(code)
            if ops_of[code] or code in ops.OPTIONS:
                made.append(graph.op(code, (made[-1], other), (), type=ops.INT32))
            else:
                out = graph.tensor((), ops.INT32)
                fields = {0: flat.u32(graph.file.code(code)), 1: flat.integers((made[-1], other)), 2: flat.integers((out,))}
                graph.operators.append(flat.TableNode(fields))
                made.append(out)
        return made

    data = graph_of(build)
    stock, interpreter = read(data), opened(data)
    interpreter.allocate_tensors()
    interpreter.invoke()
    for t in stock.outputs:
        np.testing.assert_array_equal(stock.known[t], interpreter.get_tensor(t))


def test_shapes_that_contradict_each_other_are_refused_with_the_operator() -> None:
    stock = read(stock_file("dense"))
    first = stock.operators[0]
    x = stock.tensors[stock.inputs[0]]
    tensors = {stock.inputs[0]: tensor_table((1, 8), x.type, x.name, 0)}
    nodes = [tensors.get(t, OldNode(tensor.byte)) for t, tensor in enumerate(stock.tensors)]
    graph = flat.TableNode({
        0: flat.TableVector(nodes), 1: flat.integers(stock.inputs), 2: flat.integers(stock.outputs),
        3: flat.TableVector([OldNode(op.byte) for op in stock.operators]),
    })  # fmt: skip
    root = {
        0: flat.u32(3), 1: flat.TableVector([OldNode(b) for b in stock.codes]), 2: flat.TableVector([graph]),
        4: flat.TableVector([OldNode(b) for b in stock.buffer_tables]),
    }  # fmt: skip
    data = flat.write(flat.TableNode(root), b"TFL3", stock.data)
    with pytest.raises(NotTrainable, match=rf"FULLY_CONNECTED \(operator {first.index}\), giving .* takes what does not fit together"):
        graft(data, Wish())
    assert "FULLY_CONNECTED" in look(data, Wish(), rate=1e9).reason


@pytest.mark.parametrize("name", ["sequence", "transformer", "stft", "any_size", "four_kinds", "mixing"])
def test_sizes_turned_to_nothing_or_far_too_much_end_in_a_named_error(name: str) -> None:
    """Each constant of whole numbers gets wild entries in turn: inspect looks, graft says what is wrong or gives a file."""
    data = bytearray((OPEN / f"{name}.tflite").read_bytes())
    stock, rng = read(bytes(data)), np.random.default_rng(5)
    places = [
        stock.buffers[t.buffer] for i, t in enumerate(stock.tensors) if stock.is_constant(i) and t.type in (ops.INT32, ops.INT64) and t.size
    ]
    for start, size in places[:12]:
        for wild in (0, -1, 1 << 30, -(1 << 31), int(rng.integers(-9, 9))):
            mutant = bytearray(data)
            mutant[start : start + size] = np.full(size // 4, wild, "<i4").tobytes()
            try:
                look(bytes(mutant), Wish(batch=2), rate=1e9)
                graft(bytes(mutant), Wish(batch=2))
            except ModelWireError:
                continue


def test_an_input_may_be_given_another_shape() -> None:
    stock = read((OPEN / "any_size.tflite").read_bytes())
    found = resolve(stock, {stock.inputs[0]: (1, 20, 30, 3)})
    assert not found.unknown
    assert [found.shapes[op.outputs[0]] for op in stock.operators if op.code == ops.CONV_2D] == [(1, 18, 28, 4)]
