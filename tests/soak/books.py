"""The books of both sides: what each device says of its versions, what the centre holds of them, and where the two differ."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import edgecloud
from tests.system.fleet import Fleet

CARRIED = "skipped"  # the state of a version that a later one carries: it never travels by itself


@dataclass(frozen=True, slots=True)
class Entry:
    """One version as one side has it. sha256: of the file that ran on the device, or that the centre rebuilds; empty if it does not."""

    version: int
    commit: bytes
    root: bytes
    sha256: bytes
    status: str  # a word of that side

    def __str__(self) -> str:
        return f"@{self.version} ({self.status}, commit {self.commit.hex()[:12]})"


@dataclass
class Books:
    """What came of all updates. Each word in `lost`, `doubled` and `diverged` names one version, and what is wrong with it."""

    made: int = 0
    stored: int = 0
    verified: int = 0
    lost: list[str] = field(default_factory=list)  # its device made it and the centre has not got it, or can't vouch for it
    doubled: list[str] = field(default_factory=list)  # at the centre twice, or never made
    diverged: list[str] = field(default_factory=list)  # it is another there, by its commit, its root or a byte of its file

    @property
    def balanced(self) -> bool:
        return not (self.lost or self.doubled or self.diverged) and self.made == self.stored == self.verified

    @property
    def wrong(self) -> list[str]:
        """All that differs, a line each."""
        found = (("lost", self.lost), ("doubled", self.doubled), ("diverged", self.diverged))
        return [f"{kind}: {what}" for kind, lines in found for what in lines]


def compare(device: str, mine: Sequence[Entry], held: Sequence[Entry], into: Books) -> None:
    """Enter what a device made, and what the centre holds of it."""
    at_centre: dict[int, Entry] = {}
    commits = Counter(e.commit for e in held)
    numbers = {e.version for e in mine}
    for entry in held:
        if entry.version in at_centre or commits[entry.commit] > 1:
            into.doubled.append(f"{device}{entry} is at the centre more than once")
        elif entry.version not in numbers:
            into.doubled.append(f"{device}{entry} is at the centre, and its device never made it")
        at_centre.setdefault(entry.version, entry)
    if [e.version for e in held] != sorted(e.version for e in held):
        into.doubled.append(f"{device}: the centre's list is out of order")
    into.stored += len(held)
    into.verified += sum(e.status == "verified" for e in held)
    for entry in mine:
        into.made += 1
        there = at_centre.get(entry.version)
        if there is None or there.status != "verified" or entry.status != "verified":
            into.lost.append(f"{device}{entry} is {'not there' if there is None else there.status} at the centre")
        elif (there.commit, there.root, there.sha256) != (entry.commit, entry.root, entry.sha256):
            into.diverged.append(f"{device}{entry} is {there} at the centre")


def of_device(fleet: Fleet, device: str, model: str) -> list[Entry]:
    """Return what the device's own log says, oldest first, without rounds that were rejected and versions that others carry."""
    document = fleet.agent(device, "log", model)["models"][0]
    assert not document["more"], "a log that is asked for as JSON is whole"
    return sorted((_entry(row) for row in document["versions"] if row["version"] and row["state"] != CARRIED), key=lambda e: e.version)


def _entry(row: dict[str, Any]) -> Entry:
    commit, root, sha256 = (bytes.fromhex(row[key] or "") for key in ("commit", "root", "file_sha256"))
    return Entry(row["version"], commit, root, sha256, row["state"])


def of_centre(registry: edgecloud.Registry, device: str, model: str) -> list[Entry]:
    """Return what the centre lists, in its order, each version rebuilt to its file."""
    if device not in {d.name for d in registry.devices()}:
        return []
    out = []
    for v in registry.device(device).model(model).versions():
        digest = hashlib.sha256(v.file()).digest() if v.status == "verified" else b""
        out.append(Entry(v.number, v.commit, v.root, digest, v.status))
    return out


def close(fleet: Fleet, models: dict[str, str]) -> Books:
    """Compare all devices with the centre. models: the one of each device."""
    books = Books()
    with edgecloud.open(fleet.db) as registry:
        for device, model in models.items():
            mine = of_device(fleet, device, model)
            held = of_centre(registry, device, model)
            compare(device, mine, held, books)
            served = (fleet.home(device) / "state" / "models" / model / "served.tflite").read_bytes()
            if held and hashlib.sha256(served).digest() != held[-1].sha256:
                books.diverged.append(f"{device} serves another file than {held[-1]} at the centre")
    proof = fleet.cloud("verify", "--all")
    if proof["wrong"] or proof["checked"] != proof["exact"] or proof["checked"] != books.stored:
        books.diverged.append(f"edgecloud verify --all: {proof}")
    return books
