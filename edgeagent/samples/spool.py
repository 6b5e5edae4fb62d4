"""The samples that a device has seen: appended by the application, bounded, split for good into training and held-out ones.

Several processes may append while the agent runs. A kill loses nothing that `append` has returned from; a power cut may take
the last few samples, never the file. Which ones a full spool keeps is said in reservoir.py and docs/samples.md. What a round under way
uses stays until the round is over: it goes on after a kill with the very same samples.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeagent.settings.channels import channels_of
from edgeagent.system.database import SAMPLES, create_database, look_into, open_database
from edgecommon.files import flush_folder
from edgecommon.sqlite import Database, Row
from modelwire import limits
from modelwire.errors import ConfigError, MissingFile, ModelError
from modelwire.tensors import F32, Codes

from . import given, reservoir, sharing, spool_tables
from .card_store import CardStore
from .cards import Seen
from .context import Context, Contexts, context_of, texts_of
from .feature_store import FeatureStore
from .reservoir import STAYS
from .spool_tables import FILE, FOLDER, RELEASE, by_name
from .strange_rows import Shape, sweep

PIECE = 256  # samples that are added before room is made: a long `extend` never takes much more than the bounds
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: ids times this spread evenly over 2^64, whatever the order of the classes


@dataclass(frozen=True, slots=True)
class Count:
    """How many samples there are of one class; class -1 counts samples with a target."""

    cls: int
    samples: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Cell:
    """How many samples there are of one class in one context."""

    cls: int
    context: dict[str, str]
    samples: int


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Samples in memory. x: [n, ...]; y: what the `train` signature is told, one-hot or target, [n, ...]."""

    x: F32 = field(repr=False)
    y: F32 = field(repr=False)
    labelled: bool  # y is one-hot
    ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)  # [n]; empty where they are not from a spool

    def __len__(self) -> int:
        return len(self.x)


class Spool:
    """The samples of one device. `place`: its edgeagent.toml, the folder of that file, or the state folder itself."""

    def __init__(self, place: str | Path, *, wall: Callable[[], float] = time.time, look: bool = False) -> None:
        """wall: Unix seconds; each sample keeps when it came. look: for one who may not write there, or has no room to.

        Raises MissingFile when no agent was set up there, ConfigError when its settings can't be read, BadArgument for a user who may not
        write there.
        """
        given = Path(place)
        file = _file_in(given)
        if file is None:
            from edgeagent.settings import reading  # a process that is told the state folder does without it

            given = reading.load(given / reading.FILE if given.is_dir() else given, environment=os.environ, flags={}).state
            file = _file_in(given)
        if file is None:
            raise MissingFile(path=given / FOLDER / FILE, what="the agent's spool of samples", fix="edgeagent init makes it")
        sharing.require_own_file(file)
        if look:
            self._db, _ = look_into(file, RELEASE, patience=spool_tables.PATIENCE)
        else:
            sharing.require_may_write(file)
            self._db = open_database(
                file, RELEASE, durable=False, migrate=spool_tables.migrate, patience=spool_tables.PATIENCE, part=SAMPLES
            )
        self._db.run("PRAGMA trusted_schema = OFF")  # others may write this file than who holds the key
        self._wall = wall
        self.cards, self.features = CardStore(self._db), FeatureStore(self._db)

    @staticmethod
    def missing(folder: Path) -> bool:
        """Return whether a state folder holds no spool, nor anything in its place."""
        return _file_in(folder) is None

    @staticmethod
    def create(folder: Path, *, after: int = 0) -> None:
        """Make an empty spool in a state folder, in a folder of its own, for its owner and one group. after: ids that were given before."""
        place = folder / FOLDER
        place.mkdir(exist_ok=True)
        for left in place.glob(f"{FILE}-*"):  # of one that is gone: SQLite would take it for this one's
            left.unlink()
        database = create_database(place / FILE, spool_tables.TABLES, RELEASE)
        database.insert("sqlite_sequence", name="sample", seq=after)
        database.close()
        sharing.shut(place)
        flush_folder(place)

    def check(self) -> None:
        """Raise StateDamaged where SQLite finds the file broken."""
        self._db.check()

    def close(self) -> None:
        self._db.close()

    def __repr__(self) -> str:
        return f"<spool {str(self._db.path)!r}>"

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # For the application.

    def append(
        self, model: str, x: ArrayLike, label: int | None = None, *, target: ArrayLike | None = None, context: Context | None = None
    ) -> int:
        """Add one sample and return its id. label: its class number; or target: what the model should have answered.

        With neither, the model shall answer x itself: for models whose x and y have one shape. context: a few names with a word each,
        such as {"weather": "rain"}. Raises ModelError or ShapeMismatch when the sample does not suit the model; nothing is kept then.
        """
        targets = None if target is None else np.asarray(target)[None]
        return self.extend(model, np.asarray(x)[None], None if label is None else [label], targets=targets, contexts=context)[0]

    def extend(
        self, model: str, x: ArrayLike, labels: Sequence[int] | NDArray[Any] | None = None, *, targets: ArrayLike | None = None,
        contexts: Contexts | None = None,
    ) -> list[int]:  # fmt: skip
        """Add many samples, [n, ...], all or none, and return their ids. contexts: one for all, or one each."""
        shape = self.shape(model)
        if shape.codes:
            given.check_rows(model, x, shape)
        xs = given.floats_of(model, "x", x, shape.x)
        ys = None if targets is None else given.floats_of(model, "target", targets, shape.y)
        if shape.codes:
            given.check_codes(model, xs, shape.codes, ys, labels is not None)
        classes = given.classes_of(model, labels, shape) if labels is not None else np.full(len(xs), -1)
        if labels is not None and ys is not None:
            raise ModelError(model=model, reason="a sample has a label or a target, one of the two")
        if labels is None and ys is None and shape.x != shape.y:
            raise ModelError(model=model, reason="a sample has neither label nor target, and the model's answer is not of its own shape")
        if len(classes) != len(xs) or (ys is not None and len(ys) != len(xs)):
            raise ModelError(model=model, reason=f"{len(xs)} samples and {len(classes) if ys is None else len(ys)} labels")
        texts = texts_of(model, contexts, len(xs))
        now, out = int(self._wall()), []
        with self._db.transaction():
            if self.shape(model) != shape:  # the model was removed meanwhile, and another of its name added
                raise ModelError(model=model, reason="its samples look otherwise by now; nothing was kept")
            self._same_kind(model, labels is not None)
            for i, one in enumerate(xs):
                target = None if ys is None else ys[i].tobytes()
                out.append(self._insert(model, int(classes[i]), texts[i], one.tobytes(), target, now))
                if len(out) % PIECE == 0:
                    self._make_room(model)
            self._make_room(model)
        return out

    @by_name
    def drop(self, model: str, ids: Iterable[int]) -> int:
        """Forget samples, those of the round under way too, and return how many there were. No card tells of one that none told of yet."""
        dropped, named = 0, list(ids)
        try:
            numbers = [int(sample) for sample in named]
        except (TypeError, ValueError, OverflowError):
            raise ModelError(model=model, reason="samples are named by the numbers that append and extend return") from None
        with self._db.transaction():
            for number in numbers:
                row = self._db.maybe("SELECT id, cell, bytes FROM sample WHERE id=? AND model=?", number, model)
                if row is not None:
                    self._remove(row)
                    dropped += 1
        return dropped

    # For the agent.

    @by_name
    def hold(self, model: str, until: int = 0) -> int:
        """Let the samples up to `until` stay until `release`, and return it: what the reservoir can spare only leaves then.

        until: 0 for the newest one; what an earlier hold kept goes first.
        """
        with self._db.transaction():
            if not until:
                self.release(model)
                until = self.last_id(model)
            self._db.run("UPDATE model SET held=? WHERE name=? AND held<>?", until, model, until)
        return until

    @by_name
    def sweep(self, model: str, *, after: int = 0) -> int:
        """Drop the rows that no `append` wrote, and return how many there were; of those above `after`, also what is no number."""
        return sweep(self._db, model, self.shape(model), after)

    @by_name
    def release(self, model: str) -> None:
        """Let the samples go that leave: no round is under way. Once more, it changes nothing."""
        if self._db.maybe("SELECT 1 FROM model WHERE name=? AND held>0", model) is not None:
            with self._db.transaction():
                self._db.run("DELETE FROM sample WHERE cell=0 AND model=?", model)
                self._db.run("UPDATE model SET held=0 WHERE name=?", model)

    @by_name
    def register(
        self, model: str, x_shape: Sequence[int], y_shape: Sequence[int], *, max_samples: int, max_bytes: int, channels: Sequence[str] = (),
        codes: Codes = Codes.NONE,
    ) -> None:  # fmt: skip
        """Say what a model's samples look like, how many are kept, and what cards sketch of them; all but the looks may change later."""
        channels_of(channels)
        with self._db.transaction():
            self._db.run(
                "INSERT INTO model (name, x_shape, y_shape, max_samples, max_bytes, channels, codes) VALUES (?,?,?,?,?,?,?)"
                " ON CONFLICT (name) DO UPDATE"
                " SET max_samples=excluded.max_samples, max_bytes=excluded.max_bytes, channels=excluded.channels",
                model, json.dumps(list(x_shape)), json.dumps(list(y_shape)), max_samples, max_bytes, " ".join(channels), int(codes),
            )  # fmt: skip
            self._make_room(model)

    def forget(self, model: str) -> None:
        """Take a model out with all its samples; of one that is not there nothing happens."""
        spool_tables.forget(self._db, model)

    @by_name
    def shape(self, model: str) -> Shape:
        """Return what the samples of `model` look like. Raises ConfigError."""
        row = self._db.maybe("SELECT * FROM model WHERE name=?", model)
        if row is None:
            names = [r["name"] for r in self._db.all("SELECT name FROM model ORDER BY name")]
            reason = f"there is no model {model!r} on this device; it has {', '.join(names) or 'none'}"
            raise ConfigError(reason=reason, fix="edgeagent model list")
        return Shape(_sizes(row["x_shape"]), _sizes(row["y_shape"]), _codes(row["codes"]))

    @by_name
    def count(self, model: str, *, after: int = 0) -> int:
        """Return how many samples there are with an id above `after`."""
        if after == 0:
            return int(self._db.one("SELECT coalesce(sum(samples), 0) FROM cell WHERE model=?", model)[0])
        return int(self._db.one(f"SELECT count(*) FROM sample WHERE id > ? AND model=? AND {STAYS}", after, model)[0])

    @by_name
    def last_id(self, model: str) -> int:
        return int(self._db.one(f"SELECT coalesce(max(id), 0) FROM sample WHERE model=? AND {STAYS}", model)[0])

    @by_name
    def sides(self, model: str, held_out: float) -> tuple[int, int]:
        """Return how many samples are for (training, judging)."""
        ids = [r["id"] for r in self._db.all(f"SELECT id FROM sample WHERE model=? AND {STAYS}", model)]
        judging = sum(is_held_out(i, held_out) for i in ids)
        return len(ids) - judging, judging

    @by_name
    def classes(self, model: str) -> list[Count]:
        """Return the samples per class."""
        rows = self._db.all("SELECT class, sum(samples) n, sum(bytes) b FROM cell WHERE model=? GROUP BY class ORDER BY class", model)
        return [Count(r["class"], r["n"], r["b"]) for r in rows]

    @by_name
    def cells(self, model: str) -> list[Cell]:
        """Return the samples per class and context."""
        rows = self._db.all("SELECT * FROM cell WHERE model=? ORDER BY class, context", model)
        return [Cell(r["class"], context_of(r["context"]), r["samples"]) for r in rows]

    @by_name
    def split(self, model: str, held_out: float, *, until: int) -> tuple[Samples, Samples]:
        """Return (training, held-out) samples with ids up to `until`, those that leave included. A sample stays on its side for good."""
        shape = self.shape(model)
        rows = self._db.all("SELECT id, class, x, target FROM sample WHERE model=? AND id<=? ORDER BY id", model, until)
        apart = [is_held_out(r["id"], held_out) for r in rows]
        return (
            _collect([r for r, held in zip(rows, apart, strict=True) if not held], shape),
            _collect([r for r, held in zip(rows, apart, strict=True) if held], shape),
        )

    @by_name
    def newest(self, model: str, *, after: int, most: int) -> Samples:
        """Return the newest samples with ids above `after`, oldest first, at most so many."""
        rows = self._db.all(
            f"SELECT id, class, x, target FROM sample WHERE model=? AND id>? AND {STAYS} ORDER BY id DESC LIMIT ?", model, after, most
        )
        return _collect(rows[::-1], self.shape(model))

    @by_name
    def outline(self, model: str, held_out: float, *, until: int) -> tuple[Samples, Samples]:
        """Return what `split` gives without any x, [n, 0]: thousands of pictures are not read to learn their labels."""
        shape = self.shape(model)
        rows = self._db.all("SELECT id, class, x'' AS x, target FROM sample WHERE model=? AND id<=? ORDER BY id", model, until)
        apart = [is_held_out(r["id"], held_out) for r in rows]
        return (
            _collect([r for r, held in zip(rows, apart, strict=True) if not held], Shape((0,), shape.y)),
            _collect([r for r, held in zip(rows, apart, strict=True) if held], Shape((0,), shape.y)),
        )

    @by_name
    def picked(self, model: str, ids: Iterable[int]) -> Samples:
        """Return the samples with these ids, in their order; those that are gone are left out."""
        asked = "SELECT id, class, x, target FROM sample WHERE model=? AND id=?"
        found = [self._db.maybe(asked, model, sample) for sample in ids]
        return _collect([row for row in found if row is not None], self.shape(model))

    @by_name
    def ids(self, model: str, *, until: int) -> NDArray[np.int64]:
        """Return the ids of the samples up to `until`, rising."""
        rows = self._db.all("SELECT id FROM sample WHERE model=? AND id<=? ORDER BY id", model, until)
        return np.array([row["id"] for row in rows], np.int64)

    @by_name
    def contexts(self, model: str, ids: NDArray[np.int64]) -> list[dict[str, str]]:
        """Return the context of each of these samples; an empty one for those that have none, leave or are gone."""
        if not len(ids):
            return []
        rows = self._db.all(
            "SELECT s.id, c.context FROM sample s JOIN cell c ON c.id=s.cell WHERE s.model=? AND s.id>=? AND s.id<=? AND c.context<>''",
            model, int(ids.min()), int(ids.max()),
        )  # fmt: skip
        told = {row["id"]: row["context"] for row in rows}
        return [context_of(told.get(sample, "")) for sample in ids.tolist()]

    def inputs(self, model: str, ids: Iterable[int]) -> Iterator[tuple[int, F32]]:
        """Yield (id, x) of these samples, one at a time; those that are gone are left out."""
        shape = self.shape(model).x
        for sample in ids:
            row = self._db.maybe("SELECT x FROM sample WHERE model=? AND id=?", model, sample)
            if row is not None:
                yield sample, self._input(row, shape)

    def together(self) -> AbstractContextManager[None]:
        """Let all that is asked for in the block be of one moment: no sample comes or goes meanwhile."""
        return self._db.transaction()

    @property
    def database(self) -> Database:
        """The file itself, for those who look into it."""
        return self._db

    # Rows.

    @by_name
    def _input(self, row: Row, shape: tuple[int, ...]) -> F32:
        return np.frombuffer(row["x"], "<f4").astype(np.float32).reshape(shape)

    def _insert(self, model: str, cls: int, context: str, x: bytes, target: bytes | None, now: int) -> int:
        size = len(x) + len(target or b"")
        self._db.run(
            "INSERT INTO cell (model, class, context, samples, bytes) VALUES (?,?,?,1,?) ON CONFLICT (model, class, context)"
            " DO UPDATE SET samples=samples+1, bytes=bytes+excluded.bytes",
            model, cls, context, size,
        )  # fmt: skip
        cell = self._db.one("SELECT id FROM cell WHERE model=? AND class=? AND context=?", model, cls, context)["id"]
        last = self._db.maybe("SELECT seq FROM sqlite_sequence WHERE name='sample'")
        sample = (last["seq"] if last else 0) + 1
        return self._db.insert(
            "sample", id=sample, model=model, **{"class": cls}, x=x, target=target, bytes=size, at=now, cell=cell,
            rank=reservoir.rank_of(sample),
        )  # fmt: skip

    def _remove(self, row: Row, *, leaves: bool = False) -> None:
        self._db.run("UPDATE sample SET cell=0 WHERE id=?" if leaves else "DELETE FROM sample WHERE id=?", row["id"])
        self._db.run("UPDATE cell SET samples=samples-1, bytes=bytes-? WHERE id=?", row["bytes"], row["cell"])
        self._db.run("DELETE FROM cell WHERE id=? AND samples=0", row["cell"])

    def _same_kind(self, model: str, labelled: bool) -> None:
        row = self._db.maybe("SELECT class FROM cell WHERE model=? LIMIT 1", model)
        if row is not None and (row["class"] >= 0) != labelled:
            come, held = ("labels", "targets") if labelled else ("targets", "labels")
            fix = "in a file, y of one axis holds class numbers, of more axes targets"
            raise ModelError(model=model, reason=f"its samples have {held}, and these have {come}; the two don't mix", fix=fix)

    def _make_room(self, model: str) -> None:
        """Drop what the reservoir can spare until the model is within its bounds; its card tells of it nevertheless."""
        own = self._db.one("SELECT carded, held FROM model WHERE name=?", model)
        untold: list[Seen] = []
        while (row := reservoir.surplus(self._db, model)) is not None:
            if row["id"] > own["carded"]:
                untold.append(self.cards.seen(model, row["id"]))
            self._remove(row, leaves=row["id"] <= own["held"])
            if len(untold) >= PIECE:
                self.cards.dropped(model, untold)
                untold = []
        self.cards.dropped(model, untold)


def _file_in(state: Path) -> Path | None:
    """Return the spool of a state folder; None where there is none. Folders of earlier releases have it beside the agent's database."""
    return next((file for file in (state / FOLDER / FILE, state / FILE) if os.path.lexists(file)), None)


def is_held_out(sample: int, share: float) -> bool:
    """Return whether the sample with this id judges and is never trained on; for good, as long as `share` is the same."""
    return (sample * _GOLDEN) % (1 << 64) < share * (1 << 64)


def _codes(value: object) -> Codes:
    return Codes(value) if isinstance(value, int) else Codes.NONE


def _sizes(text: str) -> tuple[int, ...]:
    """Return a shape as the spool keeps it. Raises ValueError for what no model has."""
    out = tuple(json.loads(text))
    if not all(type(n) is int and n > 0 for n in out) or math.prod(out) > limits.DEFAULT.elements:
        raise ValueError(f"{text[:100]!r} is no shape of a sample")
    return out


def _collect(rows: Sequence[Row], shape: Shape) -> Samples:
    x = np.zeros((len(rows), *shape.x), np.float32)
    y = np.zeros((len(rows), *shape.y), np.float32)
    for i, row in enumerate(rows):
        x[i] = np.frombuffer(row["x"], "<f4").reshape(shape.x)
        if row["class"] >= 0:
            y[i, row["class"]] = 1.0
        else:
            y[i] = np.frombuffer(row["x"] if row["target"] is None else row["target"], "<f4").reshape(shape.y)
    return Samples(x, y, bool(rows) and rows[0]["class"] >= 0, np.array([row["id"] for row in rows], np.int64))
