"""Every kernel of the C core gives the same bits on x86-64, aarch64 and armv7, with any optimisation or FMA, and in the twin.

csrc/selftest.c runs all kernels over one fixed stream of awkward numbers and prints a hash; builds for ARM run under qemu-user.
A missing compiler or emulator skips its builds; with REQUIRE_CROSS=1 in the environment it fails them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.crossisa.twin import selftest_hashes
from tests.once import once_a_run

CSRC = Path(__file__).parents[2] / "csrc"
SOURCES = sorted(str(p) for p in CSRC.glob("*.c"))
ALWAYS = ["-std=c11", "-fno-math-errno", "-Wall", "-Wextra", "-Werror", "-static"]
EXACT = "-ffp-contract=off"
FUSED = "-ffp-contract=fast"

# What each build must hold: on 32-bit ARM plain C alone, because NEON flushes subnormals there.
KERNELS = {"gcc": ["generic", "avx2"], "aarch64-linux-gnu-gcc": ["generic", "neon"], "arm-linux-gnueabihf-gcc": ["generic"]}
X86 = ("gcc", ())
AARCH64 = ("aarch64-linux-gnu-gcc", ("qemu-aarch64-static", "qemu-aarch64"))
ARMV7 = ("arm-linux-gnueabihf-gcc", ("qemu-arm-static", "qemu-arm"))
BUILDS = {
    "x86-64 -O2": (X86, ["-O2", EXACT]),
    "x86-64 -O3": (X86, ["-O3", EXACT]),
    "x86-64 -O3 with FMA": (X86, ["-O3", "-mfma", "-mavx2", FUSED]),
    "aarch64 -O2": (AARCH64, ["-O2", EXACT]),
    "aarch64 -O3": (AARCH64, ["-O3", EXACT]),
    "aarch64 -O3 with FMA": (AARCH64, ["-O3", FUSED]),
    "armv7 -O2": (ARMV7, ["-O2", "-march=armv7-a", "-mfpu=vfpv3-d16", "-mfloat-abi=hard", EXACT]),
    "armv7 -O3": (ARMV7, ["-O3", "-march=armv7-a", "-mfpu=vfpv3-d16", "-mfloat-abi=hard", EXACT]),
    "armv7 -O3 with FMA": (ARMV7, ["-O3", "-march=armv7ve", "-mfpu=vfpv4", "-mfloat-abi=hard", FUSED]),
    "armv7 -O3 with NEON": (ARMV7, ["-O3", "-march=armv7-a", "-mfpu=neon", "-mfloat-abi=hard", EXACT]),
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The twin's two hashes. They take a quarter of a minute, so they are computed once a run."""
    with once_a_run(tmp_path_factory, "selftest") as (folder, made):
        kept = folder / "hashes"
        if not made:
            kept.write_text(" ".join(selftest_hashes()))
        first, second = kept.read_text().split()
        return first, second


def missing(what: str) -> None:
    """Skip, or fail where the environment promises that everything is there."""
    if os.environ.get("REQUIRE_CROSS") == "1":
        pytest.fail(f"{what} is not on this machine, and REQUIRE_CROSS=1 asks for it")
    pytest.skip(f"{what} is not on this machine")


def cpu_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    return {flag for line in text.splitlines() if line.startswith("flags") for flag in line.split(":", 1)[1].split()}


def run(compiler: str, emulators: tuple[str, ...], flags: list[str], into: Path) -> dict[str, tuple[str, str]]:
    """Build the self test into the folder `into`, run it with each kernel and return the hashes that it prints."""
    kernels = [name for name in KERNELS[compiler] if name != "avx2" or "avx2" in cpu_flags()]
    if shutil.which(compiler) is None:
        missing(compiler)
    emulator = [found for name in emulators if (found := shutil.which(name))][:1]
    if emulators and not emulator:
        missing(" or ".join(emulators))
    program = into / "selftest"
    built = subprocess.run([compiler, *flags, *SOURCES, "-lm", "-o", str(program)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    hashes = {}
    for kernel in kernels:
        done = subprocess.run([*emulator, str(program), kernel], capture_output=True, text=True, check=False, timeout=500)
        assert done.returncode == 0, f"{kernel}: {done.stdout}{done.stderr}"
        (printed, ran), (said, *_) = map(str.split, done.stdout.splitlines())
        assert ran == kernel
        hashes[kernel] = printed, said
    return hashes


@pytest.mark.slow("builds the core anew, and runs it in an emulator")
@pytest.mark.parametrize("build", BUILDS)
def test_every_kernel_of_every_build_prints_the_twin_s_hash(build: str, expected: tuple[str, str], tmp_path: Path) -> None:
    (compiler, emulators), flags = BUILDS[build]
    if compiler == "gcc":
        if os.uname().machine != "x86_64":
            pytest.skip("this machine is not x86-64")
        if "-mfma" in flags and not {"fma", "avx2"} <= cpu_flags():
            pytest.skip("this processor has no FMA")
    hashes = run(compiler, emulators, [*ALWAYS, *flags], tmp_path)
    assert hashes == dict.fromkeys(hashes, expected)


@pytest.mark.slow("builds the core anew")
def test_the_sanitisers_find_nothing_and_change_nothing(expected: tuple[str, str], tmp_path: Path) -> None:
    flags = ["-std=c11", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    hashes = run("gcc", (), flags, tmp_path)
    assert hashes == dict.fromkeys(hashes, expected)


def test_flags_that_change_results_do_not_compile(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        missing("gcc")
    done = subprocess.run(
        ["gcc", "-Ofast", "-c", str(CSRC / "mw_adopt.c"), "-o", str(tmp_path / "adopt.o")], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "-ffast-math and -Ofast change results" in done.stderr
