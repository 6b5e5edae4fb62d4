"""Reads samples from the files that people have them in: .npz, .npy and .csv. Nothing in a file is ever executed."""

from __future__ import annotations

import csv
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelwire import limits
from modelwire.errors import ConfigError, MissingFile, ModelError

CONTEXT = "context."  # begins the names of arrays and columns that hold a context
HELPED = "edgeagent samples --help"
MAX_BYTES = 512 * limits.MIB  # of a file, and of an array in it

Array = NDArray[Any]

# What zipfile, zlib, numpy and csv raise for a file that is not what it says. RuntimeError: an encrypted .npz; MemoryError: a shape
# that no file of this size holds.
_BROKEN = (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error, csv.Error)


class FileSamples(NamedTuple):
    """What a file holds. labels and targets are None where it has none, or the other."""

    x: Array
    labels: Array | None
    targets: Array | None
    contexts: tuple[dict[str, str], ...]  # one a sample, or none at all


def read(file: str | Path, *, label: int | None, model: str) -> tuple[Array, Array | None, Array | None]:
    """Return (x, labels, targets) of a file, as `read_all` does."""
    return read_all(file, label=label, model=model)[:3]


def read_all(file: str | Path, *, label: int | None, model: str, unlabelled: bool = False) -> FileSamples:
    """Return what a file holds.

    .npz: x and y, where y has a class a sample, or a target (floats in more than one dimension); context.NAME: a word a sample.
    .npy and .csv: the class in the last column, or no such column and `label` for all, or `unlabelled`; in a .csv, columns that its
    first line calls context.NAME. Raises MissingFile, ConfigError or ModelError.
    """
    path = Path(file)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(reason=f"{path}: more than {MAX_BYTES} bytes; add it in smaller files", fix=HELPED)
        kind = path.suffix.lower()
        if kind == ".npz":
            return _npz(path, label, unlabelled)
        if kind == ".npy":
            return FileSamples(*_columns(_npy(path), label, model, unlabelled), ())
        if kind == ".csv":
            rows, contexts = _csv(path)
            return FileSamples(*_columns(rows, label, model, unlabelled), contexts)
    except FileNotFoundError:
        raise MissingFile(path=path, what="the file of samples") from None
    except _BROKEN as e:
        raise ConfigError(reason=f"{path}: {e}", fix=HELPED) from None
    raise ConfigError(reason=f"{path}: samples come as .npz, .npy or .csv", fix=HELPED)


def _npz(path: Path, label: int | None, unlabelled: bool) -> FileSamples:
    with zipfile.ZipFile(path) as z:
        if sum(i.file_size for i in z.infolist()) > MAX_BYTES:  # what unpacking would take, before anything is unpacked
            raise ConfigError(reason=f"{path}: its arrays take more than {MAX_BYTES} bytes", fix=HELPED)
    with np.load(path, allow_pickle=False) as arrays:
        if "x" not in arrays or (label is None and not unlabelled and "y" not in arrays):
            raise ConfigError(reason=f"{path}: it holds {', '.join(arrays.files) or 'nothing'}; x and y belong there", fix=HELPED)
        x = np.asarray(arrays["x"])
        if not x.ndim:
            raise ConfigError(reason=f"{path}: x is one number, not a list of samples", fix=HELPED)
        named = {key[len(CONTEXT) :]: arrays[key] for key in arrays.files if key.startswith(CONTEXT)}
        for name, values in named.items():
            if values.shape != (len(x),) or values.dtype.kind not in "Uiu":
                raise ConfigError(reason=f"{path}: {CONTEXT}{name} is not {len(x)} words or whole numbers", fix=HELPED)
        words = {name: [str(value) for value in values] for name, values in named.items()}
        contexts = tuple({name: of[i] for name, of in words.items() if of[i]} for i in range(len(x))) if words else ()
        if label is not None and "y" in arrays:
            reason = f"{path}: its samples have classes of their own, y, and --label would overrule them"
            raise ConfigError(reason=reason, fix="leave --label out")
        if label is not None or unlabelled:
            return FileSamples(x, None if label is None else np.full(len(x), label), None, contexts)
        y = np.asarray(arrays["y"])
    return FileSamples(x, y, None, contexts) if y.ndim == 1 else FileSamples(x, None, y, contexts)


def _npy(path: Path) -> Array:
    return np.asarray(np.load(path, allow_pickle=False, mmap_mode="r"))


def _csv(path: Path) -> tuple[Array, tuple[dict[str, str], ...]]:
    with path.open(newline="", encoding="utf-8") as f:
        rows = [row for row in csv.reader(f) if row]
    names: dict[int, str] = {}
    if rows and not _numbers(rows[0]):  # a line of names
        names = {column: cell.strip()[len(CONTEXT) :] for column, cell in enumerate(rows[0]) if cell.strip().startswith(CONTEXT)}
        rows = rows[1:]
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        raise ValueError("its lines have different numbers of columns" if rows else "it holds no samples")
    contexts = tuple({name: row[column].strip() for column, name in names.items() if row[column].strip()} for row in rows) if names else ()
    return np.array([[float(cell) for column, cell in enumerate(row) if column not in names] for row in rows]), contexts


def _numbers(row: list[str]) -> bool:
    try:
        [float(cell) for cell in row]
    except ValueError:
        return False
    return True


def _columns(rows: Array, label: int | None, model: str, unlabelled: bool) -> tuple[Array, Array | None, Array | None]:
    if not rows.ndim:
        raise ModelError(model=model, reason="the file holds one number, not a list of samples")
    if unlabelled:
        return rows, None, None
    if label is not None:
        return rows, np.full(len(rows), label), None
    if rows.ndim != 2 or rows.shape[1] < 2:
        raise ModelError(model=model, reason="without --label the last column is the class, so the file must be a table")
    return rows[:, :-1], rows[:, -1], None
