"""What a base file says of its head, its modes and their learning rates; the file is mapped, so that a board does not hold it."""

from __future__ import annotations

from pathlib import Path

from edgecommon.files import mapped
from modelwire.errors import NotTrainable
from modelwire.tflite import file as tflite_file
from modelwire.tflite.notes import Notes, notes_of

from .exact_course import FEATURES

RATE = 0.05  # plain SGD's, and that of an int8 head
CUSTOMARY = {"adam": 0.001, "momentum": 0.02}  # at SGD's the guard would reject their first rounds


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


def rate_of(file: Path, model: str, mode: str, optimizer: str = "") -> float:
    """Return the learning rate to begin with in a mode, for who gives none: the one that its rehearsal found, or else a customary one.

    optimizer: of mode features; empty for the file's own. Raises NotTrainable for a file that is not.
    """
    with mapped(file) as data:
        if tflite_file.read_head(data, model=model) is not None:
            return RATE
        return suggested(notes_of(data, model=model), mode, optimizer)


def suggested(said: Notes, mode: str, optimizer: str = "") -> float:
    """Return the rate that notes suggest for a mode; the customary one of its optimizer where they do not, or were found with another."""
    on_features = mode == FEATURES
    used = optimizer if on_features and optimizer else said.optimizer
    found = said.modes[0] if on_features else said.mode(mode)
    if found is not None and found.learning_rate and used == said.optimizer:
        return found.learning_rate
    return CUSTOMARY.get(used, RATE)
