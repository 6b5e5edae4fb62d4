"""The process that runs a model: it loads the runtime, does what it is asked one thing at a time, and ends when nobody listens."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeagent.system.children import end_with, go_first
from edgecommon.memory import give_back
from modelwire.errors import ModelWireError

from .frames import Frames

Given = Mapping[str, NDArray[Any]]
Answer = tuple[dict[str, Any], Given]
_PEAK_ANEW = "5"  # what proc(5) takes in clear_refs to count the most memory from here on


def serve(talk: Frames, open_model: Callable[[bytes, str], Any]) -> None:
    """Do what is asked until the other side ends. The first thing that is asked for is the model."""
    model: Any = None
    while True:
        try:
            said, given = talk.receive()
        except EOFError:
            return
        try:
            if said["call"] == "open":
                model = open_model(given["file"].tobytes(), str(said["model"]))
                given = {}
                answer: Answer = _about(model), {}
                give_back(code=True)
            else:
                answer = CALLS[said["call"]](model, said, given)
            talk.send(*answer)
        except ModelWireError as e:
            facts = {key: value if isinstance(value, (int, float)) else str(value) for key, value in e.facts.items()}
            talk.send({"error": type(e).__name__, "facts": facts})
        except (RuntimeError, ValueError, SystemError, MemoryError, TypeError, LookupError) as e:  # what runtimes raise
            talk.send({"error": "", "said": f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"})


def _about(model: Any) -> dict[str, Any]:
    return {"key": model.runtime_key, "whole": model.state_is_whole}


def _use(model: Any, said: Mapping[str, Any], given: Given) -> Answer:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_PEAK_ANEW)
    model.use(str(said["signature"]))
    return _about(model), {}


def _train(model: Any, said: Mapping[str, Any], given: Given) -> Answer:
    return {"loss": model.train(given["x"], given["y"], said["lr"])}, {}


def _evaluate(model: Any, said: Mapping[str, Any], given: Given) -> Answer:
    return {}, {"output": model.evaluate(given["x"])}


def _get_weights(model: Any, said: Mapping[str, Any], given: Given) -> Answer:
    return {}, model.get_weights()


def _set_weights(model: Any, said: Mapping[str, Any], given: Given) -> Answer:
    model.set_weights(given)
    return {}, {}


def _get_state(model: Any, said: Mapping[str, Any], given: Given) -> Answer:
    return {}, model.get_state()


def _set_state(model: Any, said: Mapping[str, Any], given: Given) -> Answer:
    model.set_state(given)
    return {}, {}


CALLS: Mapping[str, Callable[[Any, Mapping[str, Any], Given], Answer]] = {
    "use": _use, "train": _train, "evaluate": _evaluate, "get_weights": _get_weights, "set_weights": _set_weights,
    "get_state": _get_state, "set_state": _set_state,
}  # fmt: skip


def opened_by_runtime(file: bytes, name: str) -> Any:
    """Return the model, opened by the runtime of this machine. Raises RuntimeUnusable or NotTrainable."""
    from edgecommon import runtime

    return runtime.load().open(file, model=name, signature="")


def main(words: Sequence[str], open_model: Callable[[bytes, str], Any] = opened_by_runtime) -> int:
    """Serve the process that started this one. words: its id."""
    end_with(int(words[0]))
    go_first()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the agent's to answer; it asks for what it wants to keep
    incoming, outgoing = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # whatever a library prints is none of our words
    with contextlib.suppress(BrokenPipeError):
        serve(Frames(incoming, outgoing), open_model)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
