"""What a board has beside its processor and memory: where its disk lies, whether the kernel bounds memory, and a watchdog."""

from __future__ import annotations

import os
from pathlib import Path

_READ_MAX = 4096  # bytes of one file
_GROUPS = "fs/cgroup"


def storage_kind(sys: Path, device: int) -> str:
    """Return what a file system lies on: sd, emmc, nvme, ssd, usb, disk or virtual; empty where the kernel does not say.

    device: of a file on it, as `os.stat` numbers it.
    """
    entry = sys / "dev" / "block" / f"{os.major(device)}:{os.minor(device)}"
    try:
        place = entry.resolve(strict=True)
    except (OSError, RuntimeError):  # none, or links that lead in a circle
        return ""
    disk = next((one for one in (place, place.parent) if (one / "queue").is_dir()), None)
    if disk is None:
        return ""
    if disk.name.startswith("mmcblk"):
        return {"SD": "sd", "MMC": "emmc"}.get(text(disk / "device" / "type"), "")
    if disk.name.startswith("nvme"):
        return "nvme"
    if disk.name.startswith("vd"):
        return "virtual"
    if not disk.name.startswith("sd"):
        return ""  # a mapping, a loop, memory: what is under it is not asked
    if text(disk / "removable") == "1":
        return "usb"
    return {"0": "ssd", "1": "disk"}.get(text(disk / "queue" / "rotational"), "")


def bounds_memory(sys: Path, proc: Path) -> bool | None:
    """Return whether the kernel can bound the memory of a service; None where it does not say."""
    controllers = text(sys / _GROUPS / "cgroup.controllers").split()
    if "memory" in controllers:
        return True
    for line in text(proc / "cgroups").splitlines():
        words = line.split()
        if words[:1] == ["memory"] and len(words) == 4:
            return words[3] == "1"  # on: of the first kind, or not handed down to where this runs
    return False if controllers else None


def watchdog(sys: Path) -> str | None:
    """Return what the kernel calls the board's watchdog, empty where it has no name; None where there is none."""
    try:
        found = sorted(one for one in (sys / "class" / "watchdog").iterdir() if one.name.startswith("watchdog"))
    except OSError:
        return None
    said = text(found[0] / "identity") if found else ""
    return None if not found else said if said.isprintable() else ""


def text(path: Path) -> str:
    """Return what a file says, without the white space around it; empty when it can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(_READ_MAX).decode("ascii", "replace").strip()
    except OSError:
        return ""
