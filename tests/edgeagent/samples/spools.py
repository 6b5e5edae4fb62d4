"""A small spool of a model with four numbers a sample and three classes."""

from __future__ import annotations

from pathlib import Path

from edgeagent.samples.spool import Spool


def small(folder: Path, *, max_samples: int = 100, max_bytes: int = 1 << 20) -> Spool:
    Spool.create(folder)
    made = Spool(folder)
    made.register("m", (4,), (3,), max_samples=max_samples, max_bytes=max_bytes)
    return made


def kept_ids(s: Spool) -> list[int]:
    training, judging = s.split("m", 0.2, until=1 << 60)
    return sorted([*training.ids.tolist(), *judging.ids.tolist()])
