"""`edgecloud unfreeze`: a device that was left out of rollouts is taken in again."""

from __future__ import annotations

import argparse

from edgecommon.printing import Answer, visible

from ..answer import registry_of
from .freeze import known

NAME = "unfreeze"
HELP = "Take a device into rollouts again that was frozen."
EXAMPLES = ("edgecloud unfreeze pi-7",)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE[/MODEL]", help="the name by which it was frozen")


def run(args: argparse.Namespace) -> Answer:
    with registry_of(args, readonly=False) as store, store.transaction():
        device, model = known(store, args.name)
        was = store.rollouts.unfreeze(device, model)
        still = store.rollouts.is_frozen(device, model) if model else any(row.device == device for row in store.rollouts.frozen())
    text = f"{args.name} is taken in again" if was else f"{args.name} was not frozen"
    if still:
        text += f"; but it is frozen otherwise still: edgecloud unfreeze {device if model else f'{device}/MODEL'}"
    return Answer({"device": device, "model": model or None, "was_frozen": was, "still_frozen": still}, visible(text))
