"""Runs one `edgeagent` command in this process and prints the most memory, in bytes, that it ever held with one that ran a model for it."""

from __future__ import annotations

import sys

from edgeagent.board.sensors import Sensors
from edgeagent.cli import main
from edgeagent.service.opener import Opener

if __name__ == "__main__":
    openers: list[Opener] = []
    make = Opener.__init__

    def noted(self: Opener, device: object) -> None:
        openers.append(self)
        make(self, device)  # type: ignore[arg-type]

    Opener.__init__ = noted  # type: ignore[method-assign]
    code = main(sys.argv[1:])
    print(f"peak {max(Sensors().peak(), *(opener.most for opener in openers), 0)}", file=sys.stderr)
    sys.exit(code)
