"""What a base file says of its head and its modes; the file is mapped, so that a board does not hold it."""

from __future__ import annotations

from pathlib import Path

from edgecommon.files import mapped
from modelwire.errors import NotTrainable
from modelwire.tflite import file as tflite_file
from modelwire.tflite.notes import Notes, notes_of

from .exact_course import FEATURES


def featured_notes(file: Path, model: str) -> tuple[Notes, int]:
    """Return a base's notes, and the samples of one step. Raises NotTrainable when it can't be trained in mode features."""
    with mapped(file) as data:
        tflite_file.check_trainable(data, model=model)
        said, batch = notes_of(data, model=model), tflite_file.contract(data, model=model).batch
    if said.head is None:
        raise NotTrainable(model=model, reason="mode features: the file says of no head that it stands on features")
    if said.score:
        raise NotTrainable(model=model, reason="mode features: its threshold of anomalies is found with the whole model")
    return said, batch


def modes_of(file: Path, model: str) -> tuple[list[str], int]:
    """Return the modes in which a base can be trained, cheapest first, and the samples of one step."""
    with mapped(file) as data:
        said, batch = notes_of(data, model=model), tflite_file.contract(data, model=model).batch
    on_features = [FEATURES] if said.head is not None and not said.score else []
    return [*on_features, *(mode.name for mode in said.modes)], batch
