"""A Debian with systemd as PID 1: an agent's and a centre's packages live there with their real units, and each promise is a check."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hw import foreign, roots
from tests.system.machine import Machine, missing, started

from ..running import NotMade, run
from ..targets import MADE

# What a Debian machine has besides its smallest system; neither package asks for it.
BESIDES = ("systemd-sysv", "dbus", "mosquitto", "iproute2", "procps", "sudo")
AGENT, INGESTER, DIRECTOR = "edgeagent.service", "edgecloud-ingest.service", "edgecloud-director.service"
HOME, DB = "/var/lib/edgeagent/agent", "/var/lib/edgecloud/fleet.db"
DEVICE, MODEL, FLEET = "pi-7", "digits", "home"
DEBS = "/srv/debs"
NEWER = "9.0"
WATCHDOG = 15  # seconds of a sign of life in the trial; a machine that is busy must not be taken for one that hangs


class LifeEnded(Exception):
    """A check failed on which all others rest."""


@dataclass
class PackageLife:
    """A machine that lives through its checks, and what came of each: empty for one that holds, else what does not."""

    machine: Machine
    debs: dict[str, str]  # of each package its file in the machine; of "edgeagent-newer" and "-newest" ones of higher versions
    say: Callable[[str], None]
    checks: dict[str, str] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def check(self, name: str, *, vital: bool = False) -> Iterator[None]:
        """Run one check; what it says is noted, and the next is run. vital: without it none makes sense, and LifeEnded is raised."""
        assert name not in self.checks, name
        began = time.monotonic()
        try:
            yield
            self.checks[name] = ""
        except (AssertionError, ValueError, KeyError, LookupError, subprocess.TimeoutExpired) as error:
            self.checks[name] = f"{type(error).__name__}: {error}"
        verdict = "ok" if not self.checks[name] else f"NOT SO: {self.checks[name]}"
        self.say(f"{time.monotonic() - began:6.1f} s  {name}: {verdict}")
        if vital and self.checks[name]:
            raise LifeEnded

    @property
    def failed(self) -> dict[str, str]:
        """What does not hold, and why."""
        return {name: why for name, why in self.checks.items() if why}

    def do(self, command: str) -> str:
        return str(self.machine.run(command))

    def agent(self, words: str, home: str = HOME) -> Any:
        """Run `edgeagent` as its user, and return its JSON document."""
        return json.loads(self.do(f"cd {home.rpartition('/')[0]} && sudo -u edgeagent edgeagent {words} --dir {home} --json"))

    def centre(self, words: str) -> Any:
        """Run `edgecloud` as its user beside the registry, and return its JSON document."""
        return json.loads(self.do(f"cd /var/lib/edgecloud && sudo -u edgecloud edgecloud {words} --db {DB} --json"))

    def show(self, unit: str, name: str) -> str:
        return str(self.machine.of_unit(unit, name))

    def until(self, what: str, true: Callable[[], bool], within: float = 180.0) -> float:
        return float(self.machine.until(what, true, within=within))

    def active(self, unit: str) -> bool:
        return self.show(unit, "ActiveState") == "active"

    def restarts(self, unit: str) -> int:
        return int(self.show(unit, "NRestarts"))

    def verified(self) -> int:
        """Return the newest version of the board that the centre has proven; 0 for none."""
        rows = self.centre(f"log {DEVICE}")["versions"]
        return max((int(row["version"]) for row in rows if row["status"] == "verified"), default=0)

    def exact(self) -> None:
        """Require that every version at the centre is exact."""
        said = self.do(f"sudo -u edgecloud edgecloud verify --all --db {DB}")
        assert re.search(r"^(\d+) of \1 versions exact|versions exact, \d+ waiting", said, re.M), said

    def install(self, which: str) -> None:
        self.do(f"DEBIAN_FRONTEND=noninteractive apt-get install -y -q --allow-downgrades {self.debs[which]}")


def obstacle(architecture: str) -> str:
    """Return why no such machine can be had here; empty when it can."""
    return str(missing()) or foreign.obstacle(architecture)


def lived(packages: dict[str, Path], architecture: str, folder: Path, say: Callable[[str], None] = print) -> PackageLife:
    """Live the packages' life in a new Debian below an empty folder. packages: by their names. Raises NotMade where it can't begin."""
    from . import agent_units, centre_units
    from .board import newer

    if why := obstacle(architecture):
        raise NotMade(why)
    needs = {one for name in packages for one in MADE[name][architecture].distribution}
    root = roots.unpacked(roots.archive(architecture, [*BESIDES, *sorted(needs)]), folder / "root")
    debs = root / DEBS.lstrip("/")
    debs.mkdir(parents=True)
    inside = {}
    for name, package in packages.items():
        made = {name: package, f"{name}-newer": newer(package, NEWER, folder), f"{name}-newest": newer(package, "9.1", folder)}
        for which, file in made.items():
            (debs / f"{which}.deb").write_bytes(file.read_bytes())
            inside[which] = f"{DEBS}/{which}.deb"
    script = Path(__file__).with_name("booted.sh")
    with started(script, root, folder / "machine.log", units=f"{AGENT} {INGESTER} {DIRECTOR} mosquitto") as machine:
        life = PackageLife(machine, inside, say)
        life.seen["systemd"] = machine.run("systemctl --version").splitlines()[0]
        ends = (agent_units.removed, centre_units.removed)
        with suppress(LifeEnded):  # what failed is among the checks
            for course in (*centre_units.BEGIN, *agent_units.COURSE, *centre_units.COURSE, *ends):
                course(life)
    run(["rm", "-rf", "--one-file-system", root])
    return life


def quick(life: PackageLife, unit: str) -> None:
    """Let systemd see sooner that a service hangs, and start it again sooner. Nothing else of the unit is changed."""
    text = f"[Service]\nRestartSec=1s\nWatchdogSec={WATCHDOG}\n"
    life.machine.put(f"/etc/systemd/system/{unit}.d/90-trial.conf", text.encode())


def comes_back(life: PackageLife, unit: str, how: str) -> None:
    """Require that a service which is ended as `kill HOW` does is another process soon, and active."""
    pid, before = life.show(unit, "MainPID"), life.restarts(unit)
    life.do(f"kill -{how} {pid}")
    life.until(f"systemd starts it again after SIG{how}", lambda: life.restarts(unit) > before)
    life.until("it is active again", lambda: life.active(unit))
    assert life.show(unit, "MainPID") not in (pid, "0")
