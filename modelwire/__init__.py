"""What devices and the centre agree on: tensors, the integer lattice, updates as signed bytes, and how to rebuild from them.

No network, no clock, no disk. The names here are what a notebook needs; the modules beside hold the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import ModelWireError

if TYPE_CHECKING:
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

_PLACES = {  # where the names are had that are loaded when they are asked for
    "lattice.rebuild": ("rebuild",),
    "lattice.snap": ("no_residual", "snap", "training_start"),
    "lattice.state": ("ModelState",),
    "tensors": ("Schema", "TensorSpec"),
    "tflite.file": ("read_weights", "write_weights"),
    "update.container": ("Container", "parse", "seal"),
    "update.header": ("Header",),
    "update.manifest": ("Manifest", "manifest_of", "parse_manifest"),
    "update.sections": ("Kind", "add", "invert"),
}


def __getattr__(name: str) -> Any:
    # Only when it is asked for: whoever needs the errors, or one module, does without numpy, the kernels and the lattice.
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
