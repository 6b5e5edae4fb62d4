"""What is packed for whom: architectures by their names at Debian, at PyPI and in a compiler, and what each of the two packages holds."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("HW_CACHE") or ROOT / "build" / "hw" / "cache") / "deb"
OUT = ROOT / "build" / "deb"
PYTHON = "3.11"  # Debian 12's; what is packed is for it alone
GLIBC = (2, 36)  # Debian 12's; a wheel that asks for a newer one is not taken


@dataclass(frozen=True, slots=True)
class Architecture:
    """A processor, by all its names."""

    name: str  # Debian's
    machine: str  # as `uname -m` and wheels say
    triplet: str
    cflags: str = ""


@dataclass(frozen=True, slots=True)
class Package:
    """What one package holds, and what of it comes from Debian's own packages instead."""

    name: str
    summary: str
    packages: tuple[str, ...]  # of Python, ours
    constraints: str  # a file of deploy/constraints
    units: tuple[str, ...]
    distribution: tuple[str, ...] = ()  # packages of Debian's
    scripts: tuple[str, ...] = ()  # of deploy/, beside the program


ARCHITECTURES = {
    one.name: one
    for one in (
        Architecture("amd64", "x86_64", "x86_64-linux-gnu"),
        Architecture("arm64", "aarch64", "aarch64-linux-gnu"),
        # Debian's own armhf: no NEON, which flushes subnormals and is of no use to the kernels there.
        Architecture("armhf", "armv7l", "arm-linux-gnueabihf", "-march=armv7-a -mfpu=vfpv3-d16 -mfloat-abi=hard"),
    )
}

OWN = {one.machine: one.name for one in ARCHITECTURES.values()}  # of this machine, by what `uname -m` says

AGENT = Package(
    "edgeagent", "trains TFLite models on this device and tells the centre what changed", ("modelwire", "edgecommon", "edgeagent"),
    "edge-litert.txt", ("edgeagent.service",),
)  # fmt: skip
# LiteRT 2.3.0 ends with a segmentation fault at its first call on a Cortex-A53, A72 and A76 as QEMU 7.2 has them; this one trains there.
AGENT_ARM = replace(AGENT, constraints="edge-tflite.txt")
# No wheel of numpy, cffi and lz4 is for 32-bit ARM, and LiteRT has none either.
AGENT_32 = replace(AGENT, constraints="edge-armv7.txt", distribution=("python3-numpy", "python3-cffi-backend", "python3-lz4"))
CENTRE = Package(
    "edgecloud", "rebuilds the models of a fleet of devices, bit for bit", ("modelwire", "edgecommon", "edgecloud"), "cloud.txt",
    (
        "edgecloud-ingest.service", "edgecloud-director.service", "edgecloud-backup.service", "edgecloud-backup.timer",
        "edgecloud-renew.service", "edgecloud-renew.timer",
    ),
    scripts=("edgecloud-backup",),
)  # fmt: skip

MADE = {
    "edgeagent": {"amd64": AGENT, "arm64": AGENT_ARM, "armhf": AGENT_32},
    "edgecloud": {"amd64": CENTRE, "arm64": CENTRE},
}


def platforms(machine: str) -> list[str]:
    """Return the tags of wheels that Debian 12 on this machine can load, the newest first."""
    names = [f"manylinux_{GLIBC[0]}_{minor}_{machine}" for minor in range(GLIBC[1], 16, -1)]
    old = ["manylinux2014"] + ["manylinux2010", "manylinux1"] * (machine == "x86_64")
    return [*names, *(f"{one}_{machine}" for one in old)]
