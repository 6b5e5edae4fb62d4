"""Measure what one capability promises and write the figures to build/evidence/TOPIC.json.

    python -m tests.evidence centre
    python -m tests.evidence compare
    python -m tests.evidence lost
    python -m tests.evidence deploy
    python -m tests.evidence flash
    python -m tests.evidence trust
    python -m tests.evidence zoo
    python -m tests.evidence wire            FULL=1 in the environment adds what takes long
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

from tests.evidence import centre, compare, deploy, flash, lost, trust, wire, zoo
from tests.evidence.parts import ROOT, Figures, last_full, wants_full

TOPICS: dict[str, Callable[[bool], Figures]] = {
    "centre": centre.measure, "compare": compare.measure, "lost": lost.measure, "deploy": deploy.measure,
    "flash": flash.measure, "trust": trust.measure, "wire": wire.measure, "zoo": zoo.measure,
}  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Measure one topic, print its figures and write them down."""
    parser = argparse.ArgumentParser(prog="python -m tests.evidence", description="Measure what a capability promises.")
    parser.add_argument("topic", choices=sorted(TOPICS), help="what to measure")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "evidence", help="folder of the figures (default build/evidence)")
    args = parser.parse_args(argv)
    started = time.monotonic()
    figures = TOPICS[args.topic](wants_full())
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / f"{args.topic}.json"
    file.write_text(json.dumps(figures, indent=1) + "\n")
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:{width}}  {value}")
    for line in last_full(args.topic):
        print(line)
    print(f"{file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
