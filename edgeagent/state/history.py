"""What a device knows of one model's history: its head, its files, and how it stands with the centre."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgeagent.board.budget import TrainingWait
from edgeagent.board.costs import Costs
from edgeagent.planning.figures import Figures
from edgeagent.planning.plans import Plans
from edgeagent.training import threshold
from edgeagent.troubles.told import told
from edgecommon.sqlite import Database, Row
from modelwire.deploying.reports import Code
from modelwire.errors import ConfigError, NotWelcome, StateDamaged
from modelwire.lattice.candidates import Step
from modelwire.output_head.recipe import TRAINER
from modelwire.update.manifest import Manifest, parse_manifest
from modelwire.wire import signing
from modelwire.wire.keys import KeyKind, fingerprint, write_key

from .answers import Answers
from .beside import lying
from .beside.rows import Lies, PlacedBase, PlacedBases, step_of
from .doubts import Doubts
from .outbox import Outbox
from .slots import ModelStore, StoredModel
from .taking import Takings

STATE_OF = "state:"  # in `meta`, before a model's name: the 16 bytes of one that was removed here, for when it is added again
QUARANTINE, UNKNOWN_BASE, CHALLENGE, EPOCHS, OK = "quarantine", "unknown-base", "challenge", "epochs", "ok"


@dataclass(frozen=True, slots=True)
class Board:
    """Who speaks: the names in every topic and header, and the keys."""

    fleet: str
    device: str
    key: signing.PrivateKey
    identity: signing.Fleet  # of the fleet: its root key, and its id, which tells namesakes apart

    @property
    def public_key(self) -> str:
        """The device's public key, as people hand it on."""
        return write_key(KeyKind.DEVICE, self.key.public)

    @property
    def fingerprint(self) -> str:
        """What the operator compares the public key by."""
        return fingerprint(self.key.public)


def claim_refused(database: Database) -> str:
    """Return why the board's claim does not let it in, as the centre's last welcome said; empty when it said nothing of that."""
    row = database.maybe("SELECT value FROM meta WHERE key='claim'")
    return str(row[0]) if row is not None else ""


def set_claim_refused(database: Database, why: str) -> None:
    """Note it."""
    database.run("INSERT OR REPLACE INTO meta (key, value) VALUES ('claim', ?)", why)


def add_by_hand(board: Board) -> str:
    """Return the command by which the operator lets a board in whatever its claim comes to."""
    return f"edgecloud devices add {board.device} {board.fingerprint}"


class KeylessBoard(Board):
    """The board for one who may not see its private key: `key` is any, and signs nothing; what follows from the right one is not known."""

    @property
    def public_key(self) -> str:
        return ""

    @property
    def fingerprint(self) -> str:
        return "FINGERPRINT"


@dataclass(frozen=True, slots=True)
class Quiet:
    """The centre wants nothing to be sent for a while."""

    until: int  # Unix seconds of this board
    reason: str


@dataclass(frozen=True, slots=True)
class LastModel:
    """The model that a folder set up anew would like back, before it goes on from its base."""

    version: int  # that the centre offers; 0: it has not said yet
    waited: int  # seconds of running in which it did not train


@dataclass(frozen=True, slots=True)
class Head:
    """The row of a model: what is served now, and where its numbers stand."""

    slot: str
    file_sha256: bytes
    private_sha256: bytes
    version: int  # 0 is the base
    commit: bytes
    last_version: int
    epoch: int
    welcome: str
    blocked: str
    widen: tuple[int, ...]
    step: Step | None  # of the last adopted round
    rounds: int
    trained_id: int
    trained_at: int
    runtime: str
    carded_id: int = 0
    looked_id: int = 0
    look: str = ""
    place: str = ""  # of the base that it is on
    based: int = 0  # the version that went over to that base last; 0: none did

    @property
    def next_version(self) -> int:
        return max(self.last_version, self.version) + 1


class History:
    """What is known of one model, and what is noted beside its versions."""

    def __init__(self, database: Database, board: Board, name: str, folder: Path, *, history: int = 0) -> None:
        """Raises ConfigError when this device has no model `name`."""
        row = database.maybe("SELECT manifest, base_commit, place FROM model WHERE name=?", name)
        if row is None:
            names = ", ".join(r["name"] for r in database.all("SELECT name FROM model ORDER BY name"))
            error = ConfigError(reason=f"there is no model {name!r} on this device; it has {names or 'none'}")
            error.hint = f"edgeagent model add {name}=FILE, or take it out of the settings"
            raise error
        self.name = name
        self.board = board
        self.manifest: Manifest = parse_manifest(row["manifest"])
        self.base_commit: bytes = row["base_commit"]
        own = database.maybe("SELECT value FROM meta WHERE key=?", STATE_OF + name)
        self.state: bytes = (own or database.one("SELECT value FROM meta WHERE key='state'"))["value"]  # what its epoch is granted to
        self.store = ModelStore(folder / "models" / name, self.manifest, row["place"])
        self.beside = PlacedBases(database, name)
        self.outbox = Outbox(database, name)
        self.answers = Answers(database, name)
        self.takings = Takings(database, name, self.store.folder)
        self.doubts = Doubts(database, name)
        self.costs = Costs(database, self.base_commit)
        self.plans = Plans(database, name)
        self.figures, self.link_figures = Figures(database, name), Figures(database)
        self.journal = self.store.folder / "round"  # of the round under way
        self.history = history
        self._db = database

    def reload(self) -> bool:
        """Follow the model to the base that it is on now, which another process may have brought; return whether that is another one."""
        row = self._db.one("SELECT base_commit, place FROM model WHERE name=?", self.name)
        if (row["base_commit"], row["place"]) == (self.base_commit, self.store.place):
            return False
        row = self._db.one("SELECT manifest, base_commit, place FROM model WHERE name=?", self.name)
        self.manifest, self.base_commit = parse_manifest(row["manifest"]), row["base_commit"]
        self.store.manifest, self.store.place = self.manifest, row["place"]
        self.costs = Costs(self._db, self.base_commit)
        return True

    @property
    def fixed_bytes(self) -> int:
        """Bytes of every update: the names, and the threshold of anomalies where the model has one. Raises ModelError."""
        return len(self.board.device) + len(self.name) + (0 if threshold.tensor_of(self.manifest) is None else threshold.BYTES)

    def troubles(self) -> Mapping[str, str]:
        """Return the board's troubles that the centre is told of, in words by their ids."""
        return told(self._db)

    def head(self) -> Head:
        r = self._db.one("SELECT * FROM model WHERE name=?", self.name)
        return Head(
            r["slot"], r["file_sha256"], r["private_sha256"], r["head_version"], r["head_commit"], r["last_version"], r["epoch"],
            r["welcome"], r["blocked"], tuple(json.loads(r["widen"])), step_of(r["step"]),
            r["rounds"], r["trained_id"], r["trained_at"], r["runtime"], r["carded_id"], r["looked_id"], r["look"],
            r["place"], r["based"],
        )  # fmt: skip

    def load(self) -> StoredModel:
        """Return the head's model. Raises StateDamaged."""
        while True:
            self.reload()
            head = self.head()
            try:
                return self.store.load(head.slot, head.file_sha256, head.private_sha256)
            except StateDamaged:
                now = self.head()
                if (now.file_sha256, now.place) == (head.file_sha256, head.place) and not self.reload():
                    raise
                # A reader beside a running agent: two rounds have passed meanwhile, and the slot was written again; or it went over.

    def beside_store(self, placed: PlacedBase) -> ModelStore:
        """Return the files of a base that lies beside the one that the head is on."""
        return self.store.at(placed.place, placed.parsed())

    def load_beside(self, placed: PlacedBase) -> StoredModel:
        """Return the model of such a base, which has a slot. Raises StateDamaged."""
        return self.beside_store(placed).load(placed.slot, placed.file_sha256, placed.private_sha256)

    def versions(self, limit: int = -1) -> list[Row]:
        """Return the rows of the log, newest first."""
        return self._db.all("SELECT * FROM version WHERE model=? ORDER BY id DESC LIMIT ?", self.name, limit)

    def version(self, number: int) -> Row | None:
        """Return one row of the log; None where this number was never used here."""
        return self._db.maybe("SELECT * FROM version WHERE model=? AND version=?", self.name, number)

    def rows(self) -> int:
        """Return how many rows the log has."""
        return self._db.number("SELECT count(*) FROM version WHERE model=?", self.name)

    def last_trained(self) -> Row | None:
        """Return the row of the last accepted round, None before the first."""
        return self._db.maybe(
            "SELECT * FROM version WHERE model=? AND version IS NOT NULL AND loss_after IS NOT NULL ORDER BY id DESC LIMIT 1", self.name
        )

    def looked(self, until: int, waits: str) -> None:
        """Note a look at the samples up to `until`. waits: why no round came of it; empty when one does."""
        self._db.run("UPDATE model SET looked_id=?, look=? WHERE name=?", until, waits, self.name)

    def told(self) -> dict[str, str]:
        """Return the facts of this board that the cards of this epoch have told; none where the next card has to tell them."""
        row = self._db.one("SELECT told, epoch FROM model WHERE name=?", self.name)
        said = json.loads(row["told"])
        return dict(said["facts"]) if said.get("epoch") == row["epoch"] else {}

    def known(self, up_to: int | None = None) -> tuple[int, int]:
        """Return (verified, stored): up to which version the centre has said so. stored is never below verified.

        up_to: of the versions up to this one alone.
        """
        row = self._db.one(
            "SELECT coalesce(max(CASE state WHEN 'verified' THEN version END), 0) v, coalesce(max(version), 0) s"
            " FROM version WHERE model=? AND state IN ('verified', 'stored') AND version<=?",
            self.name, 1 << 62 if up_to is None else up_to,
        )  # fmt: skip
        return row["v"], row["s"]

    def repair(self) -> list[str]:
        """Bring the files in line with the database after a kill, and return what was swept away. Raises StateDamaged."""
        self.load()
        self.serve()  # before the other slot goes: the link may lead there still
        return self.store.tidy(self.named()) + self.takings.tidy()

    def named(self) -> dict[str, set[str]]:
        """Return the places of this model's bases, each with the slots that hold a model."""
        head = self.head()
        out = {head.place: {head.slot}}
        for placed in self.beside.all():
            out.setdefault(placed.place, set()).update({placed.slot} - {""})
        return out

    def mend_beside(self) -> list[tuple[str, str]]:
        """Let go of the bases beside the served one whose files are not whole; return (trouble, what was wrong) of each.

        What soaked is not served then, and the head's model is again. Raises DiskUnwritable.
        """
        out = []
        for placed in self.beside.all():
            never = lying.incomplete(self.store.folder, placed)
            if wrong := lying.fault(self.store.folder, placed):
                with self._db.transaction():
                    self.beside.drop(placed)
                if not never:
                    out.append((f"{'passive' if placed.lies is Lies.PASSIVE else 'variant'}-damaged", f"{self.name}: {wrong}"))
        return out

    def forget_beside(self) -> None:
        """Let go of the models beside the head's, inside the caller's transaction: they have learned what is to be forgotten.

        The base of the way back stays; what soaks is served no more. `sweep_beside` removes their files.
        """
        for placed in self.beside.all():
            if placed.lies is Lies.SOAKING:
                self.beside.drop(placed)
                self.beside.blame(Code.SUPERSEDED, "what it had learned was to be forgotten")
            elif placed.slot:
                self.beside.put(replace(placed, slot="", file_sha256=b"", private_sha256=b"", widen="[]", step="[]"))

    def sweep_beside(self) -> None:
        """Remove the models beside the head's that no row names. A kill before it is made good at start."""
        head, named = self.head(), self.named()
        self.serve()  # the link may lead there
        self.store.sweep(named)
        for place in set(named) - {head.place}:
            self.store.at(place, self.manifest).empty(named[place])

    def serve(self) -> None:
        """Let the served file follow the head, or what soaks, and the history the head. Called after each change; a kill before it is
        made good at start.
        """
        head, soaking = self.head(), self.beside.soaking()
        if soaking is not None:
            self.store.at(soaking.place, self.manifest).lead(soaking.slot)
        else:
            self.store.lead(head.slot)
        self.store.keep(head.slot, head.version, self.history)

    def set_runtime(self, key: str) -> None:
        self._db.run("UPDATE model SET runtime=? WHERE name=?", key, self.name)

    def set_waiting(self, wait: TrainingWait | None, now: int) -> None:
        """Note why the running agent does not train this model now, for those who ask from outside."""
        self._db.run("DELETE FROM waiting WHERE model=?", self.name)
        if wait is not None:
            self._db.insert("waiting", model=self.name, reason=wait.reason, until=wait.until, at=now)

    def waiting(self) -> TrainingWait | None:
        """Return why the running agent does not train this model now."""
        row = self._db.maybe("SELECT * FROM waiting WHERE model=?", self.name)
        return TrainingWait(row["reason"], row["until"]) if row is not None else None

    def trainers(self) -> tuple[int, ...]:
        """Return the versions of the exact trainer that the last welcome said the centre replays."""
        return tuple(json.loads(self._db.one("SELECT trainers FROM model WHERE name=?", self.name)[0]))

    def against_recipes(self) -> str:
        """Return why the centre could not replay what this release trains; empty when it could."""
        said = self.trainers()
        if TRAINER in said:
            return ""
        replays = f"replays trainers {', '.join(map(str, said))}" if said else "has not said that it replays any"
        return f"this release trains by the exact trainer {TRAINER}, and the centre {replays}"

    def set_quiet(self, quiet: Quiet) -> None:
        """Note how long the centre wants nothing to be sent."""
        self._db.run("UPDATE model SET quiet_until=?, quiet_why=? WHERE name=?", quiet.until, quiet.reason, self.name)

    def quiet(self) -> Quiet:
        """Return until when the centre wants nothing to be sent; in the past, or 0, when that is over."""
        row = self._db.one("SELECT quiet_until, quiet_why FROM model WHERE name=?", self.name)
        return Quiet(row[0], row[1])

    def wish(self) -> LastModel | None:
        """Return the last model that this one would like back; None when it has it, was told that there is none, or went on without."""
        row = self._db.maybe("SELECT r.* FROM resume r JOIN model m ON m.name = r.model WHERE model=? AND m.head_version=0", self.name)
        return None if row is None else LastModel(row["version"], row["waited"])

    def offered(self, version: int) -> None:
        """Note which version the centre holds of the last model; 0: none, so nothing more is waited for."""
        if version:
            self._db.run("UPDATE resume SET version=? WHERE model=?", version, self.name)
        else:
            self._db.run("DELETE FROM resume WHERE model=?", self.name)

    def waited(self, seconds: int) -> None:
        """Note that the agent ran for so long without training this model, for its last one."""
        self._db.run("UPDATE resume SET waited=waited+? WHERE model=?", seconds, self.name)

    def reported(self) -> int:
        """Return the number of the last thing desired that was reported on; 0 before the first."""
        return self._db.number("SELECT desired FROM model WHERE name=?", self.name)

    def set_reported(self, number: int) -> None:
        self._db.run("UPDATE model SET desired=max(desired, ?) WHERE name=?", number, self.name)

    def check_welcome(self, head: Head) -> None:
        """Raise NotWelcome while the centre has granted no epoch."""
        if not head.epoch:
            raise NotWelcome(device=self.board.device, model=self.name, status=self.why_unwelcome(head), next=self.next_step(head))

    def why_unwelcome(self, head: Head) -> str:
        refused = claim_refused(self._db)
        claim = f", and the board's claim does not let it in: {refused}" if refused else ""
        said = {
            QUARANTINE: f"it does not know this key{claim}", UNKNOWN_BASE: "it does not hold this base",
            CHALLENGE: "it wants to hear from the device once more",
            EPOCHS: "a device of this name was set up anew too often in a day, or somebody else uses its key",
        }  # fmt: skip
        return said.get(head.welcome, f"it says {head.welcome!r}" if head.welcome else "it has not answered yet")

    def next_step(self, head: Head) -> str:
        """Return the command that makes the centre welcome this model; empty when it has."""
        if head.welcome in (OK, CHALLENGE):  # the agent answers a challenge by itself
            return ""
        if head.welcome == UNKNOWN_BASE:
            return f"edgecloud bases add {self.name}.tflite"
        if head.welcome == EPOCHS:
            return f"edgecloud devices reset {self.board.device}; where its key is in other hands: devices revoke, and a new key"
        add = add_by_hand(self.board)
        return add if head.welcome == QUARANTINE else f"edgeagent run; when the device is in quarantine: {add}"
