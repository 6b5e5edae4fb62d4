"""Makes a stock .tflite trainable on the board, without TensorFlow: looks at it, cuts it, writes the signatures that train it.

docs/trainable-models.md says what comes out. Nothing here knows of the registry.
"""

from __future__ import annotations

__all__ = [
    "costs", "fronts", "grafting", "inputs", "inspecting", "loss", "optimizers", "packing", "retraining", "stock", "weights", "writing",
]  # fmt: skip
