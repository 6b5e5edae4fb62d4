"""The texts that Debian asks for: whose the parts are, what changed, and a page of the manual, each made from what stands elsewhere."""

from __future__ import annotations

import argparse
import email
import time
from email.message import Message
from email.utils import formatdate
from pathlib import Path

from .targets import PYTHON, Package

MAINTAINER = "The edgeagent authors <edgeagent@packages.invalid>"
COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: edgeagent
Comment:
 Each part below usr/lib/{name} was taken as its authors built it, by the digests of deploy/constraints.

Files: *
Copyright: 2026 the edgeagent authors
License: Apache-2.0
 On Debian systems the text of this license is in /usr/share/common-licenses/Apache-2.0.
"""


def copyright_of(tree: Path, package: Package) -> str:
    """Return whose the parts of a package are, and where their licenses stand in it."""
    out = [COPYRIGHT.format(name=package.name)]
    site = tree / "usr" / "lib" / package.name / "lib" / f"python{PYTHON}" / "site-packages"
    for about in sorted(site.glob("*.dist-info/METADATA")):
        said: Message = email.message_from_string(about.read_text())
        if said["Name"] == "edgeagent":
            continue
        texts = [path for path in sorted(about.parent.rglob("*")) if path.is_file() and _is_license(path.name)]
        name = " ".join((said["License-Expression"] or said["License"] or "").split()) or "as its files say"
        whose = said["Author"] or said["Author-email"] or said["Maintainer"] or f"the authors of {said['Name']}"
        out.append(
            f"\nFiles: usr/lib/{package.name}/lib/python{PYTHON}/site-packages/{about.parent.name.partition('-')[0]}*\n"
            f"Copyright: {' '.join(whose.split())}\n"
            f"License: {said['Name']}\n"
            f" {said['Name']} {said['Version']}: {name[:200]}\n"
            + "".join(f" /{path.relative_to(tree)}\n" for path in texts)
        )
    return "".join(out)


def _is_license(name: str) -> bool:
    return name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE", "AUTHORS"))


def changelog(package: Package, version: str, epoch: int) -> str:
    """Return the changelog as Debian writes it; what users notice is told in CHANGELOG.md of the sources."""
    return (
        f"{package.name} ({version}) bookworm; urgency=medium\n\n  * Release {version}; CHANGELOG.md of the sources tells what is new.\n\n"
        f" -- {MAINTAINER}  {formatdate(epoch, usegmt=False)}\n"
    )


def manual(package: Package, parser: argparse.ArgumentParser, version: str, epoch: int) -> str:
    """Return the page of the manual: what `--help` says."""
    day = time.strftime("%Y-%m-%d", time.gmtime(epoch))
    said = parser.format_help().partition("\n\n")[2]
    shown = "".join(f"{_quoted(line)}\n" for line in said.splitlines())
    return (
        f'.TH {package.name.upper()} 1 "{day}" "{package.name} {version}" "User Commands"\n'
        f".SH NAME\n{package.name} \\- {package.summary}\n"
        f".SH SYNOPSIS\n.B {package.name}\n.I COMMAND\n.RI [ OPTIONS ]\n"
        f".SH DESCRIPTION\n.nf\n{shown}.fi\n"
        f".SH SEE ALSO\n.B {package.name} COMMAND \\-\\-help\n"
    )


def _quoted(line: str) -> str:
    text = line.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return f"\\&{text}" if text[:1] in (".", "'") else text
