"""Other systems for the test's updates, made from the image's own: a newer one, and one whose agent does not come up."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hw.image import building, bundle, keys
from hw.image.onboard import SystemRelease

NEWER, BROKEN = "9000.1", "9000.2"  # versions: above any of an image
BREAKS = {"usr/bin/edgeagent": b"#!/bin/sh\necho 'this agent does not come up' >&2\nexit 1\n"}


def release(image: Path) -> SystemRelease:
    """Return what an image says of its system."""
    said = json.loads((image / "image.json").read_text())
    return SystemRelease(said["compatible"], said["version"], said["kernel"])


def updates(image: Path, work: Path) -> tuple[Path, Path]:
    """Return two signed bundles, a good one and one with a broken agent; made once for an image, kept in `work`."""
    mark, own = work / "bundles.of", (image / "image.json").read_bytes()
    good, broken = work / "good.raucb", work / "broken.raucb"
    if mark.exists() and mark.read_bytes() == own:
        return good, broken
    made(image, good, replace(release(image), version=NEWER), {}, work)
    made(image, broken, replace(release(image), version=BROKEN), BREAKS, work)
    mark.write_bytes(own)
    return good, broken


def made(image: Path, out: Path, new: SystemRelease, files: Mapping[str, bytes], work: Path) -> None:
    """Write a signed bundle with an image's system under another version and with other files. Needs root, for the files' owners."""
    root, system = work / "system", work / "system.squashfs"
    shutil.rmtree(root, ignore_errors=True)
    system.unlink(missing_ok=True)
    subprocess.run(["unsquashfs", "-q", "-n", "-d", str(root), str(image / "root.squashfs")], check=True, stdout=subprocess.DEVNULL)
    for name, data in {"etc/edgeagent-image": new.text().encode(), **files}.items():
        (root / name).unlink(missing_ok=True)
        (root / name).write_bytes(data)
        (root / name).chmod(0o755 if data.startswith(b"#!") else 0o644)
    words = ["mksquashfs", str(root), str(system), "-comp", "zstd", "-Xcompression-level", "3", "-noappend", "-quiet", "-no-progress"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(root)
    folder = building.ROOT / "build/hw/keys"
    keys.make(folder)
    bundle.make(system, new, out, folder / "signer.pem", folder / "signer.key", folder / "root.pem")
    system.unlink()
