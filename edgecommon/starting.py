"""Ctrl-C while a program still loads: it ends at once and says nothing, as nothing has been done. Loads nothing itself."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130


@contextmanager
def quietly() -> Iterator[None]:
    """End the process with 130 at Ctrl-C within the block. For the command line alone: an import that is cut off raises anything."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield  # ignored in the background of a script, or taken by who calls
        return
    signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
