"""Keeps the budget of memory within what the board has, whatever the settings say: a profile may be another board's."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeagent.settings.tree import Settings

from .budget import mib
from .sensors import Sensors

OF_BOARD = (1, 2)  # of its memory: an application runs beside the agent
OF_GROUP = (4, 5)  # of what its control groups let it take: what it writes on its way to the disk counts there, too


@dataclass(frozen=True, slots=True)
class RamRoom:
    """The most that budget.max_ram can be here."""

    bytes: int  # never 0, which would be no limit
    why: str  # of what it is a share


def room(sensors: Sensors) -> RamRoom | None:
    """Return how much of the memory the agent may take at most; None where the kernel says nothing."""
    board, group = sensors.memory(), sensors.group_limit()
    rooms = [RamRoom(_share(OF_BOARD, board), f"half of the {mib(board)} MiB of this board")] if board else []
    rooms += [RamRoom(_share(OF_GROUP, group), f"four fifths of the {mib(group)} MiB that its service may take")] if group else []
    return min(rooms, key=lambda one: one.bytes, default=None)


def fitted(settings: Settings, sensors: Sensors) -> tuple[Settings, str]:
    """Return the settings with no budget of memory above what there is room for, and what was lowered, in words; empty: nothing.

    A budget without a limit of memory stays without one: who sets none wants none.
    """
    here = room(sensors)
    most = max([settings.budget.max_ram, *(model.budget.max_ram for model in settings.models)])
    if here is None or most <= here.bytes:
        return settings, ""
    models = tuple(
        replace(model, budget=replace(model.budget, max_ram=min(model.budget.max_ram, here.bytes))) for model in settings.models
    )
    budget = replace(settings.budget, max_ram=min(settings.budget.max_ram, here.bytes))
    return replace(settings, budget=budget, models=models), f"budget.max_ram is {mib(most)} MiB, and {here.why} is {mib(here.bytes)} MiB"


def _share(part: tuple[int, int], size: int) -> int:
    return max(1, size * part[0] // part[1])
