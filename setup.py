"""Builds the compiled kernels; everything else about the distribution is in pyproject.toml."""

from __future__ import annotations

import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

# The buffer protocol entered the limited API with 3.11: one build serves 3.11 and later, 3.10 gets one of its own.
LIMITED = sys.implementation.name == "cpython" and sys.version_info >= (3, 11)
# The sources by name: csrc/ also holds a self test with a main() of its own.
SOURCES = [
    "mw_apply", "mw_apply_stream", "mw_avx2", "mw_crc32c", "mw_dispatch", "mw_fingerprint", "mw_neon", "mw_planes", "mw_sections",
    "mw_snap",
]  # fmt: skip
HEADERS = [str(p) for room, kind in (("modelwire/_core", "*.pxi"), ("csrc", "*.h")) for p in sorted(Path(room).glob(kind))]

kernel = Extension(
    "modelwire._core.kernel",
    sources=["modelwire/_core/kernel.pyx", *(f"csrc/{name}.c" for name in SOURCES)],
    depends=["modelwire/_core/csrc.pxd", *HEADERS],
    include_dirs=["csrc"],
    define_macros=[("Py_LIMITED_API", "0x030B0000")] if LIMITED else [],
    py_limited_api=LIMITED,
    # -ffast-math and its kin change the bits; a fused multiply-add would not (docs/decisions), but is not asked for either.
    extra_compile_args=["-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-g0"],
    extra_link_args=["-Wl,-s"],
)

setup(
    ext_modules=cythonize([kernel], language_level=3, build_dir="build/cython"),
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED else {},
)
