"""What tests of int8 classifiers share: their files, synthetic sounds, and what a runtime gives for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecommon.runtime import interpreter_for
from tests.stock import runtime


def outputs(file: bytes, clips: Sequence[NDArray[Any]], kind: str = "AUTO") -> list[NDArray[Any]]:
    """Return all outputs after the last frame of each clip [frames, ...], from a fresh interpreter a clip: state starts anew.

    kind: of kernels, as the runtime's OpResolverType names it.
    """
    out = []
    module = runtime().interpreter
    for clip in clips:
        if kind == "AUTO":
            interpreter = interpreter_for(module, file, delegates=True)
        else:
            interpreter = module.Interpreter(
                model_content=file, num_threads=1, experimental_op_resolver_type=getattr(module.OpResolverType, kind)
            )
            interpreter.allocate_tensors()
        for frame in clip:
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], frame[None])
            interpreter.invoke()
        out.append([interpreter.get_tensor(d["index"]).ravel().copy() for d in interpreter.get_output_details()])
    return [np.array(each) for each in zip(*out, strict=True)]


def clips_of(shape: tuple[int, ...], classes: int, count: int, frames: int = 1) -> tuple[list[NDArray[np.int8]], NDArray[np.int64]]:
    """Return noisy copies of one random clip for each class, as int8, and which class each is."""
    rng = np.random.default_rng(21)
    patterns = rng.normal(0, 50, (classes, frames, *shape))
    y = np.arange(count) % classes
    return [np.clip(patterns[k] + rng.normal(0, 25, patterns[k].shape), -128, 127).astype(np.int8) for k in y], y
