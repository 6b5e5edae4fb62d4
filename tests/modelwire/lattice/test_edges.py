"""The ends of every range: the largest and the least weights, forms that only look equal, budgets that nothing seems to meet."""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import math
import platform
import struct
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire import limits
from modelwire.errors import BudgetExhausted, Malformed, ModelError, NonFinite, RoundingMode, TooLarge
from modelwire.lattice.rebuild import rebuild
from modelwire.lattice.snap import no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.limits import EXPONENT_MAX, EXPONENT_MIN, Q_MAX, Limits
from modelwire.tensors import F32, Schema, TensorSpec
from modelwire.tflite import graph as tflite_graph
from modelwire.update.container import Header, parse, seal, size_of
from modelwire.update.manifest import Manifest, coarsest_safe, manifest_for, parse_manifest
from modelwire.update.sections import Kind, Section, add, invert, section_of
from modelwire.wire import cbor, parts, records
from modelwire.wire.records import Transfer, Wanted
from tests.modelwire.models import KEY, model, sealed
from tests.modelwire.wire.test_records import WHO

from .test_lattice_laws import bits, noisy

WIDE = Limits(cbor_items=1 << 16)


def flat(values: Sequence[float], *, e: int | None = None, name: str = "w") -> ModelState:
    """Return the base of one tensor with these weights, in the unit 2^e or the default one."""
    schema = Schema((TensorSpec(name, (len(values),)),))
    base = [np.array(values, np.float32)]
    exponents = {} if e is None else {name: e}
    return ModelState.of_base(manifest_for(schema, base, file_sha256=bytes(32), file_size=1, exponents=exponents), base)


def delta(state: ModelState, values: dict[int, int]) -> tuple[Section, ...]:
    """Return a delta of tensor 0 by these units."""
    index = np.array(sorted(values), np.uint32)
    return (Section(0, index, np.array([values[i] for i in sorted(values)], np.int32), 1, state.exponents[0]),)


def empty(tensor: int, exponent: int) -> Section:
    return Section(tensor, np.zeros(0, np.uint32), np.zeros(0, np.int32), 1, exponent)


def just(largest: float) -> list[F32]:
    return [np.array([largest], np.float32)]


# The lattice's own ends.


@pytest.mark.parametrize(
    ("peak", "lattice"),
    [(2.0**122, True), (float(np.nextafter(np.float32(2.0**122), np.float32(0))), True), (1e-45, True), (0.0, True),
     (float(np.nextafter(np.float32(2.0**122), np.float32(np.inf))), False), (float(np.finfo(np.float32).max), False)],
)  # fmt: skip
def test_weights_above_the_coarsest_unit_are_verbatim_and_all_others_keep_every_law(peak: float, lattice: bool) -> None:
    state = flat([peak, -peak, peak / 3, -0.0, 1e-45, 0.0])
    assert state.manifest.verbatim(0) is not lattice
    if not lattice:
        start = state.copy()
        down = (Section(0, np.array([0], np.uint32), np.array([-(1 << 31)], np.int32), 1, 0),)
        state.apply(Kind.DELTA, down)  # the sign bit: the difference that is its own inverse
        assert state.weights[0][0] == -np.float32(peak)
        state.apply(Kind.DELTA, invert(down))
        assert bits(state) == bits(start) and add(down, down, state.manifest) == ()
        return
    start, first, second = state.copy(), delta(state, {0: Q_MAX, 1: -Q_MAX, 3: 1, 4: -Q_MAX}), delta(state, {0: -1, 3: -1, 5: Q_MAX})
    for d in (first, second):
        state.apply(Kind.DELTA, d)
    assert np.isfinite(state.weights[0]).all()
    assert struct.pack("<f", state.weights[0][3]) == struct.pack("<f", -0.0)
    at_once = start.copy()
    at_once.apply(Kind.DELTA, add(first, second, state.manifest), expect=state.fingerprint)
    again = ModelState.of_weights(state.manifest, state.base, state.weights)
    assert bits(at_once) == bits(state) and again.integers[0].tolist() == [Q_MAX - 1, -Q_MAX, 0, 0, -Q_MAX, Q_MAX]
    for d in (second, first):
        state.apply(Kind.DELTA, invert(d))
    assert bits(state) == bits(start) and state.fingerprint == (0, 0)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_q_follows_back_in_the_finest_unit_that_any_peak_allows(data: st.DataObject) -> None:
    peak = data.draw(st.floats(2.0**-149, 2.0**122, width=32))
    finest = max(EXPONENT_MIN, coarsest_safe(peak))
    e = data.draw(st.sampled_from([finest, min(finest + 1, EXPONENT_MAX), EXPONENT_MAX]))
    weights = [peak, *data.draw(st.lists(st.floats(-peak, peak, width=32), max_size=4))]
    state = flat(weights, e=e)
    edge = st.sampled_from([Q_MAX, -Q_MAX, Q_MAX - 1, 1 - Q_MAX, 1, -1])
    q = {i: v for i in range(len(weights)) if (v := data.draw(edge | st.integers(-Q_MAX, Q_MAX)))}
    if q:
        state.apply(Kind.DELTA, delta(state, q))
    again = ModelState.of_weights(state.manifest, state.base, state.weights)
    assert again.integers[0].tobytes() == state.integers[0].tobytes() and again.fingerprint == state.fingerprint


def test_a_manifest_with_a_unit_too_fine_for_its_base_is_refused_with_the_base() -> None:
    manifest, base = model(0)
    fine = Manifest(manifest.file_sha256, 1, manifest.schema, manifest.classes, (0, -23, *manifest.exponents[2:]), manifest.root)
    with pytest.raises(Malformed, match="dense_bias"):
        ModelState.of_base(parse_manifest(fine.encode()), base)


def test_a_repeated_tensor_is_refused_before_its_first_section_is_written() -> None:
    state = flat([1.0, 2.0])
    one = delta(state, {0: Q_MAX})[0]
    for kind in Kind:
        with pytest.raises(Malformed, match="two sections"):
            state.apply(kind, (one, one))
    assert not state.integers[0].any() and state.weights[0].tolist() == [1.0, 2.0]


def test_a_statistic_that_is_no_number_is_no_state() -> None:
    manifest, base = model(0)
    weights = [w.copy() for w in base]
    weights[0][3] = np.nan
    with pytest.raises(NonFinite, match="bn_moving_variance"):
        ModelState.of_weights(manifest, base, weights)


def test_a_processor_that_rounds_upward_is_refused_where_weights_are_made() -> None:
    name = ctypes.util.find_library("m")
    if name is None:
        pytest.skip("there is no C mathematics library to change the rounding with")
    library = ctypes.CDLL(name)
    state = flat([0.3, 0.7], e=-22)
    calls: list[Callable[[], object]] = [
        lambda: state.apply(Kind.DELTA, delta(state, {0: 3})),
        lambda: ModelState.of_weights(state.manifest, state.base, state.weights),
        lambda: snap(state, [np.array([0.4, 0.7], np.float32)], no_residual(state.manifest), density=1.0, max_bytes=4096),
    ]
    before, upward = library.fegetround(), {"x86_64": 0x800, "aarch64": 0x400000, "armv7l": 0x400000}.get(platform.machine())
    if upward is None:
        pytest.skip("how this processor names its rounding is not known here")
    for call in calls:
        caught: Exception | None = None
        library.fesetround(upward)
        try:
            call()
        except RoundingMode as error:
            caught = error
        finally:
            library.fesetround(before)
        assert caught is not None
    assert not state.integers[0].any()


# What a device makes of a round.


@pytest.mark.parametrize("budget", [330, 400, 600])
def test_a_budget_is_met_when_all_differences_are_equal(budget: int) -> None:
    # As an optimizer leaves them that takes the sign of the gradient: no step tells one from another.
    state = flat([1.0] * 4096)
    up = np.random.default_rng(0).random(4096) < 0.5
    trained = [state.weights[0] + np.where(up, np.float32(0.0625), np.float32(-0.0625))]
    s = snap(state.copy(), trained, no_residual(state.manifest), density=0.003, max_bytes=budget)
    assert size_of(s.sections, state.manifest.schema) <= budget
    sent = len(s.sections[0].index)
    assert 0 < sent < 4096
    left = (s.residual[0].astype(np.uint32) << 16).view(np.float32)
    assert np.count_nonzero(np.abs(left) == 0.0625) == 4096 - sent  # the rest waits
    cloud = state.copy()
    cloud.apply(s.kind, s.sections, expect=s.state.fingerprint)
    assert bits(cloud) == bits(s.state)


def test_the_largest_difference_is_sent_when_only_one_fits() -> None:
    state = flat([1.0] * 4096)
    up = np.random.default_rng(1).random(4096) < 0.5
    trained = [state.weights[0] + np.where(up, np.float32(0.0625), np.float32(-0.0625))]
    alone = [np.where(np.arange(4096) == 9, trained[0], state.weights[0])]
    one = snap(state.copy(), alone, no_residual(state.manifest), density=1.0, max_bytes=4096)
    least = size_of(one.sections, state.manifest.schema)
    s = snap(state.copy(), trained, no_residual(state.manifest), density=1.0, max_bytes=least)
    assert 1 <= len(s.sections[0].index) <= 2 and size_of(s.sections, state.manifest.schema) <= least
    with pytest.raises(BudgetExhausted):
        snap(state.copy(), trained, no_residual(state.manifest), density=1.0, max_bytes=250)


def test_a_single_difference_is_coarsened_before_a_budget_counts_as_exhausted() -> None:
    # The density asks for a step so fine that the one large difference takes a byte or two more than it has to.
    state = flat([1.0] * 64, e=-14)
    trained = [state.weights[0] + np.float32(0.1 * 2.0**-14)]
    trained[0][5] += np.float32(1.0)
    fine = snap(state.copy(), trained, no_residual(state.manifest), density=1.0, max_bytes=4096)
    coarse = snap(state.copy(), trained, no_residual(state.manifest), density=1 / 64, max_bytes=4096)
    least = size_of(coarse.sections, state.manifest.schema)
    assert len(fine.sections[0].index) == 1 and least < size_of(fine.sections, state.manifest.schema)
    s = snap(state.copy(), trained, no_residual(state.manifest), density=1.0, max_bytes=least)
    assert s.sections[0].index.tolist() == [5]


def test_a_widened_tensor_never_keeps_an_infinite_residual() -> None:
    state = flat([1.0] * 8)
    trained = [state.weights[0].copy()]
    trained[0][3] = np.finfo(np.float32).max  # its bfloat16 would be an infinity, and every later round NaN
    with pytest.raises(NonFinite, match="tensor w: entry 3"):
        snap(state, trained, no_residual(state.manifest), density=0.1, max_bytes=4096, widen=(0,))
    with pytest.raises(NonFinite, match="tensor w: entry 3"):
        snap(state, trained, no_residual(state.manifest), density=0.1, max_bytes=4096)


def test_a_tensor_that_is_cut_again_while_it_is_widened_is_widened_again() -> None:
    state, widen = flat([1.0] * 8), tuple[int, ...]([0])
    residual = no_residual(state.manifest)
    trained = [state.weights[0].copy()]
    trained[0][0] = 100_000.0
    exponents = []
    while widen:
        s = snap(state, trained, residual, density=0.1, max_bytes=4096, widen=widen)
        state, residual, widen = s.state, s.residual, s.clamped
        trained = [w.copy() for w in state.weights]
        exponents.append(state.exponents[0])
        assert s.kind is Kind.SNAPSHOT
    assert exponents == [-11, -8, -5]  # a range of 2^11, 2^14, 2^17
    assert abs(float(state.weights[0][0]) - 100_000.0) < 300


def test_no_snapshot_is_sent_in_vain_when_there_is_no_larger_unit() -> None:
    state = flat([2.0**122] * 8)
    assert state.exponents == [EXPONENT_MAX]
    trained = [state.weights[0].copy()]
    trained[0][0] = 3e38
    first = snap(state, trained, no_residual(state.manifest), density=0.1, max_bytes=4096)
    assert first.clamped == (0,)
    second = snap(first.state, first.state.weights, first.residual, density=0.1, max_bytes=4096, widen=first.clamped)
    assert second.kind is Kind.DELTA


@pytest.mark.parametrize("density", [1.0, 0.001])
@pytest.mark.parametrize("name", ["w", "w_moving_mean"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1, 1, 1)])
def test_a_model_of_one_weight_of_any_rank_and_class_travels(shape: tuple[int, ...], name: str, density: float) -> None:
    schema = Schema((TensorSpec(name, shape),))
    manifest = manifest_for(schema, just(0.5), file_sha256=bytes(32), file_size=1, exponents={})
    state = ModelState.of_base(manifest, just(0.5))
    s = snap(state.copy(), just(0.75), no_residual(manifest), density=density, max_bytes=4096)
    after = rebuild(state, parse(sealed(s.state, s.sections)))
    assert bits(after) == bits(s.state) and 0 < float(after.weights[0][0]) - 0.5 <= s.step.size
    nothing = snap(s.state.copy(), s.state.weights, no_residual(manifest), density=density, max_bytes=4096)
    assert nothing.sections == () and bits(nothing.state) == bits(s.state)


def test_a_difference_that_is_no_number_names_its_tensor() -> None:
    manifest, base = model(1)
    state = ModelState.of_base(manifest, base)
    trained = noisy(state, 1, 0.01)
    trained[2][5] = np.nan
    with pytest.raises(NonFinite, match="tensor dense_kernel: entry 5"):
        snap(state, trained, no_residual(manifest), density=0.01, max_bytes=4096)


# One form alone.


@pytest.mark.parametrize("number", [True, 1.0])
def test_a_manifest_whose_numbers_only_equal_the_right_ones_is_refused(number: float) -> None:
    # Each was read as 1 and had another commit than the bytes that were read.
    good, _ = model(0)
    top = cbor.decode(good.encode(), "manifest", WIDE)
    assert isinstance(top, dict) and isinstance(top["tensors"], list)
    forged: list[dict[str, cbor.Value]] = [{**top, "manifest": number}, {**top, "size": number}]
    for place in (1, 3, 4):
        rows = [list(row) if isinstance(row, list) else [] for row in top["tensors"]]
        rows[1][place] = number
        forged.append({**top, "tensors": [list(r) for r in rows]})
    for one in forged:
        with pytest.raises(Malformed):
            parse_manifest(cbor.encode(one, WIDE))


def test_a_verbatim_tensor_with_a_unit_is_refused_in_a_manifest() -> None:
    good, _ = model(0)
    bad = Manifest(good.file_sha256, 1, good.schema, good.classes, (5, *good.exponents[1:]), good.root)
    with pytest.raises(Malformed, match="verbatim"):
        parse_manifest(bad.encode())


def test_a_unit_for_a_tensor_that_takes_none_is_refused() -> None:
    manifest, base = model(0)
    for name in ("dense_kernal", "bn_moving_variance"):
        with pytest.raises(ModelError, match=name):
            manifest_for(manifest.schema, base, file_sha256=bytes(32), file_size=1, exponents={name: -3})


def test_a_snapshots_empty_section_says_another_unit_or_is_refused() -> None:
    manifest, base = model(0)
    state = ModelState.of_base(manifest, base)
    for section in (empty(0, 0), empty(1, manifest.exponents[1])):
        container = parse(sealed(state, (section,), kind=Kind.SNAPSHOT))
        with pytest.raises(Malformed, match="says nothing"):
            rebuild(state, container)
    after = rebuild(state, parse(sealed(state, (empty(1, -3),), kind=Kind.SNAPSHOT)))
    assert after.exponents[1] == -3 and bits(after) == bits(state)


def test_a_part_of_another_length_than_its_transfer_says_is_refused() -> None:
    # A transfer of four bytes in four parts of one byte, with the hashes of four parts of 90,000.
    large = bytes(90_000)
    hashes = hashlib.sha256(large).digest() * 4
    transfer = Transfer(*WHO, bytes(32), 4, 1, hashes)
    with pytest.raises(Malformed, match="90000 bytes"):
        parts.check(transfer, parts.Part(transfer.id, 0, large))
    short = Transfer(*WHO, bytes(32), 5, 3, hashlib.sha256(b"abc").digest() * 2)
    parts.check(short, parts.Part(short.id, 0, b"abc"))
    with pytest.raises(Malformed):
        parts.check(short, parts.Part(short.id, 1, b"abc"))


def test_a_bitmap_that_names_parts_beyond_the_last_is_refused() -> None:
    assert parts.missing(b"\x05", 3) == [1]
    for have in (b"\x0d", b"\x85", b"\x05\x00", b""):
        with pytest.raises(Malformed):
            parts.missing(have, 3)


# Nothing is written that no reader takes.


@pytest.mark.parametrize("room", [-1, 0, 43, 44])
def test_a_message_with_no_room_for_a_parts_content_is_refused(room: int) -> None:
    with pytest.raises(TooLarge):
        parts.describe(bytes(100), fleet="demo", device="pi-7", model="digits", at=1, part=room)


def test_a_record_that_no_reader_takes_is_not_written() -> None:
    for n in (limits.DEFAULT.record, 1 << 16, 1 << 17):
        with pytest.raises(TooLarge):
            records.encode(Wanted(*WHO, bytes(32), bytes(n)), KEY)


@pytest.mark.parametrize("extension", [{"note": "x" * 20_000}, {"clamped": [1] * 4096}, {"a": [[[[1]]]]}])
def test_an_extension_that_no_reader_takes_is_not_sealed(extension: dict[str, cbor.Value]) -> None:
    manifest, base = model(0)
    with pytest.raises((TooLarge, Malformed)):
        sealed(ModelState.of_base(manifest, base), (), extension=extension)


def test_a_container_that_no_reader_takes_is_not_sealed() -> None:
    state = flat([1.0] * 4096)
    s = snap(state, noisy(state, 0, 0.1), no_residual(state.manifest), density=1.0, max_bytes=1 << 20)
    schema = state.manifest.schema
    header = Header(Kind.DELTA, "pi-7", "digits", 1, 1, state.manifest.commit, schema.id, s.state.root, s.state.fingerprint)
    size = len(seal(header, s.sections, schema, KEY).data)
    assert len(seal(header, s.sections, schema, KEY, Limits(container=size)).data) == size
    with pytest.raises(TooLarge):
        seal(header, s.sections, schema, KEY, Limits(container=size - 1))
    with pytest.raises(Malformed, match="unit"):
        seal(header, (empty(0, EXPONENT_MAX + 1),), schema, KEY)


@pytest.mark.parametrize("value", [{"note": "\udcff"}, {"\udcff": 1}, {1: 2}])
def test_text_that_is_no_unicode_is_malformed(value: cbor.Value) -> None:
    with pytest.raises(Malformed):
        cbor.encode(value)


# Model files.


def test_thousands_of_signatures_on_one_large_subgraph_take_no_more_than_their_bytes() -> None:
    file = _many_signatures(inputs=60_000, signatures=15_000)
    began = time.monotonic()
    assert len(tflite_graph.parse(file).signatures) == 15_000
    assert time.monotonic() - began < 3


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


def test_the_units_of_the_extremes_are_those_of_the_page() -> None:
    assert coarsest_safe(2.0**122) == EXPONENT_MAX and coarsest_safe(math.nextafter(2.0**122, math.inf)) == EXPONENT_MAX + 1


@pytest.mark.parametrize(("common", "step"), [(1, 1), (2, 2), (255, 255), (257, 1), (771, 3), (257 * 5 << 4, 5 << 4), (1 << 22, 1 << 22)])
def test_a_section_carries_the_largest_common_step_that_the_wire_can_say(common: int, step: int) -> None:
    section = section_of(0, np.array([common, 0, -2 * common], np.int64), 0)
    assert section is not None and section.step == step
    assert section.dq.tolist() == [common, -2 * common]
