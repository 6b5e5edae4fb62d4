"""`edgeagent log`: every version of a model, and every round that the guard rejected."""

from __future__ import annotations

import argparse
from typing import Any

from edgeagent.state.folder import open_folder
from edgecommon.printing import Answer, visible
from edgecommon.sqlite import Row
from edgecommon.tables import Column, add_limit, more, most, table

from .answer import add_folder, chosen, load, short

NAME = "log"
HELP = "List the versions of a model, newest first, with the rounds that the guard rejected. Works while the agent runs."
EXAMPLES = ("edgeagent log", "edgeagent log digits -n 5", "edgeagent log --json")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="*", metavar="MODEL", help="which models (default: all)")
    add_limit(parser, "the newest N of each model")
    add_folder(parser)


def run(args: argparse.Namespace) -> Answer:
    limit = most(args)
    with open_folder(load(args), alone=False) as device:
        of = chosen(device, args.model)
        models = [(m.name, [_row(r) for r in m.versions(-1 if limit is None else limit)], m.rows()) for m in of]
    text = []
    for name, rows, held in models:
        text += [visible(name), table(_HEAD, [_cells(r) for r in rows]) if rows else "no version yet"]
        text += [line for line in (more(held - len(rows)), "") if line or name != models[-1][0]]
    document = {"models": [{"name": n, "versions": rows, "more": held - len(rows)} for n, rows, held in models]}
    return Answer(document, "\n".join(text))


_HEAD = (
    Column("version"), Column("state"), Column("kind", 5), Column("mode", 6), Column("commit", 4), Column("bytes", 1),
    Column("loss", 3), Column("accuracy", 2), Column("samples", 7), Column("reason", 1, words=True),
)  # fmt: skip


def _row(r: Row) -> dict[str, Any]:
    out = {key: r[key] for key in r.keys() if key not in ("id", "model", "commit_id")}  # noqa: SIM118  # a Row iterates over values
    out["commit"] = r["commit_id"]
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in out.items()}


def _cells(r: dict[str, Any]) -> list[object]:
    reason = r["reason"] or (f"carried by @{r['carried_by']}" if r["carried_by"] else "")
    scores = [_change(r[f"{what}_before"], r[f"{what}_after"]) for what in ("loss", "accuracy")]
    version = "-" if r["version"] is None else f"@{r['version']}"
    commit = short(bytes.fromhex(r["commit"])) if r["commit"] else ""
    return [version, r["state"], r["kind"], r["mode"], commit, r["bytes"] or None, *scores, r["samples"] or None, reason]


def _change(before: float | None, after: float | None) -> str:
    if before is None and after is None:
        return ""
    return " -> ".join("none" if value is None else f"{value:.4f}" for value in (before, after))
