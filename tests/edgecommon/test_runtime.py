"""The runtime seam, on whichever runtime this environment holds: one suite that both must pass."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecommon import runtime as seam
from modelwire.errors import NotTrainable, RuntimeUnusable, ShapeMismatch, TrainingDiverged
from modelwire.tensors import Weights
from modelwire.tflite.file import read_weights, write_weights
from tests.worlds import MODELS, model_file, world

try:
    RUNTIME = seam.load()
except RuntimeUnusable as e:
    pytest.skip(f"no TFLite runtime in this environment: {e}", allow_module_level=True)

TINY = (MODELS / "tiny.tflite").read_bytes()
BOTH = pytest.mark.parametrize("name", ["digits", "motion"])


def bits(weights: Weights) -> dict[str, bytes]:
    return {name: a.tobytes() for name, a in weights.items()}


def steps(model: seam.RuntimeModel, name: str, count: int) -> list[float]:
    x, y = world(name, 0).stream(0, model.batch * count)
    targets = np.eye(model.classes)[y]
    return [model.train(x[i : i + model.batch], targets[i : i + model.batch], 0.02) for i in range(0, len(x), model.batch)]


@BOTH
def test_a_fresh_model_has_the_files_weights_to_the_bit(name: str) -> None:
    file = model_file(name)
    weights = RUNTIME.open(file).get_weights()
    assert list(weights) == sorted(weights)
    assert bits(weights) == bits(read_weights(file))


@BOTH
def test_a_materialised_file_is_the_model_that_was_served(name: str) -> None:
    """The claim of the whole project at this seam: file bytes in, the board's very outputs out."""
    file = model_file(name)
    board = RUNTIME.open(file)
    steps(board, name, 6)
    weights = board.get_weights()
    assert bits(weights) != bits(read_weights(file))

    rebuilt = RUNTIME.open(write_weights(file, weights))
    set_on_base = RUNTIME.open(file)
    set_on_base.set_weights(weights)
    assert bits(rebuilt.get_weights()) == bits(set_on_base.get_weights()) == bits(weights)
    for x in world(name, 0).test_x[:40]:
        served = board.infer(x).tobytes()
        assert rebuilt.infer(x).tobytes() == served
        assert set_on_base.infer(x).tobytes() == served


@pytest.mark.slow("opens a net in a TFLite runtime for each of many examples")
@given(st.lists(st.integers(0, 2**32 - 1), min_size=39, max_size=39))
@settings(max_examples=40, deadline=None)
def test_any_finite_bits_survive_the_way_through_file_and_runtime(values: list[int]) -> None:
    flat = np.array(values, np.uint32).view(np.float32)
    flat[~np.isfinite(flat)] = -0.0
    weights, at = {}, 0
    for name, old in read_weights(TINY).items():
        weights[name] = flat[at : at + old.size].reshape(old.shape)
        at += old.size
    assert bits(RUNTIME.open(write_weights(TINY, weights)).get_weights()) == bits(weights)
    base = RUNTIME.open(TINY)
    base.set_weights(weights)
    assert bits(base.get_weights()) == bits(weights)


@BOTH
def test_training_lowers_the_loss_and_is_the_same_to_the_bit_when_repeated(name: str) -> None:
    one, two = RUNTIME.open(model_file(name)), RUNTIME.open(model_file(name))
    losses = steps(one, name, 12)
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    assert steps(two, name, 12) == losses
    assert bits(one.get_weights()) == bits(two.get_weights())
    assert one.steps == 12


def test_weights_set_before_anything_else_are_not_overwritten_by_the_initial_ones() -> None:
    changed = {n: a + 1 for n, a in read_weights(TINY).items()}
    fresh = RUNTIME.open(TINY)
    fresh.set_weights(changed)
    fresh.infer(np.zeros(4))
    fresh.evaluate(np.zeros((3, 4)))
    assert bits(fresh.get_weights()) == bits(changed)


def test_weights_are_handed_out_as_copies() -> None:
    model = RUNTIME.open(TINY)
    before = bits(model.get_weights())
    model.get_weights()["hidden1_kernel"][:] = 9
    model.infer(np.zeros(4))
    assert bits(model.get_weights()) == before


@BOTH
def test_evaluate_takes_any_number_of_samples_and_padding_changes_nothing(name: str) -> None:
    model, x = RUNTIME.open(model_file(name)), world(name, 1).test_x
    whole = model.evaluate(x[: 2 * model.batch])
    assert whole.shape == (2 * model.batch, model.classes)
    np.testing.assert_allclose(whole.sum(1), 1, atol=1e-5)
    for n in (0, 1, model.batch - 1, model.batch, model.batch + 1):
        part = model.evaluate(x[:n])
        assert part.shape == (n, model.classes)
        np.testing.assert_allclose(part, whole[:n], atol=1e-6)
    np.testing.assert_allclose(whole[:5], [model.infer(s) for s in x[:5]], atol=1e-5)


def test_inputs_of_other_number_types_are_made_exactly_float32() -> None:
    model = RUNTIME.open(TINY)
    x = [1, 0, 2, 3]
    expected = model.infer(np.array(x, np.float32))
    for kind in (np.float64, np.int64, np.uint8, np.float16):
        assert model.infer(np.array(x, kind)).tobytes() == expected.tobytes()
    assert model.infer(x).tobytes() == expected.tobytes()
    assert model.infer(np.array([x])).shape == (1, 3)
    assert isinstance(model.train(np.ones((16, 4)), np.eye(3)[np.zeros(16, int)], 0.1), float)
    backward = np.arange(64, dtype=np.float64).reshape(4, 16).T  # neither contiguous nor float32
    assert np.isfinite(model.train(backward / 64, np.eye(3)[np.ones(16, int)], np.float64(0.1)))


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda m: m.infer(np.zeros(5)), "x"),
        (lambda m: m.infer(np.zeros((2, 4))), "x"),
        (lambda m: m.infer(np.array(["a"] * 4)), "x"),
        (lambda m: m.evaluate(np.zeros(4)), "x"),
        (lambda m: m.evaluate(3), "x"),
        (lambda m: m.train(np.zeros((15, 4)), np.zeros((15, 3)), 0.1), "x"),
        (lambda m: m.train(np.zeros((16, 4)), np.zeros(16), 0.1), "y"),
        (lambda m: m.set_weights({}), "hidden1_bias"),
        (lambda m: m.set_weights({**m.get_weights(), "more": np.zeros(1, np.float32)}), "more"),
        (lambda m: m.set_weights({**m.get_weights(), "hidden1_bias": np.zeros(4, np.float32)}), "hidden1_bias"),
        (lambda m: m.set_weights({**m.get_weights(), "hidden1_bias": np.zeros(3)}), "hidden1_bias"),
    ],
)
def test_a_wrong_shape_is_named_and_changes_nothing(call: Any, what: str) -> None:
    model = RUNTIME.open(TINY)
    before = bits(model.get_weights())
    with pytest.raises(ShapeMismatch, match=what):
        call(model)
    assert bits(model.get_weights()) == before


def test_integer_variables_are_trained_and_set_as_the_integers_that_they_are() -> None:
    file = (MODELS / "mixed.tflite").read_bytes()
    model = RUNTIME.open(file)
    base = model.get_weights()
    assert bits(base) == bits(read_weights(file))
    assert [base[name].dtype for name in ("codes", "count")] == [np.float32, np.int32]
    x, y = np.arange(16, dtype=np.float32).reshape(4, 4) / 16, np.eye(3)[[0, 1, 2, 0]]
    model.train(x, y, 0.5)
    trained = model.get_weights()
    assert trained["count"].tolist() == [8] and trained["codes"].tolist() != base["codes"].tolist()
    large = {**trained, "count": np.array([2**31 - 1], np.int32), "codes": np.array([126.6, -127, -0.4], np.float32)}
    model.set_weights(large)  # 2^31 - 1 is no float32
    assert bits(model.get_weights()) == bits({**large, "codes": np.array([127, -127, 0], np.float32)})
    model.set_weights(trained)
    assert bits(RUNTIME.open(write_weights(file, trained)).get_weights()) == bits(model.get_weights()) == bits(trained)
    with pytest.raises(ShapeMismatch, match=r"count.*int32.*float32"):
        model.set_weights({**trained, "count": trained["count"].astype(np.float32)})


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_an_error_and_old_weights_heal_the_model(poison: float) -> None:
    model = RUNTIME.open(TINY, model="doorbell")
    before, y = model.get_weights(), np.eye(3)[np.zeros(16, int)]
    good = model.train(np.ones((16, 4)), y, 0.1)
    with pytest.raises(TrainingDiverged, match=r"doorbell: training gave a loss of .* after 1 steps"):
        model.train(np.full((16, 4), poison), y, 0.1)
    model.set_weights(before)
    assert model.train(np.ones((16, 4)), y, 0.1) == good


def test_training_that_runs_away_ends_in_the_error() -> None:
    model, y = RUNTIME.open(model_file("motion")), np.eye(4)[np.arange(16) % 4]
    rng = np.random.default_rng(0)
    with pytest.raises(TrainingDiverged):
        for _ in range(200):
            model.train(20 * rng.standard_normal((16, 100, 6)), y, 1e30)


def test_the_runtime_key_tells_what_computed() -> None:
    auto, plain = RUNTIME.open(TINY), RUNTIME.open(TINY, delegates=False)
    assert auto.runtime_key.startswith(f"{RUNTIME.package} {RUNTIME.version} {seam.isa()} ")
    assert auto.runtime_key.endswith(f"{RUNTIME.delegate} threads=1")
    assert plain.runtime_key.endswith(f"{seam.PLAIN} threads=1")
    assert auto.fallback == plain.fallback == ""


def test_a_file_that_breaks_the_contract_is_not_opened() -> None:
    with pytest.raises(NotTrainable, match=r"doorbell .* shares its bytes"):
        RUNTIME.open((MODELS / "tiny_shared.tflite").read_bytes(), model="doorbell")


class Fragile:
    """The installed runtime with a delegate that claims an operator which it then can't prepare, as XNNPACK does with SUM of rank 7.

    wrong: it computes all, but a batch wrongly, as that of tflite-runtime 2.14 does behind some attention layers.
    """

    OpResolverType = RUNTIME.interpreter.OpResolverType

    def __init__(self, *, always: bool = False, wrong: bool = False) -> None:
        self.always, self.wrong = always, wrong
        self.opened: list[bool] = []

    def Interpreter(self, *, experimental_op_resolver_type: Any, **rest: Any) -> Any:
        delegated = experimental_op_resolver_type == self.OpResolverType.AUTO
        self.opened.append(delegated)
        real = RUNTIME.interpreter.Interpreter(experimental_op_resolver_type=experimental_op_resolver_type, **rest)
        if delegated or self.always:
            runner = real.get_signature_runner

            def fails_at_train(signature: str) -> Any:
                def fail(**_: Any) -> None:
                    raise RuntimeError("failed to delegate SUM node #41\nfailed to prepare")

                def nothing(**given: Any) -> Any:
                    return {"output": np.full_like(runner("eval")(**given)["output"], np.nan)}

                if self.wrong:
                    return nothing if signature == "eval" else runner(signature)
                return fail if signature == "train" else runner(signature)

            real.get_signature_runner = fails_at_train
        return real


def test_a_model_that_the_delegate_cannot_prepare_runs_without_it_and_the_key_says_so() -> None:
    fragile = Fragile()
    model = seam.Runtime(RUNTIME.package, RUNTIME.version, fragile, RUNTIME.delegate).open(TINY)
    assert fragile.opened == [True, False, False]
    assert model.delegate == seam.PLAIN
    assert model.runtime_key.endswith("plain threads=1")
    assert model.fallback == "failed to delegate SUM node #41 failed to prepare"
    assert np.isfinite(model.train(np.ones((16, 4)), np.eye(3)[np.zeros(16, int)], 0.1))


def test_a_model_whose_batches_the_delegate_computes_wrongly_runs_without_it() -> None:
    model = seam.Runtime(RUNTIME.package, RUNTIME.version, Fragile(wrong=True), RUNTIME.delegate).open(TINY)
    assert model.delegate == seam.PLAIN
    assert model.fallback == "its eval gives another output than its infer for the same sample"


def test_a_model_that_no_setting_runs_is_refused_with_the_runtimes_words() -> None:
    broken = seam.Runtime(RUNTIME.package, RUNTIME.version, Fragile(always=True), RUNTIME.delegate)
    with pytest.raises(NotTrainable, match="can't run it: failed to delegate SUM"):
        broken.open(TINY, model="doorbell")


def fake(monkeypatch: pytest.MonkeyPatch, folder: str, interpreter: Any) -> None:
    """Put a runtime of this name in place, whose Interpreter is `interpreter`."""
    module = types.ModuleType(f"{folder}.interpreter")
    module.Interpreter, module.OpResolverType = interpreter, RUNTIME.interpreter.OpResolverType  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, folder, types.ModuleType(folder))
    monkeypatch.setitem(sys.modules, f"{folder}.interpreter", module)


def test_a_runtime_that_imports_but_cannot_open_a_model_is_passed_over_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(**_: Any) -> None:
        raise SystemError("returned a result with an exception set")  # tflite-runtime 2.14 beside numpy 2

    for folder in ("ai_edge_litert", "tflite_runtime"):
        fake(monkeypatch, folder, dies)
    monkeypatch.setattr(seam.np, "__version__", "2.4.6")
    with pytest.raises(RuntimeUnusable) as caught:
        seam.load()
    assert "ai-edge-litert: can't open a model: SystemError: returned a result" in caught.value.message
    assert "tflite-runtime: can't open a model (it needs numpy<2, numpy 2.4.6 is installed)" in caught.value.message
    assert "pip install" in caught.value.next_step


def test_the_other_runtime_is_taken_when_the_preferred_one_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    here = next(n for n, (package, _) in seam.PACKAGES.items() if package == RUNTIME.package)
    other = next(n for n in seam.PACKAGES if n != here)

    def dies(**_: Any) -> None:
        raise RuntimeError("built for another processor")

    fake(monkeypatch, seam.PACKAGES[other][1], dies)
    assert seam.load((other, here)).package == RUNTIME.package
    assert seam.describe()[seam.PACKAGES[other][0]].startswith("can't open a model")
    assert seam.describe()[RUNTIME.package] == f"{RUNTIME.version}, works, {RUNTIME.delegate}"


def test_a_machine_without_any_runtime_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for _, folder in seam.PACKAGES.values():
        monkeypatch.setitem(sys.modules, f"{folder}.interpreter", None)
        monkeypatch.setitem(sys.modules, folder, None)
    with pytest.raises(RuntimeUnusable, match="ai-edge-litert: not installed; tflite-runtime: not installed"):
        seam.load()
