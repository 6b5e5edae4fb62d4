"""Simulated fleets: updates through kills at any write, losses, repeats and rot, of which each comes out exact or by its name.

    python -m tests.evidence.centre.simulation          FULL=1 for a hundred thousand updates, in twenty fleets
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from edgecloud.keeping import erasing
from edgecloud.keeping.compacting import Compactor
from edgecloud.keeping.thinning import Thinner
from edgecloud.registry import SqliteStore, open_registry
from tests.conftest import MEMORY, in_memory
from tests.simulator.every_step import Piece, Survived, end_everywhere
from tests.simulator.rot import Rotten, rot
from tests.simulator.script import scripted
from tests.simulator.simulation import Report, simulate
from tests.simulator.small_fleet import NOW, SmallFleet, small_fleet, take_and_judge
from tests.simulator.works import compact, erase, set_policy

SEED, ROT_SEEDS = 14, 3
UPDATES, FLEETS_FULL = 5_000, 20  # of one fleet: each start after a kill reads the whole log, so one of 100,000 would mostly start


def measure(full: bool) -> dict[str, float]:
    """Return the figures. full: 100,000 updates in twenty fleets; else 5,000 in one. What was lost goes to stderr, by its name."""
    seeds = range(SEED, SEED + (FLEETS_FULL if full else 1))
    with tempfile.TemporaryDirectory(prefix="simulation-", dir=MEMORY if in_memory() else None) as place:
        folder = Path(place)
        fleets = [_told(simulate(scripted(seed, UPDATES), folder / f"fleet-{seed}", progress=True)) for seed in seeds]
        some = 2_000 if full else 250
        rotten = [_told(simulate(scripted(s, some, boards=0, rots=20), folder / "rotten")) for s in range(ROT_SEEDS)]
        ended = {name: _ended(name, folder / name) for name in PIECES}
        flips = _flips(folder / "flips", 1000 if full else 150)
    _tell(f"single flips: {flips.flips}, named {sum(flips.named.values())}, harmless {flips.harmless}, silent {flips.silent[:5]}")
    return _figures(fleets, rotten, list(ended.values()), flips)


def _figures(fleets: list[Report], rotten: list[Report], ended: list[Survived], flips: Rotten) -> dict[str, float]:
    failed = [*(what for one in (*fleets, *rotten) for what in one.failures), *(what for one in ended for what in one.failures)]
    return {
        "sim_updates": sum(one.updates for one in fleets),
        "sim_diverged": len(failed) + len(flips.silent),
        "sim_exact": sum(one.verdict.exact for one in fleets),
        "sim_named": sum(sum(one.verdict.named.values()) for one in fleets),
        "sim_rot_named": sum(one.verdict.named["RegistryDamaged"] for one in rotten),
        "sim_centre_kills": sum(sum(one.centre.crashes.values()) for one in fleets),
        "sim_board_kills": sum(sum(one.board_crashes.values()) for one in fleets),
        "sim_writes_killed_at": sum(one.crashes for one in ended),
        "sim_log_cuts": sum(one.cuts for one in ended),
        "sim_single_flips": flips.flips,
        "sim_seconds": round(sum(one.took for one in fleets)),
    }


def _ingest(fleet: SmallFleet, store: SqliteStore) -> Piece:
    return take_and_judge(fleet.said)


def _thin(fleet: SmallFleet, store: SqliteStore) -> Piece:
    set_policy(store, "last 3", NOW)
    return lambda store: Thinner(store, clock=lambda: NOW).run()


def _erase(fleet: SmallFleet, store: SqliteStore) -> Piece:
    def work(store: SqliteStore) -> None:
        if not store.erasures.all():
            erase(store, "pi-0", NOW)
        erasing.resume(store)

    return work


def _compact(fleet: SmallFleet, store: SqliteStore) -> Piece:
    return _compacted


def _compacted(store: SqliteStore) -> None:
    compact(Compactor(store, clock=lambda: NOW, settle=0, behind=1))


PIECES = {"ingest": _ingest, "compaction": _compact, "thinning": _thin, "erasure": _erase}


def _ended(name: str, folder: Path) -> Survived:
    """End one piece of the centre's work at each of its writes."""
    folder.mkdir()
    fleet = small_fleet(folder, devices=2, versions=10)
    store = open_registry(fleet.path, synchronous="OFF")
    piece = PIECES[name](fleet, store)
    store.close()
    one = end_everywhere(fleet.path, folder / "runs", piece, fleet, cuts=60, again=4)
    _tell(f"{name}: killed at each of {one.steps} writes, log cut {one.cuts} times: {len(one.failures)} failures {one.failures[:3]}")
    return one


def _flips(folder: Path, count: int) -> Rotten:
    """Flip single bits of a registry with kept states and thinned histories."""
    folder.mkdir()
    fleet = small_fleet(folder, devices=3, versions=20)
    store = open_registry(fleet.path, synchronous="OFF")
    _compacted(store)
    set_policy(store, "last 5", NOW)
    Thinner(store, clock=lambda: NOW).run(store.lineages.of("pi-0"))
    store.close()
    return rot(fleet.path, folder / "runs", fleet, count, SEED)


def _told(report: Report) -> Report:
    _tell("\n".join(report.lines()))
    return report


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(json.dumps(measure(bool(os.environ.get("FULL"))), indent=1))
