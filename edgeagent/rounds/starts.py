"""The kinds of start that a round can have, as data: what it learns with, where its plan comes from, what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass

from edgeagent.board.budget import Plan
from edgeagent.samples.spool import Samples

from .journal import Interrupted

PAYS = "pays"  # of train.when


@dataclass(frozen=True, slots=True)
class Trial:
    """A round that is only tried: how, and on which (training, held-out) samples; None: the spool's."""

    plan: Plan
    samples: tuple[Samples, Samples] | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """One round's start. Its seven kinds are values of these fields; several may hold of one round.

    | kind     | is                   | what follows                                                                |
    | -------- | -------------------- | --------------------------------------------------------------------------- |
    | pays     | `looks`              | the service looks first whether a round pays                                |
    | auto     | `mode` is "auto"     | the plan takes the deepest mode that fits                                   |
    | features | `mode` is "features" | it learns with rows of kept features, and opens no model                    |
    | recipe   | `recipe`             | its closing is the recipe, where one can say the round (`fitting.CLOSINGS`) |
    | exact    | `exact`              | its closing is the exact one, else the lattice's                            |
    | resumed  | `left`               | samples, plan and position are those of the journal                         |
    | trial    | not `keep`           | nothing is read from a journal, and nothing of it stays                     |
    """

    mode: str  # that the settings or the trial ask for, or "auto"
    recipe: bool = False
    exact: bool = False
    looks: bool = False
    left: Interrupted | None = None
    keep: bool = True
    trial: Trial | None = None  # how it is tried; None: as a round that is kept would be done
