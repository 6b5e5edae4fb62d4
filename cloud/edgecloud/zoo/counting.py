"""Counts over many files: how many of each kind learn in each mode, and which missing rule would unlock how many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .running import BROKEN, LEARNS, FileTried
from .trying import FLOAT, INT8, INT8_HEAD


@dataclass(frozen=True, slots=True)
class Totals:
    """What is promised of a set of files, counted over those that the installed runtime runs as they stand."""

    files: int
    unread: int  # that are no model, or that the runtime does not run
    float_files: int
    float_head_ok: int
    float_all_ok: int
    int8_files: int
    int8_ok: int
    broken: int  # modes that were made and can't run


@dataclass(frozen=True, slots=True)
class MissingRule:
    """An operator that a gradient can't pass."""

    operator: str
    unlocks: int  # files that it alone keeps from being trained whole
    blocks: int  # files that it keeps so, alone or with others
    why: str  # of the first file


def totals(every: Sequence[FileTried]) -> Totals:
    """Return the counts."""
    running = [f for f in every if f.runs]
    floats, codes = ([f for f in running if f.kind == kind] for kind in (FLOAT, INT8))
    return Totals(
        len(every), len(every) - len(running),
        len(floats), sum(learns(f, "head") for f in floats), sum(learns(f, "all") for f in floats),
        len(codes), sum(learns(f, INT8_HEAD) or learns(f, "head") for f in codes),
        sum(m.came == BROKEN for f in running for m in f.modes),
    )  # fmt: skip


def learns(file: FileTried, mode: str) -> bool:
    """Return whether a mode of a file is all that is promised."""
    tried = file.mode(mode)
    return tried is not None and tried.came == LEARNS


def missing(every: Sequence[FileTried]) -> tuple[MissingRule, ...]:
    """Return the operators without a rule, the one that unlocks most first."""
    return missing_among([file.missing for file in every])


def missing_among(every: Sequence[Sequence[tuple[str, str]]]) -> tuple[MissingRule, ...]:
    """Return the same of what keeps each file out: operators and why."""
    alone: Counter[str] = Counter(found[0][0] for found in every if len(found) == 1)
    among: Counter[str] = Counter(name for found in every for name, _ in found)
    why = {name: reason for found in reversed(every) for name, reason in found}
    rules = (MissingRule(name, alone[name], count, why[name]) for name, count in among.items())
    return tuple(sorted(rules, key=lambda rule: (-rule.unlocks, -rule.blocks, rule.operator)))
