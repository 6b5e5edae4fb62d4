"""A board in a folder: a Debian root of its own, the package in it, and commands that its users type."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hw import foreign, roots

from ..running import NotMade, run
from ..targets import MADE

HOME = Path("/var/lib/edgeagent")
AGENT = HOME / "agent"
LIMIT = 1800.0  # seconds of one command; a safety limit: an emulator on a busy machine is slow


class Board:
    """A root that the package is tried in."""

    def __init__(self, architecture: str, folder: Path, package: str = "edgeagent") -> None:
        """folder: one that is not there yet."""
        self.architecture = architecture
        made = roots.archive(architecture, MADE[package][architecture].distribution)  # with what the package depends on
        self.root = roots.unpacked(made, folder)
        self.memory = Path(tempfile.mkdtemp(prefix="edge-trial-", dir="/dev/shm"))  # what a board's own outlives: a command's end
        self.memory.chmod(0o1777)
        self._agent: subprocess.Popen[bytes] | None = None

    def do(self, *words: str, user: str = "root") -> str:
        """Run a command to its end as a user, and return what it printed. Raises NotMade where it fails."""
        done = self.attempt(*words, user=user)
        if done.returncode:
            said = done.stdout[-2000:] + done.stderr[-2000:]
            raise NotMade(f"{' '.join(words)} ended with {done.returncode} on {self.architecture}:\n{said}")
        return done.stdout

    def attempt(self, *words: str, user: str = "root") -> subprocess.CompletedProcess[str]:
        """Run a command to its end as a user, and return what came of it."""
        whole = [*_as(user), *words]
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        return foreign.run(self.root, whole, env=env, binds=self._binds, timeout=LIMIT, check=False)

    def agent(self, *words: str, home: Path = AGENT) -> Any:
        """Run `edgeagent` as its user, and return its JSON document."""
        return json.loads(self.do("edgeagent", *words, "--dir", str(home), "--json", user="edgeagent"))

    def install(self, package: Path) -> float:
        """Install a package, or a newer one over it, and return how many seconds that took."""
        began = time.monotonic()
        shutil.copy(package, self.root / "var" / "tmp")
        self.do("dpkg", "--install", f"/var/tmp/{package.name}")
        (self.root / "var" / "tmp" / package.name).unlink()
        return time.monotonic() - began

    def start(self, log: Path, words: Sequence[str] = ("edgeagent", "run", "--dir", str(AGENT)), user: str = "edgeagent") -> None:
        """Start the package's service as its unit does."""
        whole = foreign.command(self.root, [*_as(user), *words], env={"OPENBLAS_NUM_THREADS": "1"}, binds=self._binds)
        with log.open("ab") as file:
            self._agent = subprocess.Popen(whole, stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    @property
    def _binds(self) -> dict[Path, str]:
        return {self.memory: "/dev/shm"}

    @property
    def running(self) -> bool:
        return self._agent is not None and self._agent.poll() is None

    def stop(self) -> None:
        """End the agent as a kill does, which is harder than what systemd asks first."""
        if self._agent is not None:
            self._agent.kill()
            self._agent.wait()
            self._agent = None
            began = time.monotonic()
            while self._inside():  # those below it end a moment later, and may write until then
                if time.monotonic() - began > LIMIT:
                    raise NotMade("a process of the agent outlives its kill")
                time.sleep(0.02)

    def _inside(self) -> bool:
        """Return whether any process lives in the root."""
        for root in Path("/proc").glob("[0-9]*/root"):
            with suppress(OSError):
                if os.readlink(root) == str(self.root.resolve()):
                    return True
        return False

    def at(self, path: Path) -> Path:
        """Return where a path of the board lies on this machine."""
        return self.root / path.relative_to("/")

    def kept(self, folder: Path) -> dict[str, str]:
        """Return owner, mode and digest of each file below a folder of the board; nothing where it is not."""
        found = {}
        for path in sorted(self.at(folder).rglob("*")):
            about = path.lstat()
            what = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
            found[str(path)] = f"{about.st_uid}:{about.st_gid} {about.st_mode:o} {what}"
        return found

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.root)
        shutil.rmtree(self.memory)


def _as(user: str) -> Sequence[str]:
    if user == "root":
        return ()
    return ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups")


def newer(package: Path, version: str, folder: Path) -> Path:
    """Return the same package under a higher version, packed in haste: an upgrade to it runs all scripts and replaces all files."""
    tree = folder / "newer"
    run(["dpkg-deb", "--raw-extract", package, tree])
    control = tree / "DEBIAN" / "control"
    lines = [f"Version: {version}" if line.startswith("Version: ") else line for line in control.read_text().splitlines()]
    control.write_text("\n".join(lines) + "\n")
    made = folder / f"newer_{version}.deb"
    run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, made], env={"SOURCE_DATE_EPOCH": str(int(os.stat(package).st_mtime))})
    shutil.rmtree(tree)
    return made
