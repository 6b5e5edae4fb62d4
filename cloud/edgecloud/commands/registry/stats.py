"""`edgecloud stats`: what was sent and is stored, by kind and device, what recovery takes, and what the promise of it costs."""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from edgecloud.keeping import chains, measuring, whatif
from edgecloud.registry import KindTally, SqliteStore
from edgecloud.versions import materialise
from edgecloud.versions.route import rates_of
from edgecommon.arguments import whole
from edgecommon.printing import Answer, visible
from edgecommon.tables import Column, more, wrapped
from modelwire.errors import ModelWireError, UnknownVersion

from ..answer import Document, ago, now, progress, registry_of, table, when
from ..sizes import of_bytes, of_seconds
from .whatif import named

NAME = "stats"
HELP = "Show bytes sent and stored by kind and device, what recovery takes, and what the promise of it costs."
EXAMPLES = ("edgecloud stats", "edgecloud stats pi-7", "edgecloud stats --measure", "edgecloud stats --json")
LIVE = 10_000  # versions that are counted for a screen; of more it shows what was counted last
SAMPLE = 8  # versions that --measure recovers
RECOVERY = "recovery"  # the figure's name in the registry


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", nargs="?", metavar="DEVICE", help="of this device alone")
    what = f"count anew what recovery takes, measure this machine, and recover {SAMPLE} versions to see"
    parser.add_argument("--measure", action="store_true", help=what)
    what = "the N devices that sent the most bytes (default: 5); 0: all"
    parser.add_argument("-n", "--limit", type=whole(0), default=5, metavar="N", help=what)


def run(args: argparse.Namespace) -> Answer:
    with registry_of(args, readonly=not args.measure) as store:
        if args.device is not None and not store.devices.keys(args.device):
            raise UnknownVersion(name=args.device)
        kinds, kept = store.tallies.by_kind(args.device), store.tallies.kept(args.device)
        sent = sum(one.size for one in kinds)
        containers = sent - sum(one.thinned_size for one in kinds)
        stored = containers + kept.state_size + kept.squash_size + kept.base_size
        policy = store.policies.current()
        document: Document = {
            "fleet": store.fleet, "device": args.device, "versions": sum(one.versions for one in kinds), "sent": sent,
            "kinds": [_kind(one) for one in kinds], "stored": stored, "containers": containers, "states": kept.states,
            "state_bytes": kept.state_size, "state_share": kept.state_size / stored if stored else 0.0, "squashes": kept.squashes,
            "squash_bytes": kept.squash_size, "bases": kept.bases, "base_bytes": kept.base_size, "recover_within": policy.recover_within,
            "keep": policy.keep, "recovery": _recovery(store, args),
        }  # fmt: skip
        if args.device is None:
            devices = store.tallies.largest(args.limit or -1)
            document["devices"] = [{"device": d.device, "models": d.models, "versions": d.versions, "sent": d.size} for d in devices]
            document["more"] = max(0, store.tallies.senders() - len(devices))
    return Answer(document, _text(document))


def _kind(one: KindTally) -> Document:
    return {
        "kind": one.kind, "versions": one.versions, "verified": one.verified, "refused": one.refused,
        "waiting": one.versions - one.verified - one.refused, "sent": one.size, "dropped": one.thinned,
        "stored": one.size - one.thinned_size,
    }  # fmt: skip


def _recovery(store: SqliteStore, args: argparse.Namespace) -> Document | None:
    """Return what recovery takes: counted now where that is quick or asked for, else as it was counted last; None where it never was."""
    if args.measure or sum(one.verified for one in store.tallies.by_kind(args.device)) <= LIVE:
        told = _counted(store, args.device, measure=args.measure)
        if args.measure and args.device is None:
            store.tallies.set_measured(RECOVERY, json.dumps(told), told["at"])
    else:
        last = store.tallies.measured(RECOVERY) if args.device is None else None
        if last is None:
            return None
        try:
            told = json.loads(last[1])
        except ValueError:  # another program wrote it
            return None
        if not isinstance(told, dict) or told.keys() != _FIELDS:
            return None
    return {**told, "worst": named(store, told["worst_id"])}


_FIELDS = {
    "at", "versions", "worst_id", "worst_s", "worst_bytes", "mean_s", "mean_bytes", "rates_from", "sample", "sample_worst_s",
    "sample_mean_s", "sample_errors", "notes",
}  # fmt: skip


def _counted(store: SqliteStore, device: str | None, *, measure: bool) -> Document:
    """Return what recovering each version takes by the states that are kept now; with `measure`, after some were recovered."""
    at = now()
    rates = measuring.measured(store, at, again=True) if measure else rates_of(store)
    read = chains.read(store, device, times=False)
    one, _ = whatif.as_it_is(read.chains, rates)
    known = store.policies.rates()
    told: Document = {
        "at": at, "versions": one.recoverable, "worst_id": one.worst_id, "worst_s": one.worst_s, "worst_bytes": one.worst_bytes,
        "mean_s": one.mean_s, "mean_bytes": one.mean_bytes,
        "rates_from": max(measured for _, measured in known.values()) if known else None, "notes": list(read.notes),
        "sample": 0, "sample_worst_s": None, "sample_mean_s": None, "sample_errors": 0,
    }  # fmt: skip
    if measure and one.recoverable:
        ids = read.chains.ids[~read.chains.gone]
        picked = np.random.default_rng(at).choice(len(ids), min(SAMPLE - 1, len(ids)), replace=False)
        _sample(store, told, sorted({one.worst_id, *ids[picked].tolist()}))
    return told


def _sample(store: SqliteStore, told: Document, ids: list[int]) -> None:
    """Recover some versions, each proven by its root, and say how long that took."""
    bases, say, took = materialise.LoadedBases(store), progress("recovered"), list[float]()
    for done, one in enumerate(ids):
        say(done, len(ids))
        row = store.versions.by_id(one)
        assert row is not None  # it was read a moment ago
        try:
            bases[row.base].state()  # a base is read and proven once, whatever the number of versions
            began = time.perf_counter()
            materialise.rebuild(store, row, bases)
            took.append(time.perf_counter() - began)
        except ModelWireError:  # `verify` says which, and why
            told["sample_errors"] += 1
    told["sample"] = len(took)
    if took:
        told["sample_worst_s"], told["sample_mean_s"] = max(took), sum(took) / len(took)


def _text(d: Document) -> str:
    columns = (
        Column("kind"), Column("versions"), Column("refused", 3), Column("waiting", 4), Column("sent"), Column("bytes each", 2),
        Column("dropped", 1), Column("stored"),
    )  # fmt: skip
    rows = [
        (k["kind"], k["versions"], k["refused"], k["waiting"], of_bytes(k["sent"]), of_bytes(k["sent"] / k["versions"]), k["dropped"],
         of_bytes(k["stored"]))
        for k in d["kinds"]
    ]  # fmt: skip
    who = d["device"] or f"the fleet {d['fleet']}"
    lines = [
        f"{visible(who)}: {d['versions']:,} versions, {of_bytes(d['sent'])} sent", table(columns, rows) if rows else "nothing was sent yet",
        f"stored {of_bytes(d['stored'])}: containers {of_bytes(d['containers'])}, kept states {of_bytes(d['state_bytes'])}"
        f" ({d['states']:,}), squashes {of_bytes(d['squash_bytes'])} ({d['squashes']:,}), bases {of_bytes(d['base_bytes'])}"
        f" ({d['bases']:,})",
        f"the promise ({d['recover_within']}) costs {of_bytes(d['state_bytes'])} of kept states, {100 * d['state_share']:.1f} % of all;"
        f" keep {d['keep']}",
        *_recovery_lines(d["recovery"], d["device"]),
    ]  # fmt: skip
    text = "\n".join([lines[0], lines[1], *(wrapped(visible(line)) for line in lines[2:])])
    if d.get("devices"):
        most = [(one["device"], one["models"], one["versions"], of_bytes(one["sent"])) for one in d["devices"]]
        text += "\n" + table((Column("device"), Column("models", 1), Column("versions"), Column("sent")), most)
        text += f"\n{more(d['more'])}" if d["more"] else ""
    return text


def _recovery_lines(r: Document | None, device: str | None) -> list[str]:
    if r is None:
        return [f"what recovery takes is not counted yet: edgecloud stats {device or ''} --measure".replace("  ", " ")]
    if not r["versions"]:
        return []
    usual = "usual rates; --measure measures this machine"
    since = f"rates of this machine, measured {when(r['rates_from'])}" if r["rates_from"] else usual
    lines = [
        f"recovery: worst {of_seconds(r['worst_s'])} and {of_bytes(r['worst_bytes'])} read ({r['worst'] or 'a version that is gone'}),"
        f" mean {of_seconds(r['mean_s'])} and {of_bytes(r['mean_bytes'])}, of {r['versions']:,} versions; computed {ago(r['at'], now())}"
        f" ({since})"
    ]
    if r["sample"]:
        lines.append(f"measured: {r['sample']} versions recovered and proven, worst {of_seconds(r['sample_worst_s'])}, mean"
                     f" {of_seconds(r['sample_mean_s'])}")  # fmt: skip
    if r["sample_errors"]:
        lines.append(f"{r['sample_errors']} of those that were to be recovered are not exact: edgecloud verify")
    return [*lines, *r["notes"]]
