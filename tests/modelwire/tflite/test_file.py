"""The reader of trainable files: what it finds in real ones, what it writes, what it refuses, and what hostile files can't do to it."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelwire.errors import Malformed, ModelWireError, NotTrainable, ShapeMismatch, TooLarge
from modelwire.limits import Limits
from modelwire.tensors import Dtype
from modelwire.tflite import graph
from modelwire.tflite.file import (
    check_trainable,
    contract,
    parse_trainable,
    read_tensors,
    read_variables,
    read_weights,
    signature_names,
    write_weights,
)
from modelwire.tflite.flatbuffer import I8, I32, U32, File, Table
from modelwire.tflite.graph import ADD_N, CUSTOM, ELU, LARGE_ENTRIES, MAX_ENTRIES, allowance, parse

MODELS = Path(__file__).parents[2] / "models"
TINY = (MODELS / "tiny.tflite").read_bytes()
SHARED = (MODELS / "tiny_shared.tflite").read_bytes()
SHAPES = {
    "hidden1_bias": (3,),
    "hidden1_kernel": (4, 3),
    "hidden2_bias": (3,),
    "hidden2_kernel": (3, 3),
    "output_bias": (3,),
    "output_kernel": (3, 3),
}


def test_the_variables_of_a_real_file_are_found_under_the_names_of_get_weights() -> None:
    variables = read_variables(TINY)
    assert {v.name: v.shape for v in variables} == SHAPES
    assert [v.name for v in variables] == sorted(SHAPES)
    assert all(v.dtype is Dtype.FLOAT32 and v.nbytes == 4 * np.prod(v.shape) for v in variables)
    assert read_tensors(TINY)[0].size == 39


def test_the_offsets_point_at_the_values_that_the_author_gave() -> None:
    weights = read_weights(TINY)
    rng = np.random.default_rng(3)  # as in author.py
    first = (np.sqrt(2 / 4) * (rng.standard_normal(3), rng.standard_normal((4, 3)))[1]).astype(np.float32)
    assert np.array_equal(weights["hidden1_kernel"], first)
    assert np.array_equal(weights["output_kernel"], weights["hidden2_kernel"])
    assert not weights["output_bias"].any()


def test_the_contract_tells_batch_and_shapes() -> None:
    found = contract(TINY)
    assert (found.batch, found.x_shape, found.y_shape, found.classes, found.evaluates) == (16, (4,), (3,), 3, True)
    assert signature_names(TINY) == ("eval", "get_weights", "infer", "set_weights", "train")


@pytest.mark.parametrize("name", ["tiny", "digits", "motion"])
def test_the_committed_models_keep_the_contract(name: str) -> None:
    file = (MODELS / f"{name}.tflite").read_bytes()
    check_trainable(file)
    assert write_weights(file, read_weights(file)) == file


@pytest.mark.parametrize("name", ["tiny", "digits", "motion"])
def test_a_file_that_was_parsed_is_not_parsed_again_whatever_versions_are_made_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = (MODELS / f"{name}.tflite").read_bytes()
    weights = [{n: (w * np.float32(k)).astype(w.dtype) for n, w in read_weights(file).items()} for k in range(4)]
    expected = [write_weights(file, w) for w in weights]
    parsed = parse_trainable(file)
    monkeypatch.setattr(graph, "File", None)  # no flatbuffer can be read from here on
    assert parsed.data == file and parsed.apart
    assert [write_weights(parsed, w) for w in weights] == expected
    assert {n: w.tobytes() for n, w in read_weights(parsed).items()} == {n: w.tobytes() for n, w in weights[1].items()}


def test_any_kind_of_buffer_can_be_read() -> None:
    for kind in (bytes, bytearray, memoryview):
        assert read_variables(kind(TINY)) == read_variables(TINY)


bits = st.integers(0, 2**32 - 1)


@pytest.mark.slow("writes a model file for each of many examples")
@given(st.fixed_dictionaries({n: st.lists(bits, min_size=int(np.prod(s)), max_size=int(np.prod(s))) for n, s in SHAPES.items()}))
@settings(max_examples=60, deadline=None)
def test_writing_any_bits_changes_only_the_variables_and_reads_back(values: dict[str, list[int]]) -> None:
    weights = {n: np.array(v, np.uint32).view(np.float32).reshape(SHAPES[n]) for n, v in values.items()}
    written = write_weights(TINY, weights)
    assert len(written) == len(TINY)
    inside = {i for v in read_variables(TINY) for i in range(v.offset, v.offset + v.nbytes)}
    assert all(i in inside for i, (a, b) in enumerate(zip(TINY, written, strict=True)) if a != b)
    assert {n: a.tobytes() for n, a in read_weights(written).items()} == {n: a.tobytes() for n, a in weights.items()}
    assert write_weights(written, read_weights(TINY)) == TINY


@pytest.mark.parametrize(
    ("change", "tensor"),
    [
        (lambda w: w.pop("hidden1_bias"), "hidden1_bias"),
        (lambda w: w.update(stranger=w["hidden1_bias"]), "stranger"),
        (lambda w: w.update(hidden1_bias=w["hidden1_bias"][:2]), "hidden1_bias"),
        (lambda w: w.update(hidden1_kernel=w["hidden1_kernel"].T.copy()), "hidden1_kernel"),
        (lambda w: w.update(hidden1_bias=w["hidden1_bias"].astype(np.float64)), "hidden1_bias"),
    ],
)
def test_weights_that_are_not_exactly_the_files_tensors_are_not_written(change: Callable[[dict[str, Any]], object], tensor: str) -> None:
    weights: dict[str, Any] = read_weights(TINY)
    change(weights)
    with pytest.raises(ShapeMismatch, match=tensor):
        write_weights(TINY, weights)


def test_weights_are_read_as_copies() -> None:
    file = bytearray(TINY)
    weights = read_weights(file)
    weights["hidden1_bias"][:] = 7
    assert bytes(file) == TINY


def test_one_constant_behind_two_variables_is_refused() -> None:
    with pytest.raises(NotTrainable, match="'hidden2_kernel' shares its bytes"):
        read_variables(SHARED)


def test_a_file_may_have_entries_in_proportion_to_its_bytes() -> None:
    """So that a large net's own step is read, and no file costs more than a bound."""
    sizes = [100, 1 << 20, 3_200_000, 8_000_000, 23_097_840, 600 << 20]
    assert [allowance(n) for n in sizes] == [100, MAX_ENTRIES, MAX_ENTRIES, 500_000, LARGE_ENTRIES, LARGE_ENTRIES]


class Surgeon:
    """Changes single fields of a real file in place, found by the reader's own tables."""

    def __init__(self, file: bytes = TINY) -> None:
        self.file = bytearray(file)
        self.model = parse(file)
        self.root = File(memoryview(file), what="test", entries=MAX_ENTRIES).root(b"TFL3")
        self.codes = list(self.root.tables(1))
        self.graphs = list(self.root.tables(2))
        self.signatures = {t.text(2): t for t in self.root.tables(7)}

    def graph(self, signature: str) -> int:
        return self.model.signatures[signature].graph

    def put(self, table: Table, field: int, form: str, value: int) -> None:
        at = table.field(field, struct.calcsize(form))
        assert at is not None, "the field is absent, so it can't be changed in place"
        struct.pack_into(form, self.file, at, value)

    def put_entry(self, table: Table, field: int, index: int, value: int) -> None:
        struct.pack_into("<i", self.file, table.vector(field, 4).start + 4 * index, value)

    def put_count(self, table: Table, field: int, count: int) -> None:
        struct.pack_into("<I", self.file, table.vector(field, 1).start - 4, count)

    def rename(self, table: Table, field: int, old: str, new: str) -> None:
        v = table.vector(field, 1)
        assert table.text(field) == old and len(old) == len(new)
        self.file[v.start : v.start + v.count] = new.encode()

    def operators(self, graph: int, code: int) -> list[Table]:
        tables = list(self.graphs[graph].tables(3))
        return [t for t, op in zip(tables, self.model.graphs[graph].operators, strict=True) if op.code == code]

    def tensor(self, graph: int, index: int) -> Table:
        return list(self.graphs[graph].tables(0))[index]

    def map(self, signature: str, side: int, name: str) -> Table:
        return next(t for t in self.signatures[signature].tables(side) if t.text(0) == name)

    def signature_tensor(self, signature: str, name: str) -> Table:
        s = self.model.signatures[signature]
        return self.tensor(s.graph, {**s.inputs, **s.outputs}[name])

    def assigns(self, graph: int) -> dict[str, Table]:
        """Return the ASSIGN_VARIABLE of each variable by its shared name."""
        g = self.model.graphs[graph]
        ops = zip(self.graphs[graph].tables(3), g.operators, strict=True)
        return {(g.variable(op.inputs[0]) or ("", ""))[1]: t for t, op in ops if op.code == 144}

    @property
    def init(self) -> int:
        return next(op.init for op in self.model.graphs[0].operators if op.init is not None)

    def value(self, name: str) -> Table:
        """Return the tensor of a variable's initial value."""
        return self.tensor(self.init, self.assigns(self.init)[name].integers(1)[1])

    def recode(self, old: int, new: int) -> None:
        for i, (code, _) in enumerate((max(t.integer(0, I8), t.integer(3, I32)), t) for t in self.codes):
            if code == old:
                self.put(self.codes[i], 3, "<i", new)
                self.put(self.codes[i], 0, "<b", min(new, 127))
                return
        raise AssertionError(f"no operator {old}")


NEG, GREATER, CAST, SOFTMAX = 59, 61, 53, 25


def variable_without_value(s: Surgeon) -> None:
    s.put(s.value("hidden1_bias"), 2, "<I", 0)


def assign_to_another(s: Surgeon) -> None:
    handle = s.assigns(s.init)["hidden2_bias"].integers(1)[0]
    s.put_entry(s.assigns(s.init)["hidden1_bias"], 1, 0, handle)


def share_a_buffer(s: Surgeon) -> None:
    s.put(s.value("hidden1_bias"), 2, "<I", s.value("hidden2_bias").integer(2, U32))


def shorten_a_buffer(s: Surgeon) -> None:
    buffer = list(s.root.tables(4))[s.value("hidden1_kernel").integer(2, U32)]
    s.put_count(buffer, 0, 44)


def overlap_buffers(s: Surgeon) -> None:
    tables = list(s.root.tables(4))
    one, two = (tables[s.value(n).integer(2, U32)] for n in ("hidden1_bias", "hidden2_bias"))
    at = one.field(0, 4)
    assert at is not None
    s.put(one, 0, "<I", two.vector(0, 1).start - 4 - at)


def swap_in_set_weights(s: Surgeon) -> None:
    assigns = s.assigns(s.graph("set_weights"))
    one, two = assigns["hidden1_bias"], assigns["hidden2_bias"]
    s.put_entry(one, 1, 0, two.integers(1)[0])
    s.put_entry(two, 1, 0, one.integers(1)[0])


def forget_a_trained_variable(s: Surgeon) -> None:
    s.put_count(s.signatures["get_weights"], 1, 5)
    s.put_count(s.signatures["set_weights"], 0, 5)


def list_one_variable_twice(s: Surgeon) -> None:
    reads = s.operators(s.graph("get_weights"), 143)
    s.put_entry(reads[0], 1, 0, reads[1].integers(1)[0])


def open_dimension(s: Surgeon) -> None:
    s.put_entry(s.signature_tensor("infer", "x"), 0, 0, -1)


def drop_call_once(s: Surgeon) -> None:
    # It is the first operator: the vector begins one entry later.
    graph = s.graphs[s.graph("infer")]
    v, at = graph.vector(3, 4), graph.field(3, 4)
    assert at is not None and s.model.graphs[s.graph("infer")].operators[0].init is not None
    struct.pack_into("<I", s.file, v.start, v.count - 1)
    s.put(graph, 3, "<I", v.start - at)


def compute_before_output(s: Surgeon) -> None:
    read = s.operators(s.graph("get_weights"), 143)[0]
    s.put(read, 0, "<I", s.operators(s.graph("infer"), SOFTMAX)[0].integer(0, U32))


BREACHES: list[tuple[Callable[[Surgeon], object], str]] = [
    (lambda s: s.rename(s.signatures["get_weights"], 2, "get_weights", "get_weightz"), "no signature 'get_weights'"),
    (lambda s: s.rename(s.signatures["train"], 2, "train", "drain"), "no signature 'train'"),
    (lambda s: s.recode(NEG, ADD_N), "ADD_N"),
    (lambda s: s.recode(CAST, ELU), "ELU"),
    (lambda s: s.recode(NEG, CUSTOM), "operator CUSTOM"),
    (lambda s: s.put_count(s.tensor(s.graph("train"), 40), 0, 7), "rank 7"),
    (variable_without_value, "'hidden1_bias' has no initial value"),
    (assign_to_another, "'hidden2_bias' is initialised twice"),
    (share_a_buffer, "shares its bytes"),
    (shorten_a_buffer, "'hidden1_kernel' takes 44 bytes"),
    (overlap_buffers, "overlap"),
    (lambda s: s.put_entry(s.value("hidden1_kernel"), 0, 0, 3), "is read as \\[4, 3\\] and initialised as \\[3, 3\\]"),
    (lambda s: s.rename(s.map("get_weights", 1, "hidden1_bias"), 0, "hidden1_bias", "hidden1 bias"), "can't name a weight"),
    (lambda s: s.rename(s.map("set_weights", 0, "hidden1_bias"), 0, "hidden1_bias", "hidden9_bias"), "do not name the same tensors"),
    (swap_in_set_weights, "set_weights does not put 'hidden1_bias' into"),
    (lambda s: s.rename(s.map("set_weights", 1, "ok"), 0, "ok", "no"), "no output 'ok'"),
    (forget_a_trained_variable, "training changes 'output_kernel' and eval reads it, but get_weights does not list it"),
    (list_one_variable_twice, "one variable under two names"),
    (compute_before_output, "is not a variable as it stands"),
    (drop_call_once, "'infer' does not initialise"),
    (open_dimension, "'x' of its signature 'infer' is not float32 of a fixed shape"),
    (lambda s: s.put_entry(s.signature_tensor("infer", "x"), 0, 0, 2), "infer has x \\[2, 4\\]"),
    (lambda s: s.put_entry(s.signature_tensor("eval", "x"), 0, 0, 8), "eval has x \\[8, 4\\]"),
    (lambda s: s.put_entry(s.signature_tensor("train", "y"), 0, 0, 8), "no batch in common"),
    (lambda s: s.rename(s.map("train", 0, "lr"), 0, "lr", "lz"), "is not train\\(lr, x, y\\) -> loss"),
    (lambda s: s.rename(s.map("infer", 1, "output"), 0, "output", "outpot"), "is not infer\\(x\\) -> output"),
]


@pytest.mark.parametrize(("breach", "reason"), BREACHES, ids=[reason for _, reason in BREACHES])
def test_each_breach_of_the_contract_is_refused_with_its_own_reason(breach: Callable[[Surgeon], object], reason: str) -> None:
    surgeon = Surgeon()
    breach(surgeon)
    with pytest.raises(NotTrainable, match=reason) as caught:
        check_trainable(surgeon.file, model="doorbell")
    assert caught.value.message.startswith("doorbell can't be trained")


def test_variables_that_lie_over_the_files_own_tables_are_not_written() -> None:
    s = Surgeon()
    buffer = list(s.root.tables(4))[s.value("hidden1_bias").integer(2, U32)]
    options = s.operators(s.graph("train"), 142)[0].table(4)
    assert options is not None
    name, at = options.vector(1, 1), buffer.field(0, 4)
    assert at is not None
    struct.pack_into("<I", s.file, name.start - 4, 12)
    s.put(buffer, 0, "<I", name.start - 4 - at)  # the variable's bytes are now the name of another
    weights = read_weights(bytes(s.file))
    assert write_weights(bytes(s.file), weights) == bytes(s.file)
    weights["hidden1_bias"] = np.frombuffer(b"renamed_here", np.float32)
    parsed = parse_trainable(bytes(s.file))
    assert not parsed.apart
    for file in (bytes(s.file), parsed):
        with pytest.raises(NotTrainable, match="lie over other parts"):
            write_weights(file, weights)


def test_a_file_that_is_no_tflite_is_malformed() -> None:
    for file in (
        b"",
        b"TFL3",
        b"PK\3\4" * 20,
        b"\x1c\0\0\0TFL3",
        TINY[:100],
        TINY[:-500],
        b"\xff" * 64,
        b"\xff\xff\xff\xffTFL3" + bytes(50),
    ):
        with pytest.raises(Malformed):
            read_variables(file)


def test_a_file_beyond_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(TooLarge):
        parse(TINY, Limits(model_file=len(TINY) - 1))


def within_bounds(file: bytes) -> str:
    """Return how the reader ended on a hostile file: "read", or the error's name; anything else than a project error passes through."""
    try:
        check_trainable(file)
        weights = read_weights(file)
        write_weights(file, weights)
    except ModelWireError as e:
        return type(e).__name__
    return "read"


@pytest.mark.slow("opens more than a thousand damaged files")
def test_thousands_of_damaged_files_end_in_project_errors_quickly() -> None:
    rng = np.random.default_rng(20)
    ends: dict[str, int] = {}
    start = time.process_time()
    for i in range(1500):
        file = bytearray(TINY)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(0, len(file) - 4))
            if i % 3 == 0:
                file[at] ^= 1 << int(rng.integers(0, 8))
            elif i % 3 == 1:
                struct.pack_into("<I", file, at & ~3, int(rng.choice([0, 1, 2, 4, 16, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF])))
            else:
                struct.pack_into("<I", file, at & ~3, int(rng.integers(0, len(file))))
        end = within_bounds(bytes(file[: rng.integers(8, len(file))]) if i % 50 == 0 else bytes(file))
        ends[end] = ends.get(end, 0) + 1
    assert set(ends) <= {"read", "Malformed", "NotTrainable"}
    assert min(ends.get("Malformed", 0), ends.get("NotTrainable", 0)) > 50, ends
    assert time.process_time() - start < 60


@given(st.binary(max_size=600))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_arbitrary_bytes_behind_a_good_mark_end_in_project_errors(tail: bytes) -> None:
    assert within_bounds(b"\x10\0\0\0TFL3" + tail) in ("Malformed", "NotTrainable")


@pytest.mark.slow("reads a file of hundreds of thousands of tables")
@pytest.mark.one_environment("tables are walked in plain Python, before any array is made of them")
def test_a_table_repeated_without_end_costs_neither_time_nor_memory() -> None:
    # 150,000 subgraphs that are all one, with 150,000 tensors that are all one: 2e10 visits for a reader that trusts.
    n = 150_000
    model, graphs = 64, 128
    graph = graphs + 4 + 4 * n
    tensors = graph + 64
    empty = tensors + 4 + 4 * n  # a table without fields: a float32 scalar in buffer 0, and buffer 0
    file = bytearray(empty + 64)
    struct.pack_into("<I4s", file, 0, model, b"TFL3")
    struct.pack_into("<7H", file, 16, 14, 16, 4, 0, 8, 0, 12)  # version, subgraphs, buffers
    struct.pack_into("<iIII", file, model, model - 16, 3, graphs - model - 8, 96 - model - 12)
    struct.pack_into("<II", file, 96, 1, empty - 100)
    struct.pack_into("<3H", file, 32, 6, 8, 4)  # tensors alone
    struct.pack_into("<iI", file, graph, graph - 32, tensors - graph - 4)
    struct.pack_into("<2H", file, 48, 4, 4)
    struct.pack_into("<i", file, empty, empty - 48)
    for start, target in ((graphs, graph), (tensors, empty)):
        struct.pack_into("<I", file, start, n)
        file[start + 4 : start + 4 + 4 * n] = (target - (start + 4 + 4 * np.arange(n))).astype("<u4").tobytes()
    one = bytearray(file)
    struct.pack_into("<I", one, graphs, 1)
    assert len(parse(one).graphs[0].tensors) == n  # the file is sound but for its repetition

    begun = time.process_time()
    with pytest.raises(Malformed, match="over and over"):
        parse(file)
    assert time.process_time() - begun < 10
    tracemalloc.start()
    with pytest.raises(Malformed):
        parse(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20, peak
