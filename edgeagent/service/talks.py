"""The talk about each model of a device, with what becomes of what is desired for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from edgeagent.deploying.board_means import MakeMachine
from edgeagent.link.device_side import DeviceSide
from edgeagent.link.session import Session
from edgeagent.state.folder import DeviceFolder
from edgeagent.system.clock import Clock


def talks(
    device: DeviceFolder, side: DeviceSide, clock: Clock, deploys: MakeMachine, *, may_wait: Callable[[str], bool],
    interrupt: Callable[[str], None], idle: Callable[[str], bool],
) -> dict[str, Session]:  # fmt: skip
    """Return the talk about each model, by name. may_wait, interrupt, idle: of the round of a model, as Session and DeployMachine ask."""
    out: dict[str, Session] = {}
    for name, lineage in device.lineages.items():
        machine = deploys(device, lineage, partial(idle, name), side.transport.wake, clock, side.month)
        settings = device.settings.model(name)
        out[name] = Session(side, lineage, settings, partial(may_wait, name), interrupt=partial(interrupt, name), deploying=machine)
    return out
