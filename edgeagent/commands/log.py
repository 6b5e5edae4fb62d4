"""`edgeagent log`: every version of a model, and every round that the guard rejected."""

from __future__ import annotations

import argparse
from typing import Any

from edgeagent.state.folder import open_folder
from edgecommon.printing import Answer, visible
from edgecommon.sqlite import Row

from .answer import add_folder, chosen, load, short, table

NAME = "log"
ROWS = 1 << 62  # more than there can be
HELP = "List the versions of a model, newest first, with the rounds that the guard rejected. Works while the agent runs."
EXAMPLES = ("edgeagent log", "edgeagent log digits -n 5", "edgeagent log --json")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="*", metavar="MODEL", help="which models (default: all)")
    parser.add_argument("-n", type=int, default=-1, metavar="N", help="only the last N (default: all)")
    add_folder(parser)


def run(args: argparse.Namespace) -> Answer:
    with open_folder(load(args), alone=False) as device:
        models = [(m.name, [_row(r) for r in m.versions(min(args.n, ROWS))]) for m in chosen(device, args.model)]
    text = []
    for name, rows in models:
        text += [visible(name), table(_HEAD, [_cells(r) for r in rows]), ""]
    return Answer({"models": [{"name": n, "versions": rows} for n, rows in models]}, "\n".join(text).rstrip())


_HEAD = ("version", "state", "kind", "mode", "commit", "bytes", "loss before", "after", "accuracy before", "after", "samples", "reason")


def _row(r: Row) -> dict[str, Any]:
    out = {key: r[key] for key in r.keys() if key not in ("id", "model", "commit_id")}  # noqa: SIM118  # a Row iterates over values
    out["commit"] = r["commit_id"]
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in out.items()}


def _cells(r: dict[str, Any]) -> list[object]:
    reason = r["reason"] or (f"carried by @{r['carried_by']}" if r["carried_by"] else "")
    scores = [None if r[k] is None else f"{r[k]:.4f}" for k in ("loss_before", "loss_after", "accuracy_before", "accuracy_after")]
    version = "-" if r["version"] is None else f"@{r['version']}"
    commit = short(bytes.fromhex(r["commit"])) if r["commit"] else ""
    return [version, r["state"], r["kind"], r["mode"], commit, r["bytes"] or None, *scores, r["samples"] or None, reason]
