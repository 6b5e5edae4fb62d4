"""Runs the bench: one table of ratios from one run, build/bench.json, and two charts under docs/.

    python -m tests.bench [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from modelwire import kernels
from tests.bench import charts
from tests.bench.measure import EXACT, FULL_PLAN, INT8, QUICK_PLAN, TINY_PLAN, Report, Row, measure

ROOT = Path(__file__).resolve().parents[2]
PLANS = {"full": FULL_PLAN, "quick": QUICK_PLAN, "tiny": TINY_PLAN}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_const", const="quick", dest="plan", default="full", help="less of all, in under 2 minutes")
    parser.add_argument("--tiny", action="store_const", const="tiny", dest="plan", help="tiny nets, for the tests alone")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench.json", help="where the keys go (default build/bench.json)")
    parser.add_argument("--charts", type=Path, help="folder of the charts (default docs/ for a full run, else beside the keys)")
    args = parser.parse_args(argv)
    load = os.getloadavg()[0]
    report = measure(PLANS[args.plan])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report.keys, indent=2) + "\n")
    folder = args.charts or (ROOT / "docs" if args.plan == "full" else args.out.parent)
    charts.bytes_and_loss(report, folder / "bench-bytes-loss.svg")
    charts.speed_and_bytes(report, folder / "bench-speed-bytes.svg")
    show(report)
    print(f"\nkernels {kernels.describe()}; load average {load:.1f} before, {os.getloadavg()[0]:.1f} after, {os.cpu_count()} processors")


def show(report: Report) -> None:
    """Print the table."""
    block("Time over one memcpy of the model, one thread, CPU time", [*report.speed_cases, "geo. mean"], report.speeds)
    block("Bytes, % of the new file", report.size_cases, report.sizes)
    if report.coder:
        block("Range coder against DeepCABAC, the same integers", report.coder_cases, report.coder)
    block("To the bit: exact updates of models trained freely", list(EXACT), report.exact)
    block("To the bit: int8", list(INT8), report.int8)
    columns = ["% float32", "loss", "loss float32", "over zstd -19", "apply of the chain"]
    rows = []
    for r in report.chains:
        patch = report.patches[r.net].get("zstd -19 --patch-from")
        percent = 100 / r.ratio
        values = [percent, r.loss, r.loss_float32, percent / patch if patch else None, report.walks[r.net]]
        rows.append(Row(r.net, values, f"{r.weights:,} weights"))
    block("Chains: whole signed containers, held-out loss of what the centre rebuilt, an update of its walk over memcpy", columns, rows)
    print("\nbench.json")
    for key, value in report.keys.items():
        print(f"  {key:36} {'null' if value is None else f'{value:.4g}'}")
    for note in report.notes:
        print(note)


def block(title: str, columns: list[str], rows: list[Row]) -> None:
    width = max(len(r.name) for r in rows)
    wide = [max(8, len(c)) for c in columns]
    print(f"\n{title}\n{'':{width}}  " + "  ".join(f"{c:>{n}}" for c, n in zip(columns, wide, strict=True)))
    for row in rows:
        cells = "  ".join(f"{'-' if v is None else f'{v:.3g}':>{n}}" for v, n in zip(row.values, wide, strict=True))
        print(f"{row.name:{width}}  {cells}  {row.note}".rstrip())


if __name__ == "__main__":
    main()
