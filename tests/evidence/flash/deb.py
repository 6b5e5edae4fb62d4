"""What a firmware team gets as Debian packages: their sizes, the same bytes twice, how exposed the services are, and a life in a Debian.

FULL=1: in roots of all three architectures, else in this machine's own; the centre's package, too, and a life of both under systemd.
Seconds under an emulator say nothing of a board.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hw import foreign
from hw.deb import building
from hw.deb.running import NotMade
from hw.deb.targets import MADE, OWN
from hw.deb.trial import booted, centre
from hw.deb.trial.course import Trial, tried
from hw.deb.trial.units import exposures
from tests.evidence.parts import Figures, alone


def measure(full: bool) -> Figures:
    """Return the figures; those that can't be had here are left out, and why is said. full: all architectures."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="edge-deb-evidence-") as scratch:
        folder = Path(scratch)
        (folder / "units").mkdir()
        try:
            figures["units_exposure_worst"] = max(exposures(folder / "units").values())
        except NotMade as error:
            print(f"deb: no exposure of units: {error}", file=sys.stderr)
        own = OWN.get(os.uname().machine, "")
        wanted = [architecture for architecture in MADE["edgeagent"] if full or architecture == own]
        trials = []
        for architecture in wanted:
            try:
                package = building.build("edgeagent", architecture, out=folder / "deb")
                figures[f"deb_bytes_{architecture}"] = package.stat().st_size
                if architecture == own:
                    again = building.build("edgeagent", architecture, out=folder / "again", anew=True)
                    figures["deb_reproducible"] = int(building.digest(package) == building.digest(again))
                    figures |= _complaints(package)
                trials.append(_lived(package, architecture, folder / f"trial-{architecture}", figures))
            except (NotMade, foreign.CannotRun) as error:
                print(f"deb: {architecture} is not measured here: {error}", file=sys.stderr)
        if full:
            figures |= _centres(folder) | _booted(folder, own)
        if trials:
            figures["deb_trials"] = len(trials)
            trained = [bool(one.seen["equal"]) for one in trials if "equal" in one.seen]
            figures["deb_upgrades_in_a_round"] = len(trained)
            if trained:
                figures["deb_upgrade_bits_equal"] = sum(trained) / len(trained)
    return figures


def _lived(package: Path, architecture: str, folder: Path, figures: Figures) -> Trial:
    if os.geteuid() != 0:
        raise NotMade("a Debian in a folder needs root")
    if why := foreign.obstacle(architecture):
        raise NotMade(why)
    trial = tried(package, architecture, folder, _say)
    figures[f"deb_installed_mib_{architecture}"] = round(trial.seen["mib"], 1)
    suffix = "" if architecture == OWN.get(os.uname().machine) else "_emulated"
    figures[f"deb_install_s_{architecture}{suffix}"] = round(trial.seconds["install"], 1)
    figures[f"deb_upgrade_s_{architecture}{suffix}"] = round(trial.seconds["upgrade"], 1)
    return trial


def _centres(folder: Path) -> Figures:
    """Return in how many roots the centre's package proved a board's versions, and whether its file was the board's."""
    seen = []
    for architecture in MADE["edgecloud"]:
        try:
            if why := foreign.obstacle(architecture):
                raise NotMade(why)
            package = building.build("edgecloud", architecture, out=folder / "deb")
            seen.append(centre.tried(package, architecture, folder / f"centre-{architecture}", _say).seen)
        except (NotMade, foreign.CannotRun, RuntimeError) as error:
            print(f"deb: edgecloud for {architecture} is not measured here: {error}", file=sys.stderr)
    if not seen:
        return {}
    return {"deb_centre_trials": len(seen), "deb_centre_bits_equal": sum(bool(one["equal"]) for one in seen) / len(seen)}


def _booted(folder: Path, own: str) -> Figures:
    """Return how many promises were looked at in a Debian with systemd as PID 1, and how many did not hold."""
    try:
        if own not in MADE["edgecloud"] or (why := booted.obstacle(own)):
            raise NotMade(why if own in MADE["edgecloud"] else f"no package of the centre is for {own}")
        (folder / "life").mkdir()
        packages = {name: building.build(name, own, out=folder / "life" / "deb", packing="none") for name in MADE}
        life = booted.lived(packages, own, folder / "life", _say)
    except (NotMade, foreign.CannotRun) as error:
        print(f"deb: no life under systemd: {error}", file=sys.stderr)
        return {}
    return {"deb_systemd_checks": len(life.checks), "deb_systemd_failed": len(life.failed)}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _complaints(package: Path) -> Figures:
    """Return how many errors lintian finds, where it is installed."""
    if shutil.which("lintian") is None:
        print("deb: lintian is not on this machine: apt-get install lintian", file=sys.stderr)
        return {}
    said = subprocess.run(["lintian", "--allow-root", str(package)], capture_output=True, text=True, check=False).stdout
    return {"deb_lintian_errors": sum(line.startswith("E:") for line in said.splitlines())}


if __name__ == "__main__":
    alone("flash", "deb", measure)
