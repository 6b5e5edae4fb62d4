"""Run the evaluation, and write build/paper.json, the charts and the tables of docs/evaluation.md.

    python -m tests.paper                    one node, 500 cells; what was measured before is kept in build/paper and not run again
    python -m tests.paper --fresh            runs all of it again
    FULL=1 python -m tests.paper             DIST-5, 10 and 20, and 5,000 cells
    python -m tests.paper --page             makes charts and tables again from build/paper.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from . import fleet, floors, flow, grid, page, policies, whole

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "paper"
OUT = ROOT / "build" / "paper.json"
RUNS = {"full": ("snapshot", "delta", "exact"), "partial": ("delta", "exact", "recipe")}
DIST = {5: 102, 10: 202, 20: 402}  # nodes, and the models that they save: 10 updates in two phases, and two of the server
CELLS, CELLS_FULL = 500, 5000
RATES = (0.0001, 0.001, 0.01)  # of fine-tuning: how far weights move is what the bytes of an exact update hang on


def main() -> None:
    """Measure what is missing, and write everything down."""
    parser = argparse.ArgumentParser(prog="python -m tests.paper", description="Run the evaluation of the papers with this project.")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--page", action="store_true", help="measure nothing: make charts and tables from build/paper.json")
    args = parser.parse_args()
    if not args.page:
        figures = measure(bool(os.environ.get("FULL", "") not in ("", "0")), fresh=args.fresh)
        OUT.parent.mkdir(exist_ok=True)
        OUT.write_text(json.dumps(figures, indent=1) + "\n")
        print(f"wrote {OUT.relative_to(ROOT)}")
    elif not OUT.exists():
        raise SystemExit("build/paper.json is not there: run make paper first")
    page.write(json.loads(OUT.read_text()))


def measure(full: bool, *, fresh: bool = False) -> dict[str, Any]:
    """Return all figures. full: DIST-5 to 20 and 5,000 cells. What is in build/paper is taken from there, unless `fresh`."""
    out: dict[str, Any] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "full": full, "flows": [], "whole": {}, "dist": {}}
    for net in flow.NETS:
        file = flow.trainable(net, KEPT)
        with tempfile.TemporaryDirectory() as folder:
            out["whole"][net] = asdict(whole.measure(file, Path(folder)))
        for relation, kinds in RUNS.items():
            for kind in kinds:
                out["flows"].append(_kept(f"{net}-{relation}-{kind}", fresh, partial(_flow, net, file, relation, kind)))
    file = flow.trainable("mobilenet_v2", KEPT)
    out["rates"] = [_kept(f"rate-{relation}-{rate:g}", fresh, partial(_at, rate, relation, file)) for relation in RUNS for rate in RATES]
    out["floors"] = [_kept("floors-mobilenet_v2", fresh, partial(_floors, "mobilenet_v2", file))]
    for nodes, models in DIST.items() if full else ():
        out["dist"][str(nodes)] = _kept(f"dist-{nodes}", fresh, partial(_dist, nodes, file))
        if out["dist"][str(nodes)]["models"] != models:
            raise AssertionError(f"DIST-{nodes} saved {out['dist'][str(nodes)]['models']} models instead of {models}")
    cells = CELLS_FULL if full else CELLS
    out["fleet"] = [_kept(f"fleet-{cells}-{kind}", fresh, partial(_fleet, kind, cells)) for kind in fleet.KINDS]
    out["policies"] = {kind: _policies(out, kind) for kind in ("delta", "exact")}
    out["per"] = asdict(_bytes_per(out))
    out["grid"] = grid_of(out)
    return {**out, "figures": headline(out)}


def grid_of(out: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every place of the grid, as JSON has it; it follows from the measured bytes of a unit."""
    return [asdict(cell) for cell in grid.cells(grid.BytesPer(**out["per"]))]


def headline(out: dict[str, Any]) -> dict[str, float | int]:
    """Return the figures of the promise: bytes a version over MMlib's, and whether all came back exactly."""
    ratios = {}
    for name, relation, kind in (("exact_full", "full", "exact"), ("delta_full", "full", "delta"), ("exact_head", "partial", "exact")):
        each = [_median(_updates(out, net, relation, kind), "sent") / page.MMLIB[net][relation]["update"][0] / 1e6 for net in flow.NETS]
        ratios[f"{name}_over_mmlib"] = round(max(each), 5)
    saved = [s for run in out["flows"] for s in run["saved"]]
    fleets = out["fleet"]
    exact, versions = sum(s["exact"] for s in saved), sum(f["versions"] for f in fleets)
    return {**ratios, "paper_versions": len(saved), "paper_exact": exact, "fleet_versions": versions}


def _kept(name: str, fresh: bool, run: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Return what was measured before under this name, or measure it now and keep it."""
    path = KEPT / f"{name}.json"
    if path.exists() and not fresh:
        return dict(json.loads(path.read_text()))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder))
    KEPT.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return found


def _fleet(kind: str, cells: int, folder: Path) -> dict[str, Any]:
    return asdict(fleet.run(kind, folder, cells))


def _flow(net: str, file: bytes, relation: str, kind: str, folder: Path) -> dict[str, Any]:
    return asdict(flow.run(net, file, relation, kind, folder))


def _at(rate: float, relation: str, file: bytes, folder: Path) -> dict[str, Any]:
    """Return the bytes of exact updates of MobileNetV2 that was trained at another rate."""
    run = flow.run("mobilenet_v2", file, relation, "exact", folder, updates=2, rate=rate)
    moved = page.MMLIB["mobilenet_v2"][relation]["update"][0] * 1e6
    sent = statistics.median(s.sent for s in run.updates)
    return {"relation": relation, "rate": rate, "sent": sent, "over_mmlib": sent / moved, "loss": run.losses[-1]}


def _floors(net: str, file: bytes, folder: Path) -> dict[str, Any]:
    return asdict(floors.measure(net, file, folder))


def _dist(nodes: int, file: bytes, folder: Path) -> dict[str, Any]:
    """Return what DIST-n comes to, in sums and medians."""
    run = flow.run("mobilenet_v2", file, "full", "delta", folder, nodes=nodes, updates=10)
    return {
        "models": len(run.saved), "sent": sum(s.sent for s in run.updates), "stored": sum(s.stored for s in run.saved),
        "save_s": statistics.median(s.save_s for s in run.updates), "recover_s": statistics.median(s.recover_s for s in run.updates),
        "exact": sum(s.exact for s in run.saved),
    }  # fmt: skip


def _updates(out: dict[str, Any], net: str, relation: str, kind: str) -> list[dict[str, Any]]:
    run = next(r for r in out["flows"] if (r["net"], r["relation"], r["kind"]) == (net, relation, kind))
    return [s for s in run["saved"] if s["use"].startswith("U3")]


def _median(saved: list[dict[str, Any]], what: str) -> float:
    return float(statistics.median(s[what] for s in saved))


def _policies(out: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Return what keeping a thousand updates such as MobileNetV2's comes to."""
    net = "mobilenet_v2"
    weights = next(r["weights"] for r in out["flows"] if r["net"] == net)
    state = _median(_updates(out, net, "full", "snapshot"), "sent") if kind == "delta" else 4.0 * weights
    return [asdict(one) for one in policies.costs(kind, [s["sent"] for s in _updates(out, net, "full", kind)], int(state), weights)]


def _bytes_per(out: dict[str, Any]) -> grid.BytesPer:
    net = "mobilenet_v2"
    weights = next(r["weights"] for r in out["flows"] if r["net"] == net)
    sent = {kind: _median(_updates(out, net, "full", kind), "sent") / weights for kind in RUNS["full"]}
    row = _median(_updates(out, net, "partial", "recipe"), "sent") / flow.ROWS
    return grid.BytesPer(sent["snapshot"], sent["delta"], sent["exact"], row)


if __name__ == "__main__":
    main()
