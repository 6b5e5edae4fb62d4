"""`edgecloud cluster`: which devices' models are alike, and what of their data tells each cohort from the rest."""

from __future__ import annotations

import argparse
import math

from edgecloud.searching import cluster
from edgecloud.searching.cluster import Clustered, Cohort
from edgecommon.printing import Answer
from edgecommon.tables import Column
from modelwire.errors import BadArgument

from ..answer import Document, progress, registry_of, sentences, table
from .plots import add_plot, draw_cohorts, plot_of

NAME = "cluster"
HELP = "Find cohorts of devices whose models are alike, each with its reason."
EXAMPLES = ("edgecloud cluster", "edgecloud cluster --model digits --cohorts 4", "edgecloud cluster --plot cohorts.svg")
AUTO = "auto"
_NAMED = 3  # devices of a cohort in the table


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="MODEL", help="of which model, where the fleet has several")
    parser.add_argument("--cohorts", metavar="K", default=AUTO, help="how many on a base; auto finds it")
    add_plot(parser, "a map of the cohorts")


def run(args: argparse.Namespace) -> Answer:
    count, plot = _count(args.cohorts), plot_of(args)
    with registry_of(args) as store:
        found = cluster.cluster(store, model=args.model, count=count, progress=progress("models"))
        bases = {base.commit: base.name for base in store.bases.all()}
        if plot is not None:
            draw_cohorts(plot, store, found, bases)
    several = len({cohort.base for cohort in found.cohorts}) > 1
    columns = [
        Column("cohort"), Column("devices"), Column("alike", 2), Column("nearest", 3), *([Column("base", 1)] if several else []),
        Column("such as", 4, words=True), Column("why", words=True, wrapped=True),
    ]  # fmt: skip
    rows = [
        (c.number, len(c.members), _cosine(c.alike), "" if c.nearest is None else f"{c.nearest}: {_cosine(c.apart)}",
         *([bases[c.base]] if several else []), _such_as(c), c.why)
        for c in found.cohorts
    ]  # fmt: skip
    title = f"{found.model}: {len(found.cohorts)} cohort{'s' * (len(found.cohorts) != 1)} of {_sum(found)} devices"
    return Answer(_document(found, bases), f"{table(columns, rows, title=title)}\n{sentences(_notes(found))}")


def _count(text: str) -> int | None:
    if text == AUTO:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= cluster.TREE:
        reason = f"--cohorts takes {AUTO} or a number from 1 to {cluster.TREE}, and not {text[:40]!r}"
        raise BadArgument(reason=reason, fix="edgecloud cluster")
    return int(text)


def _sum(found: Clustered) -> int:
    return sum(len(cohort.members) for cohort in found.cohorts)


def _cosine(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _such_as(cohort: Cohort) -> str:
    names = [lineage.device for lineage, _ in cohort.members[:_NAMED]]
    return ", ".join(names) + (", ..." if len(cohort.members) > _NAMED else "")


def _notes(found: Clustered) -> list[str]:
    how = "by all their weights" if found.whole else "by their sketches of 256 numbers"
    out = [f"Newest versions were compared {how}: the cosine of the ways they went from their base, 1 for the same."]
    if found.decided:
        out.append(f"{found.decided} devices between two cohorts were decided by whole models; {found.moved} of them moved.")
    for devices, what in (
        (found.at_base, "at the base, in no cohort"), (found.silent, "without a verified version"),
        (found.left_out, "not recoverable, left out"),
    ):  # fmt: skip
        if devices:
            out.append(f"{len(devices)} {what}: {', '.join(devices[:_NAMED])}{', ...' if len(devices) > _NAMED else ''}.")
    if any(len(cohort.members) > _NAMED for cohort in found.cohorts):
        out.append("--json names the devices of each cohort.")
    return out


def _document(found: Clustered, bases: dict[bytes, str]) -> Document:
    return {
        "model": found.model, "compared": "weights" if found.whole else "sketches", "decided": found.decided, "moved": found.moved,
        "cohorts": [
            {
                "cohort": c.number, "base": bases[c.base], "devices": [lineage.device for lineage, _ in c.members],
                "versions": [f"{lineage}@{version.version}" for lineage, version in c.members],
                "alike": None if math.isnan(c.alike) else c.alike, "nearest": c.nearest, "apart": None if math.isnan(c.apart) else c.apart,
                "why": c.why, "with_cards": c.carded,
                "reasons": [
                    {"field": r.field, "psi": r.psi, "chance": r.chance, "cells": list(r.cells), "share": r.share, "elsewhere": r.elsewhere}
                    for r in c.reasons
                ],
            }
            for c in found.cohorts
        ],
        "at_base": list(found.at_base), "silent": list(found.silent), "left_out": list(found.left_out),
    }  # fmt: skip
