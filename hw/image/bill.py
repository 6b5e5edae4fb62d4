"""What is in an image and what it was made from: a CycloneDX bill of materials, and a list of sources with their hashes."""

from __future__ import annotations

import datetime
import hashlib
import re
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from . import debian

# License: GPL-2+ and the like, as Debian's machine-readable copyright files say it; 0 and more spaces, one word or several.
_LICENSE = re.compile(r"^License:[ \t]*(\S[^\n]{0,79})$", re.M)
# All of Debian's packages of firmware share one such file: of these, what it says of these files.
_ONLY = {"firmware-brcm80211": "brcm/"}


@dataclass(frozen=True, slots=True)
class BillOfPart:
    """One package of Debian, or one distribution of Python."""

    name: str
    version: str
    kind: str  # deb or pypi
    arch: str = ""
    source: str = ""  # Debian's source package and its version
    sha256: str = ""  # of the .deb that Debian publishes; empty where its index no longer has this version
    licenses: tuple[str, ...] = ()

    @property
    def purl(self) -> str:
        if self.kind == "pypi":
            return f"pkg:pypi/{self.name.lower().replace('_', '-')}@{self.version}"
        return f"pkg:deb/debian/{self.name}@{self.version.replace('+', '%2B').replace(':', '%3A')}?arch={self.arch}&distro={debian.SUITE}"

    def component(self) -> dict[str, Any]:
        """Return it as CycloneDX has it."""
        out: dict[str, Any] = {"type": "library", "bom-ref": self.purl, "name": self.name, "version": self.version, "purl": self.purl}
        if self.licenses:
            out["licenses"] = [{"license": {"name": one}} for one in self.licenses]
        if self.sha256:
            out["hashes"] = [{"alg": "SHA-256", "content": self.sha256}]
        if self.source:
            out["properties"] = [{"name": "debian:source", "value": self.source}]
        return out


def installed(root: Path, index: dict[tuple[str, str], str]) -> Iterator[BillOfPart]:
    """Yield the packages of Debian that dpkg counts in a system."""
    for part in (root / "var/lib/dpkg/status").read_text().split("\n\n"):
        fields = HeaderParser().parsestr(part)
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            yield _part(root, name, version, fields["Architecture"], fields.get("Source", name), index)


def unpacked(folder: Path, names: Iterable[str], arch: str, index: dict[tuple[str, str], str]) -> Iterator[BillOfPart]:
    """Yield the packages of which files alone were taken, in the newest version that the index has: the one that was unpacked."""
    for name in names:
        versions = [version for (known, version) in index if known == name]
        newest = ""
        for version in versions:
            if not newest or subprocess.run(["dpkg", "--compare-versions", version, "gt", newest]).returncode == 0:
                newest = version
        yield _part(folder, name, newest or "unknown", arch, name, index)


def distributions(root: Path) -> Iterator[BillOfPart]:
    """Yield the distributions of Python under /usr/lib: the agent's environment."""
    for path in sorted(root.glob("usr/lib/edgeagent/**/*.dist-info/METADATA")):
        fields = HeaderParser().parsestr(path.read_text(errors="replace"))
        said = fields.get("License-Expression") or fields.get("License") or ""
        classes = [one.rpartition("::")[2].strip() for one in fields.get_all("Classifier", []) if one.startswith("License ::")]
        licenses = (said.strip(),) if said.strip() and "\n" not in said and len(said) < 80 else tuple(dict.fromkeys(classes))
        yield BillOfPart(fields["Name"], fields["Version"], "pypi", licenses=licenses)


def index_of(arch: str, components: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return {(package, version): SHA-256 of its .deb} of this machine's own mirror. Raises RuntimeError where it can't be asked."""
    found = {}
    with debian.lists(arch, components) as folder:
        for path in folder.glob("*_Packages"):
            for part in path.read_text(errors="replace").split("\n\n"):
                fields = dict(re.findall(r"^(Package|Version|SHA256): (\S+)$", part, re.M))
                if len(fields) == 3:
                    found[fields["Package"], fields["Version"]] = fields["SHA256"]
    return found


def cyclonedx(parts: Sequence[BillOfPart], *, name: str, version: str, epoch: int, image: str) -> dict[str, Any]:
    """Return a bill of materials, CycloneDX 1.5. image: SHA-256 of the card; the same image gives the same bill."""
    at = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=hashlib.sha256(image.encode()).digest()[:16], version=4)}",
        "metadata": {
            "timestamp": at,
            "component": {
                "type": "firmware", "bom-ref": name, "name": name, "version": version, "hashes": [{"alg": "SHA-256", "content": image}],
            },
        },
        "components": [part.component() for part in sorted(parts, key=lambda one: one.purl)],
    }  # fmt: skip


def sources(parts: Sequence[BillOfPart], *, commit: str, package: str, sha256: str) -> list[dict[str, str]]:
    """Return what an image was made from: our commit and package, and each package of Debian with the hash that its archive signs."""
    own = [{"name": package, "commit": commit, "sha256": sha256}] if package else []
    theirs = [one for one in parts if one.kind == "deb" and one.name != "edgeagent"]
    rows = [{"name": one.name, "version": one.version, "source": one.source, "sha256": one.sha256} for one in theirs]
    return [*own, *sorted(rows, key=lambda row: row["name"])]


def _part(root: Path, name: str, version: str, arch: str, source: str, index: dict[tuple[str, str], str]) -> BillOfPart:
    path = root / "usr/share/doc" / name / "copyright"
    try:
        text = path.read_text(errors="replace")
    except OSError:
        text = ""
    if only := _ONLY.get(name):
        text = "\n\n".join(one for one in text.split("\n\n") if one.startswith("Files:") and only in one.partition("\nCopyright:")[0])
    licenses = tuple(dict.fromkeys(one.strip() for one in _LICENSE.findall(text)))
    return BillOfPart(name, version, "deb", arch, source, index.get((name, version), ""), licenses)
