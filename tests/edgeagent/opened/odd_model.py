"""A process that runs a scripted model in the place of a runtime's, and goes wrong as the model's name says."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from edgeagent.opened import child
from edgeagent.training.batches import Trainable
from modelwire.errors import NotTrainable
from modelwire.tensors import F32, Weights
from tests.edgeagent.boards import ScriptedModel


class Odd(ScriptedModel):
    """It does so at its third step."""

    way = ""
    trained = 0

    def train(self, x: F32, y: F32, lr: float) -> float:
        self.trained += 1
        if self.trained == 3:
            self.go_wrong()
        return super().train(x, y, lr)

    def go_wrong(self) -> None:
        if self.way == "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif self.way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.way == "leaves":
            os._exit(3)
        elif self.way == "fails":
            raise RuntimeError("no kernel for SUM")
        elif self.way == "fills":
            raise MemoryError
        elif self.way == "hangs":
            time.sleep(3600)
        elif self.way == "babbles":
            os.write(4, b"\xff" * 64)

    def get_weights(self) -> Weights:
        if self.way == "shrinks":
            return {name: w[:1] for name, w in super().get_weights().items()}
        return super().get_weights()

    def evaluate(self, x: F32) -> F32:
        return np.zeros((len(x), 10**6), np.float32) if self.way == "swells" else super().evaluate(x)


def open_model(file: bytes, name: str) -> Trainable:
    if name == "refused":
        raise NotTrainable(model=name, reason="its file says so")
    made = Odd(file)
    made.way = name
    return made


def once_killed(file: bytes, name: str) -> Trainable:
    """Open a model whose process is killed at its third step, the first time that the folder of the file's name is asked."""
    made = Odd(file)
    mark = Path(os.environ["ODD_MODEL_MARK"])
    if not mark.exists():
        mark.touch()
        made.way = "killed"
    return made


if __name__ == "__main__":
    sys.exit(child.main(sys.argv[1:], once_killed if "ODD_MODEL_MARK" in os.environ else open_model))
