"""The steps from packages to a card, each timed and its size noted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecommon import __version__

from . import bill, boot_files, debian, disk, initrd, keys, onboard, rootfs
from .targets import BASE, KERNEL, RADIO, Target

ROOT = Path(__file__).resolve().parents[2]
NEEDED = {
    "mmdebstrap": "mmdebstrap", "mksquashfs": "squashfs-tools", "mcopy": "mtools", "mkfs.vfat": "dosfstools", "mke2fs": "e2fsprogs",
    "depmod": "kmod", "tar": "tar",
}  # fmt: skip


@dataclass(slots=True)
class Steps:
    """How long each step took and what it gave, in order."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        print(f"{name} ...", file=sys.stderr, flush=True)
        row: dict[str, Any] = {"step": name}
        started = time.monotonic()
        yield row
        row["seconds"] = round(time.monotonic() - started, 1)
        self.rows.append(row)

    def table(self) -> str:
        lines = [f"{'step':<34}{'seconds':>9}{'MiB':>9}"]
        for row in self.rows:
            size = f"{row['bytes'] / disk.MIB:.1f}" if "bytes" in row else ""
            lines.append(f"{row['step']:<34}{row['seconds']:>9.1f}{size:>9}")
        return "\n".join(lines)


def obstacle() -> str:
    """Return why no image can be made here; empty when one can."""
    missing = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    return f"missing here: apt-get install {' '.join(missing)}" if missing else ""


def build(target: Target, out: Path, *, deb: Path | None = None, agent: bool = True, fresh: bool = False) -> dict[str, Any]:
    """Make the image of one board in `out`, and return what image.json says of it. Raises RuntimeError, LookupError, CardTooSmall."""
    steps, epoch = Steps(), commit_time()
    made = out.with_name(f"{out.name}.part")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    work = made / "work"
    work.mkdir()
    with steps.step("Debian: the system") as row:
        base = _cached("base", target, BASE, fresh)
        row["bytes"] = base.stat().st_size
    with steps.step("Debian: kernel and firmware") as row:
        files = kernel_files(target, fresh=fresh)
        row["bytes"] = files.stat().st_size
        kernel = work / "kernel"
        rootfs.unpack(files, kernel)
    version = next((kernel / "lib/modules").iterdir()).name
    root = work / "root"
    package = (deb or _package(target.arch)) if agent else None
    _system(steps, target, root, base, kernel, version, package, epoch)
    with steps.step("the system, squashed") as row:
        rootfs.squash(root, made / "root.squashfs", epoch)
        row["bytes"] = (made / "root.squashfs").stat().st_size
    with steps.step("initrd") as row:
        _depmod(kernel, version)
        (made / "initrd").write_bytes(initrd.build(kernel, version, target.initrd, epoch))
        row["bytes"] = (made / "initrd").stat().st_size
    shutil.copyfile(kernel / f"boot/vmlinuz-{version}", made / "vmlinuz")
    with steps.step("boot partition") as row:
        boot_files.gather(target, kernel, version, made, work / "boot")
        disk.boot_partition(work / "boot", work / "boot.vfat", epoch)
        row["bytes"] = disk.BOOT
    with steps.step("the card") as row:
        disk.data_partition(work / "data.ext4", epoch)
        disk.card(made / "disk.img", work / "boot.vfat", made / "root.squashfs", work / "data.ext4")
        row["bytes"] = disk.SIZE
    sums = {one: sha256(made / one) for one in ("disk.img", "root.squashfs", "vmlinuz", "initrd")}
    with steps.step("bill of materials") as row:
        taken = (f"linux-image-{version}", "busybox-static", *target.firmware)
        _bill(target, made, root, kernel, taken, package, sums["disk.img"], epoch)
        row["bytes"] = (made / "sbom.cdx.json").stat().st_size
    says = {
        "board": target.name, "says": target.says, "tried": target.tried, "version": __version__, "commit": commit(), "time": epoch,
        "compatible": target.compatible, "kernel": version, "agent": package.name if package else None, "sha256": sums,
        "bytes": {one: (made / one).stat().st_size for one in sums} | ({"package": package.stat().st_size} if package else {}),
        "steps": steps.rows,
    }  # fmt: skip
    (made / "image.json").write_text(json.dumps(says, indent=1) + "\n")
    shutil.rmtree(work)
    shutil.rmtree(out, ignore_errors=True)
    made.rename(out)
    print(steps.table())
    print(f"{out / 'disk.img'}: {target.says}; {target.tried}\nsha256 {sums['disk.img']}")
    return says


def _system(
    steps: Steps, target: Target, root: Path, base: Path, kernel: Path, version: str, package: Path | None, epoch: int
) -> None:  # fmt: skip
    """Make the system in `root`, from Debian's part to what is ours."""
    with steps.step("unpack"):
        rootfs.unpack(base, root)
        rootfs.add_modules(root, kernel, version)
        rootfs.add_firmware(root, kernel, RADIO if target.firmware else ())
        for name in target.firmware:  # its terms go where it goes
            place = Path("usr/share/doc", name, "copyright")
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(kernel / place, root / place)
    environment = {"SOURCE_DATE_EPOCH": str(epoch), "DEBIAN_FRONTEND": "noninteractive"}
    if package:
        with steps.step("the agent's package") as row:
            row["bytes"] = package.stat().st_size
            rootfs.add_package(root, package, environment)
    with steps.step("furnish"):
        rootfs.furnish(root, version=__version__)
        onboard.put(root, onboard.SystemRelease(target.compatible, __version__, version), keyring(), disk.SIGNATURE)


def _bill(
    target: Target, made: Path, root: Path, kernel: Path, taken: tuple[str, ...], package: Path | None, image: str, epoch: int
) -> None:  # fmt: skip
    """Write sbom.cdx.json and sources.json. taken: packages of which files alone are in the image."""
    index = bill.index_of(target.arch, ("main", "non-free-firmware"))
    parts = [*bill.installed(root, index), *bill.unpacked(kernel, taken, target.arch, index), *bill.distributions(root)]
    document = bill.cyclonedx(parts, name=target.compatible, version=__version__, epoch=epoch, image=image)
    (made / "sbom.cdx.json").write_text(json.dumps(document, indent=1) + "\n")
    rows = bill.sources(parts, commit=commit(), package=package.name if package else "", sha256=sha256(package) if package else "")
    (made / "sources.json").write_text(json.dumps(rows, indent=1) + "\n")


def keyring() -> bytes:
    """Return the root that a board takes bundles by: build/hw/keys/root.pem, which a firmware team replaces by its own."""
    folder = ROOT / "build/hw/keys"
    if not (folder / "root.pem").exists():
        keys.make(folder)
    return (folder / "root.pem").read_bytes()


def cache() -> Path:
    """Return where what was fetched is kept."""
    return Path(os.environ.get("HW_CACHE") or ROOT / "build/hw/cache")


def commit_time() -> int:
    """Return when the commit was made, in seconds since 1970; SOURCE_DATE_EPOCH has the word before it."""
    if said := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(said)
    return int(_git("log", "-1", "--format=%ct") or debian.EPOCH)


def commit() -> str:
    """Return the commit that is built, with a plus sign where files of it were changed; empty outside a clone."""
    return _git("rev-parse", "HEAD") + "+" * bool(_git("status", "--porcelain", "--untracked-files=no"))


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def kernel_files(target: Target, *, fresh: bool = False) -> Path:
    """Return a tar of the files of Debian's kernel for a board, and of its firmware; made where it is not kept."""
    return _cached("files", target, (*KERNEL, *target.firmware), fresh)


def _cached(kind: str, target: Target, packages: tuple[str, ...], fresh: bool) -> Path:
    """Return a tar of Debian's part, made where it is not there: an installed system (base), or the files of packages alone (files)."""
    key = hashlib.sha256(json.dumps([kind, target.arch, sorted(packages), debian.EPOCH, debian.RELEASE]).encode()).hexdigest()[:12]
    tar = cache() / "image" / f"{kind}-{target.arch}-{key}.tar"
    if tar.exists() and not fresh:
        return tar
    tar.parent.mkdir(parents=True, exist_ok=True)
    part, log = tar.with_name(f"{tar.stem}.{os.getpid()}.tar"), tar.with_suffix(".log")
    if kind == "base":
        debian.install(part, target.arch, packages, log)
    else:
        components = ("main", "non-free-firmware") if target.firmware else ("main",)
        debian.extract(part, target.arch, packages, log, components)
    part.rename(tar)
    return tar


def _package(arch: str) -> Path:
    """Return the agent's Debian package, made now: one that lies there may be of another commit."""
    path = ROOT / f"build/deb/edgeagent_{__version__}_{arch}.deb"
    done = subprocess.run([sys.executable, "-m", "hw.deb", "--arch", arch, "--package", "edgeagent"], cwd=ROOT)
    if done.returncode or not path.exists():
        raise RuntimeError(f"no {path.relative_to(ROOT)}: make deb ARCH={arch}")
    return path


def _depmod(kernel: Path, version: str) -> None:
    subprocess.run(["depmod", "-b", str(kernel), version], check=True)


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""
