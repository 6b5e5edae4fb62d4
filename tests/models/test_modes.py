"""A file with several modes trains each of them as a file with that cut alone does, to the bit; on every runtime that is installed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from edgecloud.graft.grafting import Grafted, Wish, graft
from edgecommon.runtime import interpreter_for
from modelwire.errors import BadArgument, ModelWireError, NotTrainable
from modelwire.tflite import file as tflite_file
from modelwire.tflite.graph import parse
from modelwire.tflite.notes import ENTRY, HeadNotes, Notes, notes_of
from tests.models.gradients import BATCH, samples
from tests.stock import runtime, stock_file

pytestmark = pytest.mark.slow("trains stock nets in a TFLite runtime, each in every mode")

FILES = [("har", "last:2"), ("gru", "last:2"), ("residual", "last:2"), ("autoencoder", "last:2"), ("half", "last:2")]
FILES.append(("mobilenet", "last:3"))


def grafted(name: str, train: str, modes: tuple[str, ...] = (), optimizer: str = "momentum") -> Grafted:
    return graft(stock_file(name), Wish(train=(train,), modes=modes, optimizer=optimizer, batch=BATCH, model=name))


def opened(made: Grafted) -> Any:
    # Without the delegate, which takes a frozen layer only where its weights are constants, and then with other last bits.
    return interpreter_for(runtime().interpreter, made.file, delegates=False)


def trained(made: Grafted, signature: str, steps: int, rate: float) -> dict[str, bytes]:
    """Return loss, weights and slots after some steps."""
    interpreter, shapes = opened(made), tflite_file.contract(made.file)
    runner = interpreter.get_signature_runner(signature)
    x, y = samples(shapes.x_shape, shapes.y_shape, made.loss)
    loss = [np.asarray(runner(x=x, y=y, lr=np.float32(rate))["loss"]).tobytes() for _ in range(steps)]
    out = {"loss": b"".join(loss)}
    for what in ("get_weights", "get_state"):
        out |= {n: np.asarray(v).tobytes() for n, v in interpreter.get_signature_runner(what)().items()}
    return out


@pytest.mark.parametrize(("name", "middle"), FILES, ids=lambda v: v)
def test_each_mode_gives_the_gradients_of_a_file_with_that_cut_alone(name: str, middle: str) -> None:
    many = grafted(name, "all", ("head", middle))
    assert [m.name for m in many.modes] == ["head", middle, "all"]
    for mode in many.modes:
        alone = grafted(name, mode.name)
        got, wanted = trained(many, mode.signature, 1, 0.0), trained(alone, "train", 1, 0.0)
        assert {n: got[n] for n in wanted} == wanted, mode.name
        assert all(any(wanted[f"{w}_momentum"]) for w in mode.weights)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_mode_moves_its_own_weights_and_slots_and_nothing_else(optimizer: str) -> None:
    many, rest = grafted("har", "all", ("head", "last:2"), optimizer), trained(grafted("har", "all", (), optimizer), "train", 1, 0.0)
    before = {n: w.tobytes() for n, w in tflite_file.read_weights(many.file).items()}
    for mode in many.modes[:-1]:
        got, wanted = trained(many, mode.signature, 4, 0.01), trained(grafted("har", mode.name, (), optimizer), "train", 4, 0.01)
        # Adam's powers are numbered by groups of weights that move together: the first is the cheapest mode's.
        assert {n: got[n] for n in wanted} == wanted
        assert {n for n in before if got[n] != before[n]} == set(mode.weights)
        still = [n for n in got if n not in before and n != "loss" and n not in wanted and not n.startswith("adam")]
        assert not any(any(got[n]) for n in still)
    assert len(rest) > len(before)


def test_adam_counts_the_steps_of_weights_that_a_cheap_mode_left_alone_from_their_first() -> None:
    """With one count for all, the first step of a deep mode behind many of a cheap one would be three times too long."""
    made, alone = grafted("har", "all", ("head",), "adam"), grafted("har", "all", (), "adam")
    interpreter, shapes = opened(made), tflite_file.contract(made.file)
    x, y = samples(shapes.x_shape, shapes.y_shape, made.loss)
    head, everything = (interpreter.get_signature_runner(m.signature) for m in made.modes)
    start = {n: w.astype(np.float64) for n, w in tflite_file.read_weights(made.file).items()}
    for _ in range(200):
        head(x=x, y=y, lr=np.float32(0))  # which counts, and moves nothing
    everything(x=x, y=y, lr=np.float32(0.001))
    got = {n: np.asarray(v) for n, v in interpreter.get_signature_runner("get_weights")().items()}
    wanted = trained(alone, "train", 1, 0.001)
    for name in set(made.modes[1].weights) - set(made.modes[0].weights):
        assert got[name].tobytes() == wanted[name], name
        assert np.abs(got[name] - start[name]).max() <= 0.0011


def test_features_follow_the_weights_that_a_deeper_mode_has_moved() -> None:
    made = grafted("har", "all", ("head",))
    interpreter, shapes = opened(made), tflite_file.contract(made.file)
    x, y = samples(shapes.x_shape, shapes.y_shape, made.loss)
    features, infer = (interpreter.get_signature_runner(n) for n in ("features", "infer"))
    assert made.output_head == HeadNotes((("head_kernel", "head_bias"),), "", "softmax", 64)
    seen = []
    for _ in range(2):
        row = np.asarray(features(x=x[:1])["features"]).reshape(-1)
        weights = interpreter.get_signature_runner("get_weights")()
        z = weights["head_kernel"] @ row + weights["head_bias"]
        np.testing.assert_allclose(infer(x=x[:1])["output"][0], np.exp(z - z.max()) / np.exp(z - z.max()).sum(), rtol=1e-5)
        seen.append(row)
        interpreter.get_signature_runner("train")(x=x, y=y, lr=np.float32(0.01))
    assert not (seen[0] == seen[1]).all()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_file_opens_and_its_notes_say_what_it_holds(optimizer: str) -> None:
    made = grafted("har", "all", ("last:2", "head", "last:4", "last:1"), optimizer)
    found = notes_of(made.file)
    assert [(m.name, m.signature) for m in found.modes] == [("head", "train_head"), ("last:2", "train_last_2"), ("all", "train")]
    assert found == Notes(made.modes, made.output_head, optimizer, "ce", False)
    assert found.modes[-1].weights == tuple(v.name for v in tflite_file.read_variables(made.file))
    assert found.mode("last:2") == found.modes[1] and found.mode("last:3") is None
    assert not runtime().open(made.file, model="har").fallback


HEADS = [
    ("binary", "head", 1, 5), ("half", "head", 1, 18), ("depthwise", "head", 1, 8), ("har", "last:2", 2, 576),
    ("softmax_inside", "head", 1, 6), ("gru", "head", 1, 16), ("iris_landmark", "head", 1, 512), ("sine_float", "last:2", 2, 16),
]  # fmt: skip


@pytest.mark.parametrize(("name", "train", "count", "features"), HEADS)
def test_what_the_notes_call_a_head_gives_the_models_output_from_the_features(name: str, train: str, count: int, features: int) -> None:
    made = grafted(name, train)
    assert made.output_head is not None and (len(made.output_head.layers), made.output_head.features) == (count, features)
    interpreter, shapes = opened(made), tflite_file.contract(made.file)
    weights = {n: w.astype(np.float64) for n, w in tflite_file.read_weights(made.file).items()}
    for x in samples(shapes.x_shape, shapes.y_shape, made.loss)[0]:
        row = np.asarray(interpreter.get_signature_runner("features")(x=x[None])["features"], np.float64).reshape(-1)
        for i, (matrix, biases) in enumerate(made.output_head.layers):
            row = weights[matrix].reshape(len(weights[biases]), -1) @ row + weights[biases]
            if i + 1 < count:
                assert made.output_head.activation == "relu"
                row = np.maximum(row, 0)
        softmax = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        wanted = {"softmax": softmax, "logistic": 1 / (1 + np.exp(-row)), "mse": row}[made.output_head.loss]
        got = np.asarray(interpreter.get_signature_runner("infer")(x=x[None])["output"]).reshape(-1)
        assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(("name", "train"), [("regression", "head"), ("autoencoder", "head"), ("mobilenet", "last:3"), ("har", "last:3")])
def test_layers_that_see_more_than_one_row_of_a_sample_or_convolve_are_no_head(name: str, train: str) -> None:
    assert grafted(name, train).output_head is None


def test_a_mode_that_trains_more_than_the_deepest_is_refused() -> None:
    with pytest.raises(BadArgument, match=r"the mode 'last:2' trains 'hidden_bias', which --train head does not"):
        grafted("har", "head", ("last:2",))


def renoted(file: bytes, **changed: object) -> bytes:
    """Return a file whose notes say something else, as long as they were."""
    m = parse(file)
    (buffer,) = [b for name, b in m.metadata if name == ENTRY]
    offset, size = m.buffers[buffer]
    said = {k: v for k, v in {**json.loads(file[offset : offset + size]), **changed}.items() if k not in ("weights", "stock_sha256")}
    raw = json.dumps(said, separators=(",", ":")).encode()
    assert len(raw) <= size
    return file[:offset] + raw.ljust(size) + file[offset + size :]


def test_notes_that_the_file_does_not_bear_out_are_refused() -> None:
    made = grafted("har", "all", ("head", "last:2"))
    modes = [{"name": m.name, "signature": m.signature, "weights": list(m.weights)} for m in made.modes]
    head = {"layers": [["head_kernel", "head_bias"]], "activation": "", "loss": "softmax", "features": 64}
    assert notes_of(renoted(made.file)) == notes_of(made.file)
    wrong: list[tuple[dict[str, object], str]] = [
        ({"modes": modes[:2]}, "last mode whose signature is not 'train'"),
        ({"modes": []}, "list no modes"),
        ({"modes": [{}] * 17}, "list no modes, or more than 16"),
        ({"modes": "all"}, "list no modes"),
        ({"modes": [modes[0], modes[0], modes[2]]}, "a mode twice"),
        ({"modes": [{**modes[0], "weights": ["head_bias"]}, modes[2]]}, "other weights for the mode 'head'"),
        ({"modes": [{**modes[0], "signature": "train_tail"}, modes[2]]}, "none of the file's that train"),
        ({"modes": [{**modes[0], "signature": 7}, modes[2]]}, "without name, signature and weights"),
        ({"modes": [{**modes[0], "name": "a\nb"}, modes[2]]}, "call a mode"),
        ({"modes": [[], modes[2]]}, "without name, signature and weights"),
        ({"head": {**head, "features": 65}}, "other features"),
        ({"head": {**head, "features": True}}, "other features"),
        ({"head": {**head, "activation": "relu"}}, "not known"),
        ({"head": {**head, "loss": ["softmax"]}}, "without loss and activation"),
        ({"head": {**head, "layers": [["head_bias", "head_kernel"]]}}, "are no layer on 64 inputs"),
        ({"head": {**head, "layers": [["hidden_kernel", "hidden_bias"]]}}, "other weights than the mode 'head'"),
        ({"head": {**head, "layers": [["head_kernel"]]}}, "pairs of weights"),
        ({"head": []}, "without layers"),
        ({"score": True}, "no signature score"),
        ({"score": 1}, "whether there is a score"),
        ({"optimizer": 3}, "no name as optimizer"),
    ]
    for changed, why in wrong:
        with pytest.raises(NotTrainable, match=why):
            notes_of(renoted(made.file, **changed))
    old = notes_of(renoted(made.file, contract=1))
    assert [(m.name, m.signature) for m in old.modes] == [("all", "train")] and old.head is None
    offset, size = next((o, n) for name, b in parse(made.file).metadata if name == ENTRY for o, n in [parse(made.file).buffers[b]])
    for raw in (b"[1]", b"not JSON", b"[" * 2000, b"\xff"):
        with pytest.raises(NotTrainable, match="no JSON object"):
            notes_of(made.file[:offset] + raw[:size].ljust(size) + made.file[offset + size :])


def test_damaged_notes_are_refused_or_read_never_followed() -> None:
    file = grafted("har", "all", ("head", "last:2")).file
    m = parse(file)
    (offset, size) = next(m.buffers[b] for name, b in m.metadata if name == ENTRY)
    rng = np.random.default_rng(8)
    tokens = [b'"', b"{", b"]", b",", b"null", b"1e999", b"-1", b"\\ud800", b"\x00", b"true", b"NaN"]
    refused = 0
    for i in range(300):
        bad, at = bytearray(file), offset + int(rng.integers(0, size - 8))
        token = tokens[i % len(tokens)]
        bad[at : at + len(token)] = token
        if i % 3 == 0:
            bad[int(rng.integers(0, len(bad)))] ^= 1 << int(rng.integers(0, 8))
        try:
            notes_of(bytes(bad))
        except ModelWireError:
            refused += 1
    assert 100 < refused <= 300


def test_every_signature_that_trains_is_held_to_the_contract() -> None:
    """A board calls them all alike: one that takes other names must be refused when it is opened, not in a round."""
    made = grafted("har", "all", ("head",))
    at = made.file.index(b"train_head\x00")
    other = made.file[:at] + b"trained_by" + made.file[at + 10 :]
    tflite_file.check_trainable(other)  # no signature of training any more, so of no interest
    with pytest.raises(NotTrainable, match="none of the file's that train"):
        notes_of(other)
    m = parse(made.file)
    taken = m.graphs[m.signatures["train_head"].graph].tensors[m.signatures["train_head"].inputs["lr"]]
    assert taken.shape == ()
