"""What devices and the centre agree on: tensors, the integer lattice, updates as signed bytes, and how to rebuild from them.

No network, no clock, no disk. The names here are what a notebook needs; the modules beside hold the rest.
"""

from __future__ import annotations

from .errors import ModelWireError
from .lattice.rebuild import rebuild
from .lattice.snap import no_residual, snap, training_start
from .lattice.state import ModelState
from .tensors import Schema, TensorSpec
from .tflite.file import read_weights, write_weights
from .update.container import Container, parse, seal
from .update.header import Header
from .update.manifest import Manifest, manifest_of, parse_manifest
from .update.sections import Kind, add, invert

__all__ = [
    "Container",
    "Header",
    "Kind",
    "Manifest",
    "ModelState",
    "ModelWireError",
    "Schema",
    "TensorSpec",
    "add",
    "invert",
    "manifest_of",
    "no_residual",
    "parse",
    "parse_manifest",
    "read_weights",
    "rebuild",
    "seal",
    "snap",
    "training_start",
    "write_weights",
]


def __dir__() -> list[str]:
    return __all__
