"""Makes of a stock graph's inputs the one float32 x that a training step takes, and reads the labels that a file brings along."""

from __future__ import annotations

from .choosing import chosen
from .joining import Part, joined
from .labels import labels_of, without_zip
from .unbatching import unbatched

__all__ = ["Part", "chosen", "joined", "labels_of", "unbatched", "without_zip"]
