"""What libraries in C++ write to standard error by themselves: their chatter is left out, and every other line comes through."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CHATTER = re.compile(rb"(INFO|VERBOSE|WARNING): ")  # as TFLite's own logger begins a line; no log line of ours begins so
_one_at_a_time = threading.Lock()  # there is one standard error for all threads


@contextmanager
def without_chatter() -> Iterator[None]:
    """Leave out lines of chatter that are written within the block, and write all others when it ends; all of them when it fails.

    They are lost with the process when that crashes within the block: keep it short.
    """
    with _one_at_a_time:
        try:
            own, held = os.dup(2), os.memfd_create("stderr")
        except (OSError, AttributeError):  # no standard error, or a system without files in memory: the lines stay
            yield
            return
        whole = True
        try:
            os.dup2(held, 2)
            yield
            whole = False
        finally:
            os.dup2(own, 2)
            os.close(own)
            _write(held, whole=whole)


def _write(held: int, *, whole: bool) -> None:
    with os.fdopen(held, "rb") as file:
        file.seek(0)
        said = b"".join(line for line in file if whole or CHATTER.match(line) is None)
    try:
        while said:
            said = said[os.write(2, said) :]
    except OSError:  # who listened is gone; Python's own standard error says so when it matters
        return
