"""The course of a package's life on a board: installed, well, at work, upgraded in the middle of a round, removed, purged."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests import broker
from tests.system.fleet import Fleet
from tests.worlds import MODELS, world

from ..running import NotMade
from ..targets import OWN
from .board import AGENT, HOME, LIMIT, Board, newer

DEVICE, MODEL = "pi-7", "digits"
TWIN = Path("/srv/twin")
SAMPLES = 200
EPOCHS = {True: 3_000, False: 400}  # of the machine's own processor, of an emulated one: a round of some seconds, which an upgrade meets
SETTINGS = {  # quick about its link
    "train.margin": "1000", "train.every": "365d", "train.min_new_samples": "0", "update.kind": "delta",
    "link.resend": "2s", "link.reconnect_min": "200ms", "link.reconnect_max": "2s",
}  # fmt: skip


@dataclass
class Trial:
    """What came of a trial: seconds of its steps, and what was seen."""

    architecture: str
    seconds: dict[str, float] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)


def tried(package: Path, architecture: str, folder: Path, say: Callable[[str], None] = print) -> Trial:
    """Try a package of the agent in a new root below an empty folder. Raises NotMade with what is not as promised."""
    trial = Trial(architecture)
    began = time.monotonic()
    board = Board(architecture, folder / "root")
    trial.seconds["root"] = time.monotonic() - began
    try:
        with broker.mosquitto(folder / "broker") as b:
            fleet = Fleet(folder / "fleet", b.url, inside=True)
            try:
                for step in (_installed, _well, _upgraded_in_a_round, _exact, _removed):
                    began = time.monotonic()
                    step(trial, board, fleet, package)
                    trial.seconds[step.__name__.strip("_")] = time.monotonic() - began
                    say(f"{architecture}: {step.__name__.strip('_').replace('_', ' ')}, {time.monotonic() - began:.0f} s")
            finally:
                fleet.close()
    finally:
        board.close()
    return trial


def require(true: object, what: str) -> None:
    """Raise NotMade with what is not as promised, where it isn't."""
    if not true:
        raise NotMade(what)


def _installed(trial: Trial, board: Board, fleet: Fleet, package: Path) -> None:
    trial.seconds["install"] = board.install(package)
    trial.seen["version"] = board.do("edgeagent", "version").splitlines()[0]
    wanted = board.at(Path("/etc/systemd/system/multi-user.target.wants/edgeagent.service"))
    require(wanted.is_symlink(), "the service is not enabled")
    groups = board.do("id", "-nG", "edgeagent").split()
    require({"edgeagent", "edgeagent-samples"} <= set(groups), f"the agent's user is of {groups}")
    where = board.do("stat", "-c", "%U:%G %a", str(HOME)).strip()
    require(where == "edgeagent:edgeagent 751", f"{HOME} is {where}")
    trial.seen["mib"] = sum(path.lstat().st_size for path in board.at(Path("/usr/lib/edgeagent")).rglob("*")) / 2**20


def _well(trial: Trial, board: Board, fleet: Fleet, package: Path) -> None:
    fleet.add_base(MODEL)
    fleet.ingester.start()
    given = board.root / "srv"
    (given / f"{MODEL}.tflite").write_bytes((MODELS / f"{MODEL}.tflite").read_bytes())
    (given / "fleet.pub").write_bytes((fleet.db.parent / "fleet.pub").read_bytes())
    x, y = world(MODEL, 0).stream(0, SAMPLES)
    np.savez(given / "samples.npz", x=x, y=y)
    made = board.agent(
        "init", "--device", DEVICE, "--fleet", "demo", "--broker", fleet.url, "--fleet-key", "/srv/fleet.pub",
        "--model", f"{MODEL}=/srv/{MODEL}.tflite", "--spool-group", "edgeagent-samples", "--no-check",
        "--set", f"train.epochs={EPOCHS[OWN.get(os.uname().machine) == trial.architecture]}",
        *(word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")),
    )  # fmt: skip
    fleet.cloud("devices", "add", DEVICE, made["public_key"])
    board.do("useradd", "--system", "--no-create-home", "camera")  # an application of the board
    board.do("chmod", "o+x", str(AGENT))
    add = ["edgeagent", "samples", "add", MODEL, "/srv/samples.npz", "--dir", str(AGENT)]
    require(board.attempt(*add, user="camera").returncode, "a stranger may add samples")
    board.do("usermod", "-aG", "edgeagent-samples", "camera")
    board.do(*add, user="camera")
    trial.seen["doctor"] = board.do("edgeagent", "doctor", "--dir", str(AGENT), user="edgeagent")
    board.agent("publish")  # the centre grants its epoch, without which nothing is numbered
    board.do("cp", "-a", str(AGENT), str(TWIN))


def _upgraded_in_a_round(trial: Trial, board: Board, fleet: Fleet, package: Path) -> None:
    log = fleet.folder / "agent.log"

    def under_way() -> bool:
        require(board.running, f"the agent ended: {log.read_text()[-1500:]}")
        return any(board.memory.glob("*.round"))

    def left() -> dict[str, Any]:
        (now,) = board.agent("status")["models"]
        require(not now["version"], "the round was over before the upgrade came: make it longer")
        return dict(now["under_way"] or {"done": 0})

    while not (stands := left())["done"]:  # a kill may come between the file and its first step
        board.start(log)
        until("a round is under way", under_way)
        board.stop()
    trial.seen["interrupted"] = f"step {stands['done']} of {stands['steps']}"
    before = board.kept(HOME)
    trial.seconds["upgrade"] = board.install(newer(package, "9.0", fleet.folder))
    require("9.0" in board.do("dpkg-query", "-W", "edgeagent"), "the newer package is not installed")
    require(board.kept(HOME) == before, "the upgrade changed something in the folder of the state")
    board.start(log)
    until("the centre has proven the version", lambda: _verified(fleet))
    board.stop()


def _verified(fleet: Fleet) -> bool:
    rows = fleet.look_up("log", DEVICE)["versions"]
    return any(row["version"] == 1 and row["status"] == "verified" for row in rows)


def _exact(trial: Trial, board: Board, fleet: Fleet, package: Path) -> None:
    """An uninterrupted twin, trained by the newer package from a copy of the folder, comes to the same bits; the centre's file has them."""
    board.agent("train", home=TWIN)
    here, twin = (_served(board.at(place)) for place in (AGENT, TWIN))
    fleet.cloud("materialise", f"{DEVICE}@1", "-o", str(fleet.folder / "centre.tflite"))
    centre = hashlib.sha256((fleet.folder / "centre.tflite").read_bytes()).hexdigest()
    base = hashlib.sha256((MODELS / f"{MODEL}.tflite").read_bytes()).hexdigest()
    trial.seen["served"] = here
    trial.seen["equal"] = here == twin == centre != base
    require(trial.seen["equal"], f"served {here}, twin {twin}, centre {centre}, base {base}")


def _served(home: Path) -> str:
    (file,) = home.rglob("served.tflite")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _removed(trial: Trial, board: Board, fleet: Fleet, package: Path) -> None:
    if "upgrade" not in trial.seconds:
        trial.seconds["upgrade"] = board.install(newer(package, "9.0", fleet.folder))
    before, beside = board.kept(HOME), board.kept(TWIN)
    board.do("dpkg", "--remove", "edgeagent")
    require(board.kept(HOME) == before, "removing the package changed the state")
    require(not board.at(Path("/usr/lib/edgeagent")).exists(), "removing the package leaves something in /usr/lib/edgeagent")
    board.install(package)
    require(board.kept(HOME) == before, "installing the package again changed the state")
    board.do("dpkg", "--remove", "edgeagent")
    board.do("dpkg", "--purge", "edgeagent")
    require(not board.at(HOME).exists(), "purging the package leaves state or keys")
    require(board.kept(TWIN) == beside, "purging the package touched a folder elsewhere")
    board.do("dpkg", "--purge", "edgeagent")
    board.do("id", "edgeagent")
    left = board.do("find", "/etc/systemd", "/var/lib/systemd", "/usr/lib", "-name", "edgeagent*").split()
    require(not left, f"purging the package leaves {left}")


def until(what: str, true: Callable[[], bool], *, within: float = LIMIT) -> None:
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > within:
            raise NotMade(f"{what}: not within {within:g} s")
        time.sleep(0.05)
