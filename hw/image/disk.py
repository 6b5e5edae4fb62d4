"""The card: a boot partition, two systems, the data. Written as one file with no mount and no loop device."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

from .onboard import slots

MIB = 1 << 20
SECTOR = 512
BOOT, SLOT = 256 * MIB, 512 * MIB
SIZE = 2048 * MIB  # a power of two: emulated card readers take no other
BEGIN = 4 * MIB
DATA = SIZE - BEGIN - BOOT - 2 * SLOT  # it grows to the end of the card when that is first started
SIGNATURE = 0xED9E0001  # of the partition table; the initrd knows its card by it
OFFSETS = {"boot": BEGIN, "A": BEGIN + BOOT, "B": BEGIN + BOOT + SLOT, "data": BEGIN + BOOT + 2 * SLOT}
# Named outright: mke2fs' own list differs from one Debian to the next.
FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,"
    "extra_isize,metadata_csum"
)
VOLUME = "ed9e0b00"  # serial number of the boot partition's file system


class CardTooSmall(Exception):
    """What was made does not fit into its partition."""


def boot_partition(folder: Path, out: Path, epoch: int) -> None:
    """Write a vfat with what lies in a folder and two copies of a new card's slot states. The same bytes for the same files."""
    for number, name in enumerate(slots.COPIES):
        (folder / name).write_bytes(slots.SlotStates(serial=number).encode())
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if total > BOOT - 16 * MIB:
        raise CardTooSmall(f"the boot partition's files take {total / MIB:.0f} MiB, and it has {BOOT / MIB:.0f}")
    out.unlink(missing_ok=True)
    _sparse(out, BOOT)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1"}
    _run("mkfs.vfat", "-F", "32", "-i", VOLUME, "-n", "BOOT", "--invariant", out, environment=environment)
    for path in sorted(folder.rglob("*")):
        os.utime(path, (epoch, epoch))
    for path in sorted(folder.rglob("*")):  # by name: a folder's own order is the file system's affair
        place = f"::{path.relative_to(folder)}"
        if path.is_dir():
            _run("mmd", "-i", out, place, environment=environment)
        else:
            _run("mcopy", "-m", "-Q", "-i", out, path, place, environment=environment)


def data_partition(out: Path, epoch: int) -> None:
    """Write an empty ext4: what lies in it is made on the board."""
    out.unlink(missing_ok=True)
    _sparse(out, DATA)
    environment = {**os.environ, "E2FSPROGS_FAKE_TIME": str(epoch), "SOURCE_DATE_EPOCH": str(epoch)}
    seeds = "hash_seed=ed9e0000-0000-4000-8000-0000000000db,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"
    _run("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "1", "-J", "size=16", "-L", "data",
         "-U", "ed9e0000-0000-4000-8000-0000000000da", "-O", FEATURES, "-E", seeds, out, environment=environment)  # fmt: skip


def card(out: Path, boot: Path, system: Path, data: Path) -> None:
    """Write the whole card, sparse: a partition table, the boot partition, the system in slot A, slot B empty, the data."""
    if system.stat().st_size > SLOT:
        raise CardTooSmall(f"the system takes {system.stat().st_size / MIB:.0f} MiB, and a slot has {SLOT / MIB:.0f}")
    out.unlink(missing_ok=True)
    _sparse(out, SIZE)
    with out.open("r+b") as file:
        file.write(table())
    for place, path in (("boot", boot), ("A", system), ("data", data)):
        _run("dd", f"if={path}", f"of={out}", "bs=1M", f"seek={OFFSETS[place] // MIB}", "conv=notrunc,sparse", "status=none")


def table() -> bytes:
    """Return the first sector: a partition table with four primary partitions and our signature."""
    sizes = {"boot": BOOT, "A": SLOT, "B": SLOT, "data": DATA}
    rows = b"".join(
        # The addresses in cylinders are the ones that say: look at the sectors.
        struct.pack("<B3sB3sII", 0x80 if name == "boot" else 0, b"\xfe\xff\xff", 0x0C if name == "boot" else 0x83, b"\xfe\xff\xff",
                    OFFSETS[name] // SECTOR, size // SECTOR)
        for name, size in sizes.items()
    )  # fmt: skip
    return bytes(440) + struct.pack("<IH", SIGNATURE, 0) + rows + b"\x55\xaa"


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _run(*words: str | Path, environment: dict[str, str] | None = None) -> None:
    if shutil.which(str(words[0])) is None:
        raise RuntimeError(f"{words[0]} is not here: apt-get install mtools dosfstools e2fsprogs")
    done = subprocess.run([str(one) for one in words], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{words[0]} failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
