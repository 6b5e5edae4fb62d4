"""What it costs to refuse something hostile."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import pytest

from modelwire.errors import ModelWireError


def refused(attempt: Callable[[], object]) -> tuple[ModelWireError, float, int]:
    """Return the error by which the attempt is refused, the seconds of processor, and the most bytes that Python and numpy held."""
    tracemalloc.start()
    try:
        started = time.process_time()
        with pytest.raises(ModelWireError) as caught:
            attempt()
        return caught.value, time.process_time() - started, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
