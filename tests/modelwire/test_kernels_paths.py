"""Every kernel that this processor has, and the numpy twin, give the same bits: dense passes, long and odd lengths, every fault."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelwire import _reference as twin
from modelwire import errors
from modelwire._core import kernel

from .test_kernels_lattice import ANY_EXPONENT, ANY_STEP, FINITE_BITS, FLOAT_BITS, QS, floats, integers, outcome, states, updates


def usable() -> list[str]:
    """Return the kernels of this build that this processor can run."""
    before, names = kernel.kernel_name(), []
    for name in kernel.kernel_names():
        try:
            kernel.choose(name)
        except errors.ConfigError:
            continue
        names.append(name)
    kernel.choose(before)
    return names


PATHS = usable()
TAME_BITS = FINITE_BITS.filter(lambda b: b & 0x7F800000 < 0x7E000000)
RESIDUALS = st.sampled_from([0, 0x8000, 1, 0x3F80, 0xBF81, 0x7F7F, 0x7F80])
THRESHOLDS = st.one_of(st.floats(0, 1e30), st.sampled_from([0.0, -0.0, 3.4e38, 1e300, float("inf"), float("nan"), -1.0]))


@pytest.fixture(autouse=True, scope="module")
def as_it_was() -> Iterator[None]:
    before = kernel.kernel_name()
    yield
    kernel.choose(before)


def agree(name: str, *arrays: Any, see: Any = None, **facts: Any) -> Any:
    """Call the kernel on every path and the twin, and return what the twin gave; see: what of the arrays counts, after a success."""

    def call(core: Any) -> Any:
        if see is None:
            return outcome(getattr(core, name), arrays, facts)
        copies = [a.copy() for a in arrays]
        try:
            result = getattr(core, name)(*copies, **facts)
        except errors.ModelWireError as error:
            return type(error), error.facts
        return result, see(result, *copies)

    expected = call(twin)
    for path in PATHS:
        kernel.choose(path)
        assert kernel.kernel_name() == path
        assert call(kernel) == expected, path
    return expected


def collected(result: Any, w: Any, trained: Any, residual: Any, left: Any, index: Any, d: Any) -> Any:
    if result is None:
        return None
    found, huge = result
    return None if huge else left.tobytes(), index[:found].tobytes(), d[:found].tobytes()


@given(st.data(), st.integers(0, 200), THRESHOLDS)
def test_collect_agrees_on_all_paths(data: st.DataObject, n: int, least: float) -> None:
    bits = data.draw(st.sampled_from([FLOAT_BITS, FINITE_BITS, TAME_BITS]))
    w, trained = data.draw(floats(n, bits)), data.draw(floats(n, bits))
    residual = data.draw(hnp.arrays(np.uint16, n, elements=RESIDUALS))
    room = data.draw(st.sampled_from([n, n // 2, 0]))
    outputs = np.zeros(n, np.uint16), np.zeros(room, np.uint32), np.zeros(room, np.float32)
    agree("collect", w, trained, residual, *outputs, see=collected, least=least)


@pytest.mark.parametrize("n", [31, 32, 33, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("density", [0.0, 0.001, 0.01, 0.3, 1.0])
def test_long_tensors_agree_on_all_paths_at_every_density(n: int, density: float) -> None:
    rng = np.random.default_rng(n)
    w = rng.standard_normal(n, np.float32)
    trained = w + np.where(rng.random(n) < density, 1, 1e-4).astype(np.float32) * rng.standard_normal(n, np.float32)
    residual = (rng.standard_normal(n, np.float32).view(np.uint32) >> 16).astype(np.uint16) & np.uint16(0x83FF)  # tiny ones
    q = rng.integers(-9, 9, n).astype(np.int32)
    outputs = np.zeros(n, np.uint16), np.zeros(n, np.uint32), np.zeros(n, np.float32)
    for least in (0.0, 1e-4, 0.05):
        agree("collect", w, trained, residual, *outputs, see=collected, least=least)
        agree("snap", w, trained, residual, q, exponent=-14, step=96, threshold=least)
        index, value, _ = twin.snap(w, trained, residual, q, exponent=-14, step=96, threshold=least)
        agree("adopt", w, w, trained, residual, q, index, value, exponent=-14, step=96)
    agree("differences", w, trained, residual, np.zeros(n, np.float32))


@pytest.mark.parametrize("n", [40, 600, 2100])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 3.4e38])
def test_the_first_number_that_is_none_is_named_wherever_it_stands(n: int, wrong: float) -> None:
    w, residual, q = np.zeros(n, np.float32), np.zeros(n, np.uint16), np.zeros(n, np.int32)
    for place in (0, 15, 16, 31, 32, n // 2, n - 1):
        trained = np.full(n, 1e-3, np.float32)
        trained[place:] = wrong
        for least in (0.0, 1.0, float("inf")):
            for room in (n, 0):
                outputs = np.zeros(n, np.uint16), np.zeros(room, np.uint32), np.zeros(room, np.float32)
                seen = agree("collect", w, trained, residual, *outputs, see=collected, least=least)
                if np.isfinite(wrong):
                    assert seen[0] is None if least < 2 and not room else seen[0][1]
                else:
                    assert seen[1] == {"what": "the trained weights", "tensor": 0, "index": place}
        agree("snap", w, trained, residual, q, exponent=0, step=1, threshold=1.0)
        agree("differences", w, trained, residual, np.zeros(n, np.float32))
        agree("adopt", w, w, trained, residual, q, np.zeros(0, np.uint32), np.zeros(0, np.int32), exponent=0, step=1)


@given(st.data(), st.integers(0, 12), ANY_EXPONENT, ANY_STEP, THRESHOLDS)
def test_quantise_agrees_on_anything(data: st.DataObject, n: int, exponent: int, step: int, threshold: float) -> None:
    index, _ = data.draw(updates(n, hostile=True))
    d = data.draw(floats(len(index), data.draw(st.sampled_from([FLOAT_BITS, TAME_BITS]))))
    q = data.draw(integers(n, QS))
    agree("quantise", q, index, d, exponent=exponent, step=step, threshold=threshold)


@given(st.data(), st.integers(0, 12), ANY_EXPONENT, ANY_STEP)
def test_adopt_sent_agrees_on_anything(data: st.DataObject, n: int, exponent: int, step: int) -> None:
    bits = data.draw(st.sampled_from([FLOAT_BITS, FINITE_BITS, TAME_BITS]))
    base, w, trained = (data.draw(floats(n, bits)) for _ in range(3))
    residual = data.draw(hnp.arrays(np.uint16, n, elements=RESIDUALS))
    index, value = data.draw(updates(n, hostile=True))
    left = np.full(n, 7, np.uint16)
    agree("adopt_sent", base, w, trained, residual, data.draw(integers(n, QS)), left, index, value, exponent=exponent, step=step)


@given(states(), st.data(), st.integers(1, 255), st.floats(0, 1))
def test_collect_quantise_and_adopt_sent_are_snap_and_adopt(state: Any, data: st.DataObject, step: int, lower: float) -> None:
    base, w, q, exponent = state
    n, unit = len(w), np.float32(2.0**exponent)
    moved = data.draw(hnp.arrays(np.int32, n, elements=st.integers(-(2**12), 2**12)))
    with np.errstate(all="ignore"):
        trained = w + moved.astype(np.float32) * unit * np.float32(step) / np.float32(64)
    residual = data.draw(hnp.arrays(np.uint16, n, elements=st.sampled_from([0, 0x8000, 1, 0x8001])))
    facts = {"exponent": exponent, "step": step}
    threshold = float(np.float32(0.6) * unit * np.float32(step))
    left, index, d = np.zeros(n, np.uint16), np.zeros(n, np.uint32), np.zeros(n, np.float32)
    try:
        found = kernel.collect(w, trained, residual, left, index, d, least=lower * threshold)
        whole = kernel.snap(w, trained, residual, q, **facts, threshold=threshold)
    except errors.NonFinite:
        return
    assert found is not None
    if found[1]:
        return
    sent = kernel.quantise(q, index[: found[0]], d[: found[0]], **facts, threshold=threshold)
    assert [np.asarray(x).tolist() for x in sent] == [np.asarray(x).tolist() for x in whole]
    other_w, other_q = w.copy(), q.copy()
    try:
        kernel.adopt_sent(base, other_w, trained, residual, other_q, left, *sent[:2], **facts)
    except errors.NonFinite as refused:
        with pytest.raises(errors.NonFinite) as same:
            kernel.adopt(base, w, trained, residual, q, *sent[:2], **facts)
        assert same.value.facts == refused.facts
        return
    kernel.adopt(base, w, trained, residual, q, *sent[:2], **facts)
    assert (other_w.tobytes(), other_q.tobytes(), left.tobytes()) == (w.tobytes(), q.tobytes(), residual.tobytes())


@given(st.data(), st.integers(1, 300))
def test_the_kth_magnitude_is_that_of_the_sorted_list(data: st.DataObject, n: int) -> None:
    d = data.draw(floats(n))
    k = data.draw(st.integers(1, n))
    expected = np.sort(d.view(np.uint32) & 0x7FFFFFFF)[::-1][k - 1]
    for core in (kernel, twin):
        assert np.float32(core.kth_magnitude(d, k)).view(np.uint32) & 0x7FBFFFFF == expected & 0x7FBFFFFF  # a double may quiet a NaN
        for wrong in (0, n + 1, -1):
            with pytest.raises(errors.KernelError):
                core.kth_magnitude(d, wrong)


def test_the_kth_magnitude_of_many_is_exact() -> None:
    d = np.random.default_rng(5).standard_normal(30_000, np.float32)
    descending = np.sort(np.abs(d))[::-1]
    for k in (1, 2, 300, 15_000, 29_999, 30_000):
        assert kernel.kth_magnitude(d, k) == twin.kth_magnitude(d, k) == descending[k - 1]
    assert kernel.kth_magnitude(np.ones(5000, np.float32), 4000) == 1.0


def test_every_path_of_this_build_has_its_own_name_and_generic_is_always_there() -> None:
    assert PATHS[-1] == "generic" and len(set(PATHS)) == len(PATHS)
