"""A static file server as a process of its own: python -m tests.edgeagent.fetching.serving_child FOLDER PORT LOG SECONDS

Each range that is asked of a `.tflite` is a line of LOG, its first byte, before anything is sent; SECONDS pass before each answer, so that
a kill finds it at work.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

from .servers import Request, files, serving


def main(folder: Path, port: int, log: Path, seconds: float) -> None:
    known = files({f"/{file.name}": file.read_bytes() for file in folder.iterdir()})
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def answer(connection: socket.socket, request: Request) -> bool:
        if request.range is not None and request.path.endswith(".tflite"):
            os.write(handle, b"%d\n" % request.range[0])
        time.sleep(seconds)
        return known(connection, request)

    with serving(answer, port):
        print("up", flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
