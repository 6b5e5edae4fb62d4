"""Registries of up to millions of versions, made in a minute or two: rows, counters and a signed log as an ingester leaves them.

    python -m tests.edgecloud.bulk FOLDER/fleet.db --devices 1000 --versions 1000

There are no containers: no version can be rebuilt. All that reads rows alone works as on a registry that grew.
"""

from __future__ import annotations

import argparse
import hashlib
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecloud.registry import LineageRow, SignedEnd, SqliteStore
from modelwire.wire import cbor
from modelwire.wire.log import next_link
from tests.edgecloud.centre import admit, make_registry, sign
from tests.edgecloud.device import Base, key_of
from tests.keys import RECEIPT

DIGITS = Path(__file__).parents[1] / "models" / "digits.tflite"  # 50,826 weights
FIRST_AT = 1_760_000_000  # Unix seconds of the first version
AT_ONCE = 20_000  # rows that are written together
_COMMIT, _BEFORE, _VERSION = b"\xc0" * 32, b"\xbe" * 32, 0x7FFF0000  # stand for what differs in entries of one kind
_EXTENSION = {"accuracy_after": 0.9, "loss_after": 0.5, "loss_before": 1.0, "samples": 32, "steps": 4}


@dataclass(frozen=True)
class Mix:
    """What the versions are: shares of the kinds besides deltas, and bytes."""

    exact: float = 0.02
    recipe: float = 0.02
    snapshot: float = 0.005
    refused: float = 0.001
    stored: int = 0  # versions at the end of each model that are not judged yet
    delta_bytes: float = 600.0  # median; lognormal
    spread: float = 0.5
    exact_bytes: int = 20_000
    recipe_bytes: int = 4_000
    snapshot_bytes: int = 50_000


def make(
    path: Path, devices: int, versions: int, *, seed: int = 0, mix: Mix | None = None, base: Base | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> SqliteStore:  # fmt: skip
    """Return a new registry of so many devices with one model each, and so many versions of each."""
    base = base or Base.of(DIGITS)
    store = make_registry(path, base)
    store.database.run("PRAGMA cache_size = -600000")
    rng = np.random.default_rng([seed, devices, versions])
    made, started = 0, time.monotonic()
    with store.transaction():
        lineages = [_opened(store, f"pi-{n:05}", base, FIRST_AT) for n in range(devices)]
        sign(store)
    for lineage in lineages:
        grow(store, lineage, base, versions, rng, mix or Mix())
        made += versions
        if made // 100_000 != (made - versions) // 100_000:
            say(f"{made:,} of {devices * versions:,} versions, {time.monotonic() - started:.0f} s")
    end = store.log.end()
    assert end is not None
    store.log.sign(SignedEnd(end.number, end.digest, end.sign(RECEIPT, store.identity.id)))
    store.database.run("PRAGMA cache_size = -2000")
    return store


def grow(store: SqliteStore, lineage: LineageRow, base: Base, versions: int, rng: np.random.Generator, mix: Mix) -> None:
    """Add so many versions behind the newest of a lineage; all but the last few are judged."""
    epoch = store.lineages.current(lineage.id)
    assert epoch is not None
    head = store.lineages.head(lineage.id, epoch.epoch)
    assert head is not None
    first_id = store.database.number("SELECT coalesce(max(id), 0) FROM version") + 1
    first = max(lineage.last_version, head.version) + 1
    kinds, sizes, statuses = _drawn(versions, rng, mix)
    commits = [rng.bytes(32) for _ in range(versions)]
    extension = cbor.encode(_EXTENSION)
    parent_id, parent = head.version_id, head.commit

    def rows() -> Iterator[tuple[Any, ...]]:
        nonlocal parent_id, parent
        for n in range(versions):
            commit, kind = commits[n], kinds[n]
            reason = "its fingerprint is another" if statuses[n] == "refused" else ""
            yield (
                first_id + n, lineage.id, epoch.epoch, first + n, kind, commit, parent, parent_id, base.manifest.commit, commit,
                commit[:16], hashlib.sha256(commit).digest(), sizes[n], FIRST_AT + 60 * n, extension, statuses[n], reason,
            )  # fmt: skip
            if statuses[n] != "refused":
                parent_id, parent = first_id + n, commit

    with store.transaction():
        _many(store, f"INSERT INTO version VALUES ({', '.join('?' * 17)})", rows())
        scores = ((first_id + n, 1.0, 0.5, None, 0.9) for n in range(versions))
        _many(store, "INSERT INTO score VALUES (?, ?, ?, ?, ?)", scores)
        _many(store, "INSERT INTO log VALUES (?, ?, ?, ?)", _entries(store, lineage, epoch.epoch, head.commit, first, commits, statuses))
        store.database.run(
            'UPDATE head SET version_id = ?, "commit" = ?, version = (SELECT version FROM version WHERE id = ?1)'
            " WHERE lineage = ? AND epoch = ?", parent_id, parent, lineage.id, epoch.epoch,
        )  # fmt: skip
        store.lineages.used(lineage.id, first + versions - 1)


def _opened(store: SqliteStore, device: str, base: Base, at: int) -> LineageRow:
    """Return the one model of a new device, welcomed."""
    admit(store, device, key_of(device).public, at)
    lineage = store.lineages.ensure(device, "digits")
    store.lineages.grant(lineage.id, hashlib.sha256(device.encode()).digest()[:16], base.manifest.commit, at)
    store.lineages.greeted(lineage.id, "tflite-runtime 2.14.0", "0.9.0", at)
    return lineage


def _drawn(versions: int, rng: np.random.Generator, mix: Mix) -> tuple[list[str], list[int], list[str]]:
    """Return kinds, bytes and statuses."""
    draw = rng.random(versions)
    kind = np.full(versions, "delta", dtype=object)
    size = np.maximum(150, mix.delta_bytes * np.exp(mix.spread * rng.standard_normal(versions))).astype(np.int64)
    low = 0.0
    for name, share, bytes_ in (
        ("exact", mix.exact, mix.exact_bytes), ("recipe", mix.recipe, mix.recipe_bytes), ("snapshot", mix.snapshot, mix.snapshot_bytes),
    ):  # fmt: skip
        these = (draw >= low) & (draw < low + share)
        kind[these], size[these], low = name, bytes_, low + share
    refused = rng.random(versions) < mix.refused
    status = np.where(refused, "refused", "verified").astype(object)
    if mix.stored:
        status[-mix.stored :] = "stored"
    if versions:
        kind[0], status[0] = "delta", "verified" if mix.stored < versions else "stored"
    return kind.tolist(), size.tolist(), status.tolist()


def _entries(
    store: SqliteStore, lineage: LineageRow, epoch: int, before: bytes, first: int, commits: list[bytes], statuses: list[str]
) -> Iterator[tuple[int, bytes, bytes, bytes]]:  # fmt: skip
    """Yield the log's entries on some versions: the head moves to each, then its verdict; and back where that is none."""
    at, end = FIRST_AT + 86_400, store.log.end()
    about = {"device": lineage.device, "model": lineage.model, "epoch": epoch}
    moved = cbor.encode({"kind": "head", "at": at, **about, "version": _VERSION, "commit": _COMMIT, "before": _BEFORE})
    number = b"\x1a" + struct.pack(">I", _VERSION)
    verdict = {
        ok: cbor.encode({"kind": "verdict", "at": at, "commit": _COMMIT, "ok": ok, "reason": "" if ok else "its fingerprint is another"})
        for ok in (True, False)
    }
    good, good_version = before, first - 1

    def entered(subject: bytes, entry: bytes) -> tuple[int, bytes, bytes, bytes]:
        nonlocal end
        end = next_link(end, entry)
        return end.number, subject, entry, end.digest

    for n, commit in enumerate(commits):
        version = cbor.encode(first + n)
        yield entered(commit, moved.replace(_COMMIT, commit).replace(_BEFORE, good).replace(number, version))
        if statuses[n] == "refused":
            yield entered(commit, verdict[False].replace(_COMMIT, commit))
            back = moved.replace(_COMMIT, good).replace(_BEFORE, commit).replace(number, cbor.encode(good_version))
            yield entered(good, back)
            continue
        if statuses[n] == "verified":
            yield entered(commit, verdict[True].replace(_COMMIT, commit))
        good, good_version = commit, first + n


def _many(store: SqliteStore, sql: str, rows: Iterator[tuple[Any, ...]]) -> None:
    with store.database.named():
        store.database.connection.executemany(sql, rows)


def main() -> None:
    """Make one registry and say how long that took."""
    parser = argparse.ArgumentParser(prog="python -m tests.edgecloud.bulk", description="Make a large registry of rows alone.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--versions", type=int, default=1000, help="of each device")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started = time.monotonic()
    make(args.path, args.devices, args.versions, seed=args.seed, say=lambda text: print(text, file=sys.stderr)).close()
    print(f"{args.path}: {args.devices * args.versions:,} versions in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
