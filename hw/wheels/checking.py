"""What a wheel must be before it is tried: one compiled module of the stable ABI, no sources of it, and the tag that it says."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path

from hw.foreign import CannotRun

from .targets import ABI, Target
from .tools import said

NEVER = (".c", ".h", ".pyx", ".pxd", ".pxi", ".o", ".pyc")  # what kernels are made from, and what is left from making them


def checked(wheel: Path, target: Target, libc: str, *, python: Path) -> str:
    """Check a repaired wheel, and return what was found in a line. Raises CannotRun for one that is not what its name says."""
    contents(wheel)
    said([python, "-m", "abi3audit", "--strict", wheel])
    shown = json.loads(said([python, "-m", "auditwheel", "show", "--json", wheel]))
    return f"{shown_tag(shown, wheel, target, libc)}; abi3audit and auditwheel agree"


def contents(wheel: Path) -> None:
    """Check what a wheel holds. Raises CannotRun for no compiled module or several, for sources of one, and for files of several times."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        times = {one.date_time for one in archive.infolist()}
    compiled = [name for name in names if re.search(r"\.so(\.|$)", name)]
    if compiled != ["modelwire/_core/kernel.abi3.so"]:
        raise CannotRun(f"{wheel.name} has not one compiled module, of the stable ABI: {compiled}")
    if sources := [name for name in names if name.endswith(NEVER)]:
        raise CannotRun(f"{wheel.name} holds {sources[:5]}, which nobody needs who installs it")
    if len(times) != 1:
        raise CannotRun(f"{wheel.name} has files of several times: it will not come out the same again")
    if f"-{ABI}-" not in wheel.name:
        raise CannotRun(f"{wheel.name} is not for {ABI}")


def shown_tag(shown: dict[str, object], wheel: Path, target: Target, libc: str) -> str:
    """Return the tag that auditwheel shows for what a wheel binds to. Raises CannotRun when it is another than the target's."""
    tag = target.manylinux if libc == "glibc" else target.musllinux
    if shown.get("overall_tag") != tag:
        raise CannotRun(f"auditwheel shows {shown.get('overall_tag')} for what {wheel.name} binds to, and not {tag}")
    return tag


def sha256(path: Path) -> str:
    """Return a file's digest in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
