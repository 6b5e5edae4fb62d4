"""Search by sketches: is the exact nearest version among the first ten, how long a query takes, what sketches cost, whose a file is.

    python -m tests.evidence.compare.nearest           20 devices x 20 versions of the net of 50,826 weights
    FULL=1 python -m tests.evidence.compare.nearest    100 x 100 of it, and of a net of 1,004,170 weights

Chains are of real training: cars in six worlds (tests/planted/worlds.py) that read digits; the smaller net by a TFLite runtime, in a
registry through the update path; the larger one by the fixed-order trainer, as bare updates. They are kept under build/compare.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import islice, pairwise
from pathlib import Path
from typing import IO
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from edgecloud.audit.signing import sign_end
from edgecloud.intake.rebuilding import Rebuilder
from edgecloud.keeping.compacting import Compactor
from edgecloud.registry import SqliteStore, open_registry
from edgecloud.searching import identify, nearest
from edgecloud.sketches import counting
from edgecloud.versions import materialise, naming
from edgecloud.workers.building import Builder
from modelwire.lattice.between import difference
from modelwire.lattice.snap import no_residual, snap, training_start
from modelwire.lattice.state import ModelState
from modelwire.output_head import trainer
from modelwire.output_head.rows import Rows
from modelwire.output_head_settings import OutputHeadSettings
from modelwire.tensors import Held, Schema, TensorSpec
from modelwire.update.manifest import Manifest, manifest_for
from modelwire.update.sections import AnySection, Kind, Section
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import Base, ScriptedDevice
from tests.edgecloud.kept import name_of
from tests.evidence.centre import rates
from tests.keys import NO_FILE, RECEIPT
from tests.planted.worlds import CLASSES, WORLDS, seen
from tests.stock import ROOT, runtime

DIGITS = ROOT / "tests" / "models" / "digits.tflite"
KEPT = ROOT / "build" / "compare"
SMALL, LARGE = (20, 20), (100, 100)  # devices and versions of each
WIDE = (1024, 896)  # hidden layers of the net of a million weights
STEPS, BATCH, RATE, DENSITY = 4, 32, 0.05, 0.02
QUERIES, FIRST, FILES = 200, 10, 100
AT_ONCE = 25  # versions of the larger net in memory


@dataclass(frozen=True)
class Recall:
    """How often the exact nearest is among the first ten of the sketches."""

    among_all: float  # of all versions of all devices
    among_others: float  # of all versions of other devices
    in_world: float  # of the versions of other devices of its own world: one tight cohort


def measure(full: bool) -> dict[str, float]:
    """Return the figures; prints what it does to standard error. full: 100 devices x 100 versions, and the larger net, too."""
    devices, versions = LARGE if full else SMALL
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "fleet"
        shutil.copytree(_kept_registry(devices, versions), folder)
        store = open_registry(folder / "fleet.db", synchronous="OFF")
        names, integers = _states(store)
        sketches = _sketches(store, [id for id, _, _ in names])
        found = _recall(integers, sketches, [(device, _world(device)) for _, device, _ in names], versions)
        figures |= {
            "nearest_top10_share": found.among_all, "nearest_top10_of_others": found.among_others,
            "nearest_top10_in_cohort": found.in_world,
        }  # fmt: skip
        _say(f"exact nearest among the first {FIRST}: {found}")
        figures |= queries(store, [f"{device}@{version}" for _, device, version in names])
        figures["identified"] = _identified(store, [(id, f"{device}@{version}") for id, device, version in names])
        figures["sketch_bytes"] = _bytes(store, len(names))
        store.close()
        figures["ingest_cost_percent"] = _ingest_cost(Path(name), 6400 if full else 1920)
    if full:
        found = _recall_of_wide(devices, versions)
        _say(f"the same of {_size_of(WIDE):,} weights: {found}")
        figures["nearest_top10_share_1m"] = found.among_all
        figures["nearest_top10_of_others_1m"], figures["nearest_top10_in_cohort_1m"] = found.among_others, found.in_world
        figures |= import_module("tests.evidence.compare.nearest_wide").measure(full)
    return figures


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _world(device: str) -> str:
    return list(WORLDS)[int(device.rpartition("-")[2]) % len(WORLDS)]


def _rows(number: int, version: int, n: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return what car `number` sees before a version."""
    rows = seen(WORLDS[_world(f"car-{number}")], np.random.default_rng([3, number, version]), n, jitter=float(number % 7 - 3))
    return rows.x, rows.y


def _kept_registry(devices: int, versions: int) -> Path:
    """Return the folder of a registry with that many chains; it is made once."""
    folder = KEPT / f"chains-{devices}x{versions}-{name_of([Path(__file__)])}"
    if not folder.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix="making-", dir=KEPT))
        _make_registry(partial / "fleet.db", devices, versions)
        partial.rename(folder)
    return folder


def _make_registry(path: Path, devices: int, versions: int) -> None:
    base = Base.of(DIGITS)
    model, eye = runtime().open(base.file, model="digits"), np.eye(CLASSES, dtype=np.float32)
    store = make_registry(path, base)
    centre, schema_, started = Centre(store), base.manifest.schema, time.monotonic()
    for number in range(devices):
        device = centre.meet(ScriptedDevice(base, name=f"car-{number:03}"))
        for version in range(versions):
            x, y = _rows(number, version, STEPS * BATCH)
            start, residual = training_start(device.state, device.residual)
            model.set_weights(schema_.shaped(start))
            for at in range(0, len(x), BATCH):
                model.train(x[at : at + BATCH], eye[y[at : at + BATCH]], RATE)
            made = snap(device.state, schema_.flat(model.get_weights()), residual, density=DENSITY, max_bytes=1 << 20)
            device.state, device.residual = made.state, made.residual
            centre.deliver(device, device.seal(made.kind, made.sections))
        assert all(one.ok for one in centre.rebuild())
        if number % 10 == 9:
            _say(f"{(number + 1) * versions} versions trained and verified, {time.monotonic() - started:.0f} s")
    compactor = Compactor(store, settle=0, behind=1)
    while compactor.run() is not None:
        pass
    store.close()


def _states(store: SqliteStore) -> tuple[list[tuple[int, str, int]], NDArray[np.int32]]:
    """Return row, device and number of each version, and its Q in the base's units: int32 [versions, weights]."""
    bases, names, out = materialise.LoadedBases(store), list[tuple[int, str, int]](), list[NDArray[np.int32]]()
    for lineage in store.lineages.all():
        state: ModelState | None = None
        for version in store.versions.of(lineage.id):
            if state is None or version.kind == "snapshot":
                state = bases[version.base].state().at_base()
            materialise.step(store, lineage, version, state, prove=False)
            names.append((version.id, lineage.device, version.version))
            out.append(_flat(state))
            assert store.sketches.get(version.id) == counting.encode(counting.of_state(state))  # that of the sum is the sum
    return names, np.stack(out)


def _flat(state: ModelState) -> NDArray[np.int32]:
    parts = zip(state.integers, state.exponents, state.manifest.exponents, strict=True)
    return np.concatenate([q << (e - first) for q, e, first in parts]).astype(np.int32)


def _sketches(store: SqliteStore, ids: Sequence[int]) -> NDArray[np.int32]:
    kept = store.sketches.of(ids)
    return np.stack([counting.decode(kept[id]) for id in ids])


def _recall(integers: NDArray[np.int32], sketches: NDArray[np.int32], who: list[tuple[str, str]], versions: int) -> Recall:
    """Return the recall of queries drawn evenly over all versions."""
    queries = np.random.default_rng(1).choice(len(who), min(QUERIES, len(who)), replace=False)
    asked = integers[queries].astype(np.float64)
    exact = np.concatenate([_squares(asked, integers[at : at + 256]) for at in range(0, len(who), 256)], 1)
    return _hits(exact, sketches, queries, who)


def _squares(asked: NDArray[np.float64], some: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the squared distances, whole numbers below 2^53 and so exact: [asked, some]."""
    others = some.astype(np.float64)
    norms = [np.einsum("ij,ij->i", q, q) for q in (asked, others)]  # without a copy as large as all that is asked about
    return norms[0][:, None] + norms[1][None] - 2 * (asked @ others.T)


def _hits(exact: NDArray[np.float64], sketches: NDArray[np.int32], queries: NDArray[np.int64], who: list[tuple[str, str]]) -> Recall:
    devices, worlds = (np.array(part) for part in zip(*who, strict=True))
    hits = np.zeros(3)
    for row, query in zip(exact, queries, strict=True):
        guessed = counting.distances(sketches, sketches[query])
        others = devices != devices[query]
        for kind, among in enumerate((np.arange(len(who)) != query, others, others & (worlds == worlds[query]))):
            best = row[among].min()
            first = np.flatnonzero(among)[np.argsort(guessed[among], kind="stable")[:FIRST]]
            hits[kind] += bool((row[first] == best).any())
    return Recall(*(hits / len(queries)).tolist())


def queries(store: SqliteStore, names: list[str], number: int = 40, mark: str = "") -> dict[str, float]:
    """Return the median time of whole queries, exact distances and all: among the newest versions, among all, and in a program that asks
    about one version after the other and keeps what it measured.
    """
    chosen = np.random.default_rng(2).choice(len(names), min(number, len(names)), replace=False)
    figures, bases = {}, materialise.LoadedBases(store)
    for key, every, recent in (
        ("nearest", False, None), ("nearest_of_all_versions", True, None), ("nearest_again", False, nearest.Recent())
    ):  # fmt: skip
        took, spent = [], []
        for i in chosen:
            place = naming.find(store, naming.parse(names[i]))
            began, worked = time.perf_counter(), time.process_time()
            nearest.nearest(store, place, every=every, bases=bases, recent=recent)
            took.append(1e3 * (time.perf_counter() - began))
            spent.append(1e3 * (time.process_time() - worked))
        figures[f"{key}{mark}_ms"], figures[f"{key}{mark}_cpu_ms"] = (round(statistics.median(some), 2) for some in (took, spent))
        _say(f"{key}{mark}: {statistics.median(took):.1f} ms a whole query, {statistics.median(spent):.1f} ms of processor time")
    return figures


def _identified(store: SqliteStore, names: list[tuple[int, str]]) -> int:
    """Return how many of 100 materialised files are named as the version that they are."""
    bases, right = materialise.LoadedBases(store), 0
    for i in np.random.default_rng(3).choice(len(names), FILES, replace=False):
        version = store.versions.by_id(names[i][0])
        assert version is not None
        file = materialise.file_of(materialise.rebuild(store, version, bases), bases[version.base])
        found = identify.identify(store, file, name="found.tflite")
        right += version.id in [one.version.id for one in found.owners]
    _say(f"{right} of {FILES} files are named")
    return right


def _bytes(store: SqliteStore, versions: int) -> float:
    """Return the bytes that the registry's file grows by a version, indexes and pages and all."""

    def pages() -> int:
        store.database.run("VACUUM")
        return store.database.number("PRAGMA page_count") * store.database.number("PRAGMA page_size")

    whole = pages()
    assert store.sketches.drop() == versions
    return round((whole - pages()) / versions, 1)


@contextlib.contextmanager
def _without_sketches() -> Iterator[None]:
    nothing = mock.patch.object(Builder, "sketch", lambda self, version: b"")
    counted = mock.patch.object(counting, "counted", lambda state, sketch: None)
    with nothing, counted, mock.patch.object(counting, "of_state", lambda state: None):
        yield


def _ingest_cost(folder: Path, count: int, at_once: int = 64) -> float:
    """Return what sketches add to the processor time of taking and verifying, in percent: two registries, piece by piece in turn."""
    sides, takes = [], []
    for side in ("with", "without"):
        messages = rates.sealed(rates.fleet_at(folder / side), count)
        store = open_registry(folder / side / "fleet.db")
        began = time.process_time()
        rates.take_all(store, messages)
        takes.append((time.process_time() - began) / count)
        sides.append((store, Rebuilder(store, sign=lambda s: sign_end(s, RECEIPT, "the registry"))))
    more, plain = [], []
    for turn in range(count // at_once):
        spent = [0.0, 0.0]
        for k in (0, 1) if turn % 2 else (1, 0):
            with _without_sketches() if k else contextlib.nullcontext():
                began = time.process_time()
                judged = sides[k][1].run(2000, limit=at_once)
                spent[k] = (time.process_time() - began) / len(judged)
        more.append(spent[0] - spent[1])
        plain.append(spent[1])
    for store, _ in sides:
        store.close()
    cost, whole = statistics.median(more[2:]), min(takes) + statistics.median(plain[2:])
    _say(f"sketches cost {1e6 * cost:.1f} us beside {1e6 * whole:.0f} us of taking and verifying, in {len(more)} pairs")
    return round(100 * cost / whole, 2)


def _size_of(hidden: Sequence[int]) -> int:
    widths = (64, *hidden, CLASSES)
    return sum(a * b + b for a, b in pairwise(widths))


def _recall_of_wide(devices: int, versions: int) -> Recall:
    """Return the recall of chains of the larger net: trained twice over, since all its versions at once take 40 GB."""
    total = devices * versions
    queries = np.sort(np.random.default_rng(1).choice(total, min(QUERIES, total), replace=False))
    who, sketches, asked = list[tuple[str, str]](), list[NDArray[np.int32]](), list[NDArray[np.int32]]()
    KEPT.mkdir(parents=True, exist_ok=True)
    wanted, (schema_, flat) = set(queries.tolist()), wide_start()
    with tempfile.TemporaryFile(dir=KEPT) as log:  # each version's sparse move
        counts: list[int] = []
        for number, state, sections in wide_chains(devices, versions, manifest_for(schema_, flat, **NO_FILE, exponents={}), flat):
            if len(who) in wanted:
                asked.append(_flat(state))
            who.append((f"car-{number:03}", _world(f"car-{number}")))
            sketches.append(counting.of_state(state))
            move = _move(state, sections)
            counts.append(len(move))
            log.write(move.tobytes())
        base = np.stack(asked).astype(np.float64)
        exact = np.empty((len(asked), total))
        states = _replayed(log, counts, versions, base.shape[1])
        for first in range(0, total, AT_ONCE):
            some = np.stack([q.copy() for q in islice(states, AT_ONCE)])
            exact[:, first : first + len(some)] = _squares(base, some)
    return _hits(exact, np.stack(sketches), queries, who)


def _replayed(log: IO[bytes], counts: Sequence[int], versions: int, size: int) -> Iterator[NDArray[np.int32]]:
    """Yield Q of each version, one after the other from the file of moves; the array is the same each time."""
    q = np.zeros(size, np.int32)
    log.seek(0)
    for i, count in enumerate(counts):
        if i % versions == 0:
            q[:] = 0
        move = np.frombuffer(log.read(8 * count), np.int32).reshape(-1, 2)
        q[move[:, 0]] += move[:, 1]
        yield q


def _move(state: ModelState, sections: Sequence[object]) -> NDArray[np.int32]:
    starts = state.manifest.schema.starts
    parts = [np.stack([s.index.astype(np.int64) + starts[s.tensor], s.dq], 1) for s in sections if isinstance(s, Section)]
    return np.concatenate([np.zeros((0, 2), np.int64), *parts]).astype(np.int32)


def wide_start() -> tuple[Schema, list[Held]]:
    """Return the tensors of the larger net and their first weights."""
    names = [f"layer{k}_{part}" for k in range(3) for part in ("biases", "matrix")]
    widths = (64, *WIDE, CLASSES)
    rng, flat, specs = np.random.default_rng(5), list[Held](), list[TensorSpec]()
    for name in names:
        k = int(name[5])
        shape: tuple[int, ...] = (widths[k + 1],) if name.endswith("biases") else (widths[k + 1], widths[k])
        specs.append(TensorSpec(name, shape))
        flat.append((rng.standard_normal(int(np.prod(shape))) * (0 if len(shape) == 1 else widths[k] ** -0.5)).astype(np.float32))
    return Schema(tuple(specs)), flat


def wide_chains(
    devices: int, versions: int, manifest: Manifest, flat: list[Held]
) -> Iterator[tuple[int, ModelState, Sequence[AnySection]]]:
    """Yield number, state and sections of each version of the larger net, device by device, by the fixed-order trainer."""
    widths = (64, *WIDE, CLASSES)
    start, began = ModelState.of_base(manifest, flat), time.monotonic()
    for number in range(devices):
        state, residual = start.at_base(), no_residual(manifest)
        for version in range(versions):
            x, y = _rows(number, version, STEPS * BATCH)
            head = OutputHeadSettings(
                features=64, outputs=CLASSES, hidden=WIDE, steps=STEPS, batch=BATCH, rate=RATE, seed=number * versions + version
            )
            now, left = training_start(state, residual)
            layers = [(now[2 * k + 1].reshape(widths[k + 1], widths[k]), now[2 * k]) for k in range(3)]
            rows = Rows(x.astype(np.float16), y.astype(np.uint32), scale=1.0)
            trained = [part.reshape(-1) for matrix, biases in trainer.train_head(head, rows, layers) for part in (biases, matrix)]
            before = state.copy()
            made = snap(state, trained, left, density=DENSITY, max_bytes=1 << 22)
            state, residual = made.state, made.residual
            yield number, state, difference(before, state) if made.kind is Kind.SNAPSHOT else made.sections
        _say(f"the larger net: {(number + 1) * versions} versions, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    run: Callable[[bool], dict[str, float]] = measure
    print(run(bool(os.environ.get("FULL"))))
