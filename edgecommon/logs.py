"""Log lines on standard error: text for people, one JSON object a line for machines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from .printing import as_json_text, visible, visible_lines


def start(package: str, level: str, formatter: logging.Formatter) -> None:
    """Send what `package` logs in this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger(package)
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False


class TextLines(logging.Formatter):
    """Text for people. What is logged may hold what others wrote: a message is one line, and none moves the cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = visible(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return visible_lines(super().formatException(ei))


class JsonLines(logging.Formatter):
    """One JSON object a line. time: what a line says of its Unix seconds; trace: under which key it says where an error came from."""

    def __init__(self, time: Callable[[float], Any], *, trace: str) -> None:
        super().__init__()
        self._time, self._trace = time, trace

    def format(self, record: logging.LogRecord) -> str:
        time, level = self._time(record.created), record.levelname.lower()
        line = {"at": time, "level": level, "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line[self._trace] = self.formatException(record.exc_info)
        return as_json_text(line)
