"""Reads the model file that a command line names."""

from __future__ import annotations

from pathlib import Path

from modelwire import limits
from modelwire.errors import BadArgument, MissingFile, TooLarge


def read_file(name: str) -> bytes:
    """Return the bytes of a model file that the command line names."""
    path, limit = Path(name), limits.DEFAULT.model_file
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)  # what has no end, as a device, ends here
    except FileNotFoundError:
        raise MissingFile(path=path, what="the model file") from None
    except OSError as error:
        raise BadArgument(reason=f"{path} can't be read: {error.strerror}", fix="name a .tflite file") from error
    if len(data) > limit:
        raise TooLarge(what=path, size=f"more than {limit}", limit=limit)
    if data[4:8] != b"TFL3":
        raise BadArgument(reason=f"{path} is no .tflite: it does not carry the mark TFL3", fix="name a .tflite file, whole as it was made")
    return data
