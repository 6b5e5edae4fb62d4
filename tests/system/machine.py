"""A small Debian of its own with systemd as PID 1, in namespaces: units are started, watched and ended there as on a real machine.

PID 1 of the machine that runs the tests need be no systemd. See machine.sh for what of it is seen inside: read-only, all of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.house.pages import ROOT

SYSTEMD = Path("/lib/systemd/systemd")
NEEDED = ("unshare", "nsenter", "setpriv", "systemctl")
OURS = "edgeagent edgecloud-ingest edgecloud-backup"
LIMIT = 120.0  # seconds; a safety limit
PROJECT, ENVIRONMENT = "/srv/project", "/srv/environment"  # in it
PROGRAM = f"""#!/bin/sh
export PYTHONPATH={PROJECT}:{PROJECT}/cloud
exec {ENVIRONMENT}/bin/python -m {{module}} "$@"
"""
SUDO = """#!/bin/sh
[ "$1" != -u ] || { user=$2; shift 2; exec setpriv --reuid="$user" --regid="$user" --init-groups -- "$@"; }
exec "$@"
"""


def missing() -> str:
    """Return why no such machine can be had here, empty when it can."""
    if os.geteuid() != 0:
        return "a systemd in namespaces needs root"
    if not SYSTEMD.exists() or (lacks := [name for name in NEEDED if shutil.which(name) is None]):
        return "not installed: systemd" if not SYSTEMD.exists() else f"not installed: {', '.join(lacks)}"
    if _cgroups() is None:
        return "no cgroup v2 is mounted here that may be written to"
    tries = " && ".join(f"mount -t {kind} try /mnt" for kind in ("proc", "sysfs", "cgroup2", "devpts", "tmpfs"))
    tried = subprocess.run(
        ["unshare", "--pid", "--mount", "--uts", "--ipc", "--cgroup", "--fork", "sh", "-c", tries],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return "" if tried.returncode == 0 else f"namespaces or mounts are not allowed here: {tried.stderr.strip()}"


class Machine:
    """A machine that runs. Commands in it are run as root, unless they say otherwise."""

    def __init__(self, init: int, units: str) -> None:
        self.init, self.units = init, units  # PID 1 of it, as seen from here; what an error shows

    def try_run(self, command: str, *, given: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Run a line of bash in it and return what came of it."""
        enter = ["nsenter", "-t", str(self.init), "-m", "-u", "-i", "-n", "-C", "-p", "-r", "-w"]
        tools = "PATH=/opt/tools:/usr/sbin:/usr/bin"
        done = subprocess.run(
            [*enter, "env", "-i", tools, "LANG=C.UTF-8", "SYSTEMD_PAGER=", "bash", "-e", "-c", command],
            input=given, stdin=None if given is not None else subprocess.DEVNULL, capture_output=True, check=False, timeout=LIMIT,
        )  # fmt: skip
        text = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        return subprocess.CompletedProcess(command, done.returncode, *text)

    def run(self, command: str, *, given: bytes | None = None) -> str:
        """Run a line of bash in it and return what it printed. It succeeds."""
        done = self.try_run(command, given=given)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}{self.journal()}"
        return done.stdout

    def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Write a file in it."""
        self.run(f"mkdir -p {Path(path).parent}; cat > {path}; chmod {mode:o} {path}", given=data)

    def of_unit(self, unit: str, name: str) -> str:
        """Return a property of a unit, as `systemctl show` has it."""
        return self.run(f"systemctl show --value -p {name} {unit}").strip()

    def until(self, what: str, true: Callable[[], bool], *, within: float = LIMIT) -> float:
        """Wait until it is true, and return how many seconds that took. what: as an error says it."""
        began = time.monotonic()
        while not true():
            assert time.monotonic() - began < within, f"{what}: not within {within:g} s\n{self.journal()}"
            time.sleep(0.1)
        return time.monotonic() - began

    def journal(self) -> str:
        done = self.try_run(f"systemctl status --no-pager --lines=0 {self.units}; journalctl --no-pager -n 80")
        return done.stdout + done.stderr


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """Start a machine for the time of a `with` block, with our two programs in /opt and the users that the pages make."""
    root = folder / "root"
    root.mkdir()
    # Under /srv: the units hide /home and /tmp, where the project and its environment may lie.
    seen = {str(ROOT): PROJECT, sys.prefix: ENVIRONMENT}
    if not Path(sys.base_prefix).is_relative_to("/usr"):
        seen[sys.base_prefix] = sys.base_prefix
    shown = [f"{path}={at}" for path, at in seen.items()]
    with started(Path(__file__).with_name("machine.sh"), root, folder / "machine.log", *shown) as made:
        for user in ("edgeagent", "edgecloud"):
            made.run(f"useradd --system --home-dir /var/lib/{user} --create-home --shell /usr/sbin/nologin {user}")
            made.put(f"/opt/{user}/bin/{user}", PROGRAM.format(module=user).encode(), 0o755)
        made.put("/opt/tools/sudo", SUDO.encode(), 0o755)
        yield made


@contextmanager
def started(script: Path, root: Path, log: Path, *more: str, units: str = OURS) -> Iterator[Machine]:
    """Start systemd as a script does that is given a root, a cgroup of its own, and more. units: whose states an error shows."""
    cgroup = Path(_cgroups() or "") / f"edge-machine-{os.getpid()}"
    cgroup.mkdir()
    with log.open("wb") as said:
        dies_too = ["setpriv", "--pdeathsig", "KILL"]  # it outlives no killed test
        command = [*dies_too, "bash", str(script), str(root), str(cgroup), *more]
        outer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        made = Machine(_init_of(outer, log), units)
        made.until("it starts", lambda: made.try_run("systemctl is-system-running").stdout.strip() in ("running", "degraded"))
        yield made
    finally:
        outer.kill()  # PID 1 in it dies with this one, and with PID 1 all the others
        outer.wait()
        _remove(cgroup)


def _init_of(outer: subprocess.Popen[bytes], log: Path) -> int:
    """Return the id of systemd once it is that: before, the same process is the script."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end and outer.poll() is None:
        with suppress(OSError, IndexError):
            child = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()[0])
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return child
        time.sleep(0.02)
    raise RuntimeError(f"no systemd came up: {log.read_text()[-2000:]}")


def _cgroups() -> str | None:
    """Return where cgroup v2 is mounted, if it may be written to."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        words = line.split()
        if words[2] == "cgroup2" and os.access(words[1], os.W_OK) and "rw" in words[3].split(","):
            return words[1]
    return None


def _remove(cgroup: Path) -> None:
    end = time.monotonic() + 20
    while cgroup.exists() and time.monotonic() < end:
        for path in sorted(cgroup.rglob("*/"), reverse=True):  # those below first
            with suppress(OSError):
                path.rmdir()
        with suppress(OSError):  # its processes are just ending
            cgroup.rmdir()
        time.sleep(0.02)
