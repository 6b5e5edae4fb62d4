"""Types the two ways of docs/board-setup.md that end in a Debian, each from nothing, and measures what came, what lies there, how long.

    python -m hw.paths [package|pip] [--deb FILE] [--folder build/hw/paths] [--keep]

Each way gets an empty Debian 12 of this machine's processor (hw.roots): Debian's smallest with Python, as a board has it at least. Every
command of the page is typed as it stands, by root, for whom sudo has nothing to do; the broker is a real one, on this machine. At the end
`edgeagent doctor` must say that all is well. systemd does not run in a folder: what is asked of it is left out, and that is said.
Needs root and mmdebstrap, and the machine's package sources.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hw import foreign, roots
from hw.deb.building import build
from hw.porting import TARGETS, copy_sources, to_start_with
from tests import broker
from tests.house.pages import DOCS, ROOT, section
from tests.release.bare_root import take_over

PAGE = DOCS / "board-setup.md"
BROKER = "mqtt://192.0.2.10"  # the page's
NO_SYSTEMD = "systemctl"
# sudo as root has it: another user with -u, else the command itself.
SUDO = '#!/bin/sh\n[ "$1" = -u ] || exec "$@"\nuser=$2\nshift 2\nexec runuser -u "$user" -- "$@"\n'


@dataclass(frozen=True)
class Way:
    """One way of the page: where its commands stand, by the headings, and the folder that they are typed in."""

    name: str
    headings: tuple[str, ...]
    folder: str


@dataclass(frozen=True)
class Cost:
    """What a way took: bytes that came over the net or were carried over, bytes on the disk more than before, and seconds of each part."""

    way: str
    fetched: int
    on_disk: int
    seconds: dict[str, float]


WAYS = {
    way.name: way
    for way in (
        Way("package", ("A package",), "/srv/package"),
        Way("pip", ("64 bit: Raspberry Pi OS, Debian, Ubuntu, JetPack 6", "A user and a service"), "/srv/clone"),
    )
}
SETTINGS = "The settings"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hw.paths", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", nargs="?", choices=sorted(WAYS), help="one of them alone (default: both)")
    parser.add_argument("--deb", type=Path, metavar="FILE", help="the agent's package (default: it is made)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/hw/paths", help="where it is done (default: build/hw/paths)")
    parser.add_argument("--keep", action="store_true", help="leave the Debians there afterwards")
    args = parser.parse_args(arguments)
    if args.deb and not args.deb.is_file():
        parser.error(f"there is no file {args.deb}: make deb makes one")
    own = next((target.arch for target in TARGETS.values() if not target.foreign), None)
    if own is None or broker.program() is None:
        print(f"hw.paths: {broker.MISSING if own else 'needs an x86-64 or 64-bit ARM machine'}", file=sys.stderr)
        return 2
    if os.geteuid():
        print("hw.paths: a Debian has files of more than one owner: run it as root", file=sys.stderr)
        return 2
    folder: Path = args.folder.resolve()
    try:
        for way in [args.way] if args.way else WAYS:
            shutil.rmtree(folder / way, ignore_errors=True)
            cost = typed(WAYS[way], own, folder / way, args.deb)
            (folder / f"{way}.json").write_text(json.dumps(asdict(cost), indent=1) + "\n")
            print(shown(cost), flush=True)
            if not args.keep:
                shutil.rmtree(folder / way)
    except (foreign.CannotRun, subprocess.CalledProcessError) as error:
        said = getattr(error, "stdout", "") or ""
        print(f"FAIL {error}\n{said[-3000:]}{(getattr(error, 'stderr', '') or '')[-3000:]}", file=sys.stderr)
        return 1
    return 0


def typed(way: Way, arch: str, folder: Path, deb: Path | None = None) -> Cost:
    """Type a way of the page into an empty Debian, to its doctor's word. Raises CalledProcessError with what was said where it fails."""
    system = roots.unpacked(roots.archive(arch), folder / "system")
    furnished(system)
    before = size(system)
    carried = carry(way, arch, system, deb)
    given = to_start_with(folder)
    seconds = {}
    with broker.mosquitto(folder / "broker") as b:
        for heading, place in [*((heading, way.folder) for heading in way.headings), (SETTINGS, "/given")]:
            began = time.monotonic()
            lines = commands(PAGE.read_text(), heading)
            script = "set -e\n" + "\n".join(line.replace(BROKER, b.url) for line in lines)
            foreign.run(system, ["bash", "-c", script], binds={given: "/given"}, chdir=place, env=ENVIRONMENT, timeout=3600)
            seconds[heading] = round(time.monotonic() - began, 1)
            print(f"     {way.name}: {heading}: {len(lines)} commands, {seconds[heading]:.0f} s", flush=True)
    came = sum(size(system / place) for place in ("var/cache/apt/archives", "root/.cache/pip"))
    return Cost(way.name, came + carried, size(system) - before, seconds)


ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "PIP_CERT": "/usr/local/share/certificates.pem"}


def commands(text: str, heading: str) -> list[str]:
    """Return the commands that stand under a heading, but those to systemd, which does not run in a folder."""
    lines = re.findall(r"^\$ (.*)$", section(text, heading), re.M)
    if not lines:
        raise LookupError(f"no command under {heading!r}")
    return [line for line in lines if NO_SYSTEMD not in line]


def furnished(system: Path) -> None:
    """Let the Debian reach packages as this machine does; give it what each board's system has and a bare one has not."""
    take_over(system)
    (system / "etc/apt/sources.list").write_text("\n".join(roots.sources()) + "\n")
    (system / "etc/systemd/system").mkdir(parents=True, exist_ok=True)
    sudo = system / "usr/local/bin/sudo"
    sudo.write_text(SUDO)
    sudo.chmod(0o755)
    foreign.run(system, ["apt-get", "update", "-qq"], env=ENVIRONMENT, timeout=600)


def carry(way: Way, arch: str, system: Path, deb: Path | None) -> int:
    """Bring along what a person brings: the package, or a clone. Returns its bytes where it comes over the net."""
    into = system / way.folder.lstrip("/")
    into.mkdir(parents=True)
    if way.name == "package":
        made = deb or build("edgeagent", arch)
        shutil.copy(made, into)
        return made.stat().st_size
    copy_sources(into)
    return 0


def size(folder: Path) -> int:
    """Return the bytes that a folder takes on the disk, without what was downloaded to install it and without what was carried in."""
    left_out = ["--exclude=*/var/cache/apt/*", "--exclude=*/var/lib/apt/*", "--exclude=*/root/.cache/*", "--exclude=*/srv/*"]
    if folder.name in ("archives", "pip"):
        left_out = []
    done = subprocess.run(["du", "-sx", "-B1", *left_out, str(folder)], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0]) if done.stdout else 0


def shown(cost: Cost) -> str:
    return (
        f"{cost.way}: {cost.fetched / 1e6:.0f} MB came, {cost.on_disk / 1e6:.0f} MB more on the disk, "
        f"{sum(cost.seconds.values()):.0f} s in all, doctor ok"
    )


if __name__ == "__main__":
    raise SystemExit(main())
