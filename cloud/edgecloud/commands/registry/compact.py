"""`edgecloud compact`: keeps the states of versions that the promise asks for, now, and lets go of the others."""

from __future__ import annotations

import argparse
import time

from edgecloud.keeping.compacting import Compactor, compacting, drop_damaged
from edgecloud.keeping.measuring import measured
from edgecloud.keeping.promise import unkept
from edgecloud.keeping.sketching import SketchMaker
from edgecloud.settings import registry_path
from edgecommon.printing import Answer
from modelwire.errors import RegistryDamaged

from ..answer import Document, now, progress, registry_of, sentences

NAME = "compact"
HELP = "Keep the states that the store policy promises, so that every version comes back in time; a running ingester does it, too."
EXAMPLES = ("edgecloud compact", "edgecloud compact --measure --json")
WAIT = 30.0  # seconds for another compactor to be done with what it is at


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--measure", action="store_true", help="measure anew how fast this machine recovers: after a move to another one")


def run(args: argparse.Namespace) -> Answer:
    started, path = time.monotonic(), registry_path(args.db)
    kept = dropped = versions = 0
    wrong: list[str] = []
    with registry_of(args, readonly=False) as store, compacting(store, path, wait=WAIT):
        rates = measured(store, now(), again=args.measure)
        damaged = drop_damaged(store)
        compactor = Compactor(store, settle=0, behind=1)
        say, total = progress("versions"), sum(store.versions.count(line.id) for line in store.lineages.all())
        while (done := compactor.run()) is not None:
            versions += done.versions
            say(min(versions, total), total)
            kept, dropped = kept + done.kept, dropped + done.dropped
            wrong += [f"{done.name}: {done.error}"] if done.error else []
        maker, sketches, lacking = SketchMaker(store), 0, progress("sketches")
        while (some := maker.run()) is not None:
            sketches += some
            lacking(sketches, 0)
        promise = store.policies.current().recover_within
        count, size = store.states.totals()
        broken = unkept(store, promise, rates)
    document: Document = {
        "recover_within": promise, "kept": kept, "dropped": dropped, "damaged": damaged, "wrong": wrong, "states": count,
        "state_bytes": size, "sketches": sketches, "unkept": None if broken is None else broken.message,
        "seconds": round(time.monotonic() - started, 3),
    }  # fmt: skip
    does = f"keep the promise of {promise}" if broken is None else f"do not keep the promise of {promise}: it can't be kept"
    lines = [f"{kept} states kept, {dropped} dropped; {count} states of {size} bytes together {does}"]
    if sketches:
        lines.append(f"sketches of {sketches} versions made")
    lines += [f"DAMAGED {one}: its kept state was dropped; no version is lost by that" for one in damaged]
    lines += [f"SET ASIDE {one}" for one in wrong]
    error = RegistryDamaged(path=path, reason=f"{wrong[0]}; it keeps no promise for that model") if wrong else None
    return Answer(document, sentences(lines), error=error or broken)
