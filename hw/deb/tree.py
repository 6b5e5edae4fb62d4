"""Lays out the files of a package in an empty folder: the environment, the program, units, pages, and the scripts of the package."""

from __future__ import annotations

import gzip
import importlib
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

from edgecloud.certificates.broker_files import BrokerPlace, texts

from .running import run
from .targets import PYTHON, ROOT, Package
from .texts import changelog, copyright_of, manual

SYSTEMD = Path("lib/systemd/system")
SCRIPTS = Path(__file__).parent / "debian"
# The program: never from the folder in which it is called, nor with what a user has installed for himself.
PROGRAM = """#!/bin/sh
unset PYTHONHOME PYTHONPATH
export PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1
exec /usr/lib/{name}/bin/python -m {name} "$@"
"""
# A virtual environment by its own description, so that its processes find what this one has: PEP 405.
PYVENV = """home = /usr/bin
include-system-site-packages = {system}
version = {python}
"""
# Of others' wheels, what no program of ours reads: tests, headers, stubs, and LiteRT's compilers for accelerators and its GPU.
LEFT_OUT = re.compile(
    r"(^|/)(tests?|include)/|\.(pyi|pxd|pyx|h|hpp|a|c|cpp)$|^bin/|/__pycache__/"
    r"|^ai_edge_litert/(aot|tools|vendors)/|^ai_edge_litert/libLiteRtWebGpuAccelerator\.so$|^(pip|setuptools)(-[^/]*)?/"
)


def environment(tree: Path, package: Package, site: Path, own: Path) -> None:
    """Put the environment in place. site: a folder of others' packages; own: our wheel."""
    home = tree / "usr" / "lib" / package.name
    packages = home / "lib" / f"python{PYTHON}" / "site-packages"
    shutil.copytree(site, packages, symlinks=True, ignore=lambda folder, names: _unread(Path(folder).relative_to(site), names))
    with zipfile.ZipFile(own) as wheel:
        for name in sorted(wheel.namelist()):
            if name.split("/")[0] in package.packages or ".dist-info/" in name:
                wheel.extract(name, packages)
    for entries in packages.glob("edgeagent-*.dist-info/entry_points.txt"):
        entries.unlink()  # it names the other program, too
    (home / "bin").mkdir()
    (home / "bin" / "python").symlink_to(f"../../../bin/python{PYTHON}")
    (home / "pyvenv.cfg").write_text(PYVENV.format(system=str(bool(package.distribution)).lower(), python=PYTHON))
    write(home / "bin" / package.name, PROGRAM.format(name=package.name), 0o755)
    for script in package.scripts:
        write(home / "bin" / script, (ROOT / "deploy" / script).read_text(), 0o755)
    (tree / "usr" / "bin").mkdir()
    (tree / "usr" / "bin" / package.name).symlink_to(f"../lib/{package.name}/bin/{package.name}")
    for path in packages.rglob("*"):  # what is imported is not run
        if path.is_file():
            path.chmod(0o644)
    compile_all(tree, packages)


def _unread(folder: Path, names: Iterable[str]) -> set[str]:
    return {name for name in names if LEFT_OUT.search(str(folder / name)) or LEFT_OUT.search(f"{folder / name}/")}


def compile_all(tree: Path, packages: Path) -> None:
    """Compile all modules beforehand: a board would take half a minute, and a root that is read-only can't.

    The bytecode counts without a look at its source: tools that make images give files times of their own.
    """
    run([
        sys.executable, "-m", "compileall", "-q", "-j", "2", "--invalidation-mode", "unchecked-hash",
        "-s", tree, "-p", "/", packages,
    ])  # fmt: skip


def units(tree: Path, package: Package) -> None:
    """Put the units of deploy/ in place, which run what the package brings."""
    for unit in package.units:
        write(tree / SYSTEMD / unit, unit_text(package, unit))


def unit_text(package: Package, unit: str) -> str:
    """Return a unit of deploy/ as the package has it: the program stands elsewhere."""
    text = (ROOT / "deploy" / unit).read_text()
    for script in package.scripts:
        text = text.replace(f"/opt/{package.name}/bin/{script}", f"/usr/lib/{package.name}/bin/{script}")
    return text.replace(f"/opt/{package.name}/bin/", "/usr/bin/")


def pages(tree: Path, package: Package, *, version: str, epoch: int) -> None:
    """Put the copyright, the changelog and the manual's page in place."""
    doc = tree / "usr" / "share" / "doc" / package.name
    write(doc / "copyright", copyright_of(tree, package))
    packed(doc / "changelog.gz", changelog(package, version, epoch))
    if package.name == "edgecloud":  # what `edgecloud broker config` writes for a mosquitto on this machine, to read beforehand
        for name, text in texts(BrokerPlace("FLEET", Path("/etc/mosquitto/edge"))).items():
            write(doc / "examples" / "mosquitto" / name, text)
    parser = importlib.import_module(f"{package.name}.cli").parser()
    packed(tree / "usr" / "share" / "man" / "man1" / f"{package.name}.1.gz", manual(package, parser, version, epoch))
    overrides = (SCRIPTS / "lintian-overrides").read_text().format(name=package.name)
    write(tree / "usr" / "share" / "lintian" / "overrides" / package.name, overrides)


def control(tree: Path, package: Package, fields: dict[str, str]) -> None:
    """Write what dpkg reads: the fields, the package's scripts and the digests of all files."""
    folder = tree / "DEBIAN"
    folder.mkdir()
    for script in sorted((SCRIPTS / package.name).iterdir()):
        write(folder / script.name, script.read_text(), 0o755)
    write(folder / "control", "".join(f"{name}: {text}\n" for name, text in fields.items()))
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink() and folder not in path.parents)
    sums = run(["md5sum", *(path.relative_to(tree) for path in files)], cwd=tree)
    write(folder / "md5sums", sums)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def packed(path: Path, text: str) -> None:
    """Write a file as Debian keeps pages: compressed, with no name and no time in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def settle(tree: Path, epoch: int) -> None:
    """Give every file the same owner's rights and the same time, whoever builds it and wherever."""
    for path in [tree, *tree.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)
