"""What wheels are made for: three processors, each with its names in Python, in Debian and in the compiler's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "3.11"  # whose headers are compiled against: the stable ABI of a wheel is that of the first Python that it runs on
ABI = f"cp{PYTHON.replace('.', '')}-abi3"


@dataclass(frozen=True)
class Target:
    """A processor that wheels are made for."""

    machine: str  # as `uname -m` and wheels call it
    debian: str
    triplet: str  # the compiler's, and of folders in Debian
    glibc: str  # the least glibc whose symbols the kernels bind to: what the tag says, and auditwheel holds it to
    musl: str  # musl's own library, as programs there name it
    board: tuple[str, ...] = ()  # what a board takes from Debian because no wheel of it is published

    @property
    def compiler(self) -> str:
        return f"{self.triplet}-gcc"

    @property
    def manylinux(self) -> str:
        return f"manylinux_{self.glibc}_{self.machine}"

    @property
    def musllinux(self) -> str:
        return f"musllinux_1_2_{self.machine}"


TARGETS = {
    one.machine: one
    for one in (
        Target("x86_64", "amd64", "x86_64-linux-gnu", "2_17", "libc.musl-x86_64.so.1"),
        Target("aarch64", "arm64", "aarch64-linux-gnu", "2_17", "libc.musl-aarch64.so.1"),
        Target(
            "armv7l", "armhf", "arm-linux-gnueabihf", "2_17", "libc.musl-armv7.so.1",
            board=("python3-numpy", "python3-lz4", "python3-cffi"),
        ),
    )
}  # fmt: skip
