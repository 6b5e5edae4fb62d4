"""What `import modelwire` hands out: every name that it lists, and nothing is loaded before one is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import modelwire


def test_every_listed_name_is_had_and_is_called_so() -> None:
    for name in modelwire.__all__:
        assert getattr(modelwire, name).__name__ == name
    assert dir(modelwire) == sorted(modelwire.__all__)


def test_a_star_import_brings_every_listed_name() -> None:
    names: dict[str, object] = {}
    exec("from modelwire import *", names)  # as a notebook may say it
    assert set(modelwire.__all__) <= names.keys()


def test_a_name_that_is_not_listed_is_told() -> None:
    with pytest.raises(AttributeError, match=r"module 'modelwire' has no attribute 'rebuilt'"):
        modelwire.rebuilt  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'rebuilt'"):
        exec("from modelwire import rebuilt")


def test_who_needs_the_errors_alone_waits_for_no_arrays() -> None:
    program = "import sys, modelwire.errors, modelwire.wire.keys; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = said.stdout.split()
    assert "modelwire.wire.keys" in loaded
    assert not {"numpy", "modelwire._core", "modelwire.lattice", "modelwire.tflite", "modelwire.update"} & set(loaded)
