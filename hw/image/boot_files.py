"""What lies on the boot partition beside the settings: kernel and initrd, and for a Raspberry Pi what its first stages read."""

from __future__ import annotations

import shutil
from pathlib import Path

from .targets import Target

# The 64-bit mainline kernel of Debian, its own device tree, and a serial console on the header's pins.
CONFIG = """\
arm_64bit=1
enable_uart=1
upstream_kernel=1
disable_splash=1
kernel=vmlinuz
initramfs initrd followkernel
cmdline=cmdline.txt
"""
# The firmware's own line switches the memory controller of cgroups off: limits of memory would be ignored without a word.
CMDLINE = "console=tty0 console=ttyS1,115200 cgroup_enable=memory panic=10 net.ifnames=0\n"
FIRMWARE = (
    "bootcode.bin", "start.elf", "start4.elf", "start_cd.elf", "start4cd.elf", "fixup.dat", "fixup4.dat", "fixup_cd.dat", "fixup4cd.dat",
)  # fmt: skip


def gather(target: Target, kernel: Path, version: str, made: Path, out: Path) -> None:
    """Copy what the boot partition holds into a folder. Raises LookupError for what a package no longer has."""
    out.mkdir()
    for name in ("vmlinuz", "initrd"):
        shutil.copyfile(made / name, out / name)
    (out / "README.txt").write_bytes(_readme().encode())
    if not target.dtbs:
        return
    (out / "config.txt").write_text(CONFIG)
    (out / "cmdline.txt").write_text(CMDLINE)
    firmware = kernel / "usr/lib/raspi-firmware"
    for name in FIRMWARE:
        _copy(firmware / name, out)
    for name in target.dtbs:
        _copy(kernel / f"usr/lib/linux-image-{version}/broadcom/{name}.dtb", out)


def _copy(path: Path, out: Path) -> None:
    if not path.is_file():
        raise LookupError(f"Debian's package no longer has {path.name}; hw/image/boot_files.py names it")
    shutil.copyfile(path, out / path.name)


def _readme() -> str:
    return (
        "Put here, before the first start:\r\n"
        "  edgeagent.toml   the device's name, its fleet, its broker, [board] name, and a [[model]] for each model\r\n"
        "  NAME.tflite      the base of each model, by its name\r\n"
        "  fleet.pub        what a board is given of its fleet, from edgecloud init\r\n"
        "  NAME.claim       a token from edgecloud claim new; or device.key, the key of a board that lost its state\r\n"
        "  wifi.toml        optional: the networks of its radio, as hw/image/README.md says: country = \"DE\", and for each\r\n"
        "                   a line [[network]], below it ssid = \"...\" and passphrase = \"...\"\r\n"
        "  authorized_keys  optional: SSH is on for these keys, and off without the file\r\n"
        "Secrets are moved to the data partition and erased here at the first start.\r\n"
    )
