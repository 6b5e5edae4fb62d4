"""`edgeagent board`: the profiles of boards: which there are, what one says, and its limits as a drop-in for systemd."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from edgeagent import boards
from edgeagent.boards import BoardProfile, Recognised
from edgecommon.arguments import rule
from edgecommon.printing import Answer, lines_of
from edgecommon.tables import Column, table
from modelwire.errors import BadArgument

NAME = "board"
HELP = "List the profiles of boards, show what one says and where its figures come from, or print its limits for systemd."
EXAMPLES = (
    "edgeagent board list", "edgeagent board show auto", "edgeagent board show pi-zero-2w --json",
    "edgeagent board unit pi-zero-2w | sudo tee /etc/systemd/system/edgeagent.service.d/50-board.conf",
)  # fmt: skip


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "show", "unit"), help="what to do")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a profile, or auto: that of this board")
    rule(parser, _sense)


def run(args: argparse.Namespace) -> Answer:
    if args.action == "list":
        return _list()
    found = boards.detect() if args.name == "auto" else None
    profile = found.profile if found is not None else boards.profile(args.name)
    if args.action == "unit":
        text = boards.unit_drop_in(profile)
        limits = {key: figure.value for key, figure in profile.unit.items()}
        return Answer({"profile": profile.name, "place": boards.PLACE, "unit": limits, "text": text}, text.rstrip("\n"))
    return Answer({**document_of(profile), "recognised": found and found.how}, lines_of(_lines(profile, found)))


def document_of(profile: BoardProfile) -> dict[str, Any]:
    """Return what machines read of a profile."""

    def figures(of: Any) -> dict[str, Any]:
        return {key: {"is": one.value, "from": one.source} for key, one in of.items()}

    return {
        "profile": profile.name, "title": profile.title, "generic": profile.generic, "arch": list(profile.arches),
        "recognise": {
            "compatible": list(profile.compatible), "model": profile.model, "ram_mib": list(profile.ram_range),
            "from": profile.recognised_by,
        },
        "has": figures({"cores": profile.cores, "ram_mib": profile.ram_mib, "storage": profile.storage}),
        "systems": [asdict(system) for system in profile.systems],
        "settings": figures(profile.settings), "unit": figures(profile.unit),
    }  # fmt: skip


def _list() -> Answer:
    try:
        here = boards.detect()
    except BadArgument:
        here = None
    own = here.profile.name if here is not None else ""
    profiles = [boards.profile(name) for name in boards.names()]
    rows = [
        [p.name, p.title, " ".join(p.arches), str(p.ram_mib.value), str(p.settings["budget.max_ram"].value), "here" * (p.name == own)]
        for p in profiles
    ]
    document = {
        "profiles": [{"profile": p.name, "title": p.title, "arch": list(p.arches), "ram_mib": p.ram_mib.value} for p in profiles],
        "here": own or None, "recognised": here and here.how,
    }  # fmt: skip
    columns = [Column("profile"), Column("board", 2, words=True), Column("arch", 3), Column("MiB", 1), Column("max_ram", 1), Column("")]
    lines = table(columns, rows).splitlines()
    return Answer(document, lines_of([*lines, *([f"this board: {here.how}"] if here is not None else [])]))


def _lines(profile: BoardProfile, found: Recognised | None) -> list[str]:
    lines = [f"{profile.name}: {profile.title}" + (f"; {found.how}" if found is not None else "")]
    least, most = profile.ram_range
    if profile.compatible or profile.model:
        lines += [f"  recognised by {', '.join(profile.compatible)}, or the model {profile.model}", f"    from {profile.recognised_by}"]
    lines += [f"  memory that its kernels say: {least} to {most} MiB"]
    has = {"cores": profile.cores, "MiB of memory": profile.ram_mib, "storage": profile.storage}
    for what, figure in has.items():
        lines += [f"  {what}: {figure.value}", f"    from {figure.source}"]
    for one in profile.systems:
        needs = f"Python {one.python}, glibc {one.glibc}, {one.package} {one.version}, numpy from {one.numpy}"
        lines += [f"  system: {one.name}, {one.arch}: {needs}", f"    {one.source}"]
    for key, figure in [*profile.settings.items(), *profile.unit.items()]:
        lines += [f"  {key} = {figure.value or 'none'}", f"    {figure.source}"]
    return lines


def _sense(args: argparse.Namespace) -> str:
    if args.action == "list":
        return f"list takes no name: edgeagent board show {args.name}" if args.name else ""
    return "" if args.name else f"{args.action} needs the name of a profile, or auto: edgeagent board list"
