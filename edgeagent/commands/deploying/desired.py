"""`edgeagent desired`: what the centre wants this device to run, how far it is, what would be done; and the host's yes or no."""

from __future__ import annotations

import argparse
from typing import Any

from edgeagent.commands.answer import add_folder, chosen, load
from edgeagent.deploying import hosts
from edgeagent.deploying.hosts import REASON_MAX, HostWord
from edgeagent.deploying.telling import DesiredHere, desired_here, document_of, line_of, plan_lines, plan_of
from edgeagent.settings.tree import ModelSettings
from edgeagent.state.folder import DeviceFolder, open_folder
from edgeagent.state.lineage import Lineage
from edgecommon.arguments import given, rule
from edgecommon.printing import Answer, lines_of
from modelwire.deploying.states import State
from modelwire.errors import BadArgument

NAME = "desired"
HELP = "Say which variant is desired here and how far it is; accept or refuse it as the host of this board. Works while the agent runs."
EXAMPLES = (
    "edgeagent desired", "edgeagent desired --dry-run", "edgeagent desired accept", 'edgeagent desired refuse "no service before May"',
)  # fmt: skip
TAKEN_BACK = (State.PROBING, State.SOAKING)  # where a no comes after it was tried


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("word", nargs="?", choices=("accept", "refuse"), help="the host's word on it")
    parser.add_argument("reason", nargs="?", default="", metavar="REASON", help="with refuse: why, for the operator at the centre")
    parser.add_argument("--model", metavar="MODEL", help="the model (default: the one that something is desired for)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done with it, and why; nothing is done")
    add_folder(parser)
    rule(parser, _sense)


def run(args: argparse.Namespace) -> Answer:
    with open_folder(load(args), alone=False) as device:
        lineages = chosen(device, [args.model] if args.model else [])
        found = [(lineage, desired_here(device.database, device.trust, lineage.name)) for lineage in lineages]
        if args.word:
            return _say(device, found, args)
        rows = [_row(device, lineage, here, plans=args.dry_run) for lineage, here in found]
        lines = []
        for (lineage, here), row in zip(found, rows, strict=True):
            lines += _lines(lineage, here, device.settings.model(lineage.name), row.get("would"))
    return Answer({"models": rows}, lines_of(lines))


def _row(device: DeviceFolder, lineage: Lineage, here: DesiredHere | None, *, plans: bool) -> dict[str, Any]:
    settings = device.settings.model(lineage.name)
    row: dict[str, Any] = {
        "model": lineage.name, "base": lineage.base_commit.hex(), "accept": settings.deploy.accept,
        "desired": document_of(here, lineage, settings),
    }  # fmt: skip
    if plans:
        row["would"] = None if here is None else plan_of(here, lineage, settings, device.trust.time)
    return row


def _lines(lineage: Lineage, here: DesiredHere | None, settings: ModelSettings, plan: dict[str, Any] | None) -> list[str]:
    if here is None:
        return [f"{lineage.name}: nothing was desired yet; it is on the base {lineage.base_commit.hex()[:12]}"]
    lines = [f"{lineage.name}: {line_of(here, settings)}"]
    row, digits = here.row, 3 if here.row.figures.accuracy else 4
    if row.before is not None and row.after is not None:
        what = "accuracy" if row.figures.accuracy else "loss"
        lines.append(f"  on {row.figures.rows} held-out samples: {what} {row.before:.{digits}f} -> {row.after:.{digits}f}")
    if row.learned:
        lines.append(f"  what was learned: {row.learned}")
    return lines + ([f"  {line}" for line in plan_lines(plan, here)] if plan is not None else [])


def _say(device: DeviceFolder, found: list[tuple[Lineage, DesiredHere | None]], args: argparse.Namespace) -> Answer:
    """Keep the host's word on the one desired that is open."""
    accepts = args.word == "accept"
    open_ones = [(lineage, here) for lineage, here in found if here is not None and not here.over]
    if not open_ones:
        raise BadArgument(reason="nothing that is desired here is still open", fix="edgeagent desired")
    if len(open_ones) > 1:
        names = ", ".join(lineage.name for lineage, _ in open_ones)
        raise BadArgument(reason=f"something is desired for several models: {names}", fix=f"edgeagent desired {args.word} --model MODEL")
    (lineage, here), reason = open_ones[0], " ".join("".join(c if c.isprintable() else " " for c in args.reason).split())
    if len(reason) > REASON_MAX:
        raise BadArgument(reason=f"the reason has {len(reason)} characters, and {REASON_MAX} are sent", fix="say it in fewer words")
    hosts.say(device.database, lineage.name, HostWord(here.row.number, accepts, reason))
    if accepts:
        then = "it is served once it is here, and no round is under way"
    else:
        then = "what was served is served again" if here.row.state in TAKEN_BACK else "it is not brought here"
    document = {"model": lineage.name, "number": here.row.number, "variant": here.order.desired.variant.hex(), "accepted": accepts}
    said = "accepted" if accepts else "refused"
    return Answer(document, lines_of([f"{lineage.name}: the variant {here.named} (desired {here.row.number}) is {said}: {then}"]))


def _sense(args: argparse.Namespace) -> str:
    """Return which words do nothing together."""
    if args.word and args.dry_run:
        return f"--dry-run does nothing beside {args.word}: it would be done"
    return "a reason is of a no alone" if args.word == "accept" and given(args, "reason") and args.reason else ""
