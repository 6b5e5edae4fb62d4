"""The course of the centre's package: installed, a registry made and proven by its program, upgraded, removed, purged."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from tests.worlds import MODELS

from .board import Board, newer
from .course import Trial, require

HOME, SETTINGS = Path("/var/lib/edgecloud"), Path("/etc/edgecloud")


def tried(package: Path, architecture: str, folder: Path, say: Callable[[str], None] = print) -> Trial:
    """Try a package of the centre in a new root below an empty folder. Raises NotMade with what is not as promised."""
    trial, began = Trial(architecture), time.monotonic()
    board = Board(architecture, folder / "root", "edgecloud")
    try:
        trial.seconds["install"] = board.install(package)
        trial.seen["version"] = board.do("edgecloud", "version").splitlines()[0]
        enabled = board.do("find", "/etc/systemd/system", "-name", "edgecloud*").split()
        require(not enabled, f"installing the package enables {enabled}")
        _works(board)
        (board.at(SETTINGS) / "ingest.env").write_text("EDGECLOUD_BROKER=mqtt://127.0.0.1:1883\n")
        before = board.kept(HOME) | board.kept(SETTINGS)
        trial.seconds["upgrade"] = board.install(newer(package, "9.0", folder))
        board.do("dpkg", "--remove", "edgecloud")
        require(board.kept(HOME) | board.kept(SETTINGS) == before, "an upgrade or the removal changed registry, keys or settings")
        require(not board.at(Path("/usr/lib/edgecloud")).exists(), "removing the package leaves something in /usr/lib/edgecloud")
        for _ in range(2):
            board.do("dpkg", "--purge", "edgecloud")
        require(not board.at(HOME).exists() and not board.at(SETTINGS).exists(), "purging the package leaves registry, keys or settings")
    finally:
        board.close()
    say(f"{architecture}: the centre installed, at work, upgraded, removed and purged, {time.monotonic() - began:.0f} s")
    return trial


def _works(board: Board) -> None:
    """Make a registry with a base, copy it as the timer does, and prove all of it, as the service's user."""
    (board.root / "srv" / "digits.tflite").write_bytes((MODELS / "digits.tflite").read_bytes())
    db = ("--db", str(HOME / "fleet.db"))
    board.do("edgecloud", "init", "--fleet", "home", *db, user="edgecloud")
    board.do("edgecloud", "bases", "add", "/srv/digits.tflite", "--no-rehearse", *db, user="edgecloud")
    bases = json.loads(board.do("edgecloud", "bases", "--json", *db, user="edgecloud"))
    require("digits" in json.dumps(bases), f"the registry's bases are {bases}")
    board.do("env", f"EDGECLOUD_DB={HOME / 'fleet.db'}", "/usr/lib/edgecloud/bin/edgecloud-backup", str(HOME / "backups"), user="edgecloud")
    require(list(board.at(HOME / "backups").glob("fleet-*Z.db")), "no backup was made")
