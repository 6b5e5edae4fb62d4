"""Makes the stock, inference-only .tflite files of tests/models/stories, trained with Keras: what the stories' devices start from.

Not needed at run time: the files are committed. Run with tensorflow-cpu 2.21 from the repository's root:
    PYTHONPATH=. python tests/models/author_stories.py           all files
    PYTHONPATH=. python tests/models/author_stories.py har       one of them
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from tests.stories import cameras, shuttle, vibration, wearers

OUT = Path(__file__).parent / "stories"
# The sensor's units to about one, m/s^2 and then rad/s, as one convolution without a bias would have to learn it.
MOTION_SCALE = [0.1, 0.1, 0.1, 0.3, 0.3, 0.3]


def net(shape: tuple[int, ...], build: Callable[[Any], Any]) -> Any:
    x = keras.Input(shape, batch_size=None)
    return keras.Model(x, build(x))


def fit(model: Any, x: Any, y: Any, *, loss: str, epochs: int, rate: float, batch: int = 32) -> Any:
    steps = epochs * (len(x) // batch)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(keras.optimizers.Adam(schedule), loss)
    model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0)
    return model


def convert(model: Any) -> bytes:
    """Return the file as the converter makes it of a model for one sample, with no training in it."""
    one = keras.Input((*model.input_shape[1:],), batch_size=1)
    return bytes(tf.lite.TFLiteConverter.from_keras_model(keras.Model(one, model(one))).convert())


def har() -> bytes:
    """Two convolutions along time and two dense layers, on wearers who wear the watch as it was recorded."""

    def build(x: Any) -> Any:
        x = kl.Rescaling(MOTION_SCALE)(x)
        x = kl.MaxPooling1D(2)(kl.Conv1D(24, 5, activation="relu", name="conv1")(x))
        x = kl.AveragePooling1D(4)(kl.Conv1D(32, 5, activation="relu", name="conv2")(x))
        x = kl.Dense(48, activation="relu", name="hidden")(kl.Flatten()(x))
        return kl.Dense(len(wearers.ACTIVITIES), activation="softmax", name="head")(x)

    people = [wearers.usual(seed) for seed in range(24)]
    seen = [one.stream(0, 80) for one in people]
    x, y = np.concatenate([s[0] for s in seen]), np.concatenate([s[1] for s in seen])
    model = fit(net((wearers.STEPS, 6), build), x, y, loss="sparse_categorical_crossentropy", epochs=25, rate=2e-3)
    test_x, test_y = wearers.usual(99).held_out()
    say("har", accuracy(model, test_x, test_y), "on a wearer like those")
    for person in wearers.PERSONS:
        say("har", accuracy(model, *person.held_out()), f"on {person.name}, {person.how}")
    return convert(model)


def turbine() -> bytes:
    """A dense auto-encoder of spectra, on healthy machines of the test hall."""
    rng = np.random.default_rng(5)
    x = np.concatenate([vibration.reference(seed).healthy(rng, 800) for seed in range(6)])
    model = fit(autoencoder(vibration.BANDS, 32, 6), x, x, loss="mse", epochs=60, rate=2e-3)
    say("turbine", squared(model, vibration.reference(99).healthy(rng, 500)), "mean squared error on a machine of the hall")
    say("turbine", squared(model, vibration.turbine("one", 1).healthy(rng, 500)), "on one in the field")
    return convert(model)


def river() -> bytes:
    """A dense auto-encoder of eight sensors, on the early part of the flights."""
    x = shuttle.readings("early")
    model = fit(autoencoder(shuttle.SENSORS, 16, 3), x, x, loss="mse", epochs=60, rate=3e-3)
    say("shuttle", squared(model, x), "mean squared error on early readings")
    say("shuttle", squared(model, shuttle.readings("late")), "on late ones")
    return convert(model)


def camera() -> bytes:
    """Three convolutions and two dense layers, on digits by day from the front."""

    def build(x: Any) -> Any:
        for filters in (12, 24, 32):
            x = kl.Conv2D(filters, 3, strides=2, padding="same", activation="relu", name=f"conv{filters}")(x)
        x = kl.Dense(48, activation="relu", name="hidden")(kl.Flatten()(x))
        return kl.Dense(10, activation="softmax", name="head")(x)

    x, y = (np.concatenate(side) for side in zip(*(cameras.FRONT.stream(r, 1200, "day") for r in range(6)), strict=True))
    model = fit(net((cameras.SIZE, cameras.SIZE, 1), build), x, y, loss="sparse_categorical_crossentropy", epochs=20, rate=2e-3)
    for place, light in ((cameras.FRONT, "day"), (cameras.PORCH, "night"), (cameras.ATTIC, "backlit"), (cameras.CELLAR, "day")):
        say("camera", accuracy(model, *place.held_out(light)), f"held out, {place.name}, {light}")
    return convert(model)


def autoencoder(width: int, hidden: int, inside: int) -> Any:
    def build(x: Any) -> Any:
        x = kl.Dense(hidden, activation="tanh", name="down1")(x)
        x = kl.Dense(inside, name="down2")(x)
        x = kl.Dense(hidden, activation="tanh", name="up1")(x)
        return kl.Dense(width, name="up2")(x)

    return net((width,), build)


def accuracy(model: Any, x: Any, y: Any) -> float:
    return float((model.predict(x, verbose=0).argmax(1) == y).mean())


def squared(model: Any, x: Any) -> float:
    return float(((model.predict(x, verbose=0) - x) ** 2).mean())


def say(name: str, figure: float, what: str) -> None:
    print(f"{name}: {figure:.4f} {what}", flush=True)


def main(wanted: list[str]) -> None:
    OUT.mkdir(exist_ok=True)
    for seed, (name, make) in enumerate({"har": har, "turbine": turbine, "shuttle": river, "camera": camera}.items()):
        if wanted and name not in wanted:
            continue
        keras.utils.set_random_seed(40 + seed)
        file = make()
        (OUT / f"{name}.tflite").write_bytes(file)
        print(f"{name}.tflite: {len(file)} bytes", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
