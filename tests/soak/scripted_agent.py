"""`edgeagent` with all that it has but the TFLite runtime: a step of training adds noise to the weights, so a round takes milliseconds.

    python -m tests.soak.scripted_agent run --dir DIR ...        as `edgeagent`, whatever the command

Command line, service, state folder, guard, snap, outbox, link and signals are those of the product.
"""

from __future__ import annotations

import sys
import zlib

from edgeagent.cli import main
from edgecommon import runtime
from tests.edgeagent.boards import ScriptedModel


class ScriptedRuntime:
    """Opens models whose training is noise, another one on each board."""

    def __init__(self, board: str) -> None:
        self._board = zlib.crc32(board.encode())

    def open(self, file: bytes, *, model: str, signature: str) -> ScriptedModel:
        opened = ScriptedModel(file)
        opened._seed ^= self._board
        return opened


if __name__ == "__main__":
    words = sys.argv[1:]
    folder = words[words.index("--dir") + 1] if "--dir" in words else ""
    runtime.load = lambda *_: ScriptedRuntime(folder)  # type: ignore[assignment,return-value]
    sys.exit(main(words))
