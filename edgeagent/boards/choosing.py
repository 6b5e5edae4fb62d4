"""Chooses a board's profile by its name, or by what the board says of itself, and gives the settings that it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeagent.board.budget import mib
from edgeagent.board.sensors import Sensors

from .reading import BoardProfile, profile
from .recognising import Recognised, detect, look

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class ChosenBoard:
    """A profile for a board that is set up."""

    profile: BoardProfile
    given: Mapping[str, str]  # "section.key" -> value as text
    notes: Mapping[str, str]  # by the same keys: where each comes from
    says: tuple[str, ...]  # for people: which it is, why, and what of it does not fit

    def notes_but(self, own: Mapping[str, str]) -> dict[str, str]:
        """Return the notes of what the profile gives alone. own: settings that somebody gave, which win."""
        return {key: note for key, note in self.notes.items() if key not in own}


def choose(name: str, sensors: Sensors | None = None) -> ChosenBoard:
    """Return the profile of that name; for `auto` the one of the board that this is. Raises BadArgument where there is none.

    A board whose profile is found may lack a thermal zone, as emulated ones do: then no limit of heat is set.
    """
    here = sensors or Sensors()
    found = detect(here.sys, here.proc) if name == AUTO else None
    chosen = profile(name) if found is None else found.profile
    given = {"board.name": chosen.name, **{key: str(figure.value) for key, figure in chosen.settings.items()}}
    sources = {"board.name": "", **{key: figure.source for key, figure in chosen.settings.items()}}
    says = [f"board: {chosen.title}, profile {chosen.name}" + (f": {found.how}" if found is not None else "")]
    if found is not None and here.celsius() is None:
        del given["budget.max_celsius"]
        says.append("no thermal zone of this board says a temperature: budget.max_celsius is left out")
    notes = {key: f"from the profile {chosen.name}" + (f": {sources[key]}" if sources[key] else "") for key in given}
    return ChosenBoard(chosen, given, notes, (*says, *_differs(chosen, found, here)))


def _differs(chosen: BoardProfile, found: Recognised | None, here: Sensors) -> list[str]:
    """Return what is to be said where the board at hand is another than the profile means: it may be set up for another one."""
    board = found.here if found is not None else look(here.sys, here.proc)
    out = []
    if board.arch and board.arch not in chosen.arches:
        out.append(f"this machine is {board.arch}, and the profile is for {' or '.join(chosen.arches)}")
    if 0 < board.memory < chosen.ram_range[0] * 2**20:
        out.append(
            f"this machine has {mib(board.memory)} MiB of memory, and the profile is for {chosen.ram_mib.value};"
            " an agent that runs here keeps to a smaller budget: edgeagent doctor"
        )
    return out
