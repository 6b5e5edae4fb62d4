"""`edgecloud rollouts`: all of them, the newest first."""

from __future__ import annotations

import argparse

from edgecloud.registry.rollout_rows import ENDED
from edgecloud.rollouts.rows import summary
from edgecommon.printing import Answer
from edgecommon.tables import Column, add_limit, most

from ..answer import ago, now, registry_of, table
from .answers import director_said

NAME = "rollouts"
HELP = "List the rollouts, the newest first, and how far each has come."
EXAMPLES = ("edgecloud rollouts", "edgecloud rollouts --open --json")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--open", action="store_true", help="those alone that are not over")
    parser.add_argument("--model", metavar="MODEL", help="of this model alone")
    add_limit(parser)


def run(args: argparse.Namespace) -> Answer:
    limit = most(args)
    with registry_of(args) as store:
        rows = [row for row in reversed(store.rollouts.all(ended=not args.open)) if args.model in (None, row.model)]
        said = [summary(store, row) for row in rows[:limit]]
        seen, director = director_said(store)
    document = {"rollouts": said, "more": len(rows) - len(said), "director_seen_at": seen}
    at = now()
    columns = (
        Column("rollout"), Column("state"), Column("phase", 3), Column("served"), Column("failed", 1), Column("devices", 2),
        Column("variant", 4), Column("changed", 5),
    )  # fmt: skip
    lines = [
        (*(one[key] for key in ("rollout", "state", "phase", "served", "failed", "devices", "variant")), ago(one["changed_at"], at))
        for one in said
    ]  # fmt: skip
    if not rows:
        return Answer(document, "no rollouts: edgecloud deploy VARIANT --all --plan")
    going = [row for row in rows if row.state not in ENDED]
    return Answer(document, table(columns, lines) + (f"\n{director}" if going else ""))
