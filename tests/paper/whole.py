"""The rival in the same run: the whole model saved as float32, flushed to the disk, and read back; what MMlib's baseline does."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelwire.tflite.file import read_weights


@dataclass(frozen=True)
class Whole:
    """Medians over some turns."""

    size: int  # bytes
    save_s: float  # written and flushed
    recover_s: float  # read, and hashed as a proof


def measure(file: bytes, folder: Path, turns: int = 5) -> Whole:
    """Save and recover a model's weights as one flat file of float32. file: a trainable `.tflite`."""
    weights = b"".join(np.ascontiguousarray(w, np.float32).tobytes() for w in read_weights(file).values())
    path, saves, recovers = folder / "whole.bin", [], []
    wanted = hashlib.sha256(weights).digest()
    for _ in range(turns):
        began = time.perf_counter()
        with path.open("wb") as out:
            out.write(weights)
            out.flush()
            os.fsync(out.fileno())
        saves.append(time.perf_counter() - began)
        began = time.perf_counter()
        if hashlib.sha256(path.read_bytes()).digest() != wanted:
            raise AssertionError("the file came back as another")
        recovers.append(time.perf_counter() - began)
    path.unlink()
    return Whole(len(weights), float(np.median(saves)), float(np.median(recovers)))
