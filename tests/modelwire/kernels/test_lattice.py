"""The compiled lattice kernels against their numpy twin, bit for bit, and the laws that both obey."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelwire import _reference as twin
from modelwire import errors
from modelwire._core import kernel
from modelwire.limits import Q_MAX

SPECIAL = [
    0x00000000, 0x80000000,  # zeros
    0x00000001, 0x80000001, 0x007FFFFF, 0x807FFFFF,  # subnormals
    0x00800000, 0x80800000,  # the least normal numbers
    0x3F800000, 0xBF800000, 0x3F7FFFFF, 0x3F800001,
    0x7F7FFFFF, 0xFF7FFFFF, 0x7F7F8000,  # the largest; rounds to an infinite bf16
    0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00001, 0x7F800001,  # infinities and NaNs
]  # fmt: skip
FLOAT_BITS = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from(SPECIAL))
FINITE_BITS = FLOAT_BITS.filter(lambda b: b & 0x7F800000 != 0x7F800000)
EXPONENTS = st.one_of(st.integers(-96, 100), st.sampled_from([-96, -14, 0, 100]))
STEPS = st.builds(lambda m, j: m << j, st.integers(1, 255), st.integers(0, 15))
QS = st.one_of(st.integers(-Q_MAX, Q_MAX), st.integers(-3, 3), st.sampled_from([Q_MAX, -Q_MAX, Q_MAX - 1]))
VALUES = st.one_of(st.integers(-3, 3), st.integers(-(2**31), 2**31 - 1)).filter(bool)
ANY_EXPONENT = st.one_of(EXPONENTS, st.sampled_from([-97, 101, 10**6, -(10**9), 10**30]))
ANY_STEP = st.one_of(STEPS, st.sampled_from([0, -1, 257, 255 << 23, 1 << 23, 1 << 22, 255 << 22, 2**31, 2**70, -(2**70)]))


def floats(n: int, bits: st.SearchStrategy[int] = FLOAT_BITS) -> st.SearchStrategy[Any]:
    return hnp.arrays(np.uint32, n, elements=bits).map(lambda a: a.view(np.float32))


def integers(n: int, values: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    return hnp.arrays(np.int32, n, elements=values)


@st.composite
def updates(draw: st.DrawFn, n: int, values: st.SearchStrategy[int] = VALUES, hostile: bool = False) -> Any:
    """Index and value of one section; hostile ones may be unsorted, repeated, outside or zero."""
    if hostile and draw(st.booleans()):
        index = draw(st.lists(st.integers(0, n + 2), max_size=6))
        values = st.one_of(values, st.just(0))
    else:
        index = sorted(draw(st.sets(st.integers(0, n - 1), max_size=n))) if n else []
    value = draw(st.lists(values, min_size=len(index), max_size=len(index)))
    return np.array(index, np.uint32), np.array(value, np.int32)


@st.composite
def states(draw: st.DrawFn, least: int = 0) -> Any:
    """base, w, q and exponent of a tensor that lies on its lattice, as a device holds it."""
    n = draw(st.integers(least, 20))
    exponent = draw(EXPONENTS)
    around = st.integers(max(1, exponent + 127 - 30), min(250, exponent + 127 + 20))
    near = st.builds(lambda s, e, m: s << 31 | e << 23 | m, st.integers(0, 1), around, st.integers(0, 2**23 - 1))
    base = draw(floats(n, st.one_of(near, FINITE_BITS.filter(lambda b: b & 0x7F800000 < 0x7E000000))))
    q = draw(integers(n, QS))
    # Some entries cancel their base exactly, or all but the last bit of it.
    for i in draw(st.sets(st.integers(0, n - 1), max_size=3)) if n else ():
        base[i] = np.float32(-int(q[i])) * np.float32(2.0**exponent) + np.float32(draw(st.sampled_from([0.0, 2.0**exponent])))
    w = np.empty_like(base)
    twin.weights_from_q(base, q, w, exponent=exponent)
    return base, w, q, exponent


def outcome(function: Any, arrays: tuple[Any, ...], facts: dict[str, Any]) -> Any:
    """Return all that can be seen of one call: result or error, and every array afterwards. An error changes no array."""
    copies = [a.copy() for a in arrays]
    try:
        result = function(*copies, **facts)
    except errors.ModelWireError as error:
        for given_, after in zip(arrays, copies, strict=True):
            assert given_.tobytes() == after.tobytes(), f"{function.__name__} wrote before it refused"
        return type(error), error.facts
    if isinstance(result, tuple):
        result = tuple((r.dtype, r.tobytes()) if isinstance(r, np.ndarray) else r for r in result)
    return result, [a.tobytes() for a in copies]


def adopt(base: Any, w: Any, trained: Any, residual: Any, q: Any, *, exponent: int, step: int, threshold: float) -> Any:
    """Adopt at a known step, in place on w, q and residual; return index, value and how many entries were cut."""
    left = np.zeros_like(residual)
    kept = []
    for core, arrays in ((twin, (w.copy(), q.copy(), left.copy())), (kernel, (w, q, left))):
        round = core.Round(
            [base], [arrays[0]], [arrays[1]], [trained], [residual], [arrays[2]], exponents=[exponent], kinds=[0], dtypes=[1], starts=[0]
        )
        index, value, _, cut, lanes = round.adopt_known(steps=[step], thresholds=[threshold])
        kept.append([index.tolist(), value.tolist(), cut, lanes, *(a.tobytes() for a in arrays)])
    assert kept[0] == kept[1]
    residual[:] = left
    return index, value, cut[0]


def same(name: str, *arrays: Any, **facts: Any) -> Any:
    compiled = outcome(getattr(kernel, name), arrays, facts)
    assert compiled == outcome(getattr(twin, name), arrays, facts)
    return compiled


@given(st.data(), st.integers(0, 140))
def test_differences_agree_with_the_twin_to_the_bit(data: st.DataObject, n: int) -> None:
    bits = data.draw(st.sampled_from([FLOAT_BITS, FINITE_BITS]))
    w, trained = data.draw(floats(n, bits)), data.draw(floats(n, bits))
    residual = data.draw(hnp.arrays(np.uint16, n, elements=st.integers(0, 0xFFFF)))
    same("differences", w, trained, residual, np.full(n, 7, np.float32))


@given(st.data(), st.integers(0, 12), ANY_EXPONENT, ANY_STEP)
def test_apply_lattice_agrees_with_the_twin_on_anything(data: st.DataObject, n: int, exponent: int, step: int) -> None:
    base, w = data.draw(floats(n)), data.draw(floats(n))
    q = data.draw(integers(n, st.one_of(QS, st.integers(-(2**31), 2**31 - 1))))
    index, value = data.draw(updates(n, hostile=True))
    same("check_lattice", base, q, index, value, exponent=exponent, step=step)
    same("apply_lattice", base, w, q, index, value, exponent=exponent, step=step)


@given(st.data(), st.integers(0, 12))
def test_apply_verbatim_agrees_with_the_twin_on_anything(data: st.DataObject, n: int) -> None:
    base, w = data.draw(floats(n)).view(np.uint32), data.draw(floats(n)).view(np.uint32)
    q = data.draw(integers(n, st.integers(-(2**31), 2**31 - 1)))
    index, value = data.draw(updates(n, hostile=True))
    same("check_verbatim", base, q, index, value)
    same("apply_verbatim", base, w, q, index, value)


@given(st.data(), st.integers(0, 12), ANY_EXPONENT)
def test_weights_and_q_agree_with_the_twin_on_anything(data: st.DataObject, n: int, exponent: int) -> None:
    base, w = data.draw(floats(n)), data.draw(floats(n))
    q = data.draw(integers(n, st.one_of(QS, st.integers(-(2**31), 2**31 - 1))))
    same("weights_from_q", base, q, w, exponent=exponent)
    same("q_from_weights", base, w, q, exponent=exponent)


@given(states(), st.data(), STEPS)
def test_apply_then_invert_gives_back_the_exact_bits(state: Any, data: st.DataObject, step: int) -> None:
    base, w, q, exponent = state
    index, value = data.draw(updates(len(base), st.integers(-4, 4).filter(bool)))
    after_w, after_q = w.copy(), q.copy()
    try:
        kernel.apply_lattice(base, after_w, after_q, index, value, exponent=exponent, step=step)
    except errors.RangeOverflow:
        return
    kernel.apply_lattice(base, after_w, after_q, index, -value, exponent=exponent, step=step)
    assert after_w.tobytes() == w.tobytes()
    assert after_q.tobytes() == q.tobytes()


@given(states(1), st.data(), STEPS)
def test_all_deltas_undone_leave_the_base_bits(state: Any, data: st.DataObject, step: int) -> None:
    base, w, q, exponent = state
    index = np.flatnonzero(q).astype(np.uint32)
    kernel.apply_lattice(base, w, q, index, -q[index], exponent=exponent, step=1)
    assert w.tobytes() == base.tobytes()
    assert not q.any()


@given(states(1), st.data(), STEPS, STEPS)
def test_the_sum_of_two_deltas_is_the_delta_of_the_two(state: Any, data: st.DataObject, first: int, second: int) -> None:
    base, w, q, exponent = state
    dense = []
    one_by_one = (w.copy(), q.copy())
    for step in (first, second):
        index, value = data.draw(updates(len(base), st.integers(-4, 4).filter(bool)))
        try:
            kernel.apply_lattice(base, *one_by_one, index, value, exponent=exponent, step=step)
        except errors.RangeOverflow:
            return
        dense.append(np.zeros(len(base), np.int64))
        dense[-1][index] = value.astype(np.int64) * step
    total = dense[0] + dense[1]
    index = np.flatnonzero(total).astype(np.uint32)
    kernel.apply_lattice(base, w, q, index, total[index].astype(np.int32), exponent=exponent, step=1)
    assert w.tobytes() == one_by_one[0].tobytes()
    assert q.tobytes() == one_by_one[1].tobytes()


@given(states())
def test_q_follows_back_from_base_and_weights(state: Any) -> None:
    base, w, q, exponent = state
    with np.errstate(over="ignore"):
        assume((np.abs(base) <= np.float32(2.0**exponent) * np.float32(2**22)).all())
    found = np.zeros_like(q)
    kernel.q_from_weights(base, w, found, exponent=exponent)
    assert found.tobytes() == q.tobytes()


@given(states(1), st.data())
def test_a_weight_off_the_lattice_is_refused_by_name(state: Any, data: st.DataObject) -> None:
    base, w, q, exponent = state
    unit = np.float32(2.0**exponent)
    i = data.draw(st.integers(0, len(w) - 1))
    base[:] = unit
    w[:] = unit
    w[i] = np.float32(1.5) * unit
    with pytest.raises(errors.Malformed) as refused:
        kernel.q_from_weights(base, w, q, exponent=exponent)
    assert refused.value.facts == {"what": "weights", "reason": f"entry {i} is not on the lattice of this base"}


@given(st.data(), st.integers(0, 30), st.integers(0, 2**40), st.booleans(), STEPS)
def test_the_fingerprint_is_linear(data: st.DataObject, n: int, start: int, verbatim: bool, step: int) -> None:
    q = data.draw(integers(n, st.integers(-(2**31), 2**31 - 1)))
    if not verbatim:
        q >>= 9
    index, value = data.draw(updates(n, VALUES if verbatim else st.integers(-3, 3).filter(bool)))
    step = 1 if verbatim else step & 0xFFFF or 1
    after = q.copy()
    after.view(np.uint32)[index] += (value.astype(np.int64) * step).astype(np.uint32)  # wraps in verbatim tensors
    before_lanes = kernel.fingerprint(q, start=start, verbatim=verbatim)
    change = kernel.fingerprint_sparse(index, value, step=step, start=start, verbatim=verbatim)
    assert kernel.fingerprint(after, start=start, verbatim=verbatim) == tuple(
        (a + b) % 2**64 for a, b in zip(before_lanes, change, strict=True)
    )


@given(st.data(), st.integers(0, 30), st.integers(-3, 2**65), st.booleans(), ANY_STEP)
def test_fingerprints_agree_with_the_twin(data: st.DataObject, n: int, start: int, verbatim: bool, step: int) -> None:
    q = data.draw(integers(n, st.integers(-(2**31), 2**31 - 1)))
    index = data.draw(hnp.arrays(np.uint32, n, elements=st.integers(0, 2**32 - 1)))
    same("fingerprint", q, start=start, verbatim=verbatim)
    same("fingerprint_sparse", index, q, step=step, start=start, verbatim=verbatim)


def test_equal_changes_in_different_places_have_different_fingerprints() -> None:
    q = np.zeros(1000, np.int32)
    lanes = set()
    for i in range(1000):
        q[:] = 0
        q[i] = 1
        lanes.add(kernel.fingerprint(q, start=0, verbatim=False))
    assert len(lanes) == 1000


@given(st.binary(max_size=200))
def test_crc32c_agrees_with_the_twin(data: bytes) -> None:
    assert kernel.crc32c(data) == twin.crc32c(data)


def test_crc32c_gives_the_published_check_values() -> None:
    assert kernel.crc32c(b"123456789") == 0xE3069283  # RFC 3720, B.4 and the CRC catalogue
    assert kernel.crc32c(bytes(32)) == 0x8A9136AA
    assert kernel.crc32c(b"\xff" * 32) == 0x62A8AB43


@pytest.mark.slow("applies and undoes chains of two hundred updates")
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
@settings(deadline=None)
@given(seed=st.integers(0, 2**16))
def test_chains_of_200_updates_stay_exact_at_every_scale(scale: float, seed: int) -> None:
    """Each update is snapped, adopted and applied at the centre; all of them undone give the base back."""
    rng = np.random.default_rng(seed)
    n = 50
    base = (rng.standard_normal(n) * scale).astype(np.float32)
    exponent = int(np.ceil(np.log2(max(float(np.abs(base).max()), 2.0**-4)))) - 14
    device_w, device_q, residual = base.copy(), np.zeros(n, np.int32), np.zeros(n, np.uint16)
    centre_w, centre_q = base.copy(), np.zeros(n, np.int32)
    total = np.zeros(n, np.int64)
    step = 96
    size = np.float32(step) * np.float32(2.0**exponent)
    for _ in range(200):
        trained = device_w + (rng.standard_normal(n).astype(np.float32) * size)
        index, value, clamped = adopt(
            base, device_w, trained, residual, device_q, exponent=exponent, step=step, threshold=float(np.float32(0.6) * size)
        )
        assert clamped == 0
        kernel.apply_lattice(base, centre_w, centre_q, index, value, exponent=exponent, step=step)
        total[index] += value.astype(np.int64) * step
    assert centre_w.tobytes() == device_w.tobytes()
    assert (total == centre_q).all()
    found = np.empty_like(centre_q)
    kernel.q_from_weights(base, centre_w, found, exponent=exponent)
    assert (found == centre_q).all()
    index = np.flatnonzero(total).astype(np.uint32)
    kernel.apply_lattice(base, centre_w, centre_q, index, -total[index].astype(np.int32), exponent=exponent, step=1)
    assert centre_w.tobytes() == base.tobytes()


def test_steps_are_rounded_half_to_even_over_the_whole_range() -> None:
    whole = np.concatenate([np.arange(1, 2000), 2 ** np.arange(11, 22) - 1, 2 ** np.arange(11, 22)]).astype(np.float32)
    halves = whole + np.float32(0.5)
    trained = np.concatenate([halves, np.nextafter(halves, np.float32(0)), np.nextafter(halves, np.float32(1e9)), whole])
    trained = np.concatenate([trained, -trained])
    w, residual, q = np.zeros_like(trained), np.zeros(len(trained), np.uint16), np.zeros(len(trained), np.int32)
    for step, exponent in ((1, 0), (4, -96), (1, 100)):
        scaled = trained * np.float32(step) * np.float32(2.0**exponent)
        facts: dict[str, Any] = {"exponent": exponent, "step": step, "threshold": 0.0}
        index, value, _ = adopt(w.copy(), w.copy(), scaled, residual.copy(), q.copy(), **facts)
        expected = np.clip(np.rint(trained), -(Q_MAX // step), Q_MAX // step)
        assert (value == expected[index]).all()
        assert len(index) == len(trained)


def test_the_clamp_cuts_to_whole_steps_and_the_rest_stays_in_the_residual() -> None:
    base = np.zeros(3, np.float32)
    q = np.array([Q_MAX - 250, Q_MAX - 50, -Q_MAX], np.int32)
    w = q.astype(np.float32)
    trained = w + np.array([1000, 1000, -1000], np.float32)
    residual = np.zeros(3, np.uint16)
    index, value, clamped = adopt(base, w, trained, residual, q, exponent=0, step=100, threshold=60.0)
    assert (index.tolist(), value.tolist(), clamped) == ([0], [2], 3)
    assert q.tolist() == [Q_MAX - 50, Q_MAX - 50, -Q_MAX]
    assert (residual.astype(np.uint32) << 16).view(np.float32).tolist() == [800.0, 1000.0, -1000.0]


def test_zero_q_never_touches_the_bits_of_the_base() -> None:
    base = np.array([0x80000000, 0x00000001, 0x807FFFFF, 0x3F800000], np.uint32).view(np.float32)
    w, q = base.copy(), np.zeros(4, np.int32)
    every = np.arange(4, dtype=np.uint32)
    kernel.apply_lattice(base, w, q, every, np.full(4, 5, np.int32), exponent=-96, step=3)
    assert w.tobytes() != base.tobytes()
    kernel.apply_lattice(base, w, q, every, np.full(4, -5, np.int32), exponent=-96, step=3)
    assert w.tobytes() == base.tobytes()
    kernel.weights_from_q(base, q, w, exponent=-96)
    assert w.tobytes() == base.tobytes()


def test_the_dense_form_may_write_over_its_base() -> None:
    base = np.array([1.0, -0.0, 2.0], np.float32)
    kernel.weights_from_q(base, np.array([1, 0, -2], np.int32), base, exponent=0)
    assert base.view(np.uint32).tolist() == np.array([2.0, -0.0, 0.0], np.float32).view(np.uint32).tolist()
