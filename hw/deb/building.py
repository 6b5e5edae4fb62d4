"""Makes a package: the same bytes from the same commit, on any machine."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from edgecommon import __version__

from . import libraries, tree, wheels
from .running import NotMade, run
from .targets import ARCHITECTURES, MADE, OUT, PYTHON, ROOT, Package
from .texts import MAINTAINER

LONG = {
    "edgeagent": """\
 The agent trains the models of a device on what the device sees, holds a
 round to the board's budget, and publishes over MQTT what changed, in
 kilobytes. It brings its own environment under /usr/lib/edgeagent.
 .
 The service starts once /var/lib/edgeagent/agent/edgeagent.toml is there:
 see edgeagent init.""",
    "edgecloud": """\
 The centre takes in what devices publish, rebuilds every version of every
 model bit for bit, and proves it. It brings its own environment under
 /usr/lib/edgecloud.
 .
 The services start once /var/lib/edgecloud/fleet.db is there: see edgecloud
 init.""",
}


def build(name: str, architecture: str, *, version: str = __version__, out: Path = OUT, anew: bool = False, packing: str = "xz") -> Path:
    """Build a package for an architecture and return its file. version: another one is for trying an upgrade.

    anew: our own wheel is compiled again, though one of the same sources is kept; packing: none takes less time and more room.
    Raises NotMade where a tool is missing, or what is asked for is not made.
    """
    package = MADE[name].get(architecture)
    if package is None:
        raise NotMade(f"{name} is made for {', '.join(MADE[name])}, not for {architecture}")
    if not re.fullmatch(r"[0-9][A-Za-z0-9.+~]*", version):
        raise NotMade(f"{version} is no version of a package: it begins with a digit, and letters, digits and .+~ follow")
    target, epoch = ARCHITECTURES[architecture], commit_time()
    with tempfile.TemporaryDirectory(prefix="edge-deb-") as scratch:
        files, site, folder = Path(scratch, "files"), Path(scratch, "site"), Path(scratch, "own")
        folder.mkdir()
        own = wheels.own(target, anew=anew)
        wheels.installed(ROOT / "deploy" / "constraints" / package.constraints, target, site, folder)
        files.mkdir()
        (files / "usr").mkdir()
        tree.environment(files, package, site, own)
        tree.units(files, package)
        tree.pages(files, package, version=version, epoch=epoch)
        tree.control(files, package, fields(package, architecture, version, files))
        tree.settle(files, epoch)
        out.mkdir(parents=True, exist_ok=True)
        made = out / f"{name}_{version}_{architecture}.deb"
        new = out / f".{made.name}.{os.getpid()}"
        # One thread: what several pack differs from what one does, and a builder has any number.
        words: list[str | Path] = ["dpkg-deb", "--root-owner-group", "--threads-max=1", f"-Z{packing}", "--build", files, new]
        run(words, env={"SOURCE_DATE_EPOCH": str(epoch)})
        new.rename(made)
    return made


def fields(package: Package, architecture: str, version: str, files: Path) -> dict[str, str]:
    """Return the fields of the package's control file."""
    major, minor = map(int, PYTHON.split("."))
    needs = [
        f"python3 (>= {PYTHON}~)", f"python3 (<< {major}.{minor + 1})", "adduser", *package.distribution,
        *libraries.depends(libraries.compiled(files)),
    ]  # fmt: skip
    size = sum(-(-path.stat().st_size // 1024) for path in files.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        "Package": package.name, "Version": version, "Architecture": architecture, "Maintainer": MAINTAINER,
        "Installed-Size": str(size), "Depends": ", ".join(needs), "Recommends": "ca-certificates",
        **({"Suggests": "mosquitto"} if package.name == "edgecloud" else {}),
        "Section": "net", "Priority": "optional", "Description": f"{package.summary}\n{LONG[package.name]}",
    }  # fmt: skip


def commit_time() -> int:
    """Return when the commit was made that is packed, or what SOURCE_DATE_EPOCH says, in Unix seconds."""
    said = os.environ.get("SOURCE_DATE_EPOCH") or run(["git", "log", "-1", "--format=%ct"], cwd=ROOT).strip()
    return int(said)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
