"""Builds the compiled kernels, and again only what a change touches; the rest of the distribution is in pyproject.toml."""

from __future__ import annotations

import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# The buffer protocol entered the limited API with 3.11: one build serves 3.11 and later, 3.10 gets one of its own.
LIMITED = sys.implementation.name == "cpython" and sys.version_info >= (3, 11)
# The sources by name: csrc/ also holds a self test with a main() of its own.
SOURCES = [
    "mw_adopt", "mw_apply", "mw_apply_stream", "mw_avx2", "mw_collect", "mw_crc32c", "mw_dispatch", "mw_fingerprint", "mw_head",
    "mw_head_avx2", "mw_head_generic", "mw_neon", "mw_planes", "mw_scan", "mw_sections",
]  # fmt: skip
HEADERS = [str(p) for room, kind in (("modelwire/_core", "*.pxi"), ("csrc", "*.h")) for p in sorted(Path(room).glob(kind))]

kernel = Extension(
    "modelwire._core.kernel",
    sources=["modelwire/_core/kernel.pyx", *(f"csrc/{name}.c" for name in SOURCES)],
    depends=["modelwire/_core/kernel.pyx", "modelwire/_core/csrc.pxd", *HEADERS],
    include_dirs=["csrc"],
    define_macros=[("Py_LIMITED_API", "0x030B0000")] if LIMITED else [],
    py_limited_api=LIMITED,
    # -ffast-math and its kin change the bits; a fused multiply-add would not (docs/decisions), but is not asked for either.
    extra_compile_args=["-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-g0"],
    libraries=["m"],  # where a square root is no instruction
    extra_link_args=["-Wl,-s"],
)


class BuildKernels(build_ext):
    """Compiles one object a source, and again only those that are older than what they were made from; then links."""

    def build_extension(self, ext: Extension) -> None:
        folder = self._folder()
        flags = [*ext.extra_compile_args, "-MMD"]  # beside each object a list of what it was made from
        made = {source: folder / self.compiler.object_filenames([source])[0] for source in sorted(ext.sources)}

        def compile_one(source: str) -> None:
            try:
                self.compiler.compile([source], str(folder), ext.define_macros, ext.include_dirs, self.debug, extra_postargs=flags)
            except BaseException:
                made[source].unlink(missing_ok=True)  # half an object would be the newest file of all
                raise

        with ThreadPoolExecutor(int(self.parallel or 1)) as pool:
            list(pool.map(compile_one, [source for source in made if is_stale(made[source])]))
        linked = copy(ext)
        linked.sources, linked.extra_objects = [], [str(path) for path in made.values()]
        Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)  # linked always: it takes no time
        super().build_extension(linked)

    def _folder(self) -> Path:
        """Return where objects stay between builds: one folder for each Python and each way to call the compiler."""
        way = zlib.crc32(repr(self.compiler.compiler_so).encode())
        return Path("build", "kernels", f"{self.plat_name}-{sys.implementation.cache_tag}-{way:08x}")


def is_stale(made: Path) -> bool:
    """Return whether an object is missing, or not newer than all that the compiler read for it and this file."""
    try:
        then = made.stat().st_mtime_ns
        read = made.with_suffix(".d").read_text().replace("\\\n", " ").partition(": ")[2].split()
        return any(Path(name).stat().st_mtime_ns >= then for name in [*read, __file__])
    except FileNotFoundError:  # a header that went, too
        return True


setup(
    cmdclass={"build_ext": BuildKernels},
    ext_modules=cythonize([kernel], language_level=3, build_dir="build/cython"),
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED else {},
)
