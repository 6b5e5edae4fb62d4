"""What a firmware team gets as Debian packages: their sizes, the same bytes twice, how exposed the services are, and a life in a Debian.

FULL=1: in roots of all three architectures, else in this machine's own. Seconds under an emulator say nothing of a board.
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
    trial = tried(package, architecture, folder, lambda line: print(line, file=sys.stderr, flush=True))
    figures[f"deb_installed_mib_{architecture}"] = round(trial.seen["mib"], 1)
    suffix = "" if architecture == OWN.get(os.uname().machine) else "_emulated"
    figures[f"deb_install_s_{architecture}{suffix}"] = round(trial.seconds["install"], 1)
    figures[f"deb_upgrade_s_{architecture}{suffix}"] = round(trial.seconds["upgrade"], 1)
    return trial


def _complaints(package: Path) -> Figures:
    """Return how many errors lintian finds, where it is installed."""
    if shutil.which("lintian") is None:
        print("deb: lintian is not on this machine: apt-get install lintian", file=sys.stderr)
        return {}
    said = subprocess.run(["lintian", "--allow-root", str(package)], capture_output=True, text=True, check=False).stdout
    return {"deb_lintian_errors": sum(line.startswith("E:") for line in said.splitlines())}


if __name__ == "__main__":
    alone("flash", "deb", measure)
