"""The ends of the lattice's range: the largest and the least weights, the finest units, and states that are none."""

from __future__ import annotations

import ctypes.util
import platform
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire.errors import Malformed, NonFinite, RoundingMode
from modelwire.lattice.snap import no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.limits import EXPONENT_MAX, EXPONENT_MIN, Q_MAX
from modelwire.update.manifest import coarsest_safe
from modelwire.update.sections import Kind, Section, add, invert
from tests.modelwire.models import bits, flat, model


def delta(state: ModelState, values: dict[int, int]) -> tuple[Section, ...]:
    """Return a delta of tensor 0 by these units."""
    index = np.array(sorted(values), np.uint32)
    return (Section(0, index, np.array([values[i] for i in sorted(values)], np.int32), 1, state.exponents[0]),)


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


@pytest.mark.slow("tries every peak that a weight can have")
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
