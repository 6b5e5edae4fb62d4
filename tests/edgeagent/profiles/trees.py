"""What the kernels of real boards show under /sys and /proc, written into a folder.

Strings of device trees are those of the kernel's sources and of the boards' firmware; MemTotal is what is left of the memory that is sold.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeagent.board.sensors import Sensors


@dataclass(frozen=True)
class RealBoard:
    """One board as its kernel shows it."""

    profile: str  # that fits it
    compatible: tuple[str, ...]
    model: str
    machine: str
    memory_kib: int
    cores: int = 4
    zones: tuple[str, ...] = ("cpu-thermal",)


BOARDS = (
    RealBoard("pi-zero-2w", ("raspberrypi,model-zero-2-w", "brcm,bcm2837"), "Raspberry Pi Zero 2 W Rev 1.0", "aarch64", 427_000),
    RealBoard("pi-zero-2w", ("raspberrypi,model-zero-2-w", "brcm,bcm2837"), "Raspberry Pi Zero 2 W Rev 1.0", "armv7l", 441_000),
    RealBoard("pi-3b", ("raspberrypi,3-model-b", "brcm,bcm2837"), "Raspberry Pi 3 Model B Rev 1.2", "aarch64", 948_000),
    RealBoard("pi-3b", ("raspberrypi,3-model-b-plus", "brcm,bcm2837"), "Raspberry Pi 3 Model B Plus Rev 1.3", "aarch64", 948_000),
    RealBoard("pi-4", ("raspberrypi,4-model-b", "brcm,bcm2711"), "Raspberry Pi 4 Model B Rev 1.5", "aarch64", 3_884_000),
    RealBoard("pi-4", ("raspberrypi,400", "brcm,bcm2711"), "Raspberry Pi 400 Rev 1.0", "aarch64", 3_884_000),
    RealBoard("pi-5", ("raspberrypi,5-model-b", "brcm,bcm2712"), "Raspberry Pi 5 Model B Rev 1.0", "aarch64", 8_245_000),
    RealBoard(
        "jetson-nano", ("nvidia,p3449-0000-b00+p3448-0000-b00", "nvidia,jetson-nano", "nvidia,tegra210"),
        "NVIDIA Jetson Nano Developer Kit", "aarch64", 4_059_000,
        zones=("AO-therm", "CPU-therm", "GPU-therm", "PLL-therm", "PMIC-Die", "thermal-fan-est"),
    ),
    RealBoard("jetson-nano", ("nvidia,p3450-0000", "nvidia,tegra210"), "NVIDIA Jetson Nano Developer Kit", "aarch64", 4_059_000),
    RealBoard(
        "jetson-orin-nano", ("nvidia,p3768-0000+p3767-0005", "nvidia,p3767-0005", "nvidia,tegra234"),
        "NVIDIA Jetson Orin Nano Developer Kit", "aarch64", 7_800_000, 6, ("cpu-thermal", "gpu-thermal", "tj-thermal"),
    ),
    RealBoard(
        "jetson-orin-nano", ("nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"),
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "aarch64", 7_800_000, 6,
    ),
    RealBoard("beagleplay", ("beagle,am625-beagleplay", "ti,am625"), "BeagleBoard.org BeaglePlay", "aarch64", 1_960_000,
              zones=("main0-thermal", "main1-thermal")),
    RealBoard("generic-arm64", ("linux,dummy-virt",), "linux,dummy-virt", "aarch64", 498_000, 2, ()),
    RealBoard("generic-arm64", ("radxa,rock-5b", "rockchip,rk3588"), "Radxa ROCK 5B", "aarch64", 8_000_000, 8, ("soc-thermal",)),
    RealBoard("generic-armhf", ("ti,am335x-bone-black", "ti,am335x-bone", "ti,am33xx"), "TI AM335x BeagleBone Black", "armv7l", 498_000, 1),
    RealBoard("x86-64-gateway", (), "", "x86_64", 8_000_000, 4, ("acpitz", "x86_pkg_temp")),
)  # fmt: skip


def tree(folder: Path, board: RealBoard) -> Sensors:
    """Write what a board shows into a folder, and return sensors that read it."""
    sys, proc = folder / "sys", folder / "proc"
    proc.mkdir(parents=True, exist_ok=True)
    if board.compatible:
        node = sys / "firmware" / "devicetree" / "base"
        node.mkdir(parents=True)
        (node / "compatible").write_bytes(b"".join(word.encode() + b"\0" for word in board.compatible))
        (node / "model").write_bytes(board.model.encode() + b"\0")
        (proc / "device-tree").symlink_to(node)
    (proc / "meminfo").write_text(f"MemTotal:       {board.memory_kib:>8} kB\nMemFree:          123456 kB\nMemAvailable:     234567 kB\n")
    cpu = sys / "devices" / "system" / "cpu"
    cpu.mkdir(parents=True)
    (cpu / "present").write_text(f"0-{board.cores - 1}\n" if board.cores > 1 else "0\n")
    for number, kind in enumerate(board.zones):
        zone = sys / "class" / "thermal" / f"thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(f"{kind}\n")
        (zone / "temp").write_text(f"{45_000 + 1000 * number}\n")
    return Sensors(sys=sys, proc=proc)
