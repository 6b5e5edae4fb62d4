"""The int8 head of a stock file: what is found of it, what is written over it, and what keeps a hostile file from being one."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modelwire.errors import ModelError, ModelWireError, NotTrainable, ShapeMismatch
from modelwire.tensors import Dtype, TensorClass
from modelwire.tflite.file import check_trainable, contract, read_head, read_variables, read_weights, write_weights
from modelwire.tflite.flatbuffer import Table
from modelwire.tflite.graph import root_table
from modelwire.tflite.int8_head import BIAS, BIAS_SCALE, KERNEL, KERNEL_SCALE, OUTPUT_SCALE, OUTPUT_ZERO, Int8Head
from modelwire.update.manifest import manifest_of, parse_manifest
from tests.stock import STOCK, stock_path

SOFTMAX, LOGISTIC = (Path(STOCK / f"int8_{kind}.tflite").read_bytes() for kind in ("softmax", "logistic"))
FULLY, SOFT = 3, 4  # operators of the softmax file
X, KERNEL_AT, BIAS_AT, LOGITS, OTHER = 10, 3, 2, 11, 9  # its tensors


def found(file: bytes) -> Int8Head:
    head = read_head(file)
    assert head is not None
    return head


def test_all_that_is_trained_is_found_with_its_type_and_place() -> None:
    head = found(SOFTMAX)
    assert [(v.name, v.shape, v.dtype, v.verbatim) for v in head.variables] == [
        (BIAS, (4,), Dtype.INT32, False),
        (BIAS_SCALE, (4,), Dtype.FLOAT32, True),
        (KERNEL, (4, 8), Dtype.INT8, False),
        (KERNEL_SCALE, (4,), Dtype.FLOAT32, True),
        (OUTPUT_SCALE, (1,), Dtype.FLOAT32, True),
        (OUTPUT_ZERO, (2,), Dtype.INT32, False),
    ]
    assert not head.logistic and (head.features, head.outputs, head.output_zero, head.exposed) == (8, 4, -16, None)
    weights = read_weights(SOFTMAX)
    assert weights[KERNEL].dtype == np.float32 and np.abs(weights[KERNEL]).max() == 127
    assert weights[KERNEL_SCALE].tolist() == list(head.kernel_scales)
    assert weights[OUTPUT_ZERO].astype("<i4").tobytes() == struct.pack("<q", -16)
    fixed = contract(SOFTMAX)
    assert (fixed.batch, fixed.x_shape, fixed.y_shape, fixed.codes) == (32, (8,), (4,), True)
    assert contract(LOGISTIC).y_shape == (2,)  # its absence, and its presence
    assert KERNEL in found(LOGISTIC).names and OUTPUT_SCALE not in found(LOGISTIC).names
    for file in (SOFTMAX, LOGISTIC):
        check_trainable(file)
        assert write_weights(file, read_weights(file)) == file


@pytest.mark.parametrize(("name", "features"), [("okay_nabu", 64), ("hey_jarvis", 300)])
def test_wake_words_of_another_project_have_one(name: str, features: int) -> None:
    head = found(stock_path(name).read_bytes())
    assert (head.features, head.outputs, head.logistic, head.keeps_scales) == (features, 1, True, False)


@pytest.mark.parametrize("file", [SOFTMAX, LOGISTIC], ids=["softmax", "logistic"])
def test_other_weights_change_their_own_bytes_and_no_others(file: bytes) -> None:
    rng, weights = np.random.default_rng(1), read_weights(file)
    weights[KERNEL] = rng.integers(-127, 128, weights[KERNEL].shape).astype(np.float32)
    weights[BIAS] = rng.integers(-(2**20), 2**20, weights[BIAS].shape).astype(np.int32)
    for scale in (KERNEL_SCALE, BIAS_SCALE):
        weights[scale] = weights[scale] * np.float32(2)
    written = write_weights(file, weights)
    assert len(written) == len(file)
    assert {n: a.tobytes() for n, a in read_weights(written).items()} == {n: a.tobytes() for n, a in weights.items()}
    inside = {i for v in read_variables(file) for i in range(v.offset, v.offset + v.nbytes)}
    assert {i for i, (a, b) in enumerate(zip(file, written, strict=True)) if a != b} <= inside
    assert write_weights(written, read_weights(file)) == file


def test_the_manifest_puts_the_codes_on_the_lattice_and_the_scales_on_none() -> None:
    manifest = manifest_of(SOFTMAX)
    assert manifest.classes == tuple(TensorClass.LATTICE if t.name == KERNEL else TensorClass.VERBATIM for t in manifest.schema.tensors)
    assert set(manifest.exponents) == {0}
    assert parse_manifest(manifest.encode()) == manifest
    assert manifest_of(SOFTMAX, exact=True).all_exact


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, 1e-42, 1e30])
def test_a_scale_that_no_runtime_takes_is_not_written(scale: float) -> None:
    weights = read_weights(SOFTMAX)
    for name in (KERNEL_SCALE, BIAS_SCALE):
        weights[name] = np.full(4, scale, np.float32)
    with pytest.raises(NotTrainable, match="scale"):
        write_weights(SOFTMAX, weights)


def test_scales_and_zero_points_that_contradict_each_other_are_not_written() -> None:
    for name, value, said in (
        (BIAS_SCALE, np.full(4, 0.1, np.float32), "not that of the weights times that of the features"),
        (OUTPUT_SCALE, np.full(1, 1e-12, np.float32), "too far apart"),
        (OUTPUT_ZERO, np.array([300, 0], np.int32), "no int8"),
        (OUTPUT_ZERO, np.array([-16, 0], np.int32), "no int8"),
    ):
        with pytest.raises(NotTrainable, match=said):
            write_weights(SOFTMAX, {**read_weights(SOFTMAX), name: value})
    with pytest.raises(ShapeMismatch, match=KERNEL):
        write_weights(SOFTMAX, {**read_weights(SOFTMAX), KERNEL: np.zeros((4, 8), np.int8)})


def test_a_float_file_is_what_it_was_before() -> None:
    dense = (STOCK / "dense.tflite").read_bytes()
    assert read_head(dense) is None
    with pytest.raises(NotTrainable, match="it has no signature"):
        check_trainable(dense)


class Surgeon:
    """Changes single fields of the softmax file in place, found by the reader's own tables."""

    def __init__(self, file: bytes = SOFTMAX) -> None:
        self.file = bytearray(file)

    def _graph(self) -> Table:
        return next(iter(root_table(bytes(self.file)).tables(2)))

    def tensor(self, index: int) -> Table:
        return list(self._graph().tables(0))[index]

    def operator(self, index: int) -> Table:
        return list(self._graph().tables(3))[index]

    def quantization(self, index: int) -> Table:
        table = self.tensor(index).table(4)
        assert table is not None
        return table

    def put(self, at: int | None, form: str, value: float) -> None:
        assert at is not None
        struct.pack_into(f"<{form}", self.file, at, value)

    def point(self, table: Table, number: int, to: int) -> None:
        """Let an offset field lead to the vector or table at byte `to`, which lies behind it."""
        at = table.field(number, 4)
        assert at is not None and to > at
        self.put(at, "I", to - at)

    def scale(self, tensor: int, entry: int, value: float) -> None:
        self.put(self.quantization(tensor).vector(2, 4).start + 4 * entry, "f", value)

    def zero(self, tensor: int, value: int) -> None:
        self.put(self.quantization(tensor).vector(3, 8).start, "q", value)

    def buffer(self, tensor: int) -> Table:
        number = self.tensor(tensor).integer(2, struct.Struct("<I"))
        return list(root_table(bytes(self.file)).tables(4))[number]

    def input(self, operator: int, place: int, tensor: int) -> None:
        self.put(self.operator(operator).vector(1, 4).start + 4 * place, "i", tensor)

    def option(self, operator: int, number: int, form: str, value: float) -> None:
        options = self.operator(operator).table(4)
        assert options is not None
        self.put(options.field(number, struct.calcsize(form)), form, value)


def _kernel_over_the_bias(s: Surgeon) -> None:
    """The kernel's buffer shows bytes that end where the bias ends."""
    end = s.buffer(BIAS_AT).vector(0, 1).start + 16
    s.put(end - 36, "I", 32)  # as long as it has to be
    s.point(s.buffer(KERNEL_AT), 0, end - 36)


def _kernel_in_the_first_layer(s: Surgeon) -> None:
    s.put(s.tensor(7).field(2, 4), "I", s.tensor(KERNEL_AT).integer(2, struct.Struct("<I")))


def _text_over_the_kernel(s: Surgeon) -> None:
    """The file's description is read from inside the kernel; its four bytes of length are weights."""
    start = s.buffer(KERNEL_AT).vector(0, 1).start
    s.put(start, "I", 3)
    s.point(root_table(bytes(s.file)), 3, start)


HOSTILE: dict[str, tuple[Callable[[Surgeon], None], str]] = {
    "a scale of zero": (lambda s: s.scale(KERNEL_AT, 0, 0.0), "not a positive number"),
    "a scale that is no number": (lambda s: s.scale(X, 0, float("nan")), "not a positive number"),
    "a subnormal scale": (lambda s: s.scale(LOGITS, 0, 1e-42), "not a positive number"),
    "an endless scale": (lambda s: s.scale(BIAS_AT, 2, float("inf")), "not a positive number"),
    "a bias of another scale": (lambda s: s.scale(BIAS_AT, 1, 0.5), "not that of the weights times"),
    "a zero point beyond int8": (lambda s: s.zero(X, 1000), "no int8"),
    "a zero point of 64 bits": (lambda s: s.zero(LOGITS, -(1 << 62)), "no int8"),
    "weights with a zero point": (lambda s: s.zero(KERNEL_AT, 5), "without zero points"),
    "weights of uint8": (lambda s: s.put(s.tensor(KERNEL_AT).field(1, 1), "b", 3), "not int8 throughout"),
    "a bias of float": (lambda s: s.put(s.tensor(BIAS_AT).field(1, 1), "b", 10), "not int8 throughout"),
    "the kernel as bias": (lambda s: s.input(FULLY, 2, KERNEL_AT), "not int8 throughout"),
    "computed weights": (lambda s: s.input(FULLY, 1, 8), "."),
    "the kernel in another layer": (_kernel_in_the_first_layer, "share their bytes"),
    "a kernel that reaches over the bias": (_kernel_over_the_bias, "lie over other parts"),
    "a text over the kernel": (_text_over_the_kernel, "lie over other parts"),
    "another beta": (lambda s: s.option(SOFT, 0, "f", 2.0), "another beta"),
    "no softmax": (lambda s: s.put(s.operator(SOFT).vector(2, 4).start, "i", 9), "."),
}


def test_a_head_without_a_bias_is_trained_by_its_kernel_alone() -> None:
    surgeon = Surgeon()
    surgeon.input(FULLY, 2, -1)
    head = found(bytes(surgeon.file))
    assert head.names == {KERNEL, KERNEL_SCALE, OUTPUT_SCALE, OUTPUT_ZERO} and head.kept == (0, 0, 0, 0)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_head_is_refused(name: str) -> None:
    change, said = HOSTILE[name]
    surgeon = Surgeon()
    change(surgeon)
    with pytest.raises(ModelWireError, match=said):
        check_trainable(bytes(surgeon.file))
    with pytest.raises(ModelWireError):
        manifest_of(bytes(surgeon.file))


def test_a_scale_that_another_tensor_shares_stays_as_it_is() -> None:
    """Two tables may refer to one vector, and two tensors to one table: writing one scale would change two tensors."""
    for mine in (KERNEL_AT, BIAS_AT):
        for whole in (True, False):
            surgeon = Surgeon()
            if whole:
                surgeon.point(surgeon.tensor(OTHER), 4, surgeon.quantization(mine).at)
            else:
                surgeon.point(surgeon.quantization(OTHER), 2, surgeon.quantization(mine).vector(2, 4).start - 4)
            head = found(bytes(surgeon.file))
            assert head.keeps_scales and not {KERNEL_SCALE, BIAS_SCALE} & head.names
            assert {v.name for v in read_variables(bytes(surgeon.file))} == {KERNEL, BIAS, OUTPUT_SCALE, OUTPUT_ZERO}


@pytest.mark.slow("changes a model file at every byte")
def test_no_change_of_single_bytes_lets_a_write_reach_beyond_its_tensors() -> None:
    """Whatever byte is changed: the file is refused, or what is found in it can be written without another part moving."""
    rng = np.random.default_rng(4)
    kept = 0
    for at in rng.permutation(len(LOGISTIC))[:600]:
        file = bytearray(LOGISTIC)
        file[at] ^= 1 << int(rng.integers(8))
        changed = bytes(file)
        try:
            head = read_head(changed)
            if head is None:
                continue
            weights = read_weights(changed)
            weights[KERNEL] = -weights[KERNEL]
            weights[BIAS] = ~weights[BIAS]
            written = write_weights(changed, weights)
        except (ModelError, ModelWireError):
            continue
        kept += 1
        again = found(written)
        assert again == head
        inside = {i for v in head.variables for i in range(v.offset, v.offset + v.nbytes)}
        assert {i for i, (a, b) in enumerate(zip(changed, written, strict=True)) if a != b} <= inside
        assert {n: a.tobytes() for n, a in read_weights(written).items()} == {n: a.tobytes() for n, a in weights.items()}
    assert kept > 100
