"""Makes of a stock graph's inputs the one float32 x that a training step takes, and reads the labels that a file brings along."""

from __future__ import annotations

from .choosing import chosen
from .entering import Entered, Wish, check_layers, entered, output_named, output_of
from .joining import InputPart
from .labels import labels_of, without_zip

__all__ = ["Entered", "InputPart", "Wish", "check_layers", "chosen", "entered", "labels_of", "output_named", "output_of", "without_zip"]
