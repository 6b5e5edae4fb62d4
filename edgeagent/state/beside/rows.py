"""Which bases lie beside the one that a model's head is on, and what became of the last thing desired: rows of the agent's database.

A model has one base under way at most, staged or soaking, and one that is passive: the one before, whole, for the way back. They may be
the same folder, where the way back is taken.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum

from edgecommon.sqlite import Database, Row
from modelwire.lattice.candidates import Step
from modelwire.update.manifest import Manifest, parse_manifest

FIRST = ""  # the place of the base that a model was set up with: the model's own folder
BASES = "bases"  # folder of all others, in the model's

TABLES = """
CREATE TABLE deployment (                       -- a base beside the one that a model is on
    model TEXT NOT NULL REFERENCES model(name),
    under_way INTEGER NOT NULL,                 -- 1: staged or soaking; 0: passive
    what TEXT NOT NULL CHECK (what IN ('staged', 'soaking', 'passive')),
    number INTEGER NOT NULL,                    -- of the desired that brought it; 0: of none
    commit_id BLOB NOT NULL,                    -- of its manifest
    manifest BLOB NOT NULL,
    place TEXT NOT NULL,                        -- folder in the model's; empty: that one itself
    slot TEXT NOT NULL DEFAULT '',              -- 'a' or 'b': where its files are; empty: it has the base alone
    file_sha256 BLOB NOT NULL DEFAULT x'',
    private_sha256 BLOB NOT NULL DEFAULT x'',
    widen TEXT NOT NULL DEFAULT '[]',           -- as in model
    step TEXT NOT NULL DEFAULT '[]',            -- as in model
    learned TEXT NOT NULL DEFAULT '',           -- what became of what was learned: kept, carried, anew; empty before it soaks
    learned_of BLOB NOT NULL DEFAULT x'',       -- SHA-256 of the served file that it was learned from
    at INTEGER NOT NULL,                        -- Unix seconds
    PRIMARY KEY (model, under_way)
) WITHOUT ROWID;
CREATE TABLE desired (                          -- the newest thing desired that was taken, and how far it has come
    model TEXT PRIMARY KEY REFERENCES model(name),
    number INTEGER NOT NULL,
    record BLOB NOT NULL,                       -- as it came, sealed
    state TEXT NOT NULL,                        -- as reports say it
    since INTEGER NOT NULL,                     -- Unix seconds of the state
    time INTEGER NOT NULL,                      -- newest Unix seconds of the centre when it was taken
    tries INTEGER NOT NULL DEFAULT 0,           -- failed attempts to fetch its file
    bytes INTEGER NOT NULL DEFAULT 0,           -- fetched for it in all
    transfer BLOB NOT NULL DEFAULT x'',         -- how its file is cut, as it came
    have BLOB NOT NULL DEFAULT x'',             -- bit i of byte i//8: part i is here
    probes INTEGER NOT NULL DEFAULT 0,          -- times that it began to be probed
    consent TEXT NOT NULL DEFAULT '',           -- the host's word: yes or no; empty: none yet
    soaked REAL NOT NULL DEFAULT 0,             -- seconds of running in which it was served
    learned TEXT NOT NULL DEFAULT '',
    code TEXT NOT NULL DEFAULT '',              -- why it ended, as reports say it
    reason TEXT NOT NULL DEFAULT '',
    score_before REAL, score_after REAL,
    figures BLOB NOT NULL DEFAULT x'',          -- CBOR of what a report says in `more`
    reported INTEGER NOT NULL DEFAULT 0         -- 1: this state has left as a report
) WITHOUT ROWID;
"""


class Lies(str, Enum):
    """How a base lies beside the one that the head is on."""

    STAGED = "staged"  # its file alone
    SOAKING = "soaking"  # it is served; the head has not moved
    PASSIVE = "passive"  # what was served before, as it was


@dataclass(frozen=True, slots=True)
class PlacedBase:
    """One base beside the one that the head is on."""

    lies: Lies
    number: int  # of the desired that brought it; 0: of none
    commit: bytes  # of its manifest
    manifest: bytes  # encoded
    place: str  # folder in the model's; empty: that one itself
    at: int  # Unix seconds
    slot: str = ""  # empty: it has the base alone
    file_sha256: bytes = b""
    private_sha256: bytes = b""
    widen: str = "[]"  # JSON, as the model's row has it
    step: str = "[]"
    learned: str = ""
    learned_of: bytes = b""  # SHA-256 of the served file that it was learned from

    def parsed(self) -> Manifest:
        """Return its manifest."""
        return parse_manifest(self.manifest)


class PlacedBases:
    """The bases beside one model's. What writes runs inside the caller's transaction."""

    def __init__(self, database: Database, model: str) -> None:
        self._db, self._model = database, model

    def under_way(self) -> PlacedBase | None:
        """Return the base that is staged or soaking."""
        return _placed(self._db.maybe("SELECT * FROM deployment WHERE model=? AND under_way=1", self._model))

    def soaking(self) -> PlacedBase | None:
        """Return the base that is served although the head is on another one."""
        return _placed(self._db.maybe("SELECT * FROM deployment WHERE model=? AND what='soaking'", self._model))

    def passive(self) -> PlacedBase | None:
        """Return the base that was served before, whole; None where there is no way back."""
        return _placed(self._db.maybe("SELECT * FROM deployment WHERE model=? AND under_way=0", self._model))

    def all(self) -> list[PlacedBase]:
        return [p for p in (self.under_way(), self.passive()) if p is not None]

    def put(self, placed: PlacedBase) -> None:
        """Note a base, in the place of the one under way, or of the passive one."""
        under_way = int(placed.lies is not Lies.PASSIVE)
        self._db.run("DELETE FROM deployment WHERE model=? AND under_way=?", self._model, under_way)
        self._db.insert(
            "deployment", model=self._model, under_way=under_way, what=placed.lies.value, number=placed.number, commit_id=placed.commit,
            manifest=placed.manifest, place=placed.place, slot=placed.slot, file_sha256=placed.file_sha256,
            private_sha256=placed.private_sha256, widen=placed.widen, step=placed.step, learned=placed.learned,
            learned_of=placed.learned_of, at=placed.at,
        )  # fmt: skip

    def drop(self, placed: PlacedBase) -> None:
        """Forget a base; its files are nobody's then, unless another row names them."""
        under_way = int(placed.lies is not Lies.PASSIVE)
        self._db.run("DELETE FROM deployment WHERE model=? AND under_way=?", self._model, under_way)

    def blame(self, code: str, reason: str) -> None:
        """Note why what is desired is going to end: one of modelwire.deploying.reports.Code, and a sentence."""
        self._db.run("UPDATE desired SET code=?, reason=? WHERE model=?", code, reason, self._model)


def step_of(text: str) -> Step | None:
    """Return the step that a row holds as JSON; None before the first."""
    parts = json.loads(text)
    return Step(*parts) if parts else None


def _placed(row: Row | None) -> PlacedBase | None:
    if row is None:
        return None
    return PlacedBase(
        Lies(row["what"]), row["number"], row["commit_id"], row["manifest"], row["place"], row["at"], row["slot"], row["file_sha256"],
        row["private_sha256"], row["widen"], row["step"], row["learned"], row["learned_of"],
    )  # fmt: skip
