"""Opens the frozen part of a model for as long as its features are wanted: the file is mapped, two signatures run, nothing is kept.

What it gives holds for the base's whole life, as long as nothing in front of the head is trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np

from modelwire import notes, tflite_file
from modelwire.errors import NotTrainable
from modelwire.notes import Notes
from modelwire.tensors import F32

from . import runtime
from .runtime import Runtime


class Extractor:
    """A base file whose features are wanted. Not safe for use from two threads."""

    def __init__(self, found: Runtime, file: Path, *, model: str) -> None:
        """Raises NotTrainable when the file has no head on features, or no setting of this runtime runs it."""
        self.model = model
        self._found, self._file = found, file
        self._interpreter: Any = None
        self._runners: dict[str, Any] = {}
        with mapped(file) as data:
            tflite_file.check_trainable(data, model=model)
            self.notes: Notes = notes.notes_of(data, model=model)
            shapes = tflite_file.contract(data, model=model)
        self._x_shape, self._batch = shapes.x_shape, shapes.batch
        head = self.notes.head
        if head is None:
            raise NotTrainable(model=model, reason="mode features: the file says of no head that it stands on features")
        if self.notes.score:
            raise NotTrainable(model=model, reason="mode features: its threshold of anomalies is found with the whole model")
        self.width = head.features
        failed: list[str] = []
        for delegates in (True, False):
            try:
                self._open(delegates)
                self.features(np.zeros(self._x_shape, np.float32))
                return
            except runtime.FAILURES as e:
                failed.append(" ".join(str(e).split()))
        raise NotTrainable(model=model, reason=f"{found.package} {found.version} can't run it: {failed[-1][:300]}")

    @property
    def runtime_key(self) -> str:
        """What must be equal for the same sample to give the same features."""
        return self._found.key(runtime.delegate_of(self._interpreter))

    def features(self, x: F32) -> F32:
        """Return the features of one sample, flat."""
        return np.array(self._run("features", x)["features"], np.float32).reshape(-1)

    @property
    def batch(self) -> int:
        """Samples of one step, as the file has it."""
        return self._batch

    def answer(self, x: F32) -> F32:
        """Return what the base itself answers to one sample, flat. By `infer`: `eval` is the same for a batch, and takes its memory."""
        return np.array(self._run("infer", x)["output"], np.float32).reshape(-1)

    @contextmanager
    def mapped(self) -> Iterator[memoryview]:
        """Map the file for reading."""
        with mapped(self._file) as data:
            yield data

    def close(self) -> None:
        """Give the interpreter's memory back."""
        self._runners, self._interpreter = {}, None

    def _open(self, delegates: bool) -> None:
        self.close()  # one that failed goes first
        self._interpreter = runtime.interpreter_for(self._found.interpreter, self._file, delegates=delegates)

    def _run(self, signature: str, x: F32) -> Any:
        runner = self._runners.get(signature)
        if runner is None:
            runner = self._runners[signature] = self._interpreter.get_signature_runner(signature)
        return runner(x=np.ascontiguousarray(x, np.float32)[None])


@contextmanager
def mapped(file: Path) -> Iterator[memoryview]:
    """Map a file for reading: what is looked at takes memory, not the whole."""
    with file.open("rb") as f, mmap(f.fileno(), 0, access=ACCESS_READ) as data, memoryview(data) as view:
        yield view
