"""The course of the centre's package: installed, a board's versions taken in and proven, a copy restored, upgraded, removed, purged."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tests import broker
from tests.system.fleet import Process, agent
from tests.worlds import MODELS, world

from ..running import NotMade
from .board import LIMIT, Board, newer
from .course import DEVICE, MODEL, Trial, require, until
from .course import SETTINGS as QUICK

HOME, SETTINGS = Path("/var/lib/edgecloud"), Path("/etc/edgecloud")
DB = str(HOME / "fleet.db")
OWN = {"CERT": "CENTRE.pem", "CERT_KEY": "CENTRE.key"}  # of the centre's certificate, by the settings that name them
VERSIONS = 3


def tried(package: Path, architecture: str, folder: Path, say: Callable[[str], None] = print) -> Trial:
    """Try a package of the centre in a new root below an empty folder. Raises NotMade with what is not as promised."""
    trial, began = Trial(architecture), time.monotonic()
    board = Board(architecture, folder / "root", "edgecloud")
    try:
        trial.seconds["install"] = board.install(package)
        trial.seen["version"] = board.do("edgecloud", "version").splitlines()[0]
        enabled = board.do("find", "/etc/systemd/system", "-name", "edgecloud*").split()
        require(not enabled, f"installing the package enables {enabled}")
        _works(trial, board, folder)
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
    proven = f"{len(trial.seen['verified'])} versions of a board proven"
    say(f"{architecture}: the centre installed, {proven}, copied, restored, upgraded, removed and purged, {time.monotonic() - began:.0f} s")
    return trial


def _works(trial: Trial, board: Board, folder: Path) -> None:
    """Let the ingester take in what a board of this machine publishes, by a mosquitto with the package's files; then copy and restore."""
    log = folder / "ingester.log"
    _set_up(board)
    with _broker(board, folder) as url:
        home = _board(board, folder, url)
        settings = {"BROKER": url, "CA": HOME / "ca" / "ca.pem", **{name: HOME / "ca" / "issued" / file for name, file in OWN.items()}}
        words = [f"EDGECLOUD_{name}={value}" for name, value in settings.items()]
        board.start(log, ["env", f"EDGECLOUD_DB={DB}", *words, "edgecloud", "ingest"], "edgecloud")
        began = time.monotonic()
        for _ in range(VERSIONS):
            agent("run", "--once", "--timeout", f"{LIMIT:g}s", "--dir", str(home))
        until("the centre has proven all versions", lambda: len(_verified(board)) == VERSIONS)
        trial.seconds["proven"] = time.monotonic() - began
        require(board.running, f"the ingester has ended: {log.read_text()[-1500:]}")
        board.stop()
    trial.seen["verified"] = _verified(board)
    board.do("edgecloud", "materialise", f"{DEVICE}@{VERSIONS}", "-o", str(HOME / "it.tflite"), "--db", DB, user="edgecloud")
    (served,) = home.rglob("served.tflite")
    same = served.read_bytes() == board.at(HOME / "it.tflite").read_bytes()
    trial.seen["equal"] = same and served.read_bytes() != (MODELS / f"{MODEL}.tflite").read_bytes()
    require(trial.seen["equal"], "the centre's file is not the board's")
    board.do("env", f"EDGECLOUD_DB={DB}", "/usr/lib/edgecloud/bin/edgecloud-backup", str(HOME / "backups"), user="edgecloud")
    (copy,) = board.at(HOME / "backups").glob("fleet-*Z.db")
    board.do("edgecloud", "restore", str(HOME / "backups" / copy.name), "--db", DB, "--force", user="edgecloud")
    require(_verified(board) == trial.seen["verified"], "the copy holds other versions")
    board.do("edgecloud", "verify", "--all", "--db", DB, user="edgecloud")  # ends with another code than 0 where one is not exact


def _set_up(board: Board) -> None:
    (board.root / "srv" / f"{MODEL}.tflite").write_bytes((MODELS / f"{MODEL}.tflite").read_bytes())
    for words in ("init --fleet demo", f"bases add /srv/{MODEL}.tflite --no-rehearse", "ca init", "ca issue --centre"):
        board.do("edgecloud", *words.split(), "--db", DB, user="edgecloud")


@contextmanager
def _broker(board: Board, folder: Path) -> Iterator[str]:
    """Run a mosquitto of this machine by the files that the package writes for it; yield its URL."""
    program, port, place = broker.program(), broker.free_port(), folder / "edge"
    if program is None:
        raise NotMade(broker.MISSING)
    words = ["broker", "config", "-o", str(HOME / "edge"), "--host", "127.0.0.1", "--port", str(port), "--bind", "127.0.0.1"]
    board.do("edgecloud", *words, "--place", str(place), "--db", DB, user="edgecloud")
    shutil.copytree(board.at(HOME / "edge"), place)
    (folder / "mosquitto.conf").write_text(f"user root\nlog_dest stderr\ninclude_dir {place}/conf.d\n")
    process = Process("mosquitto", [program, "-c", str(folder / "mosquitto.conf")], folder / "mosquitto.log")
    process.start()
    try:
        yield f"mqtts://127.0.0.1:{port}"
    finally:
        process.kill()


def _board(board: Board, folder: Path, url: str) -> Path:
    """Make a board of this machine that the centre lets in, with a certificate and samples; return its folder."""
    home, request = folder / "board", folder / f"{DEVICE}.csr"
    settings = {**QUICK, "train.epochs": "1", "train.every": "1s", **{f"link.tls_{name}": f"{name}.pem" for name in ("ca", "cert", "key")}}
    made = agent(
        "init", "--dir", str(home), "--device", DEVICE, "--fleet", "demo", "--broker", url, "--no-check",
        "--fleet-key", str(board.at(HOME / "fleet.pub")), "--model", f"{MODEL}={MODELS / f'{MODEL}.tflite'}",
        *(word for name, value in settings.items() for word in ("--set", f"{name}={value}")),
    )  # fmt: skip
    agent("certificate", "request", "--dir", str(home), "-o", str(request))
    (board.root / "srv" / request.name).write_bytes(request.read_bytes())
    board.do("edgecloud", "ca", "issue", DEVICE, "--request", f"/srv/{request.name}", "--db", DB, user="edgecloud")
    board.do("edgecloud", "devices", "add", DEVICE, made["public_key"], "--db", DB, user="edgecloud")
    issued, ca = board.at(HOME / "ca" / "issued" / f"{DEVICE}.pem"), board.at(HOME / "ca" / "ca.pem")
    agent("certificate", "install", str(issued), "--ca", str(ca), "--dir", str(home))
    x, y = world(MODEL, 0).stream(0, 96)
    np.savez(folder / "samples.npz", x=x, y=y)
    agent("samples", "add", MODEL, str(folder / "samples.npz"), "--dir", str(home))
    return home


def _verified(board: Board) -> list[int]:
    rows = json.loads(board.do("edgecloud", "log", DEVICE, "--json", "--db", DB, user="edgecloud"))["versions"]
    return sorted(int(row["version"]) for row in rows if row["status"] == "verified")
