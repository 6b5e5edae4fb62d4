"""A scripted device for tests: makes real, signed containers with random training noise, and hears what the centre answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from modelwire.lattice.candidates import Residual
from modelwire.lattice.replay import checkpoints_of, kind_of, update_of
from modelwire.lattice.snap import no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.output_head.recipe import Checkpoints, Recipe, layers_in
from modelwire.output_head.row_ids import KEY, encode_ids
from modelwire.output_head.rows import Rows
from modelwire.output_head_settings import OutputHeadSettings
from modelwire.tflite.file import parse_trainable, read_weights, write_weights
from modelwire.update.container import seal
from modelwire.update.header import Header
from modelwire.update.manifest import manifest_of
from modelwire.update.sections import Kind, Sections
from modelwire.wire import parts, signing
from modelwire.wire.records import Hello, Level, Presence, Receipt, Record, Response, Transfer, Welcome, encode
from modelwire.wire.topics import up
from tests.keys import FLEET_ID

TINY = Path(__file__).parents[1] / "models" / "tiny.tflite"
FLEET = "orchard"
PART = 1024 + 44 + 32 * 14  # bytes of a message that carries the smallest part there is
BULK = {"pad": np.random.default_rng(0).bytes(7168)}  # an extension that makes of a tiny update a handful of them


class Base:
    """A base file, read once for many devices."""

    def __init__(self, file: bytes) -> None:
        self.file, self.manifest, self.parsed = file, manifest_of(file), parse_trainable(file)
        self.weights = tuple(self.manifest.schema.flat(read_weights(self.parsed)))

    def __repr__(self) -> str:
        return f"<base {self.manifest.commit.hex()[:8]}>"

    @classmethod
    def of(cls, path: Path = TINY) -> Base:
        return cls(path.read_bytes())


@dataclass(frozen=True)
class Sent:
    """One update as the device made it."""

    version: int
    commit: bytes
    parent: bytes
    data: bytes
    root: bytes
    file_sha256: bytes  # of the served file at this version


def recipe_on(base: Base, ids: Sequence[int], **settings: Any) -> Recipe:
    """Return a recipe for all layers of the tiny net, on samples whose features and labels follow from their ids alone."""
    said = {"features": 4, "outputs": 3, "hidden": (3, 3), "steps": 12, "batch": 8, "rate": 0.1, "seed": 3, **settings}
    head = OutputHeadSettings(**said)
    names = [(f"{layer}_kernel", f"{layer}_bias") for layer in ("hidden1", "hidden2", "output")]
    labels = np.array([i % 3 for i in ids], np.uint32)
    noise = [np.random.default_rng(i).standard_normal(4) for i in ids]
    x = np.array([n + np.eye(4)[label] for n, label in zip(noise, labels, strict=True)]) * 32
    rows = Rows(np.clip(np.rint(x), -127, 127).astype(np.int8), labels, scale=1 / 32)  # one scale, whatever rows are left
    return Recipe(head, layers_in(base.manifest.schema, head, names), rows)


def key_of(name: str, life: int = 0) -> signing.PrivateKey:
    """Return a device's key; another one in each life."""
    return signing.PrivateKey(hashlib.sha256(f"{name} {life}".encode()).digest())


@dataclass
class ScriptedDevice:
    """One device with one model. `made` keeps all it has ever sealed, `waiting` what it would still resend."""

    base: Base
    name: str = "pi-7"
    model: str = "digits"
    fleet: str = FLEET
    seed: int = 0
    life: int = 0  # the state folder's; a re-flash is the next one
    key: signing.PrivateKey = field(default_factory=lambda: signing.PrivateKey(bytes(32)))
    epoch: int = 0
    version: int = 0
    head: bytes = b""
    made: dict[int, Sent] = field(default_factory=dict)
    waiting: dict[int, Sent] = field(default_factory=dict)
    verified: int = 0
    refused: dict[int, str] = field(default_factory=dict)
    fleet_id: bytes = FLEET_ID
    trust: int = 1  # number of the trust record that it holds
    answer: bytes = b""  # the challenge of the last welcome

    def __post_init__(self) -> None:
        self.key = key_of(self.name)
        self.rng = np.random.default_rng([self.seed, *self.name.encode()])
        self.reset()

    def reset(self) -> None:
        """Start at the base, as a fresh state folder does."""
        self.state = ModelState.of_base(self.base.manifest, self.base.weights)
        self.residual: Residual = no_residual(self.base.manifest)
        self.epoch, self.head = 0, self.base.manifest.commit
        self.answer = b""
        self.waiting.clear()

    def reflash(self) -> None:
        """Lose the state, keep the key."""
        self.life += 1
        self.reset()

    @property
    def state_id(self) -> bytes:
        return hashlib.sha256(f"{self.name} {self.model} {self.life}".encode()).digest()[:16]

    def topic(self, leaf: str) -> str:
        return up(self.fleet, self.name, self.model, leaf)

    def say(self, leaf: str, record: Record) -> tuple[str, bytes]:
        """Return a record as this device signs it, on a topic of its own."""
        return self.topic(leaf), encode(record, self.key, self.fleet_id, role=signing.Role.DEVICE)

    def hello(self, **other: Any) -> tuple[str, bytes]:
        """Return what it says of itself. other: fields to say otherwise."""
        said = Hello(
            self.fleet, self.name, self.model, 1, self.key.public, self.state_id, self.base.manifest.commit, self.epoch,
            self.version, self.head, "test runtime", "0.1.0", self.trust, self.answer, b"", False, (1,),
        )  # fmt: skip
        return self.say("hello", replace(said, **other))

    def presence(self, online: bool, boot: int) -> tuple[str, bytes]:
        return self.say("state", Presence(self.fleet, self.name, self.model, 1, boot, online))

    def response(self, number: int, ok: bool = True, text: str = "", body: Mapping[str, Any] | None = None) -> tuple[str, bytes]:
        return self.say("rsp", Response(self.fleet, self.name, self.model, 1, number, ok, text, body or {}))

    def train(self, *, density: float = 0.01, **header: object) -> Sent:
        """Move on by one noisy round and return the delta that says so."""
        trained = [w + self.rng.standard_normal(len(w)).astype(np.float32) * np.float32(0.01) for w in self.state.weights]
        round = snap(self.state, trained, self.residual, density=density, max_bytes=1 << 20)
        self.state, self.residual = round.state, round.residual
        return self.seal(Kind.DELTA, round.sections, **header)

    def rebase(self, base: Base, **header: object) -> Sent:
        """Go over to another base of the same tensors, with the weights moved a little, and return the snapshot that says so."""
        self.base = base
        self.state, self.residual = ModelState.of_base(base.manifest, base.weights), no_residual(base.manifest)
        trained = [w + self.rng.standard_normal(len(w)).astype(np.float32) * np.float32(0.01) for w in self.state.weights]
        self.state = snap(self.state, trained, self.residual, density=0.2, max_bytes=1 << 20).state
        return self.snapshot(**header)

    def snapshot(self, parent: bytes | None = None, **header: object) -> Sent:
        """Return the whole present state as an update on `parent`, or on the head."""
        if parent is not None:
            self.head = parent
        return self.seal(Kind.SNAPSHOT, self.state.snapshot(), **header)

    def learn(self, ids: Sequence[int], *, named: bool = True, every: int = 0, lie: int = 0, **settings: Any) -> Sent:
        """Train the whole net on these samples by the exact trainer, and return the recipe that says so.

        named: say in the extension which samples the rows are of. every: steps between checkpoints; lie: which one is wrong, from 1.
        settings: of the head.
        """
        recipe = recipe_on(self.base, ids, **settings)
        if every:
            marks = checkpoints_of(self.state, recipe, every)
            roots = tuple(bytes(32) if i + 1 == lie else root for i, root in enumerate(marks.roots))
            recipe = replace(recipe, checkpoints=Checkpoints(every, roots))
        self.state.apply(kind_of(self.state), update_of(self.state, recipe))
        self.residual = no_residual(self.base.manifest)
        said = {"samples": len(ids), **({KEY: encode_ids(ids)} if named else {})}
        return self.seal(Kind.RECIPE, (), recipe=recipe.encode(), extension=said)

    def seal(self, kind: Kind, sections: Sections, *, recipe: bytes = b"", **header: object) -> Sent:
        """Return the next version, signed. header: fields to say otherwise, for lies."""
        fields: dict[str, object] = {
            "kind": kind,
            "device": self.name,
            "model": self.model,
            "epoch": self.epoch,
            "version": self.version + 1,
            "parent": self.head,
            "schema_id": self.base.manifest.schema.id,
            "root": self.state.root,
            "fingerprint": self.state.fingerprint,
            "base": self.base.manifest.commit if kind is Kind.SNAPSHOT else b"",
            "extension": {"loss_before": 1.0, "loss_after": 0.5, "samples": 32, "steps": 4},
        }
        made = seal(Header(**{**fields, **header}), sections, self.base.manifest.schema, self.key, self.fleet_id, recipe=recipe)  # type: ignore[arg-type]
        self.version, self.head = made.header.version, made.commit
        sent = Sent(self.version, made.commit, made.header.parent, made.data, self.state.root, hashlib.sha256(self.served()).digest())
        self.made[sent.version] = self.waiting[sent.version] = sent
        return sent

    def served(self) -> bytes:
        """Return the file that the device runs now."""
        return write_weights(self.base.parsed, self.state.named())

    def update(self, sent: Sent) -> tuple[str, bytes]:
        return self.topic("update"), sent.data

    def transfer(self, sent: Sent, part: int) -> tuple[Transfer, tuple[str, bytes], list[tuple[str, bytes]]]:
        """Return an update's manifest, its message, and the messages of its parts."""
        out = parts.describe(sent.data, fleet=self.fleet, device=self.name, model=self.model, at=1, part=part)
        return out.transfer, self.say("part", out.transfer), [(self.topic("part"), out.cut(i)) for i in range(out.count)]

    def hear(self, record: Record) -> Sent | None:
        """Take in what the centre says; a refusal gives the snapshot that answers it."""
        if isinstance(record, Welcome) and record.state == self.state_id:
            self.answer = record.challenge
        if isinstance(record, Welcome) and record.state == self.state_id and record.status == "ok":
            self.epoch = record.epoch
            self.version = max(self.version, record.version)
        if not isinstance(record, Receipt) or record.epoch != self.epoch:
            return None
        sent = self.waiting.get(record.version)
        if sent is None or sent.commit != record.commit:
            return None
        if record.level is Level.VERIFIED:
            del self.waiting[record.version]
            self.verified = max(self.verified, record.version)
        if record.level is Level.REFUSED:
            for version in [v for v in self.waiting if v >= record.version]:
                del self.waiting[version]
                self.refused[version] = record.reason
            return self.snapshot(record.good)
        return None
