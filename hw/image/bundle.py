"""Makes a signed update of the system from an image that was made: python -m hw.image.bundle --board qemu-arm64

    build/hw/bundle/edgeagent-BOARD-VERSION.raucb    what `edgeagent-update install` takes on a board of this kind

The bundle says for which board it is, its version, and for which kernel its modules are. It is signed with build/hw/keys/signer.key,
which is made where it is missing (python -m hw.image.keys); a firmware team names its own with --cert and --key. Needs rauc and
squashfs-tools.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import building, keys
from .onboard import SystemRelease
from .targets import TARGETS

KEYS = building.ROOT / "build/hw/keys"
EXAMPLE = "example: python -m hw.image.bundle --board rpi4 --key team.key --cert team.pem --keyring root.pem"


def main(arguments: Sequence[str] | None = None) -> int:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="hw.image.bundle", description=__doc__, epilog=EXAMPLE, formatter_class=shape)
    parser.add_argument("--board", required=True, choices=TARGETS, help="the board that it is for")
    parser.add_argument("--image", type=Path, metavar="DIR", help="what make image wrote (default: build/hw/image/BOARD)")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="certificate of the key that signs")
    parser.add_argument("--key", type=Path, metavar="FILE", help="private key that signs, PEM, or a PKCS#11 URL")
    parser.add_argument("--keyring", type=Path, metavar="FILE", help="root that the boards hold: the bundle is checked against it")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write it")
    args = parser.parse_args(arguments)
    image = args.image or building.ROOT / "build/hw/image" / args.board
    if not (image / "image.json").exists():
        print(f"hw.image.bundle: there is no image in {image}: make image BOARD={args.board}", file=sys.stderr)
        return 1
    if args.cert is None or args.key is None or args.keyring is None:
        keys.make(KEYS)
    said = json.loads((image / "image.json").read_text())
    release = SystemRelease(said["compatible"], said["version"], said["kernel"])
    out = args.out or building.ROOT / "build/hw/bundle" / f"edgeagent-{args.board}-{release.version}.raucb"
    signing = (args.cert or KEYS / "signer.pem", args.key or KEYS / "signer.key", args.keyring or KEYS / "root.pem")
    try:
        make(image / "root.squashfs", release, out, *signing)
    except RuntimeError as error:
        print(f"hw.image.bundle: {error}", file=sys.stderr)
        return 1
    print(f"{out}: {release.version} for {release.compatible}, kernel {release.kernel}, {out.stat().st_size / 2**20:.0f} MiB, signed")
    return 0


def manifest(release: SystemRelease) -> str:
    """Return the text of a bundle's manifest (RAUC, "Manifest"). The kernel stands in `build`, which RAUC leaves to us."""
    return (
        f"[update]\ncompatible={release.compatible}\nversion={release.version}\nbuild=kernel {release.kernel}\n\n"
        "[bundle]\nformat=verity\n\n[image.rootfs]\nfilename=root.img\n"
    )


def make(system: Path, release: SystemRelease, out: Path, cert: Path, key: Path, keyring: Path) -> None:
    """Write a signed bundle. system: a squashfs as it goes into a slot. Raises RuntimeError with what rauc said."""
    if shutil.which("rauc") is None:
        raise RuntimeError("rauc is not here: apt-get install rauc squashfs-tools")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f"{out.name}.part")
    part.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        content = Path(name) / "content"
        content.mkdir()
        shutil.copyfile(system, content / "root.img")
        (content / "manifest.raucm").write_text(manifest(release))
        # It is a squashfs of a squashfs: to press it once more takes time and gives nothing.
        signing = [f"--cert={cert}", f"--key={key}", f"--keyring={keyring}"]
        words = ["rauc", *signing, "bundle", "--mksquashfs-args=-noD -noF", str(content), str(part)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"rauc failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
    part.rename(out)


if __name__ == "__main__":
    raise SystemExit(main())
