"""Makes the folder of a release: a small fleet of real processes on a real broker, and what is left of it when all have ended.

    python -m tests.kept.make 2

It is done once for each release that changes the wire, the registry or a board's state, and then never touched: docs/release.md.
All keys are those of the tests, and speak for no real fleet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import struct
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt

import edgeagent
from edgecloud import keys as files
from edgecloud.registry import TrustRow, create_registry
from modelwire.wire.keys import KeyKind, write_fleet, write_key
from modelwire.wire.records import encode
from modelwire.wire.signing import PrivateKey
from tests import broker, keys
from tests.edgeagent.boards import make_with
from tests.kept import DEVICE_SEED, FOLDER, STRANGER_SEED
from tests.system.fleet import Process, agent, cloud

FLEET, MODEL = "kept", "tiny"
TINY = FOLDER.parent / "models" / "tiny.tflite"
SEEDS = {files.ROOT: 0xF1, files.RECEIPT: 0xF2, files.COMMAND: 0xF3, files.DIRECTOR: 0xF4}  # tests/keys.py has them as keys
SETTINGS = {
    "device.fleet": FLEET, "link.resend": "1s", "link.reconnect_min": "100ms", "link.reconnect_max": "1s", "train.epochs": "2",
    "train.min_samples": "8", "train.min_new_samples": "0", "train.every": "30d", "train.learning_rate": "0.05", "train.margin": "1000",
    "update.density": "0.05", "store.history": "50",
}  # fmt: skip
END_SECONDS = 120.0  # a safety limit


class Run:
    """The fleet while it runs, in a folder."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.db = folder / "registry" / "fleet.db"
        self.db.parent.mkdir(parents=True)
        trust = TrustRow(1, encode(keys.trust(FLEET), keys.ROOT, keys.FLEET_ID))
        create_registry(self.db, fleet=FLEET, identity=keys.FLEET, trust=trust, now=1, files_from=4096)  # some as files beside it
        for name, seed in SEEDS.items():
            path = self.db.parent / name
            path.write_text(files.key_text(files.SECRET[name], bytes([seed]) * 32))
            path.chmod(0o600)
        (self.db.parent / files.PUBLIC).write_text(write_fleet(keys.FLEET) + "\n")
        self.cloud("bases", "add", str(TINY), "--name", MODEL)

    def board(self, name: str, seed: bytes) -> Path:
        """Make a board's folder, with samples in its spool."""
        home = self.folder / name
        make_with(home, {**SETTINGS, "device.name": name, "link.broker": self.url}, seed=seed)
        self.see(home, 0)
        return home

    def see(self, home: Path, seed: int) -> None:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(40, 4)).astype(np.float32)
        with edgeagent.Spool(home) as spool:
            spool.extend(MODEL, x, x[:, :3].argmax(1).tolist())

    def cloud(self, *words: str) -> Any:
        return cloud(*words, "--db", str(self.db))

    @contextmanager
    def ingester(self) -> Iterator[None]:
        words = ["ingest", "--db", str(self.db), "--broker", self.url, "--resend", "2", "--workers", "0"]
        process = Process("ingester", [sys.executable, "-m", "edgecloud", *words], self.folder / "ingester.log")
        process.start()
        try:
            yield
        finally:
            process.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.kept.make", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", type=int, help="of the new folder: one more than the last")
    target = FOLDER / str(parser.parse_args(arguments).number)
    if target.exists():
        print(f"{target} is there already, and what is kept is never made again: name the next number", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name, broker.mosquitto(Path(name)) as hub:
        run = Run(Path(name), hub.url)
        with recorded(run.folder / "wire.bin", hub.port):
            expected = live(run)
        keep(run, target, expected)
    print(f"{target}: {sum(path.stat().st_size for path in target.rglob('*') if path.is_file()):,} bytes")
    return 0


def live(run: Run) -> dict[str, Any]:
    """Let the fleet live, and return what every later release must find of it."""
    home, stranger = run.board("pi-7", DEVICE_SEED), run.board("pi-9", STRANGER_SEED)
    run.cloud("devices", "add", "pi-7", write_key(KeyKind.DEVICE, PrivateKey(DEVICE_SEED).public))
    with run.ingester():
        agent("run", "--rounds", "5", "--timeout", "60s", "--dir", str(home))
        run.cloud("snapshot", "request", "pi-7")
        agent("publish", "--timeout", "60s", "--dir", str(home))
        until(lambda: all(one["status"] == "verified" for one in versions(run)) and len(versions(run)) == 6)
        for seed in (1, 2, 3):  # without the network; they are carried by one
            run.see(home, seed)
            agent("train", "--dir", str(home))
        agent("outbox", "coalesce", MODEL, "--dir", str(home))
        agent("publish", "--timeout", "60s", "--dir", str(home))
        process = Process("stranger", [sys.executable, "-m", "edgeagent", "run", "--dir", str(stranger)], run.folder / "stranger.log")
        process.start()
        until(lambda: len(run.cloud("devices")["waiting"]) == 1)
        process.stop()
        until(lambda: all(one["status"] == "verified" for one in versions(run)) and len(versions(run)) == 7)
    run.cloud("annotate", "pi-7@2", "note=kept")
    run.cloud("policy", "--keep", "last 4")
    run.cloud("compact")
    run.cloud("thin")
    run.see(home, 9)
    agent("train", "--dir", str(home))  # an update that the centre has not seen
    (model,) = agent("status", "--dir", str(home))["models"]
    return {
        "versions": {str(one["version"]): told(run, one) for one in versions(run)},
        "unsent": {"version": model["version"], "commit": model["commit"], "file": model["file_sha256"]},
        "waiting": write_key(KeyKind.DEVICE, PrivateKey(STRANGER_SEED).public),
        "note": "kept",
    }


def versions(run: Run) -> list[dict[str, Any]]:
    """Return what the centre lists of pi-7."""
    listed: list[dict[str, Any]] = run.cloud("log", "pi-7")["versions"]
    return listed


def told(run: Run, one: dict[str, Any]) -> dict[str, str]:
    """Return what is expected of a version: its commit, and the SHA-256 of its file or the name of what became of it."""
    out = run.folder / "out.tflite"
    out.unlink(missing_ok=True)
    try:
        run.cloud("materialise", f"pi-7@{one['version']}", "-o", str(out))
    except RuntimeError as error:
        if "Thinned" not in str(error):
            raise
        return {"commit": one["commit"], "named": "Thinned"}
    return {"commit": one["commit"], "file": hashlib.sha256(out.read_bytes()).hexdigest()}


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + END_SECONDS
    while not reached():
        if time.monotonic() > end:
            raise RuntimeError("it did not come to pass")
        time.sleep(0.2)


@contextmanager
def recorded(path: Path, port: int) -> Iterator[None]:
    """Write all that goes over the broker into a file: for each message, u16 length of the topic, u32 of the message, and both."""
    with path.open("wb") as out:

        def heard(client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
            topic = message.topic.encode()
            out.write(struct.pack("<HI", len(topic), len(message.payload)) + topic + message.payload)

        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        client.on_message = heard
        ready: list[int] = []
        client.on_subscribe = lambda *_: ready.append(1)
        client.connect("127.0.0.1", port)
        client.subscribe("#", 1)
        client.loop_start()
        until(lambda: bool(ready))
        try:
            yield
        finally:
            client.disconnect()
            client.loop_stop()


def messages(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield topic and bytes of each message that was recorded."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        topic, size = struct.unpack_from("<HI", data, at)
        at += 6
        yield data[at : at + topic].decode(), data[at + topic : at + topic + size]
        at += topic + size


def keep(run: Run, target: Path, expected: dict[str, Any]) -> None:
    """Put what is left into the folder of the release."""
    target.mkdir()
    shutil.copy(run.folder / "wire.bin", target / "wire.bin")
    packed(run.db.parent, target / "registry.tar.xz")
    packed(run.folder / "pi-7", target / "state.tar.xz")
    (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def packed(folder: Path, archive: Path) -> None:
    """Put a folder's files into an archive, which keeps who may read them: git does not. A store that nobody uses needs no `-shm`."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return None if entry.name.endswith("-shm") else entry

    with tarfile.open(archive, "w:xz", preset=9) as tar:
        tar.add(folder, ".", filter=plain)


if __name__ == "__main__":
    raise SystemExit(main())
