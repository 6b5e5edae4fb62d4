"""Opens the frozen part of a model for as long as its features are wanted: the file is mapped, two signatures run.

What it gives holds for the base's whole life, as long as nothing in front of the head is trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecommon import runtime
from edgecommon.files import mapped
from edgecommon.memory import give_back
from edgecommon.runtime import Runtime
from modelwire.errors import NotTrainable
from modelwire.tensors import F32
from modelwire.tflite import file as tflite_file
from modelwire.tflite.notes import HeadNotes

from .base_file import featured_notes


class Extractor:
    """A base file whose features are wanted. Not safe for use from two threads."""

    def __init__(self, installed: Runtime, file: Path, *, model: str) -> None:
        """Raises NotTrainable when the file has no head on features, or no setting of this runtime runs it."""
        notes, self.batch = featured_notes(file, model)
        assert notes.head is not None  # `featured_notes` has seen to it
        self.model, self.head = model, notes.head
        self._runtime, self._file = installed, file
        self._interpreter: Any = None
        self._runners: dict[str, Any] = {}
        with mapped(file) as data:
            x_shape = tflite_file.contract(data, model=model).x_shape
        failed: list[str] = []
        for delegates in (True, False):
            self._runners, self._interpreter = {}, None  # one that failed goes first
            give_back()
            try:
                self._interpreter = runtime.interpreter_for(installed.interpreter, file, delegates=delegates)
                self.features(np.zeros(x_shape, np.float32))
                return
            except runtime.FAILURES as e:
                failed.append(" ".join(str(e).split()))
        raise NotTrainable(model=model, reason=f"{installed.package} {installed.version} can't run it: {failed[-1][:300]}")

    head: HeadNotes
    batch: int  # samples of one step, as the file has it

    @property
    def runtime_key(self) -> str:
        """What must be equal for the same sample to give the same features."""
        return self._runtime.key(runtime.delegate_of(self._interpreter))

    def features(self, x: F32) -> F32:
        """Return the features of one sample, flat."""
        return np.array(self._run("features", x)["features"], np.float32).reshape(-1)

    def answer(self, x: F32) -> F32:
        """Return what the base itself answers to one sample, flat. By `infer`: `eval` is the same for a batch, and takes its memory."""
        return np.array(self._run("infer", x)["output"], np.float32).reshape(-1)

    def _run(self, signature: str, x: F32) -> Any:
        runner = self._runners.get(signature)
        if runner is None:
            runner = self._runners[signature] = self._interpreter.get_signature_runner(signature)
        return runner(x=np.ascontiguousarray(x, np.float32)[None])
