"""The whole-model passes of a round: every kernel that this processor has and the numpy twin give the same bits, or the same fault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelwire import _reference as twin
from modelwire import errors
from modelwire._core import kernel
from modelwire.limits import Q_MAX

from .test_lattice import FINITE_BITS, FLOAT_BITS, QS, STEPS, floats, integers

LATTICE, VERBATIM, EXACT = 0, 1, 2
TAME_BITS = FINITE_BITS.filter(lambda b: b & 0x7F800000 < 0x7E000000)
RESIDUALS = st.sampled_from([0, 0x8000, 1, 0x3F80, 0xBF81, 0x7F7F, 0x7F80])
THRESHOLDS = st.one_of(st.floats(0, 1e30), st.sampled_from([0.0, -0.0, 3.4e38, 1e300, float("inf"), float("nan"), -1.0]))
STRETCH = 512  # entries that a pass takes at a time


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


@pytest.fixture(autouse=True, scope="module")
def as_it_was() -> Iterator[None]:
    before = kernel.kernel_name()
    yield
    kernel.choose(before)


@dataclass
class Arrays:
    """The arrays of one round, as lists of flat ones."""

    base: list[Any]
    w: list[Any]
    q: list[Any]
    trained: list[Any]
    residual: list[Any]
    exponents: list[int]
    kinds: list[int]
    left: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.left:
            self.left = [np.full(len(r), 7, np.uint16) for r in self.residual]

    def copy(self) -> Arrays:
        lists = [[a.copy() for a in arrays] for arrays in (self.base, self.w, self.q, self.trained, self.residual)]
        return Arrays(*lists, self.exponents, self.kinds, [a.copy() for a in self.left])

    def round(self, core: Any) -> Any:
        starts = np.cumsum([1000003, *(len(b) for b in self.base)])[:-1].tolist()
        return core.Round(
            self.base, self.w, self.q, self.trained, self.residual, self.left,
            exponents=self.exponents, kinds=self.kinds, dtypes=[1] * len(self.kinds), starts=starts,
        )  # fmt: skip

    @property
    def moved(self) -> list[bytes]:
        return [a.tobytes() for a in (*self.w, *self.q)]

    @property
    def all(self) -> list[bytes]:
        return [*self.moved, *(a.tobytes() for a in self.left)]


def one(base: Any, w: Any, q: Any, trained: Any, residual: Any, exponent: int) -> Arrays:
    return Arrays([base], [w], [q], [trained], [residual], [exponent], [LATTICE])


def shown(result: Any) -> Any:
    return [x.tobytes() if isinstance(x, np.ndarray) else x for x in result]


def called(core: Any, arrays: Arrays, name: str, *args: Any, **facts: Any) -> Any:
    """Return all that can be seen of a call; a refusal moves nothing."""
    before = arrays.moved
    try:
        result = getattr(arrays.round(core), name)(*args, **facts)
    except errors.ModelWireError as error:
        assert arrays.moved == before, f"{name} of {core.kernel_name()} moved the model before it refused"
        return type(error), error.facts
    return shown(result), arrays.all


def agree(arrays: Arrays, name: str, **facts: Any) -> Any:
    """Call on every path and the twin, and return what the twin gave; `arrays` stay as they are."""
    expected = called(twin, arrays.copy(), name, **facts)
    for path in PATHS:
        kernel.choose(path)
        assert called(kernel, arrays.copy(), name, **facts) == expected, path
    return expected


def collected(core: Any, arrays: Arrays, k: int, steps: Sequence[int], thresholds: Sequence[float]) -> Any:
    """Collect and adopt; the second pass for what lies below the bar is `candidates`' business, so thresholds are raised to it."""
    before = arrays.moved
    try:
        round = arrays.round(core)
        index, d, ends, edge, bar = round.collect(k)
        magnitudes = np.abs(d.view(np.float32))
        assert bar <= edge or not edge
        assert edge == (np.sort(magnitudes)[::-1][k - 1] if k <= len(magnitudes) else 0.0)
        left = [a.tobytes() for a in arrays.left]
        raised = [t if np.isnan(t) or t < 0 else max(t, edge) for t in thresholds]
        result = round.adopt(index, d, ends, steps=steps, thresholds=raised)
    except errors.ModelWireError as error:
        assert arrays.moved == before
        return type(error), error.facts
    return edge, left, shown(result), arrays.all


def agree_collected(arrays: Arrays, k: int, steps: Sequence[int], thresholds: Sequence[float]) -> Any:
    expected = collected(twin, arrays.copy(), k, steps, thresholds)
    for path in PATHS:
        kernel.choose(path)
        assert collected(kernel, arrays.copy(), k, steps, thresholds) == expected, path
    return expected


@st.composite
def models(draw: st.DrawFn) -> Arrays:
    """Up to three tensors of any bits; the weights of a lattice are what its Qs make of the base, whatever those are."""
    bits = draw(st.sampled_from([FLOAT_BITS, FINITE_BITS, TAME_BITS, TAME_BITS]))
    sizes = draw(st.lists(st.integers(0, 40), min_size=0, max_size=3))
    kinds = [draw(st.sampled_from([LATTICE, LATTICE, VERBATIM, EXACT])) for _ in sizes]
    base, w, trained = ([draw(floats(n, bits)) for n in sizes] for _ in range(3))
    q = [draw(integers(n, st.one_of(QS, st.integers(-Q_MAX - 2, Q_MAX + 2)))) for n in sizes]
    residual = [draw(hnp.arrays(np.uint16, n if kind == LATTICE else 0, elements=RESIDUALS)) for n, kind in zip(sizes, kinds, strict=True)]
    exponents = [draw(st.sampled_from([-97, -96, -14, 0, 0, 1, 20, 100, 101])) for _ in sizes]
    for t, kind in enumerate(kinds):
        if kind == LATTICE:
            with np.errstate(all="ignore"):
                moved = base[t] + q[t].astype(np.float32) * np.float32(2.0 ** exponents[t])
            w[t] = np.where(q[t] == 0, base[t].view(np.uint32), moved.view(np.uint32)).view(np.float32)
    return Arrays(base, w, q, trained, residual, exponents, kinds)


@st.composite
def choices(draw: st.DrawFn) -> tuple[Arrays, list[int], list[float]]:
    arrays = draw(models())
    n = len(arrays.kinds)
    steps = draw(st.lists(st.one_of(STEPS, STEPS, st.sampled_from([0, -1, 257, 1 << 23, 255 << 22, 2**70])), min_size=n, max_size=n))
    return arrays, steps, draw(st.lists(THRESHOLDS, min_size=n, max_size=n))


def extreme(bits: int) -> Arrays:
    """Return a base, and the weights on it, of NaNs that as bfloat16 would look like zeros."""
    base = np.full(16, bits, np.uint32).view(np.float32)
    return one(base, base.copy(), np.zeros(16, np.int32), np.zeros(16, np.float32), np.zeros(16, np.uint16), 0)


@given(choices())
@example((extreme(0x7FFFFFFF), [1], [0.0]))
@example((extreme(0xFFFF8000), [1], [1e30]))
def test_a_known_step_is_adopted_alike_on_anything(drawn: tuple[Arrays, list[int], list[float]]) -> None:
    arrays, steps, thresholds = drawn
    agree(arrays, "adopt_known", steps=steps, thresholds=thresholds)


@given(models(), st.data(), st.integers(1, 130))
def test_the_largest_are_collected_and_adopted_alike_on_anything(arrays: Arrays, data: st.DataObject, k: int) -> None:
    n = len(arrays.kinds)
    steps = data.draw(st.lists(st.one_of(STEPS, st.just(0)), min_size=n, max_size=n))
    thresholds = data.draw(st.lists(THRESHOLDS, min_size=n, max_size=n))
    agree_collected(arrays, k, steps, thresholds)


@given(models())
def test_verbatim_tensors_are_taken_over_alike(arrays: Arrays) -> None:
    agree(arrays, "adopt_verbatim")


def trained_model(sizes: Sequence[int], seed: int, density: float = 1.0, exponent: int = -14) -> Arrays:
    """Return tensors on their lattice, and what a round made of them."""
    rng = np.random.default_rng(seed)
    base = [rng.standard_normal(n).astype(np.float32) for n in sizes]
    q = [(rng.integers(-900, 900, n) * (rng.random(n) < 0.5)).astype(np.int32) for n in sizes]
    w = [np.empty_like(b) for b in base]
    for b, i, x in zip(base, q, w, strict=True):
        twin.weights_from_q(b, i, x, exponent=exponent)
    trained = [x + (np.where(rng.random(len(x)) < density, 1, 1e-4) * rng.standard_normal(len(x))).astype(np.float32) for x in w]
    residual = [(rng.standard_normal(n).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) & np.uint16(0x83FF) for n in sizes]
    return Arrays(base, w, q, trained, residual, [exponent] * len(sizes), [LATTICE] * len(sizes))


@pytest.mark.parametrize("sizes", [(1,), (31,), (32, 33), (STRETCH - 1, STRETCH, STRETCH + 1), (5000, 3, 1025), (2 * STRETCH, 700)])
@pytest.mark.parametrize("density", [0.0, 0.001, 0.01, 0.3, 1.0])
def test_long_and_odd_tensors_agree_at_every_density(sizes: tuple[int, ...], density: float) -> None:
    arrays = trained_model(sizes, sum(sizes), density)
    steps, total = [96] * len(sizes), sum(sizes)
    for least in (0.0, 1e-4, 0.05):
        kept = agree(arrays, "adopt_known", steps=steps, thresholds=[least] * len(sizes))
        assert kept[0][2] == sorted(kept[0][2])
        for k in (1, max(1, total // 100), total):
            agree_collected(arrays, k, steps, [least] * len(sizes))


@pytest.mark.parametrize("path", [*PATHS, "twin"])
@pytest.mark.parametrize("offset", [0, 1])
def test_what_was_adopted_is_taken_back_to_the_bit(path: str, offset: int) -> None:
    arrays = trained_model((3000, 40, 2000), 5)
    arrays.kinds[1] = VERBATIM
    arrays.left = [np.full(n + offset, 7, np.uint16)[offset:] for n in (3000, 40, 2000)]  # also where memory is not a cache line's
    core = twin if path == "twin" else kernel
    if core is kernel:
        kernel.choose(path)
    round, before = arrays.round(core), arrays.moved
    index, d, ends, edge, _ = round.collect(500)
    untouched, candidates, bits = [a.tobytes() for a in arrays.left], index.copy(), d.copy()
    kept = round.adopt(index, d, ends, steps=[96, 0, 96], thresholds=[edge] * 3)
    plain = round.adopt_verbatim()
    assert arrays.moved != before
    round.retract(kept[0], kept[1], kept[2], steps=[96, 0, 96])
    round.retract(plain[0], plain[1], plain[2], steps=[0, 0, 0])
    assert arrays.moved == before
    assert [a.tobytes() for a in arrays.left] == untouched
    there = np.abs(bits.view(np.float32)) >= edge
    assert kept[1].tobytes() == bits[there].tobytes() and kept[0].tobytes() == candidates[there].tobytes()
    known = round.adopt_known(steps=[96, 0, 96], thresholds=[edge] * 3)
    round.retract(known[0], known[1], known[2], steps=[96, 0, 96])
    assert arrays.moved == before


def test_a_pass_goes_on_with_more_room_where_more_stands_out_than_was_thought() -> None:
    arrays = trained_model((40_000, 30_000), 9)
    expected = called(twin, arrays.copy(), "adopt_known", steps=[1, 1], thresholds=[0.0, 0.0])
    for path in PATHS:
        kernel.choose(path)
        for room in (0, 10_000, 10**6):
            assert called(kernel, arrays.copy(), "adopt_known", steps=[1, 1], thresholds=[0.0, 0.0], room=room) == expected


@pytest.mark.parametrize("order", ["rising", "falling", "equal", "late"])
def test_the_largest_are_found_whatever_the_sample_says_and_however_they_lie(order: str) -> None:
    n = 200_000
    size = np.linspace(0.1, 1, n, dtype=np.float32)
    late = np.where(np.arange(n) % 500, 0, size)
    size = {"rising": size, "falling": size[::-1].copy(), "equal": np.ones(n, np.float32), "late": late}[order]
    w = np.zeros(n, np.float32)
    arrays = one(w, w.copy(), np.zeros(n, np.int32), size.astype(np.float32), np.zeros(n, np.uint16), -14)
    for k in (1, 300, 2000, n // 2):
        seen = agree_collected(arrays, k, [96], [0.0])
        assert seen[0] == np.sort(size)[::-1][k - 1]


@pytest.mark.parametrize("seen", [True, False])
def test_a_sample_that_sees_none_of_the_changes_or_only_them_misleads_nobody(seen: bool) -> None:
    n = 40 << 14
    where = np.zeros(n, bool).reshape(-1, 16)
    where[::40] = True
    changed = where.ravel() if seen else ~where.ravel()
    w = np.zeros(n, np.float32)
    trained = (changed * np.linspace(1, 2, n)).astype(np.float32)
    arrays = one(w, w.copy(), np.zeros(n, np.int32), trained, np.zeros(n, np.uint16), -14)
    for k in (n // 100, n // 10):
        assert agree_collected(arrays, k, [96], [0.0])[0] == np.sort(trained)[::-1][k - 1]


@pytest.mark.parametrize("n", [40, 600, 2100])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 3.4e38])
def test_the_first_number_that_is_none_is_named_wherever_it_stands(n: int, wrong: float) -> None:
    for place in (0, 15, 16, 31, 32, n // 2, n - 1):
        arrays = trained_model((100, n), 3)
        arrays.trained[1][place:] = wrong
        seen = agree(arrays, "adopt_known", steps=[96, 96], thresholds=[0.1, np.inf])
        assert seen[1]["tensor"] == 1 and seen[1]["index"] == place
        assert seen[1]["what"] == ("the residual" if np.isfinite(wrong) else "the trained weights")
        seen = agree_collected(arrays, 10, [96, 96], [0.1, np.inf])
        assert seen[1]["tensor"] == 1 and seen[1]["index"] == place


def test_what_a_fault_interrupts_is_taken_back() -> None:
    arrays = trained_model((5000, 5000), 4)
    arrays.base[1][4990] = np.finfo(np.float32).max
    arrays.w[1][4990], arrays.q[1][4990] = np.finfo(np.float32).max, 0
    arrays.trained[1][4990], arrays.exponents[1] = 0, 100  # q moves down: finite; the entry after it is beyond the range
    arrays.q[1][4991], arrays.trained[1][4991] = Q_MAX + 1, 9e9
    for call in (
        lambda: agree(arrays, "adopt_known", steps=[96, 96], thresholds=[0.0, 1e9]),
        lambda: agree_collected(arrays, 9000, [96, 96], [0.0, 1e9]),
    ):
        assert call() == (errors.RangeOverflow, {"tensor": 1, "index": 4991})


@given(st.lists(st.integers(-1, 6), max_size=4), st.integers(0, 9))
def test_candidates_that_are_none_are_refused(places: list[int], end: int) -> None:
    arrays = trained_model((4, 3), 1)
    index = np.array([p % 7 for p in places], np.uint32)
    d = np.ones(len(places), np.float32).view(np.int32)
    ends = [min(end, len(places)), len(places)]

    def adopt(core: Any) -> Any:
        taken = arrays.copy()
        taken.round(core).collect(1)
        return called(core, taken, "adopt", index.copy(), d.copy(), ends, steps=[1, 1], thresholds=[0.5, 0.5])

    expected = adopt(twin)
    for path in PATHS:
        kernel.choose(path)
        assert adopt(kernel) == expected
    for core in (kernel, twin):
        with pytest.raises(errors.KernelError):
            arrays.copy().round(core).adopt(index, d, [len(places) + 1, len(places)], steps=[1, 1], thresholds=[0.5, 0.5])


@given(st.data(), st.integers(1, 300))
def test_the_kth_magnitude_is_that_of_the_sorted_list(data: st.DataObject, n: int) -> None:
    d = data.draw(floats(n)).view(np.int32)
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
        assert kernel.kth_magnitude(d.view(np.int32), k) == twin.kth_magnitude(d.view(np.int32), k) == descending[k - 1]
    assert kernel.kth_magnitude(np.ones(5000, np.float32).view(np.int32), 4000) == 1.0


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_one_model_at_once_is_its_tensors_one_by_one(seed: int) -> None:
    arrays = trained_model((700, 30, 1500), seed, 0.1)
    kernel.choose(PATHS[0])
    whole, apart = arrays.copy(), arrays.copy()
    kept = whole.round(kernel).adopt_known(steps=[96, 8, 1], thresholds=[0.01, 0.1, 0.3])
    start = 0
    for t, (step, threshold) in enumerate([(96, 0.01), (8, 0.1), (1, 0.3)]):
        steps, thresholds = [0, 0, 0], [0.0, 0.0, 0.0]
        steps[t], thresholds[t] = step, threshold
        part = apart.round(kernel).adopt_known(steps=steps, thresholds=thresholds)
        end = kept[2][t]
        assert part[0].tobytes() == kept[0][start:end].tobytes() and part[1].tobytes() == kept[1][start:end].tobytes()
        start = end
    assert whole.all == apart.all


@pytest.mark.parametrize("core", [kernel, twin], ids=["compiled", "twin"])
def test_arrays_that_c_could_not_read_are_refused(core: Any) -> None:
    def misaligned(a: Any) -> Any:
        room = np.zeros(a.nbytes + 1, np.uint8)
        moved = room[1:].view(a.dtype)
        moved[:] = a
        return moved

    changes = [
        misaligned, lambda a: np.repeat(a, 2)[::2], lambda a: a.astype(np.float64), lambda a: a.reshape(1, -1), lambda a: a.tolist(),
        lambda a: a.astype(a.dtype.newbyteorder()), lambda a: a[:-1].copy(),
    ]  # fmt: skip
    for name in ("base", "w", "q", "trained", "residual", "left"):
        for change in changes:
            arrays = trained_model((5, 8), 1)
            getattr(arrays, name)[1] = change(getattr(arrays, name)[1])
            with pytest.raises(errors.KernelError):
                arrays.round(core)
        arrays = trained_model((5, 8), 1)
        getattr(arrays, name).pop()
        with pytest.raises(errors.KernelError):
            arrays.round(core)
    for name in ("w", "q", "left"):
        arrays = trained_model((5, 8), 1)
        getattr(arrays, name)[0].flags.writeable = False
        with pytest.raises(errors.KernelError):
            arrays.round(core)
    for name, same in (("trained", "w"), ("residual", "left")):
        arrays = trained_model((5, 8), 1)
        getattr(arrays, name)[1] = getattr(arrays, same)[1]
        with pytest.raises(errors.KernelError, match=r"itself|themselves"):
            arrays.round(core)
    empty = Arrays([], [], [], [], [], [], [])
    assert [len(x) for x in empty.round(core).collect(1)[:3]] == [0, 0, 0]


def test_every_path_of_this_build_has_its_own_name_and_generic_is_always_there() -> None:
    assert PATHS[-1] == "generic" and len(set(PATHS)) == len(PATHS)
