"""Runs one `edgeagent` command in this process and prints the most resident memory that it ever held, in bytes."""

from __future__ import annotations

import sys

from edgeagent.board.sensors import Sensors
from edgeagent.cli import main

if __name__ == "__main__":
    code = main(sys.argv[1:])
    print(f"peak {Sensors().peak()}", file=sys.stderr)
    sys.exit(code)
