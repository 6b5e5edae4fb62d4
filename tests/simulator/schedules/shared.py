"""What thousands of schedules in one process need not do over and over: parse the same model files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

from edgecloud.versions import materialise
from modelwire.tflite import file as tflite_file
from modelwire.tflite import graph, notes

MOST = 512  # files that are remembered


@contextmanager
def parsed_once() -> Iterator[None]:
    """Let the parsed form of a file be shared by all who ask for it within the block: it is frozen, and depends on its bytes alone."""
    with ExitStack() as stack:
        for module in (tflite_file, notes):
            stack.enter_context(patch.object(module, "parse", _remembered(graph.parse)))
        for name in ("read_variables", "contract"):
            stack.enter_context(patch.object(tflite_file, name, _remembered(getattr(tflite_file, name))))
        parse_trainable = _remembered(tflite_file.parse_trainable)
        for place in (tflite_file, materialise):  # of the others who need it, each asks tflite_file when it does
            stack.enter_context(patch.object(place, "parse_trainable", parse_trainable))
        yield


@cache
def _remembered(plain: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[tuple[Any, ...], Any] = {}

    def call(file: Any, *args: Any, **more: Any) -> Any:
        if isinstance(file, (graph.TfliteModel, tflite_file.TrainableFile)):
            return plain(file, *args, **more)
        key = bytes(file), args, tuple(more.items())
        if key not in known:
            if len(known) >= MOST:
                del known[next(iter(known))]
            known[key] = plain(key[0], *args, **more)
        return known[key]

    return call


