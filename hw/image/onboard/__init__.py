"""What stands in the image beside the agent: slots, updates of the system, and the service that calls a system good."""

from __future__ import annotations

from pathlib import Path

from . import slots
from .update import SystemRelease

__all__ = ["SystemRelease", "put", "slots"]

HERE = Path(__file__).parent
LIBRARY = "usr/lib/edgeagent-image"
UNITS = "lib/systemd/system"
WANTED = {
    "edgeagent-mark-good.service": "multi-user.target", "edgeagent-state.service": "multi-user.target",
    "edgeagent-trial.timer": "sysinit.target", "edgeagent-wifi.service": "multi-user.target",
}  # fmt: skip


def put(root: Path, release: SystemRelease, keyring: bytes, signature: int) -> None:
    """Put all of it into a root, which has rauc and rauc-service. keyring: PEM of the bundles' root. signature: the disk's, of its MBR.

    /data/system, /run/edgeagent-image/slot and trial are made by the initrd.
    """
    for name, to, mode in (
        ("slots.py", f"{LIBRARY}/slots", 0o755), ("mark_good.py", f"{LIBRARY}/mark-good", 0o755),
        ("update.py", "usr/sbin/edgeagent-update", 0o755), ("kept_state.py", f"{LIBRARY}/kept-state", 0o755),
        ("wifi.py", f"{LIBRARY}/wifi", 0o755),
        ("rauc-root.conf", "etc/dbus-1/system.d/edgeagent-rauc.conf", 0o644),
        ("units/rauc-slot.conf", "etc/systemd/system/rauc.service.d/slot.conf", 0o644),
        *((f"units/{unit.name}", f"{UNITS}/{unit.name}", 0o644) for unit in sorted((HERE / "units").glob("edgeagent-*"))),
    ):  # fmt: skip
        write(root / to, (HERE / name).read_bytes(), mode)
    write(root / LIBRARY / "check", b"#!/bin/sh\nexec /usr/sbin/edgeagent-update check\n", 0o755)
    write(root / "etc/edgeagent-image", release.text().encode(), 0o644)
    conf = (HERE / "system.conf").read_text().replace("COMPATIBLE", release.compatible).replace("SIGNATURE", f"{signature:08x}")
    write(root / "etc/rauc/system.conf", conf.encode(), 0o644)
    write(root / "etc/rauc/keyring.pem", keyring, 0o644)
    for unit, target in WANTED.items():
        link = root / "etc/systemd/system" / f"{target}.wants" / unit
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(f"/{UNITS}/{unit}")


def write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
