"""The door to the kernels: what it hands out, which arrays it refuses, and how a status becomes an error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwire import _core, errors
from modelwire import _reference as twin
from modelwire._core import kernel, statuses

ROOT = Path(__file__).parents[3]
BOTH = pytest.mark.parametrize("core", [kernel, twin], ids=["compiled", "twin"])
N = 5


def good(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return arrays and facts with which the kernel `name` works."""
    arrays = {
        "base": np.ones(N, np.float32),
        "w": np.ones(N, np.float32),
        "trained": np.full(N, 1.5, np.float32),
        "residual": np.zeros(N, np.uint16),
        "q": np.zeros(N, np.int32),
        "out": np.zeros(N, np.float32),
        "index": np.array([1, 3], np.uint32),
        "value": np.array([1, -1], np.int32),
    }
    step = {"exponent": -4, "step": 3}
    fingerprint = {"start": 0, "verbatim": False}
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        "differences": ("w trained residual out", {}),
        "check_lattice": ("base q index value", step),
        "apply_lattice": ("base w q index value", step),
        "check_verbatim": ("base q index value", {}),
        "apply_verbatim": ("base w q index value", {}),
        "weights_from_q": ("base q w", {"exponent": -4}),
        "q_from_weights": ("base w q", {"exponent": -4}),
        "fingerprint": ("q", fingerprint),
        "fingerprint_sparse": ("index value", {**fingerprint, "step": 3}),
    }
    names, facts = wanted[name]
    taken = {n: arrays[n] for n in names.split()}
    if name.endswith("verbatim"):
        taken = {n: a.view(np.uint32) if n in ("base", "w") else a for n, a in taken.items()}
    return taken, facts


KERNELS = [
    "differences",
    "check_lattice", "apply_lattice", "check_verbatim", "apply_verbatim",
    "weights_from_q", "q_from_weights", "fingerprint", "fingerprint_sparse",
]  # fmt: skip
CASES = [(name, array) for name in KERNELS for array in good(name)[0]]
WRITTEN = {
    "differences": {"out"},
    "apply_lattice": {"w", "q"}, "apply_verbatim": {"w", "q"},
    "weights_from_q": {"w"}, "q_from_weights": {"q"},
}  # fmt: skip


def misaligned(a: Any) -> Any:
    room = np.zeros(a.nbytes + 1, np.uint8)
    moved = room[1:].view(a.dtype)
    moved[:] = a
    return moved


def refused(core: Any, name: str, array: str, changed: Any) -> bool:
    arrays, facts = good(name)
    arrays[array] = changed(arrays[array])
    before = {n: np.asarray(a).tobytes() for n, a in arrays.items()}
    with pytest.raises(errors.KernelError):
        getattr(core, name)(*arrays.values(), **facts)
    return before == {n: np.asarray(a).tobytes() for n, a in arrays.items()}


@BOTH
@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_works_on_good_arrays(core: Any, name: str) -> None:
    arrays, facts = good(name)
    getattr(core, name)(*arrays.values(), **facts)


@BOTH
@pytest.mark.parametrize(("name", "array"), CASES)
def test_arrays_that_c_could_not_read_are_refused(core: Any, name: str, array: str) -> None:
    assert refused(core, name, array, misaligned)
    assert refused(core, name, array, lambda a: np.repeat(a, 2)[::2])  # not contiguous
    assert refused(core, name, array, lambda a: a.astype(np.float64))
    assert refused(core, name, array, lambda a: a.astype(a.dtype.newbyteorder()))
    assert refused(core, name, array, lambda a: a.reshape(1, -1))
    assert refused(core, name, array, lambda a: a.tolist())


@BOTH
@pytest.mark.parametrize(("name", "array"), [(n, a) for n, a in CASES if len(good(n)[0]) > 1])
def test_arrays_of_another_length_are_refused(core: Any, name: str, array: str) -> None:
    assert refused(core, name, array, lambda a: a[:-1].copy())


@BOTH
@pytest.mark.parametrize(("name", "array"), CASES)
def test_read_only_arrays_serve_where_nothing_is_written(core: Any, name: str, array: str) -> None:
    def read_only(a: Any) -> Any:
        return np.frombuffer(a.tobytes(), a.dtype)

    if array in WRITTEN.get(name, ()):
        assert refused(core, name, array, read_only)
    else:
        arrays, facts = good(name)
        arrays[array] = read_only(arrays[array])
        getattr(core, name)(*arrays.values(), **facts)


@BOTH
@pytest.mark.parametrize("name", KERNELS)
def test_empty_arrays_are_fine(core: Any, name: str) -> None:
    arrays, facts = good(name)
    getattr(core, name)(*(a[:0].copy() for a in arrays.values()), **facts)
    getattr(core, name)(*(misaligned(a)[:0] for a in arrays.values()), **facts)


@BOTH
def test_bytes_come_from_any_contiguous_buffer(core: Any) -> None:
    expected = core.crc32c(b"abcdef")
    assert core.crc32c(bytearray(b"abcdef")) == expected
    assert core.crc32c(memoryview(b"xabcdef")[1:]) == expected
    with pytest.raises(errors.KernelError):
        core.crc32c(memoryview(b"abcdef")[::2])
    with pytest.raises(errors.KernelError):
        core.crc32c("abcdef")
    with pytest.raises(errors.KernelError):
        core.decode_sections(np.zeros(3, np.int32), [])


def statuses_of_the_header() -> list[str]:
    header = (ROOT / "csrc" / "mw.h").read_text()
    body = header[header.index("typedef enum mw_status {") : header.index("} mw_status;")]
    return re.findall(r"^  (MW_\w+)", body, re.MULTILINE)


def test_every_status_of_the_c_core_has_an_error_class() -> None:
    names = statuses_of_the_header()
    assert list(statuses.NAMES) == names
    assert names[kernel.STATUS_END] == names[-1] == "MW_STATUS_END"
    for status in range(1, kernel.STATUS_END):
        error = statuses.error_of(status, tensor=1, index=2, size=3)
        assert isinstance(error, errors.ModelWireError)
        assert "<" not in error.message  # no fact is missing


def test_every_status_is_declared_to_cython_in_the_header_s_order() -> None:
    declared = (ROOT / "modelwire" / "_core" / "csrc.pxd").read_text()
    assert re.findall(r"^        (MW_\w+)$", declared, re.MULTILINE) == statuses_of_the_header()


def test_the_door_hands_out_the_same_sorted_names_from_both_sides() -> None:
    assert _core.__all__ == sorted(_core.__all__)
    assert _core.__all__ == twin.__all__
    assert all(callable(getattr(side, name)) for side in (_core, kernel, twin) for name in _core.__all__)


def test_round_to_nearest_even_is_what_this_processor_does() -> None:
    for core in (kernel, twin):
        core.check_rounding()


def imported_with(name: str) -> subprocess.CompletedProcess[str]:
    program = "from modelwire import _core; print(_core.kernel_name(), _core.crc32c.__module__)"
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "MODELWIRE_KERNEL": name, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_environment_chooses_the_kernel() -> None:
    assert imported_with("generic").stdout.split() == ["generic", "modelwire._core.kernel"]
    assert imported_with("").stdout.split()[0] in kernel.kernel_names()
    assert imported_with("reference").stdout.split() == ["reference", "modelwire._reference.integrity"]


@pytest.mark.parametrize("name", kernel.kernel_names())
def test_every_kernel_of_the_build_runs_when_it_is_asked_for_or_is_refused_at_import(name: str) -> None:
    done = imported_with(name)
    assert done.stdout.split()[:1] == [name] or ("ConfigError" in done.stderr and name in done.stderr)


def test_an_unknown_kernel_is_an_error_at_import() -> None:
    failed = imported_with("turbo")
    assert failed.returncode != 0
    assert "ConfigError" in failed.stderr
    assert "turbo" in failed.stderr
