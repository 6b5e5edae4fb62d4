"""Makes tests/models/own/{digits,digits_int8}.tflite: a person's first Keras model, converted as the first hour shows it.

Not needed at run time: the files are committed. Run with tensorflow-cpu 2.21 from the repository's root:
    PYTHONPATH=. python tests/models/author_own.py
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np
import tensorflow as tf

FOLDER = Path(__file__).parent
OUT = FOLDER / "own"


def main() -> None:
    data = np.load(FOLDER / "data" / "digits.npz")
    images, labels = (data["train_x"][..., None] / 16).astype(np.float32), data["train_y"]
    keras.utils.set_random_seed(7)
    model = keras.Sequential([
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(16, 3, activation="relu", padding="same"), keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(24, 3, activation="relu"), keras.layers.Flatten(),
        keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10, activation="softmax"),
    ])  # fmt: skip
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, epochs=25, verbose=0)
    test = (data["test_x"][..., None] / 16).astype(np.float32)
    print(f"accuracy on other writers: {model.evaluate(test, data['test_y'], verbose=0)[1]:.3f}")
    OUT.mkdir(exist_ok=True)

    # What the first hour shows: the float file, and the int8 file.
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (OUT / "digits.tflite").write_bytes(converter.convert())

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images[:200])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    (OUT / "digits_int8.tflite").write_bytes(converter.convert())
    for path in sorted(OUT.glob("*.tflite")):
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
