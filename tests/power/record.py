"""Records what a board's and a centre's disks are written while both are at work: once, for the replays of `states.py`.

    apt-get download linux-image-6.1.0-57-amd64 && dpkg -x linux-image-*.deb kernel
    python -m tests.power.record --kernel kernel

Boots a virtual machine (qemu-system-x86, busybox-static and cpio from Debian) that sees this machine's files read-only, with two disks of
its own. QEMU's blklogwrites keeps each write and each flush of both. Meanwhile it is noted how far both logs are, again and again, and what
the two have told each other by then: a power cut at such a moment may lose nothing of that.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeagent.state.folder import open_folder
from edgecloud import keys as files
from modelwire.wire.signing import PrivateKey
from tests.edgeagent.boards import fill, make_with
from tests.edgecloud.centre import admit, make_registry
from tests.edgecloud.device import FLEET, Base
from tests.power.meeting import SEED
from tests.power.trace import TRACE, Fact, Trace, encode

SIZE, SIDES = 24 << 20, ("board", "centre")
MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "9pnet_virtio", "9p", "overlay")
END_SECONDS = 1500
SETTINGS = {
    "device.name": "pi-7", "device.fleet": FLEET, "link.resend": "2s", "link.reconnect_min": "100ms", "link.reconnect_max": "1s",
    "train.epochs": "1", "train.every": "30d", "store.history": "3", "update.density": "0.05", "log.level": "error",
}  # fmt: skip
INIT = """#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for m in /m/*.ko; do $B insmod $m || echo insmod $m failed; done
$B mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 host /host || echo no host
$B mount -t tmpfs tmp /up; $B mkdir /up/u /up/w
$B mount -t overlay -o lowerdir=/host,upperdir=/up/u,workdir=/up/w over /root || echo no overlay
for d in proc sys dev tmp; do $B mkdir -p /root/$d; done
$B mount -t proc proc /root/proc; $B mount -t sysfs sys /root/sys; $B mount -t devtmpfs dev /root/dev
$B mkdir -p /root/dev/shm /root/disks/board /root/disks/centre; $B mount -t tmpfs tmp /root/dev/shm
$B ifconfig lo 127.0.0.1 up
$B mount -t ext4 /dev/vda /root/disks/board || echo no board
$B mount -t ext4 /dev/vdb /root/disks/centre || echo no centre
echo GUEST up
export HOME=/tmp PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=@TREE@:@TREE@/cloud PYTHONDONTWRITEBYTECODE=1 OPENBLAS_NUM_THREADS=1
$B chroot /root /bin/sh -c "cd @TREE@ && @PYTHON@ -m tests.power.guest"
echo GUEST done $?
$B sync
$B poweroff -f
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.power.record", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", type=Path, required=True, help="where Debian's package of a kernel was unpacked")
    parser.add_argument("--out", type=Path, default=TRACE, help="the trace (default: the one that the tests replay)")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = {side: made(folder, side) for side in SIDES}
        bases = {side: path.read_bytes() for side, path in images.items()}
        initrd(folder / "initrd.gz", args.kernel)
        moments, facts = booted(folder, args.kernel)
        logs = {side: (folder / f"{side}.log").read_bytes() for side in SIDES}
    trace = Trace(bases, logs, moments, facts)
    args.out.write_bytes(lzma.compress(encode(trace), preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(moments)} moments, {len(facts)} facts, {args.out.stat().st_size:,} bytes")
    return 0 if facts else 1


def made(folder: Path, side: str) -> Path:
    """Make a disk with the folder of one side, as `init` leaves it, and return its image."""
    files_ = folder / f"{side}-files"
    files_.mkdir()
    if side == "board":
        make_board(files_ / "pi-7")
    else:
        make_centre(files_ / "registry")
    image = folder / f"{side}.img"
    with image.open("wb") as out:
        out.truncate(SIZE)
    command = ["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-J", "size=4", "-E", "lazy_itable_init=0", "-d", str(files_), str(image)]
    subprocess.run(command, check=True)
    (folder / f"{side}.log").touch()
    return image


def make_board(home: Path) -> None:
    with open_folder(make_with(home, SETTINGS, seed=SEED), alone=True) as device:
        fill(device)


def make_centre(folder: Path) -> None:
    folder.mkdir()
    store = make_registry(folder / "fleet.db", Base.of(), files_from=400)  # of the updates, too
    for name, number in ((files.RECEIPT, 0xF2), (files.COMMAND, 0xF3)):
        path = folder / name
        path.write_text(files.key_text(files.SECRET[name], bytes([number]) * 32))
        path.chmod(0o600)
    admit(store, "pi-7", PrivateKey(SEED).public, 1)
    store.close()


def initrd(out: Path, kernel: Path) -> None:
    """Write a first file system with busybox, the modules that the kernel needs, and what mounts the rest."""
    modules = next((kernel / "lib" / "modules").iterdir())
    subprocess.run(["depmod", "-b", str(kernel), modules.name], check=True)
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[Path(path).stem] = (path, rest.split())
    order: dict[str, None] = {}

    def add(path: str) -> None:
        for other in reversed(needs[Path(path).stem][1]):
            add(other)
        order[path] = None

    for name in MODULES:
        add(needs[name][0])
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for each in ("bin", "proc", "sys", "dev", "m", "host", "up", "root"):
            (root / each).mkdir()
        shutil.copy(shutil.which("busybox") or "/bin/busybox", root / "bin" / "busybox")
        for i, path in enumerate(order):
            shutil.copy(modules / path, root / "m" / f"{i:02}.ko")
        tree = str(Path(__file__).parents[2])
        (root / "init").write_text(INIT.replace("@TREE@", tree).replace("@PYTHON@", sys.executable))
        (root / "init").chmod(0o755)
        listed = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*"))).encode()
        made = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=listed, capture_output=True, check=True)
    out.write_bytes(gzip.compress(made.stdout, 1))


def command_of(folder: Path, kernel: Path) -> list[str]:
    (image,) = (kernel / "boot").glob("vmlinuz-*")
    words = ["qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-m", "1536", "-smp", "2", "-nodefaults"]
    words += ["-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", str(image)]
    words += ["-initrd", str(folder / "initrd.gz"), "-append", "console=ttyS0 quiet panic=-1"]
    words += ["-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"]
    for side in SIDES:
        words += ["-blockdev", f"driver=file,filename={folder}/{side}.img,node-name=file-{side}"]
        words += ["-blockdev", f"driver=file,filename={folder}/{side}.log,node-name=log-{side}"]
        log = f"driver=blklogwrites,node-name={side},file=file-{side},log=log-{side},log-sector-size=512,log-super-update-interval=64"
        words += ["-blockdev", log, "-device", f"virtio-blk-pci,drive={side}"]
    return words


def booted(folder: Path, kernel: Path) -> tuple[list[tuple[int, int]], list[Fact]]:
    """Let the machine live, and return how far both logs were moment by moment, and what was known by which of them."""
    process = subprocess.Popen(command_of(folder, kernel), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    logs = [os.open(folder / f"{side}.log", os.O_RDONLY) for side in SIDES]
    moments, facts, left, end = [(0, 0)], list[Fact](), b"", time.monotonic() + END_SECONDS
    os.set_blocking(process.stdout.fileno(), False)
    while time.monotonic() < end:
        said = b""
        if select.select([process.stdout], [], [], 0.0005)[0]:
            said = os.read(process.stdout.fileno(), 65536)
            if not said:
                break
        now = (os.fstat(logs[0]).st_size, os.fstat(logs[1]).st_size)
        if now != moments[-1]:
            moments.append(now)
        *lines, left = (left + said).split(b"\n")
        for line in lines:
            facts += list(_facts(line.decode(errors="replace"), len(moments) - 1))
    process.kill()
    process.wait()
    for log in logs:
        os.close(log)
    return moments, facts


def _facts(line: str, moment: int) -> Iterator[Fact]:
    found = re.search(r"FACT (\w+) (\d+) ([0-9a-f]{64})", line)
    if found:
        yield Fact(found[1], int(found[2]), bytes.fromhex(found[3]), moment)
    if not found or found[1] == "verified":
        print(line.strip(), file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
