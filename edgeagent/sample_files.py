"""Reads samples from the files that people have them in: .npz, .npy and .csv. Nothing in a file is ever executed."""

from __future__ import annotations

import csv
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwire import limits
from modelwire.errors import ConfigError, MissingFile, ModelError

MAX_BYTES = 512 * limits.MIB  # of a file, and of an array in it

Array = NDArray[Any]

# What zipfile, zlib, numpy and csv raise for a file that is not what it says. RuntimeError: an encrypted .npz; MemoryError: a shape
# that no file of this size holds.
_BROKEN = (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error, csv.Error)


def read(file: str | Path, *, label: int | None, model: str) -> tuple[Array, Array | None, Array | None]:
    """Return (x, labels, targets) of a file; labels or targets is None.

    .npz: x and y, where y has a class a sample, or a target (floats in more than one dimension). .npy and .csv: the class in the last
    column, or no such column and `label` for all. Raises MissingFile, ConfigError or ModelError.
    """
    path = Path(file)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(reason=f"{path}: more than {MAX_BYTES} bytes; add it in smaller files")
        kind = path.suffix.lower()
        if kind == ".npz":
            return _npz(path, label, model)
        if kind == ".npy":
            return _columns(_npy(path), label, model)
        if kind == ".csv":
            return _columns(_csv(path), label, model)
    except FileNotFoundError:
        raise MissingFile(path=path, what="the file of samples") from None
    except _BROKEN as e:
        raise ConfigError(reason=f"{path}: {e}") from None
    raise ConfigError(reason=f"{path}: samples come as .npz, .npy or .csv")


def _npz(path: Path, label: int | None, model: str) -> tuple[Array, Array | None, Array | None]:
    with zipfile.ZipFile(path) as z:
        if sum(i.file_size for i in z.infolist()) > MAX_BYTES:  # what unpacking would take, before anything is unpacked
            raise ConfigError(reason=f"{path}: its arrays take more than {MAX_BYTES} bytes")
    with np.load(path, allow_pickle=False) as arrays:
        if "x" not in arrays or (label is None and "y" not in arrays):
            raise ConfigError(reason=f"{path}: it holds {', '.join(arrays.files) or 'nothing'}; x and y belong there")
        x = np.asarray(arrays["x"])
        if not x.ndim:
            raise ConfigError(reason=f"{path}: x is one number, not a list of samples")
        if label is not None:
            return x, np.full(len(x), label), None
        y = np.asarray(arrays["y"])
    return (x, y, None) if y.ndim == 1 else (x, None, y)


def _npy(path: Path) -> Array:
    return np.asarray(np.load(path, allow_pickle=False, mmap_mode="r"))


def _csv(path: Path) -> Array:
    with path.open(newline="", encoding="utf-8") as f:
        rows = [row for row in csv.reader(f) if row]
    if rows and not _numbers(rows[0]):
        rows = rows[1:]  # a line of names
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        raise ValueError("its lines have different numbers of columns" if rows else "it holds no samples")
    return np.array([[float(cell) for cell in row] for row in rows])


def _numbers(row: list[str]) -> bool:
    try:
        [float(cell) for cell in row]
    except ValueError:
        return False
    return True


def _columns(rows: Array, label: int | None, model: str) -> tuple[Array, Array | None, Array | None]:
    if not rows.ndim:
        raise ModelError(model=model, reason="the file holds one number, not a list of samples")
    if label is not None:
        return rows, np.full(len(rows), label), None
    if rows.ndim != 2 or rows.shape[1] < 2:
        raise ModelError(model=model, reason="without --label the last column is the class, so the file must be a table")
    return rows[:, :-1], rows[:, -1], None
