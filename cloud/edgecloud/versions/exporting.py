"""Writes a materialised version as a file: .tflite (the device's served file, byte for byte), .npz or .safetensors."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np

from edgecommon.files import write_named
from modelwire.errors import BadArgument
from modelwire.lattice.state import ModelState
from modelwire.tensors import Weights

from .materialise import LoadedBase, file_of

FORMATS = (".tflite", ".npz", ".safetensors")


def export(path: Path, state: ModelState, base: LoadedBase, facts: dict[str, str], *, replace: bool = True) -> bytes:
    """Write a state in the format of the file's suffix, whole or not at all, and return the bytes written.

    facts: names, commit and root, kept as metadata where the format has room for it.
    """
    data = encode(path.suffix, state, base, facts)
    write_named(path, data, replace=replace)
    return data


def encode(suffix: str, state: ModelState, base: LoadedBase, facts: dict[str, str]) -> bytes:
    """Return a state in a format. Raises BadArgument for another suffix."""
    if suffix == ".tflite":
        return file_of(state, base)
    if suffix == ".npz":
        return _npz(state.named())
    if suffix == ".safetensors":
        from safetensors.numpy import save

        # One key: the library writes several in an order of its own each time, and a version should have one file.
        said = {"edgecloud": json.dumps(facts, sort_keys=True)}
        return save({name: np.ascontiguousarray(w) for name, w in state.named().items()}, metadata=said)
    raise BadArgument(reason=f"{suffix!r} is no format of weights", fix="name the file FILE.tflite, FILE.npz or FILE.safetensors")


def _npz(weights: Weights) -> bytes:
    """Return what numpy.load reads. Without a date, and for any name of a tensor: numpy.savez has both wrong for us."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, array in weights.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return out.getvalue()
