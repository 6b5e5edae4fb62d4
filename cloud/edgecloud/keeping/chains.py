"""Reads what the planning of a store stands on out of a registry: all versions as arrays, their kept states, and what rows do not say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecloud.registry import SqliteStore
from edgecloud.registry.sqlite import chains as rows
from modelwire import limits
from modelwire.errors import ModelWireError
from modelwire.update.manifest import parse_manifest

from .retention import TAG
from .whatif import F64, I64, RECIPE, SNAPSHOT, Chains

RECIPES = 8  # containers that are opened to learn what a replay takes
BYTES_A_WEIGHT = 1.0  # of a kept state in which every weight has moved, until one is kept


@dataclass(frozen=True)
class FleetChains:
    """All that was read, and what had to be estimated for it."""

    chains: Chains
    notes: tuple[str, ...]


def read(store: SqliteStore, device: str | None = None, *, times: bool = True) -> FleetChains:
    """Return the verified versions of a device, or of all. times: whether it matters when they came.

    Raises RegistryDamaged for rows that hold no numbers, and for a base whose manifest is none.
    """
    notes: list[str] = []
    database = store.database
    with database.reading():
        id_, lineage, sent, kind, fresh, at = rows.verified(database, device, times=times)
        state = _beside(id_, rows.pairs(database, "SELECT version_id, size FROM state"))
        gone = _beside(id_, rows.pairs(database, "SELECT version_id, gone FROM thinned")) > 0
        squash = _beside(id_, rows.pairs(database, "SELECT version_id, size FROM squash"))
        tagged = np.isin(id_, _tagged(store)) if len(id_) else np.zeros(0, bool)
        weights = _weights(store, lineage)
    multiplies = np.zeros(len(id_))
    recipes = np.flatnonzero((kind == RECIPE) & ~gone & (squash == 0))
    if len(recipes):
        each = _multiplies_a_byte(store, id_[recipes[:: max(1, len(recipes) // RECIPES)][:RECIPES]])
        if each is None:
            notes.append("what a replay of its recipes takes is not known: none of those looked at could be read")
        else:
            multiplies[kind == RECIPE] = sent[kind == RECIPE] * each
            notes.append(f"replays estimated from {min(len(recipes), RECIPES)} of {len(recipes):,} recipes")
    multiplies[squash > 0] = 0.0
    kind = np.where((squash > 0) & (kind == RECIPE), 0, kind)
    size = np.where(squash > 0, squash, sent)
    sizes, estimated = _state_sizes(lineage, sent, np.where((state == 0) & (kind == SNAPSHOT), sent, state), weights)
    if estimated:
        notes.append(f"bytes of a state estimated for {estimated:,} models: none is kept of them yet")
    made = Chains(id_, lineage, size, kind, fresh > 0, at, state, sizes, weights, multiplies, tagged, gone)
    return FleetChains(made, tuple(notes))


def _beside(ids: I64, found: tuple[I64, I64]) -> I64:
    """Return the value that stands beside each id, 0 where none does."""
    keys, values = found
    if not len(keys) or not len(ids):
        return np.zeros(len(ids), np.int64)
    place = np.minimum(np.searchsorted(keys, ids), len(keys) - 1)
    return np.where(keys[place] == ids, values[place], 0)


def _tagged(store: SqliteStore) -> I64:
    """Return the ids of the versions that an annotation marks."""
    names = [str(row[0]) for row in store.database.all("SELECT object FROM annotation WHERE kind = 'version' AND text LIKE ?", f"{TAG}%")]
    out = []
    for name in names:
        place, _, number = name.rpartition("@")
        device, _, model = place.partition("/")
        lineage = store.lineages.get(device, model)
        version = store.versions.numbered(lineage.id, int(number)) if lineage is not None and number.isdigit() else None
        out += [version.id] if version is not None else []
    return np.array(out, np.int64)


def _weights(store: SqliteStore, lineage: I64) -> F64:
    """Return how many weights the model of each version has: that of its lineage's newest base."""
    sizes = {base.commit: float(parse_manifest(base.manifest).schema.size) for base in store.bases.all()}
    newest = store.database.all("SELECT lineage, base, max(epoch) FROM epoch GROUP BY lineage")
    keys = np.array([row[0] for row in newest], np.int64)
    values = np.array([sizes.get(row[1], 0.0) for row in newest])
    order = np.argsort(keys)
    return np.asarray(values[order][np.searchsorted(keys[order], lineage)]) if len(lineage) else np.zeros(0)


def _multiplies_a_byte(store: SqliteStore, ids: I64) -> float | None:
    """Return the multiplications of training for each byte of these recipes; None where none can be read."""
    work, size = 0.0, 0
    for one in ids.tolist():
        row = store.versions.by_id(one)
        if row is None:
            continue
        try:
            recipe = store.blobs.container(row.blob, limits.LARGE).recipe(limits.LARGE)
        except ModelWireError:  # `verify` says which is damaged
            continue
        work += recipe.head.work(len(recipe.rows))
        size += row.size
    return work / size if size else None


def _state_sizes(lineage: I64, sent: I64, state: I64, weights: F64) -> tuple[F64, int]:
    """Return the bytes that a kept state of each version takes, and of how many lineages that is a mere estimate.

    Between two that are kept, or snapshots, a share of the way from one to the other; before the first and behind the last, as that one.
    Without any: each update moves weights at random, and a weight that moved takes BYTES_A_WEIGHT.
    """
    n = len(lineage)
    if not n:
        return np.zeros(0), 0
    first = np.flatnonzero(np.concatenate(([True], lineage[1:] != lineage[:-1])))
    lengths = np.diff(np.append(first, n))
    place, known = np.arange(n), state > 0
    before = np.maximum.accumulate(np.where(known, place, -1))
    after = np.minimum.accumulate(np.where(known, place, n)[::-1])[::-1]
    begin, end = np.repeat(first, lengths), np.repeat(first + lengths, lengths)
    before, after = np.where(before < begin, after, before), np.where(after >= end, before, after)
    before, after = (np.where((one < begin) | (one >= end), -1, one) for one in (before, after))  # none at all
    low, high = state[before].astype(float), state[after].astype(float)
    share = (place - before) / np.maximum(after - before, 1)
    done = np.cumsum(sent.astype(float))
    done -= done[begin] - sent[begin]
    full = np.maximum(weights * BYTES_A_WEIGHT, 1.0)
    estimate = np.maximum(full * -np.expm1(-done / full), 1.0)
    some = np.add.reduceat(known.astype(np.int64), first) > 0
    return np.where(np.repeat(some, lengths), np.maximum(low + (high - low) * share, 1.0), estimate), int((~some).sum())
