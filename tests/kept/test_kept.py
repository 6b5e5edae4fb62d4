"""What earlier releases left behind is read, brought to this release and gone on with: the wire, the registry, a board's state."""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeagent.settings import reading
from edgeagent.state import agent_tables
from edgeagent.state.folder import open_folder
from edgecloud.registry import open_registry
from edgecloud.registry.sqlite import schema
from modelwire.lattice.rebuild import rebuild
from modelwire.lattice.state import ModelState
from modelwire.tflite.file import parse_trainable, read_weights, write_weights
from modelwire.update import container
from modelwire.update.manifest import Manifest, manifest_of
from modelwire.wire import records, topics
from modelwire.wire.signing import PrivateKey, Role
from tests import broker, keys
from tests.edgecloud.desk import Desk
from tests.kept import DEVICE_SEED, FOLDER, STRANGER_SEED
from tests.kept.make import MODEL, messages, recorded
from tests.system.fleet import Process, agent, cloud

KEPT = sorted((path for path in FOLDER.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
EACH = pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.name)
CENTRE = {Role.RECEIPT: keys.RECEIPT, Role.COMMAND: keys.COMMAND, Role.DIRECTOR: keys.DIRECTOR, Role.ROOT: keys.ROOT}
BOARDS = {"pi-7": PrivateKey(DEVICE_SEED), "pi-9": PrivateKey(STRANGER_SEED)}


def unpacked(archive: Path, folder: Path) -> Path:
    """Unpack what was kept into a new folder, for its owner alone as it was."""
    folder.mkdir(mode=0o700)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data") if sys.version_info >= (3, 12) else tar.extractall(folder)
    return folder


def expected_of(kept: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((kept / "expected.json").read_text())
    return said


def base_of(kept: Path, folder: Path) -> bytes:
    """Return the base that the kept board started from."""
    (file,) = unpacked(kept / "state.tar.xz", folder).glob(f"**/{MODEL}/base.tflite")
    return file.read_bytes()


def updates(kept: Path) -> Iterator[container.Container]:
    for topic, data in messages(kept / "wire.bin"):
        if topics.parse(topic).leaf == "update":
            yield container.parse(data)


def test_the_first_is_there_and_they_are_counted_without_a_gap() -> None:
    assert [int(path.name) for path in KEPT] == list(range(1, len(KEPT) + 1)) and KEPT


@EACH
def test_each_message_is_read_and_written_again_to_the_same_bytes(kept: Path, tmp_path: Path) -> None:
    schema_, seen = manifest_of(base_of(kept, tmp_path / "state")).schema, set[str]()
    for topic, data in messages(kept / "wire.bin"):
        place = topics.parse(topic)
        if place.leaf == "update":
            one = container.parse(data)
            one.verify(BOARDS[place.device].public, keys.FLEET_ID)
            again = container.seal(one.header, one.sections(schema_), schema_, BOARDS[place.device], keys.FLEET_ID).data
            seen.add(f"update {one.header.kind.name.lower()}")
        else:
            signed = records.parse(data)
            key = BOARDS[place.device] if signed.role is Role.DEVICE else CENTRE[signed.role]
            signed.verify(key.public, keys.FLEET_ID, place.device, signed.role)
            again = records.encode(signed.record, key, keys.FLEET_ID, role=signed.role)
            seen.add(signed.record.KIND)
        assert again == data, topic
    assert {"hello", "welcome", "receipt", "command", "response", "presence", "update delta", "update snapshot"} <= seen


@EACH
def test_the_updates_on_the_wire_come_to_the_files_that_the_board_served(kept: Path, tmp_path: Path) -> None:
    file = base_of(kept, tmp_path / "state")
    parsed, manifest, expected = parse_trainable(file), manifest_of(file), expected_of(kept)["versions"]
    state = ModelState.of_base(manifest, manifest.schema.flat(read_weights(parsed)))
    assert isinstance(manifest, Manifest)
    made = {}
    for one in updates(kept):
        if one.header.version not in made:  # what was sent twice is the same
            state = rebuild(state, one)
            made[one.header.version] = hashlib.sha256(write_weights(parsed, state.named())).hexdigest()
        assert one.commit.hex() == expected[str(one.header.version)]["commit"]
    said = {int(number): row["file"] for number, row in expected.items() if "file" in row}
    assert {number: made[number] for number in said} == said and len(made) == len(expected)


@EACH
def test_the_registry_is_brought_to_this_release_with_every_version_exact(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, expected = unpacked(kept / "registry.tar.xz", tmp_path / "registry"), expected_of(kept)
    store = open_registry(folder / "fleet.db")
    assert store.database.number("PRAGMA user_version") == schema.SCHEMA
    store.close()
    monkeypatch.chdir(folder)
    desk = Desk(folder, capsys)
    found = {str(one["version"]): one for one in desk.json("log", "pi-7")["versions"]}  # type: ignore[attr-defined]
    assert {number: one["commit"] for number, one in found.items()} == {n: row["commit"] for n, row in expected["versions"].items()}
    for number, row in expected["versions"].items():
        words = ("materialise", f"pi-7@{number}", "-o", f"{number}.tflite")
        if "file" in row:
            desk.json(*words)
            assert hashlib.sha256((folder / f"{number}.tflite").read_bytes()).hexdigest() == row["file"], number
        else:
            assert desk.error(*words)["error"] == row["named"], number
    proof = desk.json("verify", "--all")
    assert (proof["wrong"], proof["tampered"]) == ([], []) and proof["exact"] == sum("file" in row for row in expected["versions"].values())
    (waiting,) = desk.json("devices")["waiting"]  # type: ignore[misc]
    assert expected["waiting"].rpartition(":")[2] in json.dumps(waiting)
    assert expected["note"] in desk.ok("show", "pi-7@2")


@EACH
def test_the_board_s_folder_is_brought_to_this_release_as_it_stood(kept: Path, tmp_path: Path) -> None:
    home, expected = unpacked(kept / "state.tar.xz", tmp_path / "pi-7"), expected_of(kept)
    with open_folder(reading.load(home / reading.FILE, environment={}, flags={}), alone=True) as opened:
        lineage = opened.lineages[MODEL]
        assert opened.database.number("PRAGMA user_version") == agent_tables.RELEASE
        assert opened.database.all("PRAGMA foreign_key_check") == []
        head = lineage.head()
        assert (head.version, head.commit.hex(), head.place, head.based) == (
            expected["unsent"]["version"], expected["unsent"]["commit"], "", 0
        )  # fmt: skip
        assert lineage.beside.all() == [] and lineage.load().state.root == lineage.version(head.version)["root"]  # type: ignore[index]
        assert hashlib.sha256(lineage.store.served.read_bytes()).hexdigest() == expected["unsent"]["file"]
        assert opened.database.one("SELECT first_commit FROM model")[0] == lineage.base_commit


@EACH
@pytest.mark.slow("starts a broker, an ingester and an agent, each a process of its own", seconds=10)
@pytest.mark.skipif(broker.program() is None, reason=broker.MISSING)
def test_the_board_goes_on_where_it_stood_with_the_centre_that_came_along(kept: Path, tmp_path: Path) -> None:
    """What it had not sent arrives, and one more round is made and verified: to the bit that it serves."""
    db, expected = unpacked(kept / "registry.tar.xz", tmp_path / "registry") / "fleet.db", expected_of(kept)
    home = unpacked(kept / "state.tar.xz", tmp_path / "pi-7")
    with broker.mosquitto(tmp_path) as hub, recorded(tmp_path / "wire.bin", hub.port):
        words = ["ingest", "--db", str(db), "--broker", hub.url, "--workers", "0"]
        ingester = Process("ingester", [sys.executable, "-m", "edgecloud", *words], tmp_path / "ingester.log")
        ingester.start()
        try:
            there = ("--dir", str(home), "--set", f"link.broker={hub.url}")
            (before,) = agent("status", *there)["models"]
            assert (before["version"], before["commit"]) == (expected["unsent"]["version"], expected["unsent"]["commit"])
            assert before["queued"] == 1 and before["file_sha256"] == expected["unsent"]["file"]
            agent("run", "--rounds", str(before["rounds"] + 1), "--timeout", "300s", *there)
            (after,) = agent("status", *there)["models"]
        finally:
            assert ingester.stop() == 0, ingester.tail()
        assert after["version"] > before["version"] and after["verified"] == after["version"]
    for number, file in ((before["version"], before["file_sha256"]), (after["version"], after["file_sha256"])):
        cloud("materialise", f"pi-7@{number}", "-o", str(tmp_path / f"{number}.tflite"), "--db", str(db))
        assert hashlib.sha256((tmp_path / f"{number}.tflite").read_bytes()).hexdigest() == file
    proof = cloud("verify", "--all", "--db", str(db))
    assert (proof["wrong"], proof["tampered"]) == ([], [])
