"""The figures of a run: as JSON, and as the table that a person reads."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from . import paper
from .simulated import FleetReport

Figures: TypeAlias = dict[str, Any]
MIB = 1 << 20


def figures(run: FleetReport) -> Figures:
    """Return what a run came to."""
    each = run.script.devices * run.simulated_days
    back = run.recovery
    return {
        "script": str(run.script), "link": run.script.scripted_link.profile.name, "devices": run.script.devices, "days": run.script.days,
        "seed": run.script.seed, "digest": run.digest, "events": run.events, "rounds": run.rounds, "versions": run.versions,
        "exact": run.exact, "wrong": len(run.failures), "verify_all": run.verify,
        "minutes": round((run.live_s + run.judge_s) / 60, 3), "cpu_ms_a_version": 1000 * run.live_cpu_s / max(1, run.versions),
        "centre_ms_a_version": 1000 * run.centre_cpu_s / max(1, run.versions), "peak_mib": run.peak / MIB,
        "bytes_up_a_device_a_day": {name: count / each for name, count in run.up.most_common()},
        "bytes_down_a_device_a_day": {name: count / each for name, count in run.down.most_common()},
        "wakeups_a_device_a_day": run.wakeups / each, "joules_a_device_a_day": run.joules / each,
        "registry_bytes": run.stored, "registry_bytes_by_day": [d.stored for d in run.days],
        "stored_bytes_a_version": (run.stored - run.empty) / max(1, run.versions),
        "to_verified_s": {"p50": run.percentile(0.5), "p95": run.percentile(0.95), "most": run.took[-1] if run.took else 0.0},
        "recovery": {} if back is None else {
            "versions": len(back.seconds), "p50_ms": 1000 * back.percentile(0.5)[0], "p95_ms": 1000 * back.percentile(0.95)[0],
            "p50_bytes": back.percentile(0.5)[1], "p95_bytes": back.percentile(0.95)[1],
        },
        "rollout": rollout(run),
    }  # fmt: skip


def rollout(run: FleetReport) -> Figures:
    """Return how a variant went through the fleet: hours until shares of it had confirmed, None for those that were not reached."""
    if not run.curve:
        return {}
    reached = {}
    for share in (0.01, 0.5, 0.9, 0.99):
        reached[f"{100 * share:g} %"] = next((round(24 * at, 2) for at, _, done in run.curve if done >= share * run.script.devices), None)
    return {
        "offered": run.curve[-1][1], "confirmed": run.curve[-1][2], "failed": dict(run.failed), "state": run.state, "reason": run.reason,
        "hours_to": reached, "soak_hours": run.script.soak / 3600,
    }  # fmt: skip


def compared(told: Mapping[str, float], run: FleetReport) -> Figures:
    """Return what was foretold of a run from a smaller one, beside what came."""
    came = paper.measured(run)
    off = paper.errors(told, came)
    return {name: {"foretold": told[name], "came": came[name], "off": off[name]} for name in told}


def on_paper(run: FleetReport, folder: Path) -> Figures:
    """Return what a million devices come to in a month, with what that assumes."""
    constants = paper.constants_of(run)
    document = asdict(paper.month(constants, folder))
    return {"devices": paper.MILLION, "days": paper.MONTH, **document, "assumed": list(paper.ASSUMED)}


def charts(run: FleetReport, folder: Path) -> list[str]:
    """Draw the charts where matplotlib is there, and return their paths."""
    try:
        from . import charts as drawing

        return [str(path) for path in drawing.draw(run, folder)]
    except ImportError:
        print("no charts: they need matplotlib, pip install 'edgeagent[plot]'", file=sys.stderr)
        return []


def lines(said: Figures) -> Iterator[str]:
    """Yield what a person reads of the figures."""
    yield f"{said['script']}: {said['rounds']} rounds, {said['versions']} versions, in {said['minutes']:.1f} min"
    yield from _table(said)
    for what, key in (("sent", "bytes_up_a_device_a_day"), ("heard", "bytes_down_a_device_a_day")):
        yield f"  bytes {what} a device a day: {sum(said[key].values()):,.0f} (" + _each(said[key]) + ")"
    yield from _rollout(said["rollout"])
    if said.get("foretold"):
        yield "  foretold from a tenth of the devices, and what came:"
        for name, row in said["foretold"].items():
            yield f"    {name:24} {row['foretold']:>18,.0f} {row['came']:>18,.0f}  {100 * row['off']:+.1f} %"
    if said.get("paper"):
        yield from _paper(said["paper"])
    yield from (f"  chart: {path}" for path in said["charts"])
    if said["kept"]:
        yield f"  the registry stays: edgecloud --db {said['kept']} verify --all"
    yield f"  digest {said['digest']}"


def _table(said: Figures) -> Iterator[str]:
    verify, soon, back = said["verify_all"], said["to_verified_s"], said["recovery"]
    rows = [
        ("versions exact against their devices", f"{said['exact']:,} of {said['versions']:,}"),
        ("edgecloud verify --all", f"{verify['exact']:,} exact, {len(verify['wrong'])} wrong, {verify['seconds']:.0f} s"),
        ("from a round to `verified`", f"p50 {_time(soon['p50'])}, p95 {_time(soon['p95'])}, at most {_time(soon['most'])}"),
        ("joules a device a day (a model)", f"{said['joules_a_device_a_day']:.3g}, {said['wakeups_a_device_a_day']:.2f} wake-ups"),
        ("registry", f"{said['registry_bytes'] / MIB:,.1f} MiB, {said['stored_bytes_a_version']:,.0f} bytes a version"),
        ("processor a version", f"{said['cpu_ms_a_version']:.2f} ms in all, {said['centre_ms_a_version']:.2f} ms of them the centre"),
        ("peak memory", f"{said['peak_mib']:,.0f} MiB"),
    ]  # fmt: skip
    if back:
        rows.insert(3, ("recovery of one version (processor)", f"p50 {back['p50_ms']:.2f} ms and {back['p50_bytes']:,} bytes read, "
                                                   f"p95 {back['p95_ms']:.2f} ms and {back['p95_bytes']:,}"))  # fmt: skip
    yield from (f"  {name:38}{value}" for name, value in rows)


def _rollout(said: Figures) -> Iterator[str]:
    if said:
        reached = f"confirmed by {said['confirmed']} of {said['offered']} that were offered it"
        hours = ", ".join(f"{share} after {at} h" for share, at in said["hours_to"].items() if at is not None)
        failed = f", failed on {sum(said['failed'].values())}" if said["failed"] else ""
        yield f"  rollout: {reached}{failed}; {hours or 'too few yet'}"
        yield f"    {said['state']}, {said['reason']}"


def _paper(said: Figures) -> Iterator[str]:
    totals, (low, high) = said["totals"], said["flushes"]
    up, down, proof = totals["bytes up"] / 1e9, totals["bytes down"] / 1e9, _time(totals["seconds of proof"])
    yield f"  on paper, {said['devices']:,} devices for {said['days']} days:"
    yield f"    {totals['versions']:,.0f} versions, {said['versions_a_second']:.1f} and {said['messages_a_second']:.0f} messages a second"
    yield f"    {up:,.1f} GB sent, {down:,.1f} GB heard, {totals['joules'] / 1e6:,.1f} MJ of radio"
    yield f"    registry {totals['registry bytes'] / 1e9:,.1f} GB; {said['cores']:.2f} cores of the centre, and {proof} of one to prove all"
    yield f"    {low:.1f} to {high:.0f} flushes a second, of which this disk takes {said['flushes_here']:.0f}"
    yield f"    a start of the ingester reads the log for {_time(said['start_s'])}"
    yield from (f"    assumed: {one}" for one in said["assumed"])


def _each(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {count:,.0f}" for name, count in counts.items())


def _time(seconds: float) -> str:
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} s"
