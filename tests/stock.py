"""The stock files that tests work on, this project's and others', and the runtime that is installed."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from edgecommon.runtime import Runtime, load
from modelwire.errors import RuntimeUnusable

ROOT = Path(__file__).parents[1]
STOCK = ROOT / "tests" / "models" / "stock"
OTHERS = ROOT / "build" / "stock"  # tests/models/fetch_stock.py puts the files of other projects there


@functools.cache
def runtime() -> Runtime:
    """Return the installed runtime; the test is skipped where there is none."""
    try:
        return load()
    except RuntimeUnusable as e:
        pytest.skip(str(e))


def stock_path(name: str) -> Path:
    """Return where a stock file is; the test is skipped where another project's is not here."""
    path = next((p for p in (STOCK / f"{name}.tflite", OTHERS / f"{name}.tflite") if p.exists()), None)
    if path is None:
        pytest.skip(f"{name}.tflite comes from another project; python tests/models/fetch_stock.py brings it")
    return path


def stock_file(name: str) -> bytes:
    return stock_path(name).read_bytes()
