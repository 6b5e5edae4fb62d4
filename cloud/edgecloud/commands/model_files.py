"""Reads the model file that a command line names, and keeps it: what is made of it goes to another file."""

from __future__ import annotations

import os
from pathlib import Path

from edgecommon.files import read_model_file
from modelwire.errors import BadArgument


def read_file(name: str) -> bytes:
    """Return the bytes of a .tflite that the command line names. Raises as `read_model`, and BadArgument for another kind of file."""
    data = read_model(path := Path(name))
    if data[4:8] != b"TFL3":
        raise BadArgument(reason=f"{path} is no .tflite: it does not carry the mark TFL3", fix="name a .tflite file, whole as it was made")
    return data


def require_another(source: str, output: str) -> None:
    """Raise BadArgument where the file to write is the one that is read: often the only copy of a stock model."""
    try:
        same = os.path.samefile(source, output)
    except OSError:  # one of them is not there
        same = False
    if same:
        raise BadArgument(reason=f"{output} is the file that is read, and would be lost", fix="name another file with -o")


def read_model(path: Path) -> bytes:
    """Return the bytes of a model file, whatever they are. Raises MissingFile, TooLarge, BadArgument for what is no file to be read."""
    return read_model_file(path, "the model file")
