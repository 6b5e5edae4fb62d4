"""The bench runs, writes the keys that it promises, and its rivals do what their names say."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwire.tensors import Dtype
from modelwire.update.container import parse
from modelwire.update.sections import Kind, dense
from tests.bench import chain, convnets, ours, rivals, timing, typed
from tests.bench.material import TINY, small_cases
from tests.bench.measure import KEYS

pytestmark = pytest.mark.slow("trains nets and packs them with every rival")

ROOT = Path(__file__).resolve().parents[2]
PROMISED = re.findall(r"\w+", """encode_known_step_over_memcpy encode_total_over_memcpy encode_topk_over_memcpy
encode_topk_portable_over_memcpy
apply_1pct_over_memcpy apply_01pct_over_memcpy numpy_over_encode topk_torch_over_encode bytes_over_deepcabac bytes_over_zstd_patch
chain_percent_float32_mlp chain_percent_float32_cnn chain_percent_float32_mbn exact_bytes_over_zstd_patch
exact_speed_over_zstd_patch int8_bytes_over_best temp_bytes_per_sent_weight threads2_speedup""")


@pytest.fixture(scope="module")
def cases() -> list:  # type: ignore[type-arg]
    return list(small_cases(TINY))


def test_a_run_writes_every_key_as_a_positive_ratio_or_null_with_a_line_that_says_why(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the charts need matplotlib")
    out = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--tiny", "--out", out], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    keys = json.loads(out.read_text())
    assert list(keys) == PROMISED == list(KEYS)
    for key, value in keys.items():
        assert value is None or (isinstance(value, float) and math.isfinite(value) and value > 0), key
        assert f"  {key} " in done.stdout
    never_null = ("encode_known", "encode_total", "encode_topk_over", "apply", "numpy", "chain", "temp", "threads")
    assert all(keys[k] is not None for k in PROMISED if k.startswith(never_null))
    for key, rival in (
        ("topk_torch_over_encode", rivals.TorchTopk()),
        ("bytes_over_deepcabac", rivals.DeepCabac()),
        ("bytes_over_zstd_patch", rivals.ZstdPatch19()),
        ("exact_bytes_over_zstd_patch", rivals.ZstdPatch3()),
        ("exact_speed_over_zstd_patch", rivals.ZstdPatch3()),
    ):
        assert (keys[key] is not None) == rival.available()
        assert rival.available() or f"{rival.name}: not installed" in done.stdout
    assert (keys["int8_bytes_over_best"] is not None) == all(r.available() for r in rivals.INT8)
    for chart in ("bench-bytes-loss.svg", "bench-speed-bytes.svg"):
        assert (tmp_path / chart).read_text().startswith("<?xml")


@pytest.mark.parametrize("make", [lambda: convnets.cnn(4), lambda: convnets.mobilenet(32, ((1, 8, 1, 1), (2, 12, 2, 2), (2, 12, 1, 1)))])
@pytest.mark.parametrize("live", [False, True])
def test_the_gradients_of_the_nets_are_the_slopes_of_their_loss(make: Callable[[], Any], live: bool) -> None:
    net = make()
    rng = np.random.default_rng(3)
    _, shifted = chain.data(0, 256)
    x, y = shifted.x[:12].astype(np.float64), shifted.y[:12]
    flat = [a.astype(np.float64) for a in net.initial(rng)]

    def loss() -> float:
        z = net.body.forward(convnets._images(x), net.schema.shaped([a.copy() for a in flat]), {}, live)[0]
        return float((np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]).mean())

    grads = net.gradients([a.copy() for a in flat], x, y, live)
    for t, spec in enumerate(net.schema.tensors):
        if "_moving_" in spec.name:
            assert not grads[t].any()
            continue
        i, h = int(np.abs(grads[t]).argmax()), 1e-6
        flat[t][i] += h
        up = loss()
        flat[t][i] -= 2 * h
        down = loss()
        flat[t][i] += h
        assert (up - down) / (2 * h) == pytest.approx(float(grads[t][i]), rel=1e-3, abs=1e-6), spec.name


def test_fine_tuning_leaves_the_statistics_of_normalisation_frozen_and_the_head_alone_trains_alone(cases: list) -> None:  # type: ignore[type-arg]
    for case in cases:
        changed = {
            s.name for s, old, new in zip(case.manifest.schema.tensors, case.state.weights, case.trained, strict=True) if (old != new).any()
        }
        assert changed and not any("_moving_" in name for name in changed)
        if case.name.endswith("head"):
            assert changed == {name for name in changed if name.startswith(("top_", "dense1_"))}


@pytest.mark.parametrize("rival", rivals.LOSSLESS, ids=lambda r: r.name)
def test_a_lossless_rival_sees_what_changed(rival: rivals.Lossless, cases: list) -> None:  # type: ignore[type-arg]
    if not rival.available():
        pytest.skip(f"{rival.needs} is not installed")
    old, new = next(c for c in cases if c.name == "cnn head").files()
    small, seconds = rival.encode(old, new, 4)
    large, _ = rival.encode(np.random.default_rng(0).bytes(len(new)), new, 4)
    assert 0 < small < large and seconds >= 0


@pytest.mark.parametrize("rival", rivals.INT8, ids=lambda r: r.name)
def test_a_rival_on_codes_sees_what_changed(rival: rivals.Lossless, cases: list) -> None:  # type: ignore[type-arg]
    if not rival.available():
        pytest.skip(f"{rival.needs} is not installed")
    old, new = typed.int8(next(c for c in cases if c.name == "cnn head")).files()
    assert 0 < rival.encode(old, new, 1)[0] < rival.encode(np.random.default_rng(0).bytes(len(new)), new, 1)[0]


@pytest.mark.parametrize("dtype", typed.FLOATS)
def test_exact_updates_give_the_trained_weights_to_the_bit(dtype: Dtype, cases: list) -> None:  # type: ignore[type-arg]
    case = typed.floats(next(c for c in cases if c.name == "mlp all"), dtype)
    after = case.state.copy()
    after.apply(Kind.EXACT, typed.planes(case))
    assert [w.tobytes() for w in after.weights] == [w.tobytes() for w in case.trained]
    old, new = case.files()
    assert len(old) == len(new) == dtype.width * case.state.manifest.schema.size and old != new
    assert typed.exact_bytes(case) > sum(len(s.planes) for s in dense(typed.planes(case)))


def test_an_int8_case_is_sent_whole(cases: list) -> None:  # type: ignore[type-arg]
    case = typed.int8(next(c for c in cases if c.name == "mlp all"))
    old, new = case.files()
    assert len(new) == case.state.manifest.schema.size and old != new
    assert 0 < typed.int8_bytes(case) < len(new)  # which checks that it gives the trained codes


def test_a_walk_along_a_chain_ends_where_the_last_update_says() -> None:
    course = chain.chain(TINY.dense, 0, 0.05, updates=3)
    walking = ours.ApplyingChain(course.base, course.sealed)
    for _ in range(2):
        walking.apply()
        assert walking.state.root == parse(course.sealed[-1]).header.root
        walking.reset()
        assert walking.state.root == course.base.root


@pytest.mark.parametrize("skip", [False, True])
def test_deepcabac_codes_integers_that_its_own_decoder_gives_back(skip: bool) -> None:
    if not rivals.DeepCabac().available():
        pytest.skip("nncodec is not installed")
    coder = import_module("nncodec.extensions.deepCABAC")
    rng = np.random.default_rng(1)
    a = (rng.standard_normal((40, 60)) * 3).astype(np.int32) * (rng.random((40, 60)) < 0.05) * (rng.random((40, 1)) < 0.5)
    a = np.ascontiguousarray(a, np.int32)
    stream = rivals.DeepCabac().code(coder, [a], 10, 0, False, skip)
    decoder, back = coder.Decoder(), np.zeros_like(a)
    decoder.setStream(stream)
    decoder.initCtxModels(10)
    decoder.decodeLayer(back, 0, 0, 1, 0, coder.HdspMode.AlwaysOff, np.zeros(2, np.int8), 0, 0)
    assert (a == back).all()


def test_the_clock_takes_the_least_of_calls_that_take_turns() -> None:
    turns: list[str] = []
    ticks = iter(np.cumsum([0, 5, 0, 3, 0, 2, 0, 9]).tolist())
    clock = lambda: next(ticks)  # noqa: E731
    found = timing.fastest(
        {
            "a": timing.Timed(lambda: turns.append("a"), lambda: turns.append("before a"), clock),
            "b": timing.Timed(lambda: turns.append("b"), None, clock),
        },
        2,
    )
    assert turns == ["before a", "a", "b", "before a", "a", "b"]
    assert found == {"a": 2, "b": 3}


def test_temporary_memory_is_what_a_call_frees_again() -> None:
    def call() -> np.ndarray:  # type: ignore[type-arg]
        return np.ones(3_000_000, np.uint8)[::3].copy()

    assert 2_900_000 < timing.temporary_bytes(call) < 3_100_000


def test_the_peak_of_a_call_is_that_of_its_process_and_the_call_changes_nothing_here() -> None:
    seen: list[int] = []

    def call() -> None:
        seen.append(int(np.ones(30_000_000, np.uint8).sum()))

    peak = timing.peak_rss(call)
    if peak is None:
        pytest.skip("no /proc/self/clear_refs here")
    assert 29_000_000 < peak < 45_000_000 and not seen


def test_a_call_that_fails_in_the_measured_process_is_no_figure() -> None:
    def call() -> None:
        raise ValueError

    if timing.peak_rss(lambda: None) is None:
        pytest.skip("no /proc/self/clear_refs here")
    with pytest.raises(ChildProcessError):
        timing.peak_rss(call)


def test_the_pass_that_is_timed_does_what_snap_does_and_the_apply_is_taken_back(cases: list) -> None:  # type: ignore[type-arg]
    for case in cases:
        adopting, applying, snapped = ours.Adopting(case), ours.Applying(case), ours.Encoding(case).encode()
        for run in (adopting.exact_count, adopting.known_step):
            adopting.reset()
            run()
            for i, t in enumerate(adopting.tensors):
                assert adopting.w[i].tobytes() == snapped.state.weights[t].tobytes()
                assert adopting.q[i].tobytes() == snapped.state.integers[t].tobytes()
        adopting.reset()
        assert adopting.state.root == case.state.root
        applying.apply()
        assert applying.state.root == snapped.state.root
        applying.reset()
        assert applying.state.root == case.state.root
