"""A graft that does not run is refused with the deepest cut that does: cuts are rehearsed until it is found."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

from edgecloud.graft.grafting import Grafted, Wish, graft
from edgecloud.rehearsal import ModeRun, rehearsed
from modelwire.errors import ModelWireError

from ..rehearsals import Rehearsed, noted, progress

_SEARCH = 60.0  # seconds for which shallower cuts are tried; one that is under way is finished


def rehearse_graft(args: argparse.Namespace, made: Grafted, stock: bytes, wish: Wish) -> Rehearsed:
    """Return a graft with its rehearsal in its notes. stock: what was grafted by `wish`.

    Raises NotTrainable for one that does not run, naming what failed and the deepest cut that runs.
    """
    found = None if args.no_rehearse else rehearsed(made.file, stock=made.stock.data, model=wish.model, said=progress(wish.model))
    return noted(made.file, found, wish.model, lambda runs: f"; {_way(stock, wish, made, runs)}")


def _way(stock: bytes, wish: Wish, made: Grafted, runs: tuple[ModeRun, ...]) -> str:
    """Return which cut runs: the deepest, as far as there is time to find it."""
    until = time.monotonic() + _SEARCH
    fails = sum(layer.kernel for layer in made.layers)
    works, hint = max((_count(run.mode) for run in runs if run.passed), default=0), progress(wish.model)
    while fails - works > 1 and time.monotonic() < until:
        count = (works + fails) // 2
        cut = replace(wish, train=(f"last:{count}",), modes=())
        try:
            shallower = graft(stock, cut)
            ran = rehearsed(shallower.file, stock=shallower.stock.data, model=wish.model, rates=False, said=hint).passed
        except ModelWireError:
            ran = False
        works, fails = (count, fails) if ran else (works, count)
    if not works:
        return "no cut of it works" if fails <= 1 else "no cut that was tried works"
    return f"the deepest cut that works is --train last:{works}"


def _count(mode: str) -> int:
    """Return how many of the last layers a mode trains; 0 where its name does not tell."""
    if mode == "head":
        return 1
    number = mode.removeprefix("last:")
    return int(number) if number != mode and number.isdecimal() and len(number) < 6 else 0
