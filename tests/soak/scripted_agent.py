"""`edgeagent` with all that it has but the TFLite runtime: a step of training adds noise to the weights, so a round takes milliseconds.

    python -m tests.soak.scripted_agent run --dir DIR ...        as `edgeagent`, whatever the command

Command line, service, state folder, guard, snap, outbox, link and signals are those of the product.
"""

from __future__ import annotations

import sys
import zlib
from typing import Any

from edgeagent.cli import main
from edgeagent.service import opener
from tests.edgeagent.boards import ScriptedModel

if __name__ == "__main__":
    words = sys.argv[1:]
    board = zlib.crc32((words[words.index("--dir") + 1] if "--dir" in words else "").encode())

    def opened(file: bytes, **_: Any) -> ScriptedModel:
        """Return a model whose training is noise, another one on each board, in place of a process that runs one."""
        model = ScriptedModel(file)
        model._seed ^= board
        return model

    opener.ModelProcess = opened  # type: ignore[attr-defined]
    sys.exit(main(words))
