"""Keras models become trainable files that compute what they do, gradients included. Needs TensorFlow."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgecloud import cli
from edgecloud.author import CLOSE, author
from edgecloud.graft.grafting import Wish
from edgecommon.runtime import interpreter_for
from modelwire.errors import BadArgument, MissingFile, NotTrainable
from modelwire.tflite import file as tflite_file
from modelwire.tflite.notes import notes_of

DOCS = Path(__file__).parents[2] / "docs"
tf = pytest.importorskip("tensorflow", reason="tensorflow-cpu is not installed: pip install 'edgeagent[author]'")
keras = tf.keras
kl = keras.layers


@pytest.fixture(autouse=True)
def seeded() -> None:
    keras.utils.set_random_seed(5)


def opened(file: bytes, *, delegates: bool = False) -> Any:
    lite = SimpleNamespace(Interpreter=tf.lite.Interpreter, OpResolverType=tf.lite.experimental.OpResolverType)
    return interpreter_for(lite, file, delegates=delegates)


def walks() -> Any:
    x = keras.Input((40, 3))
    y = kl.MaxPooling1D(2)(kl.Conv1D(8, 5, activation="relu", name="conv")(x))
    y = kl.Dense(16, activation="relu", name="hidden")(kl.Flatten()(y))
    return keras.Model(x, kl.Dense(4, activation="softmax", name="head")(y))


def folded() -> Any:
    """A net with batch-norm, whose statistics are not those that it starts with."""
    x = keras.Input((16, 16, 3))
    y = kl.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="conv")(x)
    y = kl.ReLU()(kl.BatchNormalization()(y))
    y = kl.DepthwiseConv2D(3, padding="same", use_bias=False, name="depth")(y)
    y = kl.ReLU(6.0)(kl.BatchNormalization()(y))
    net = keras.Model(x, kl.Dense(3, activation="softmax", name="head")(kl.GlobalAveragePooling2D()(y)))
    rng = np.random.default_rng(2)
    net.set_weights([rng.uniform(0.3, 1.2, w.shape) if w.min() == w.max() else w for w in net.get_weights()])
    return net


def recurrent(layer: Any) -> Any:
    x = keras.Input((12, 4))
    return keras.Model(x, kl.Dense(3, activation="softmax", name="head")(layer(x)))


MODELS = {
    "walks": walks,
    "folded": folded,
    "gru": lambda: recurrent(kl.GRU(8, name="gru")),
    "lstm": lambda: recurrent(kl.LSTM(6, name="lstm")),
    "both ways": lambda: recurrent(kl.Bidirectional(kl.GRU(5), name="both")),
    "sequential": lambda: keras.Sequential([keras.Input((9,)), kl.Dense(7, activation="tanh"), kl.Dropout(0.5), kl.Dense(2)]),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_file_computes_what_the_model_does_and_trains(name: str) -> None:
    model = MODELS[name]()
    made = author(model, Wish(train=("all",), modes=("head",), optimizer="momentum", batch=6))
    assert made.difference <= CLOSE
    tflite_file.check_trainable(made.file)
    assert [m.name for m in notes_of(made.file).modes] == ["head", "all"]
    interpreter, fixed = opened(made.file), tflite_file.contract(made.file)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6, *fixed.x_shape)).astype(np.float32)
    y = np.eye(fixed.classes, dtype=np.float32)[rng.integers(0, fixed.classes, 6)]
    expected = model(x, training=False).numpy()
    infer = interpreter.get_signature_runner("infer")
    got = np.concatenate([infer(x=one[None])["output"] for one in x])
    assert np.abs(got - expected).max() <= CLOSE * np.abs(expected).max()
    train = interpreter.get_signature_runner("train")
    losses = [float(np.asarray(train(x=x, y=y, lr=np.float32(0.02))["loss"]).reshape(())) for _ in range(30)]
    assert losses[-1] < 0.9 * losses[0]


def test_the_gradients_are_those_of_the_keras_model() -> None:
    model = walks()
    made = author(model, Wish(train=("all",), optimizer="momentum", batch=6))
    rng = np.random.default_rng(3)
    x = rng.standard_normal((6, 40, 3)).astype(np.float32)
    y = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 6)]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.categorical_crossentropy(y, model(x, training=False)))
    wanted = tape.gradient(loss, model.trainable_weights)
    interpreter = opened(made.file)
    got = interpreter.get_signature_runner("train")(x=x, y=y, lr=np.float32(0))["loss"]
    assert float(np.asarray(got).reshape(())) == pytest.approx(float(loss), rel=1e-5)
    slots = interpreter.get_signature_runner("get_state")()
    for weight, gradient in zip(model.trainable_weights, wanted, strict=True):
        layer, part = weight.path.split("/")[-2:]
        ours, theirs = slots[f"{layer}_{part}_momentum"], gradient.numpy()
        if part == "kernel":  # the file has the outputs first
            theirs = np.moveaxis(theirs, -1, 0)
        assert np.abs(ours.reshape(theirs.shape) - theirs).max() <= 1e-5 * np.abs(theirs).max(), weight.path


def test_biases_of_a_fresh_model_are_there_to_be_trained_and_zero() -> None:
    """The converter leaves a bias of zeros out."""
    model = walks()
    made = author(model, Wish(train=("all",), modes=("head",), batch=2))
    weights = tflite_file.read_weights(made.file)
    biases = {name for name in weights if name.endswith("_bias")}
    assert biases == {"conv_bias", "hidden_bias", "head_bias"} and not any(weights[name].any() for name in biases)
    assert not any(w.numpy().any() for w in model.weights if w.name == "bias")
    found = notes_of(made.file).head
    assert found is not None and (found.layers, found.features) == ((("head_kernel", "head_bias"),), 16)


def test_files_of_each_kind_and_the_object_give_the_same(tmp_path: Path) -> None:
    model = walks()
    model.save(tmp_path / "walks.keras")
    model.save(tmp_path / "walks.h5")
    model.export(tmp_path / "walks", verbose=False)
    wish = Wish(train=("last:2",), batch=4)
    x = np.random.default_rng(4).standard_normal((1, 40, 3)).astype(np.float32)
    outputs = {}
    for kind in (model, tmp_path / "walks.keras", str(tmp_path / "walks.h5"), tmp_path / "walks"):
        made = author(kind, wish)
        assert [layer.name for layer in made.grafted.layers] == ["hidden", "head"]
        outputs[str(kind)] = opened(made.file).get_signature_runner("infer")(x=x)["output"].tobytes()
    assert len(set(outputs.values())) == 1


def test_the_layers_of_a_model_are_left_as_they_were() -> None:
    model = MODELS["gru"]()
    author(model, Wish(batch=2))
    assert [layer.unroll for layer in model.layers if hasattr(layer, "unroll")] == [False]


def test_one_of_several_outputs_is_trained_by_its_name() -> None:
    x = keras.Input((5,))
    hidden = kl.Dense(4, activation="relu", name="hidden")(x)
    model = keras.Model(x, {"kind": kl.Dense(3, activation="softmax", name="kind")(hidden), "size": kl.Dense(1, name="size")(hidden)})
    assert tflite_file.contract(author(model, Wish(output="size", batch=2)).file).y_shape == (1,)
    assert tflite_file.contract(author(model, Wish(output="kind", batch=2)).file).y_shape == (3,)
    with pytest.raises(BadArgument, match="no output is called 'sort'") as refused:
        author(model, Wish(output="sort"))
    assert refused.value.facts["fix"] == "name one of: kind, size"
    made = author(model, Wish(output="size", batch=2))  # whose other output is there still
    outputs = opened(made.file).get_signature_runner("infer")(x=np.ones((1, 5), np.float32))
    assert sorted(np.asarray(v).shape for v in outputs.values()) == [(1, 1), (1, 3)]


def test_what_cannot_be_converted_is_told_by_name(tmp_path: Path) -> None:
    x = keras.Input((None, 3))
    with pytest.raises(BadArgument, match=r"shape \[None, 3\]; every axis must have a size"):
        author(keras.Model(x, kl.GlobalAveragePooling1D()(x)), Wish())
    two = [keras.Input((3,)), keras.Input((3,))]
    with pytest.raises(NotTrainable, match="takes 2 inputs"):
        author(keras.Model(two, kl.Add()(two)), Wish())
    stateful = keras.Sequential([keras.Input((12, 4), batch_size=1), kl.GRU(3, stateful=True, name="memory"), kl.Dense(2)])
    with pytest.raises(NotTrainable, match="'memory' keeps state"):
        author(stateful, Wish())
    with pytest.raises(MissingFile):
        author(tmp_path / "absent.keras", Wish())
    (tmp_path / "none.keras").write_bytes(b"no zip")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none.keras", tmp_path / "empty"):
        with pytest.raises(BadArgument, match="can't be read as a Keras model"):
            author(path, Wish())


def test_recurrent_layers_of_a_file_are_unrolled_too(tmp_path: Path) -> None:
    MODELS["gru"]().save(tmp_path / "gru.keras")
    assert author(tmp_path / "gru.keras", Wish(train=("all",), batch=2)).difference <= CLOSE


def test_an_auto_encoder_scores_and_a_class_is_added() -> None:
    x = keras.Input((20,))
    coded = kl.Dense(4, activation="tanh", name="coded")(x)
    made = author(keras.Model(x, kl.Dense(20, name="back")(coded)), Wish(train=("all",), loss="mse", score=True, batch=4))
    assert notes_of(made.file).score
    assert tflite_file.contract(author(walks(), Wish(add_classes=("limping",), batch=4)).file).classes == 5


def test_the_command_and_the_page_work_as_they_stand(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    walks().save(tmp_path / "walks.keras")
    out = tmp_path / "walks.tflite"
    assert cli.main(["author", str(tmp_path / "walks.keras"), "--modes", "head", "--train", "all", "-o", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["difference"] <= CLOSE and [m["mode"] for m in said["modes"]] == ["head", "all"]
    assert said["bytes"] == out.stat().st_size
    (block,) = re.findall(r"^```python author\n(.*?)^```", (DOCS / "trainable-models.md").read_text(), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs/trainable-models.md", "exec"), {})
    promised = re.findall(r"^print\(.*\)  # (.*)$", block, re.M)
    assert capsys.readouterr().out.splitlines() == promised


def test_without_tensorflow_the_command_says_how_to_get_it(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(BadArgument, match="TensorFlow, which can't be imported here") as refused:
        author("model.keras", Wish())
    assert "pip install 'edgeagent[author]'" in str(refused.value.facts["fix"])
